//! Timestamps as they stand on the wire, and ages as people read them.

use jiff::Timestamp;

/// RFC 3339 with seconds and `Z`, like `metadata.creationTimestamp`.
pub fn seconds(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 with microseconds, like the times of a Lease.
pub fn micros(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// RFC 3339 with nanoseconds, like the timestamps of log lines.
pub fn nanos(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// Parses a timestamp of the wire.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A duration as `kubectl get` prints ages: two units where the first is small, like `5m32s`, `3h`, `2d4h`.
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let s = seconds.max(0);
    let (m, h, d) = (s / 60, s / 3600, s / 86400);
    let two = |big: i64, unit: &str, rest: i64, rest_unit: &str| {
        if rest == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{rest}{rest_unit}") }
    };
    match () {
        () if s < 120 => format!("{s}s"),
        () if m < 10 => two(m, "m", s % 60, "s"),
        () if m < 180 => format!("{m}m"),
        () if h < 8 => two(h, "h", m % 60, "m"),
        () if h < 48 => format!("{h}h"),
        () if h < 192 => two(d, "d", h % 24, "h"),
        () if d < 730 => format!("{d}d"),
        () if d < 365 * 8 => two(d / 365, "y", d % 365, "d"),
        () => format!("{}y", d / 365),
    }
}

/// The age of something that happened at `then` (a timestamp of the wire), or `<unknown>`.
pub fn age(then: Option<&str>, now: Timestamp) -> String {
    match then.and_then(parse) {
        Some(t) => human_duration(now.as_second() - t.as_second()),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        for (s, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (332, "5m32s"),
            (601, "10m"),
            (10_740, "179m"),
            (10_800, "3h"),
            (11_460, "3h11m"),
            (30_000, "8h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (800_000, "9d"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(human_duration(s), text);
        }
    }

    #[test]
    fn timestamps_keep_the_precision_of_their_field() {
        let t = Timestamp::new(1_700_000_000, 123_456_789).expect("a time");
        assert_eq!(seconds(t), "2023-11-14T22:13:20Z");
        assert_eq!(micros(t), "2023-11-14T22:13:20.123456Z");
        assert_eq!(nanos(t), "2023-11-14T22:13:20.123456789Z");
    }
}
