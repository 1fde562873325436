//! Sets of completion indexes in the text form of a Job's status: `0-3,5,7`.

use std::collections::BTreeSet;

/// Reads a set of indexes below `limit`; `None` if it is not one.
pub fn parse(text: &str, limit: i64) -> Option<BTreeSet<i64>> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (low, high) = match part.split_once('-') {
            Some((low, high)) => (low.parse().ok()?, high.parse().ok()?),
            None => {
                let one: i64 = part.parse().ok()?;
                (one, one)
            }
        };
        if low < 0 || low > high || high >= limit {
            return None;
        }
        set.extend(low..=high);
    }
    Some(set)
}

/// Writes a set of indexes.
pub fn format(set: &BTreeSet<i64>) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for index in set {
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 == *index => *high = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    // Two neighbours are written one by one, as upstream does.
    let text = |(low, high): &(i64, i64)| match high - low {
        0 => low.to_string(),
        1 => format!("{low},{high}"),
        _ => format!("{low}-{high}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_as_it_was_read() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8,10"] {
            assert_eq!(format(&parse(text, 20).expect(text)), text);
        }
        for bad in ["x", "3-1", "20", "-1"] {
            assert!(parse(bad, 20).is_none(), "{bad}");
        }
    }
}
