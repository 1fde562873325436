//! Spans of time and moments.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Function, Outcome, no_such_overload};
use crate::error::EvalError;
use crate::value::Value;

/// The signatures of a part of a moment: in UTC, or in a time zone.
macro_rules! part {
    ($name:literal, $id:literal, $run:expr) => {
        Function {
            name: $name,
            run: $run,
            overloads: &[
                (concat!("timestamp_to_", $id), "timestamp.() -> int"),
                (concat!("timestamp_to_", $id, "_with_tz"), "timestamp.(string) -> int"),
            ],
        }
    };
    ($name:literal, $id:literal, $duration:literal, $run:expr) => {
        Function {
            name: $name,
            run: $run,
            overloads: &[
                (concat!("timestamp_to_", $id), "timestamp.() -> int"),
                (concat!("timestamp_to_", $id, "_with_tz"), "timestamp.(string) -> int"),
                (concat!("duration_to_", $duration), "duration.() -> int"),
            ],
        }
    };
}

pub(crate) const FUNCTIONS: &[Function] = &[
    part!("getFullYear", "year", |args| part(args, |at| i64::from(at.year()), None)),
    part!("getMonth", "month", |args| part(args, |at| i64::from(at.month()) - 1, None)),
    part!("getDayOfYear", "day_of_year", |args| part(args, |at| i64::from(at.day_of_year()) - 1, None)),
    part!("getDayOfMonth", "day_of_month", |args| part(args, |at| i64::from(at.day()) - 1, None)),
    part!("getDate", "day_of_month_1_based", |args| part(args, |at| i64::from(at.day()), None)),
    part!("getDayOfWeek", "day_of_week", |args| part(args, |at| i64::from(at.weekday().to_sunday_zero_offset()), None)),
    part!("getHours", "hours_tz", "hours", |args| part(args, |at| i64::from(at.hour()), Some(3_600_000_000_000))),
    part!("getMinutes", "minutes", "minutes", |args| part(args, |at| i64::from(at.minute()), Some(60_000_000_000))),
    part!("getSeconds", "seconds_tz", "seconds", |args| part(args, |at| i64::from(at.second()), Some(1_000_000_000))),
    part!("getMilliseconds", "milliseconds_tz", "milliseconds", |args| part(
        args,
        |at| i64::from(at.millisecond()),
        Some(1_000_000)
    )),
];

/// A part of a moment, or how many units a duration has.
fn part<'a>(args: &[Value<'a>], of: fn(&Zoned) -> i64, unit: Option<i128>) -> Outcome<'a> {
    match (args, unit) {
        ([Value::Timestamp(at)], _) => Ok(Value::Int(of(&at.to_zoned(TimeZone::UTC)))),
        ([Value::Timestamp(at), Value::String(zone)], _) => Ok(Value::Int(of(&at.to_zoned(time_zone(zone.as_str())?)))),
        ([Value::Duration(duration)], Some(unit)) => {
            let units = duration.as_nanos() / unit;
            i64::try_from(units).map(Value::Int).map_err(|_| EvalError::new("integer overflow"))
        }
        _ => no_such_overload(),
    }
}

/// A name of the time zone database, or an offset like `-08:00`.
fn time_zone(name: &str) -> Result<TimeZone, EvalError> {
    let unknown = || EvalError::new(format!("unknown time zone {name}"));
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.parse().map_err(|_| unknown())?;
        let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
        let seconds = hours.checked_mul(3600).and_then(|seconds| {
            let minutes = minutes.checked_mul(60)?;
            seconds.checked_add(if negative { -minutes } else { minutes })
        });
        let offset = seconds.and_then(|seconds| Offset::from_seconds(seconds).ok()).ok_or_else(unknown)?;
        return Ok(TimeZone::fixed(offset));
    }
    if name.is_empty() {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| unknown())
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const LONG_UNITS: [(&str, i128); 27] = [
    ("ns", 1),
    ("nano", 1),
    ("nanos", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("micro", 1_000),
    ("micros", 1_000),
    ("ms", 1_000_000),
    ("milli", 1_000_000),
    ("millis", 1_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("secs", 1_000_000_000),
    ("second", 1_000_000_000),
    ("seconds", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("minute", 60_000_000_000),
    ("minutes", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("hr", 3_600_000_000_000),
    ("hour", 3_600_000_000_000),
    ("hours", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("day", 86_400_000_000_000),
    ("days", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// A duration as Go writes it: `1h30m`, `-1.5s`.
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() || nanos == 0 {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(scaled(number, *unit)?)?;
        rest = next;
        if rest.is_empty() {
            break;
        }
    }
    duration(if negative { -nanos } else { nanos })
}

/// A decimal number of units.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(18)];
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = part.checked_mul(unit)? / 10_i128.pow(fraction.len() as u32);
    whole.checked_mul(unit)?.checked_add(part)
}

/// The span of so many nanoseconds, of which 64 bits must be enough.
fn duration(nanos: i128) -> Option<SignedDuration> {
    i64::try_from(nanos).ok().map(SignedDuration::from_nanos)
}

/// A text of the format `duration`, which also knows days and words: `3 days`.
pub(crate) fn parse_format_duration(text: &str) -> Option<SignedDuration> {
    if let Some(duration) = parse_duration(text) {
        return Some(duration);
    }
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_lowercase();
    let weeks = ["week", "weeks"].contains(&unit.as_str()).then_some(604_800_000_000_000);
    let unit = weeks.or_else(|| LONG_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos))?;
    duration(scaled(number, unit)?)
}

/// A moment as RFC 3339 writes it.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes[10] != b'T' || text.contains('[') || text.starts_with(['-', '+']) {
        return None;
    }
    let zone = text.ends_with('Z') || matches!(bytes.get(bytes.len().wrapping_sub(6)), Some(b'+' | b'-'));
    if zone { text.parse().ok() } else { None }
}

/// A text of the format `date` or `date-time`.
pub(crate) fn parse_format_timestamp(text: &str) -> Option<Timestamp> {
    if text.len() == 10 {
        let date: jiff::civil::Date = text.parse().ok()?;
        return date.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    }
    parse_timestamp(text).or_else(|| parse_timestamp(&text.to_uppercase()))
}

/// A duration in seconds, as its JSON form is.
pub(crate) fn format_duration(duration: SignedDuration) -> String {
    let nanos = duration.as_nanos();
    let (sign, nanos) = if nanos < 0 { ("-", -nanos) } else { ("", nanos) };
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{fraction:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// A moment in UTC, as RFC 3339 writes it.
pub(crate) fn format_timestamp(timestamp: Timestamp) -> String {
    timestamp.to_string()
}

/// Two spans, one after the other.
pub(crate) fn sum(a: SignedDuration, b: SignedDuration) -> Result<SignedDuration, EvalError> {
    let nanos = a.as_nanos().checked_add(b.as_nanos());
    nanos.and_then(duration).ok_or_else(|| EvalError::new("duration overflow"))
}

/// The span backwards.
pub(crate) fn negated(a: SignedDuration) -> Result<SignedDuration, EvalError> {
    duration(-a.as_nanos()).ok_or_else(|| EvalError::new("duration overflow"))
}

/// A moment, so much later.
pub(crate) fn moved(at: Timestamp, by: SignedDuration) -> Result<Timestamp, EvalError> {
    at.checked_add(by).map_err(|_| EvalError::new("timestamp overflow"))
}

/// The span from one moment to another.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Result<SignedDuration, EvalError> {
    duration(to.duration_since(from).as_nanos()).ok_or_else(|| EvalError::new("duration overflow"))
}
