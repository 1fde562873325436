//! Schedules of CronJobs: five fields, macros and time zones.
//!
//! The syntax and its refusals are those of robfig/cron's standard parser, which upstream uses. Time zones come from a
//! bundled copy of the IANA database, so that reading a schedule does no IO.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// When something runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At the wall-clock times that match.
    Fields(Fields),
    /// With this pause between runs.
    Every(SignedDuration),
}

/// The five fields, each as the set of its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Day of month and day of week both count only where both are restricted.
    any_day: bool,
}

struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { low: 0, high: 59, names: &[] };
const HOURS: Bounds = Bounds { low: 0, high: 23, names: &[] };
const DAYS: Bounds = Bounds { low: 1, high: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// How far the next run is looked for: a date that does not come in five years never does.
const YEARS: i32 = 5;

/// Reads a schedule.
///
/// # Errors
/// What is wrong, in upstream's words.
pub fn parse(text: &str) -> Result<Schedule, String> {
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if let Some(name) = text.strip_prefix('@') {
        return macros(text, name);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    };
    let starred = |field: &str| field.split(',').any(|part| part.starts_with(['*', '?']));
    Ok(Schedule::Fields(Fields {
        minute: set(minute, &MINUTES)?,
        hour: set(hour, &HOURS)?,
        day: set(day, &DAYS)?,
        month: set(month, &MONTHS)?,
        weekday: set(weekday, &WEEKDAYS)?,
        any_day: !starred(day) && !starred(weekday),
    }))
}

fn macros(text: &str, name: &str) -> Result<Schedule, String> {
    let fields = match name {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => {
            let Some(pause) = name.strip_prefix("every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            let seconds = duration(pause).ok_or_else(|| format!("failed to parse duration {text}"))?;
            return Ok(Schedule::Every(SignedDuration::from_secs(seconds.max(1))));
        }
    };
    parse(fields)
}

/// Whole seconds of a duration like `1h30m`.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut seconds = 0_i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit = match rest[digits..].chars().next()? {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    Some(seconds)
}

/// The numbers of one field: ranges, separated by commas.
fn set(field: &str, bounds: &Bounds) -> Result<u64, String> {
    field.split(',').filter(|part| !part.is_empty()).try_fold(0, |all, part| Ok(all | range(part, bounds)?))
}

/// The numbers of `*`, `*/5`, `3`, `3/5`, `3-7` or `3-7/2`.
fn range(part: &str, bounds: &Bounds) -> Result<u64, String> {
    let pieces: Vec<&str> = part.split('/').collect();
    let (base, step) = match pieces[..] {
        [base] => (base, None),
        [base, step] => (base, Some(whole(step)?)),
        _ => return Err(format!("too many slashes: {part}")),
    };
    let ends: Vec<&str> = base.split('-').collect();
    let (low, high) = match ends[..] {
        ["*" | "?"] => (bounds.low, bounds.high),
        [one] => {
            let one = number(one, bounds)?;
            // `3/5` means from 3 to the end.
            (one, if step.is_some() { bounds.high } else { one })
        }
        [low, high] => (number(low, bounds)?, number(high, bounds)?),
        _ => return Err(format!("too many hyphens: {part}")),
    };
    if low < bounds.low {
        return Err(format!("beginning of range ({low}) below minimum ({}): {part}", bounds.low));
    }
    if high > bounds.high {
        return Err(format!("end of range ({high}) above maximum ({}): {part}", bounds.high));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {part}"));
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok((low..=high).step_by(step as usize).fold(0, |set, number| set | 1 << number))
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let name = text.to_lowercase();
    match bounds.names.iter().position(|known| *known == name) {
        Some(at) => Ok(bounds.low + u32::try_from(at).unwrap_or(0)),
        None => whole(text),
    }
}

fn whole(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"))
}

/// A time zone by its IANA name; UTC where none is named.
///
/// # Errors
/// `unknown time zone …`
pub fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    match name {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZoneDatabase::bundled().get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

impl Schedule {
    /// The first run after a moment, `None` if there is none in the next years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(pause) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*pause).ok()
            }
            Schedule::Fields(fields) => fields.next(after, zone),
        }
    }

    /// The last run after `from` and not after `until`.
    pub fn last(&self, from: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Schedule::Every(pause) = self {
            let gone = until.as_second() - from.as_second();
            let runs = gone / pause.as_secs();
            return (runs > 0).then(|| Timestamp::from_second(from.as_second() + runs * pause.as_secs()).ok())?;
        }
        // Nearer spans first: what lies between is walked run by run.
        for span in [3600, 86_400, 31 * 86_400, 366 * 86_400, i64::MAX] {
            let start = until.as_second().checked_sub(span).and_then(|s| Timestamp::from_second(s).ok());
            let start = start.map_or(from, |start| start.max(from));
            let mut found = None;
            let mut at = start;
            while let Some(next) = self.next(at, zone).filter(|next| *next <= until) {
                found = Some(next);
                at = next;
            }
            if found.is_some() || start == from {
                return found;
            }
        }
        None
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let has = |set: u64, number: i8| set & (1 << number) != 0;
        let minute = after.as_second().div_euclid(60) + 1;
        let mut at: Zoned = Timestamp::from_second(minute * 60).ok()?.to_zoned(zone.clone());
        let last_year = i32::from(at.year()) + YEARS;
        while i32::from(at.year()) <= last_year {
            if !has(self.month, at.month()) {
                at = at.first_of_month().ok()?.checked_add(1.month()).ok()?.start_of_day().ok()?;
            } else if !self.is_day(&at) {
                at = at.tomorrow().ok()?.start_of_day().ok()?;
            } else if !has(self.hour, at.hour()) {
                // By the clock that always goes on: the hour that is there twice is passed twice.
                at = at.checked_add((60 - i64::from(at.minute())).minutes()).ok()?;
            } else if !has(self.minute, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    fn is_day(&self, at: &Zoned) -> bool {
        let day = self.day & (1 << at.day()) != 0;
        let weekday = self.weekday & (1 << at.weekday().to_sunday_zero_offset()) != 0;
        if self.any_day { day || weekday } else { day && weekday }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn the_next_run_is_found_across_months_and_clocks() {
        let next = |schedule: &str, zone_name: Option<&str>, after: &str| {
            let zone = zone(zone_name).expect("a zone");
            let next = parse(schedule).expect("a schedule").next(at(after), &zone);
            next.map_or_else(|| "never".to_owned(), |next| next.to_string())
        };
        let found = [
            next("*/5 * * * *", None, "2026-01-01T00:00:00Z"),
            next("30 2 1 1 *", None, "2026-01-01T02:30:00Z"),
            next("0 0 29 2 *", None, "2026-01-01T00:00:00Z"),
            next("0 0 31 2 *", None, "2026-01-01T00:00:00Z"),
            next("0 0 13 * fri", None, "2026-01-01T00:00:00Z"),
            next("0 9-17/4 * * MON", None, "2026-01-01T00:00:00Z"),
            next("@hourly", None, "2026-01-01T00:59:59Z"),
            next("@every 1h30m", None, "2026-01-01T00:00:00Z"),
            next("0 8 * * *", Some("Asia/Tokyo"), "2026-01-01T00:00:00Z"),
            // Berlin's clocks go forward over 2:30 on the 29th, and back over it on the 25th of October.
            next("30 2 * * *", Some("Europe/Berlin"), "2026-03-28T12:00:00Z"),
            next("30 2 * * *", Some("Europe/Berlin"), "2026-10-25T00:30:00Z"),
        ];
        expect![[r#"
            2026-01-01T00:05:00Z
            2027-01-01T02:30:00Z
            2028-02-29T00:00:00Z
            never
            2026-01-02T00:00:00Z
            2026-01-05T09:00:00Z
            2026-01-01T01:00:00Z
            2026-01-01T01:30:00Z
            2026-01-01T23:00:00Z
            2026-03-30T00:30:00Z
            2026-10-25T01:30:00Z"#]]
        .assert_eq(&found.join("\n"));
    }

    #[test]
    fn the_last_run_is_found_however_long_nobody_looked() {
        let last = |schedule: &str, from: &str, until: &str| {
            let last = parse(schedule).expect("a schedule").last(at(from), at(until), &TimeZone::UTC);
            last.map_or_else(|| "none".to_owned(), |last| last.to_string())
        };
        assert_eq!(last("* * * * *", "2016-01-01T00:00:00Z", "2026-01-01T00:00:30Z"), "2026-01-01T00:00:00Z");
        assert_eq!(last("0 0 1 1 *", "2016-01-01T00:00:00Z", "2026-12-01T00:00:00Z"), "2026-01-01T00:00:00Z");
        assert_eq!(last("0 0 1 1 *", "2026-01-01T00:00:00Z", "2026-12-01T00:00:00Z"), "none");
        assert_eq!(last("@every 10s", "2026-01-01T00:00:00Z", "2026-01-01T00:00:25Z"), "2026-01-01T00:00:20Z");
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        let errors = [
            "* * * * * *",
            "* * *",
            "60 * * * *",
            "* * * * 7",
            "* * 0 * *",
            "a * * * *",
            "9-3 * * * *",
            "*/0 * * * *",
            "@sometimes",
            "1-2-3 * * * *",
            "@every soon",
        ]
        .map(|text| parse(text).expect_err(text));
        expect![[r#"
            expected exactly 5 fields, found 6: [* * * * * *]
            expected exactly 5 fields, found 3: [* * *]
            end of range (60) above maximum (59): 60
            end of range (7) above maximum (6): 7
            beginning of range (0) below minimum (1): 0
            failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax
            beginning of range (9) beyond end of range (3): 9-3
            step of range should be a positive number: */0
            unrecognized descriptor: @sometimes
            too many hyphens: 1-2-3
            failed to parse duration @every soon"#]]
        .assert_eq(&errors.join("\n"));
        assert_eq!(zone(Some("Mars/Olympus")).expect_err("no zone"), "unknown time zone Mars/Olympus");
    }
}
