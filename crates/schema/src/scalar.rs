//! Canonical text of scalars that have more than one spelling: quantities and times.

use jiff::Timestamp;

/// The largest number of nanos a quantity may hold: upstream caps at the largest 64-bit integer.
const MAX_NANOS: i128 = i64::MAX as i128 * NANO;
const NANO: i128 = 1_000_000_000;

const QUANTITY_FORM: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const QUANTITY_SUFFIX: &str = "unable to parse quantity's suffix";

/// How a quantity was written, which its canonical form keeps.
#[derive(Clone, Copy, PartialEq)]
enum Notation {
    Decimal,
    Binary,
    Exponent,
}

/// The canonical spelling of a quantity: no fraction, the largest suffix that loses nothing (`0.5` is `500m`, `1000m`
/// is `1`, `2048Mi` is `2Gi`).
pub(crate) fn quantity(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(QUANTITY_FORM);
    }
    let (notation, base, power) = suffix_of(suffix)?;
    let mut nanos = scaled(whole, fraction, base, power);
    if negative {
        nanos = -nanos;
    }
    Ok(spell(nanos, notation))
}

fn suffix_of(suffix: &str) -> Result<(Notation, i128, i32), &'static str> {
    const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(at) = DECIMAL.iter().position(|s| *s == suffix) {
        return Ok((Notation::Decimal, 10, (at as i32 - 3) * 3));
    }
    if let Some(at) = BINARY.iter().position(|s| *s == suffix) {
        return Ok((Notation::Binary, 1024, at as i32));
    }
    let Some(exponent) = suffix.strip_prefix(['e', 'E']) else {
        return Err(if suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c)) {
            QUANTITY_SUFFIX
        } else {
            QUANTITY_FORM
        });
    };
    let power: i32 = exponent.parse().map_err(|_| QUANTITY_SUFFIX)?;
    Ok((Notation::Exponent, 10, power))
}

/// whole.fraction × base^power in nanos, rounded up, capped.
fn scaled(whole: &str, fraction: &str, base: i128, power: i32) -> i128 {
    // One digit string and a decimal exponent, so that no precision is lost before the final rounding.
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let mut exponent = 9 - fraction.len() as i64;
    if base == 10 {
        exponent += i64::from(power);
    }
    if digits.len() as i64 + exponent > 36 {
        return MAX_NANOS;
    }
    // Digits below one nano only decide whether to round up.
    let keep = (digits.len() as i64 + exponent.min(0) + 12).clamp(0, digits.len() as i64) as usize;
    let mut value: i128 = digits[..keep].parse().unwrap_or(0);
    let mut lost = digits[keep..].bytes().any(|b| b != b'0');
    exponent += (digits.len() - keep) as i64;
    if base == 1024 {
        for _ in 0..power {
            value = value.saturating_mul(1024);
        }
    }
    for _ in 0..exponent.max(0) {
        value = value.saturating_mul(10);
    }
    for _ in 0..(-exponent).clamp(0, 40) {
        lost |= value % 10 != 0;
        value /= 10;
    }
    (value + i128::from(lost)).min(MAX_NANOS)
}

fn spell(nanos: i128, notation: Notation) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    if notation == Notation::Binary && nanos % NANO == 0 && (nanos / NANO).abs() >= 1024 {
        let (mut value, mut power) = (nanos / NANO, 0);
        while value % 1024 == 0 && power < 6 {
            value /= 1024;
            power += 1;
        }
        return format!("{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
    }
    let (mut value, mut power) = (nanos, 0);
    while value % 1000 == 0 && (power < 9 || notation == Notation::Exponent) {
        value /= 1000;
        power += 1;
    }
    if notation == Notation::Exponent {
        let exponent = (power as i32 - 3) * 3;
        return if exponent == 0 { value.to_string() } else { format!("{value}e{exponent}") };
    }
    format!("{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power])
}

/// RFC 3339 in UTC with whole seconds.
pub(crate) fn time(text: &str) -> Result<String, String> {
    Ok(seconds(parse_time(text)?))
}

/// RFC 3339 in UTC with microseconds.
pub(crate) fn micro_time(text: &str) -> Result<String, String> {
    Ok(micros(parse_time(text)?))
}

/// The moment a text names.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"");
    // jiff is laxer than RFC 3339: it takes a space or a lower-case t, and needs no seconds.
    if text.len() < 20 || text.as_bytes()[10] != b'T' || text.as_bytes()[16] != b':' {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

/// Whole seconds.
pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Microseconds, always six digits.
pub(crate) fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_one_spelling() {
        for (from, to) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("1", "1"),
            ("1024", "1024"),
            ("2048Mi", "2Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("1000000", "1M"),
            ("0", "0"),
            ("0Mi", "0"),
            ("-5m", "-5m"),
            ("1.0000000001", "1000000001n"),
            ("128Mi", "128Mi"),
            ("12e6", "12e6"),
            ("100000000000000000000000000000000000000000", "9223372036854775807"),
            (".5", "500m"),
            ("5.", "5"),
        ] {
            assert_eq!(quantity(from).as_deref(), Ok(to), "{from}");
        }
        for wrong in ["", "abc", "1.2.3", "1Zi", "1 Gi", "--1", "1e", "1mi"] {
            assert!(quantity(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time("2024-05-01T12:00:00+02:00").as_deref(), Ok("2024-05-01T10:00:00Z"));
        assert_eq!(micro_time("2024-05-01T12:00:00.1234567Z").as_deref(), Ok("2024-05-01T12:00:00.123456Z"));
        assert_eq!(micro_time("2024-05-01T12:00:00Z").as_deref(), Ok("2024-05-01T12:00:00.000000Z"));
        assert!(time("yesterday").is_err() && time("2024-05-01").is_err() && time("2024-05-01 12:00:00Z").is_err());
    }
}
