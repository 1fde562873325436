//! Exact quantities: `100m`, `1.5Gi`, `2e3`, as resource requests and limits use them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An exact amount, kept in units of 10⁻⁹ (the smallest the format knows).
///
/// The text is kept in the canonical form upstream writes: the suffix family of the input, no fraction, the largest
/// suffix that needs none.
#[derive(Debug, Clone)]
pub struct Quantity {
    nanos: i128,
    text: String,
}

/// A quantity that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

enum Family {
    Decimal,
    Binary,
    Exponent,
}

impl Quantity {
    /// The amount, rounded up to a whole number (what bytes and counts want).
    pub fn value(&self) -> i64 {
        clamp(div_up(self.nanos, NANO))
    }

    /// The amount in thousandths, rounded up (what CPU wants).
    pub fn milli_value(&self) -> i64 {
        clamp(div_up(self.nanos, 1_000_000))
    }

    /// Whether the amount is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// A whole number without a suffix.
    pub fn whole(value: i64) -> Self {
        let nanos = i128::from(value) * NANO;
        Self { nanos, text: canonical(nanos, &Family::Decimal) }
    }

    /// The sum of two amounts, written like the first that is not zero.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let nanos = self.nanos + other.nanos;
        let like = if self.nanos == 0 { other } else { self };
        let family = if like.text.ends_with('i') { Family::Binary } else { Family::Decimal };
        Self { nanos, text: canonical(nanos, &family) }
    }

    /// The difference of two amounts, written like the first that is not zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let text = if other.nanos == 0 { String::new() } else { other.text.trim_start_matches('-').to_owned() };
        self.plus(&Self { nanos: -other.nanos, text })
    }

    /// Whether the amount is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
}

fn div_up(a: i128, b: i128) -> i128 {
    let q = a / b;
    if a % b > 0 { q + 1 } else { q }
}

fn clamp(v: i128) -> i64 {
    i64::try_from(v).unwrap_or(if v < 0 { i64::MIN } else { i64::MAX })
}

fn pow10(e: u32) -> Option<i128> {
    10_i128.checked_pow(e)
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(s: &str) -> Result<Self, ParseQuantityError> {
        let unsigned = s.strip_prefix(['+', '-']).unwrap_or(s);
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
            return Err(ParseQuantityError);
        }
        let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| ParseQuantityError)?;
        let scale = fraction.len() as i32;
        let (family, nanos) = if let Some((_, bits)) = BINARY.iter().find(|(n, _)| *n == suffix) {
            let scaled = digits.checked_mul(NANO).and_then(|d| d.checked_mul(1 << bits)).ok_or(ParseQuantityError)?;
            (Family::Binary, div_up(scaled, pow10(scale as u32).ok_or(ParseQuantityError)?))
        } else {
            let (family, exponent) = match DECIMAL.iter().find(|(n, _)| *n == suffix) {
                Some((_, e)) => (Family::Decimal, *e),
                None => {
                    let e = suffix.strip_prefix(['e', 'E']).ok_or(ParseQuantityError)?;
                    (Family::Exponent, e.parse().map_err(|_| ParseQuantityError)?)
                }
            };
            let shift = exponent + 9 - scale;
            if !(-40..=40).contains(&shift) {
                return Err(ParseQuantityError);
            }
            let nanos = if shift >= 0 {
                digits.checked_mul(pow10(shift as u32).ok_or(ParseQuantityError)?).ok_or(ParseQuantityError)?
            } else {
                div_up(digits, pow10(shift.unsigned_abs()).ok_or(ParseQuantityError)?)
            };
            (family, nanos)
        };
        let nanos = if s.starts_with('-') { -nanos } else { nanos };
        Ok(Self { nanos, text: canonical(nanos, &family) })
    }
}

fn canonical(nanos: i128, family: &Family) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    if matches!(family, Family::Binary) && nanos % NANO == 0 && (nanos / NANO).abs() >= 1024 {
        let value = nanos / NANO;
        let best = BINARY.iter().rev().find(|(_, bits)| value % (1 << bits) == 0);
        return match best {
            Some((suffix, bits)) => format!("{}{suffix}", value >> bits),
            None => value.to_string(),
        };
    }
    let mut exponent = -9;
    let mut value = nanos;
    while value % 1000 == 0 && exponent < 18 {
        value /= 1000;
        exponent += 3;
    }
    match family {
        Family::Exponent if exponent != 0 => format!("{value}e{exponent}"),
        _ => {
            let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(n, _)| n);
            format!("{value}{suffix}")
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_written_in_their_canonical_form() {
        for (input, text, value, milli) in [
            ("0", "0", 0, 0),
            ("1000m", "1", 1, 1000),
            ("0.5", "500m", 1, 500),
            ("100m", "100m", 1, 100),
            ("1.5Gi", "1536Mi", 1_610_612_736, 1_610_612_736_000),
            ("1024Ki", "1Mi", 1_048_576, 1_048_576_000),
            ("2e3", "2e3", 2000, 2_000_000),
            ("128974848", "128974848", 128_974_848, 128_974_848_000),
            ("-1", "-1", -1, -1000),
            ("1500k", "1500k", 1_500_000, 1_500_000_000),
        ] {
            let q: Quantity = input.parse().expect(input);
            assert_eq!((q.to_string().as_str(), q.value(), q.milli_value()), (text, value, milli), "{input}");
        }
        for bad in ["", "1.2.3", "x", "1Xi", "1 Gi", "--1", "."] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_quantity_reads_back_as_the_same_amount(n in -1_000_000_000_i64..1_000_000_000, suffix in "(n|u|m|k|M|G|Ki|Mi|Gi)?") {
            let q: Quantity = format!("{n}{suffix}").parse().unwrap();
            let again: Quantity = q.to_string().parse().unwrap();
            prop_assert_eq!(&again, &q);
            prop_assert_eq!(again.to_string(), q.to_string());
        }
    }
}
