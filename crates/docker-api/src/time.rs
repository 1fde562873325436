//! Times as Docker reads and writes them. The clock itself is read here and nowhere else.

use jiff::Timestamp;

use crate::error::{Answer, bad};

/// Now, in nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the clock of the Docker API")]
pub(crate) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// RFC 3339 with nanoseconds; the year 1 stands for never.
pub(crate) fn text(nanos: i64) -> String {
    if nanos == 0 { "0001-01-01T00:00:00Z".to_owned() } else { isolation::rfc3339(nanos) }
}

/// Nanoseconds since 1970 of a text in RFC 3339; 0 if it is none.
pub(crate) fn read(text: &str) -> i64 {
    text.parse::<Timestamp>().map_or(0, |time| i64::try_from(time.as_nanosecond()).unwrap_or(0))
}

/// A moment as people name it in filters: RFC 3339 (in full or cut short), seconds since 1970, or how long ago (`1h30m`).
pub(crate) fn moment(word: &str, now: i64) -> Answer<i64> {
    let nanos = |time: Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(0);
    if let Some(seconds) = seconds(word) {
        return Ok(seconds);
    }
    if let Some(ago) = duration(word) {
        return Ok(now.saturating_sub(ago));
    }
    if let Ok(time) = word.parse::<Timestamp>() {
        return Ok(nanos(time));
    }
    let local = word.strip_suffix('Z').unwrap_or(word);
    let civil = local.parse::<jiff::civil::DateTime>().or_else(|e| {
        let date = local.parse::<jiff::civil::Date>();
        date.map(|date| date.to_datetime(jiff::civil::Time::midnight())).map_err(|_| e)
    });
    match civil.ok().and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
        Some(zoned) => Ok(nanos(zoned.timestamp())),
        None => Err(bad(format!("failed to parse value as time or duration: {word:?}"))),
    }
}

/// Seconds since 1970, perhaps with a fraction.
fn seconds(word: &str) -> Option<i64> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// A duration as Go writes it: `1h30m`, `10s`, `1.5h`, `300ms`. In nanoseconds.
pub(crate) fn duration(word: &str) -> Option<i64> {
    let (mut rest, mut total) = (word, 0f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| digits + end);
        total += number
            * match &rest[digits..unit] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Some(total as i64)
}

/// How long ago, as `docker ps` says it.
pub(crate) fn human(nanos: i64) -> String {
    let seconds = nanos / 1_000_000_000;
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_docker_reads_them() {
        let now = 1_000_000_000_000_000_000;
        let of = |word: &str| moment(word, now).map_err(|refusal| refusal.message);
        assert_eq!(of("10m").unwrap(), now - 600_000_000_000);
        assert_eq!(of("1h30m").unwrap(), now - 5_400_000_000_000);
        assert_eq!(of("1.5s").unwrap(), now - 1_500_000_000);
        assert_eq!(of("1700000000.5").unwrap(), 1_700_000_000_500_000_000);
        assert_eq!(of("1970-01-02").unwrap(), 86_400_000_000_000);
        assert_eq!(of("1970-01-01T00:00:01").unwrap(), 1_000_000_000);
        assert_eq!(of("1970-01-01T01:00:00+01:00").unwrap(), 0);
        assert_eq!(of("yesterday").unwrap_err(), "failed to parse value as time or duration: \"yesterday\"");
        assert_eq!(of("10x").unwrap_err(), "failed to parse value as time or duration: \"10x\"");
    }

    #[test]
    fn ages_are_rounded() {
        let of = |seconds: i64| human(seconds * 1_000_000_000);
        assert_eq!(
            [of(0), of(5), of(70), of(4000), of(90_000 * 2)],
            ["Less than a second", "5 seconds", "About a minute", "About an hour", "2 days"]
        );
    }
}
