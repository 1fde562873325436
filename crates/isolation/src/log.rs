//! A container's output as a CRI log: one line for each, with time, stream, and whether it is whole.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// Longest piece of a line that is kept together, in bytes.
const LONGEST: usize = 16 * 1024;

/// A log file that can be put aside and begun anew.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    pub fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Goes on in a new file of the same name.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(std::mem::take(&mut self.path))?;
        Ok(())
    }

    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)
    }
}

/// Cuts one stream's bytes into log lines.
pub(crate) struct Lines {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Lines {
    pub fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Log lines for what `bytes` completes.
    pub fn push(&mut self, bytes: &[u8], time: &str, out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.emit(line, 'F', time, out);
            rest = &after[1..];
        }
        if self.pending.len() + rest.len() >= LONGEST {
            self.emit(rest, 'P', time, out);
        } else {
            self.pending.extend_from_slice(rest);
        }
    }

    /// A log line for what the stream ended with, if it ended without a line feed.
    pub fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.emit(b"", 'F', time, out);
        }
    }

    fn emit(&mut self, end: &[u8], tag: char, time: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{time} {} {tag} ", self.stream).as_bytes());
        // Freed and not cleared: a quiet container should not keep the buffer of its longest line.
        out.extend_from_slice(&std::mem::take(&mut self.pending));
        out.extend_from_slice(end);
        out.push(b'\n');
    }
}

/// Nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the clock of shims, which stamps lines as they come")]
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// A time in nanoseconds since 1970 as RFC 3339 text with nine decimals, in UTC.
pub fn timestamp(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, so that the leap day is the last of its year; 146097 days are 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + next;
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_nanoseconds() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(timestamp(1_795_435_199_999_999_999), "2026-11-23T11:59:59.999999999Z");
    }

    #[test]
    fn lines_are_cut_at_line_feeds_and_a_rest_is_kept_until_the_end() {
        let (mut lines, mut out) = (Lines::new("stdout"), Vec::new());
        lines.push(b"one\ntw", "T", &mut out);
        lines.push(b"o\nthree", "T", &mut out);
        lines.finish("T", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "T stdout F one\nT stdout F two\nT stdout F three\n");
    }

    #[test]
    fn a_very_long_line_comes_in_parts() {
        let (mut lines, mut out) = (Lines::new("stderr"), Vec::new());
        lines.push(&[b'x'; LONGEST], "T", &mut out);
        lines.push(b"y\n", "T", &mut out);
        let text = String::from_utf8(out).unwrap();
        let tags: Vec<_> = text.lines().map(|line| &line[..10]).collect();
        assert_eq!(tags, ["T stderr P", "T stderr F"]);
    }
}
