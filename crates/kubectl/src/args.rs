//! The command line, read as kubectl reads it: flags anywhere, `--name=value` or `--name value`, short ones together.

use std::collections::BTreeMap;

use crate::failure::{Failure, Outcome, error};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or `=true` and `=false`.
    Nothing,
    /// A value.
    Value,
    /// A value after `=`, or this one.
    Perhaps(&'static str),
}

/// A flag: its name, its letter (or a blank), what it takes.
pub(crate) type Flag = (&'static str, char, Takes);

/// Flags of every command.
pub(crate) const COMMON: &[Flag] = &[
    ("namespace", 'n', Takes::Value),
    ("kubeconfig", ' ', Takes::Value),
    ("context", ' ', Takes::Value),
    ("server", 's', Takes::Value),
    ("token", ' ', Takes::Value),
    ("as", ' ', Takes::Value),
    ("as-group", ' ', Takes::Value),
    ("request-timeout", ' ', Takes::Value),
    ("v", 'v', Takes::Value),
    ("help", 'h', Takes::Nothing),
];

/// A command line, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Args {
    flags: BTreeMap<&'static str, Vec<String>>,
    /// What is no flag.
    pub words: Vec<String>,
    /// What came after `--`.
    pub rest: Vec<String>,
    /// There was a `--`.
    pub dashed: bool,
}

fn mistake(command: &str, what: &str) -> Failure {
    error(format!("{what}\nSee '{command} --help' for usage."))
}

impl Args {
    /// Reads the words after a command's name.
    pub fn read(command: &str, words: &[String], own: &[Flag]) -> Outcome<Self> {
        let mut args = Self::default();
        let all = || own.iter().chain(COMMON);
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                args.dashed = true;
                args.rest = words.by_ref().cloned().collect();
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_owned())));
                let Some((name, _, takes)) = all().find(|flag| flag.0 == name) else {
                    return Err(mistake(command, &format!("unknown flag: --{name}")));
                };
                let value = match (takes, value) {
                    (_, Some(value)) => value,
                    (Takes::Nothing, None) => "true".to_owned(),
                    (Takes::Perhaps(value), None) => (*value).to_owned(),
                    (Takes::Value, None) => words
                        .next()
                        .cloned()
                        .ok_or_else(|| mistake(command, &format!("flag needs an argument: --{name}")))?,
                };
                args.set(command, name, *takes, value)?;
            } else if word.len() > 1 && word.starts_with('-') {
                let mut letters = word[1..].chars();
                while let Some(letter) = letters.next() {
                    let Some((name, _, takes)) = all().find(|flag| flag.1 == letter) else {
                        return Err(mistake(command, &format!("unknown shorthand flag: '{letter}' in {word}")));
                    };
                    let tail: String = letters.clone().collect();
                    let value = match takes {
                        Takes::Nothing if tail.starts_with('=') => tail[1..].to_owned(),
                        Takes::Nothing => {
                            args.set(command, name, *takes, "true".to_owned())?;
                            continue;
                        }
                        Takes::Perhaps(value) if tail.is_empty() => (*value).to_owned(),
                        _ if !tail.is_empty() => tail.strip_prefix('=').unwrap_or(&tail).to_owned(),
                        _ => words.next().cloned().ok_or_else(|| {
                            mistake(command, &format!("flag needs an argument: '{letter}' in {word}"))
                        })?,
                    };
                    args.set(command, name, *takes, value)?;
                    break;
                }
            } else {
                args.words.push(word.clone());
            }
        }
        Ok(args)
    }

    fn set(&mut self, command: &str, name: &'static str, takes: Takes, value: String) -> Outcome {
        if takes == Takes::Nothing && !matches!(value.as_str(), "true" | "false" | "1" | "0") {
            let what = format!(
                "invalid argument {value:?} for \"--{name}\" flag: strconv.ParseBool: parsing {value:?}: invalid syntax"
            );
            return Err(mistake(command, &what));
        }
        self.flags.entry(name).or_default().push(value);
        Ok(())
    }

    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// A flag that is yes or no, with what holds when it is absent.
    pub fn flag_or(&self, name: &str, absent: bool) -> bool {
        self.get(name).map_or(absent, |value| matches!(value, "true" | "1"))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name)?.last().map(String::as_str)
    }

    /// All values of a flag, those with commas in them taken apart.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.flags.get(name).into_iter().flatten();
        values.flat_map(|value| value.split(',')).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    }

    pub fn number(&self, name: &str) -> Outcome<Option<i64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| {
            error(format!(
                "invalid argument {value:?} for \"--{name}\" flag: strconv.ParseInt: parsing {value:?}: invalid syntax"
            ))
        })
    }

    /// A duration such as `90s`, `1m30s`; 0 or a bare number counts seconds.
    pub fn seconds(&self, name: &str) -> Outcome<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        duration(value).map(Some).ok_or_else(|| {
            error(format!("invalid argument {value:?} for \"--{name}\" flag: time: invalid duration {value:?}"))
        })
    }
}

/// Seconds of a duration in Go's form.
pub(crate) fn duration(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(seconds);
    }
    let negative = text.starts_with('-');
    let mut rest = text.trim_start_matches('-');
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        total += number
            * match &rest[digits..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        ("output", 'o', Takes::Value),
        ("stdin", 'i', Takes::Nothing),
        ("tty", 't', Takes::Nothing),
        ("wait", ' ', Takes::Nothing),
        ("selector", 'l', Takes::Value),
    ];

    fn read(line: &str) -> Outcome<Args> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Args::read("kubectl get", &words, FLAGS)
    }

    #[test]
    fn flags_stand_anywhere_and_short_ones_together() {
        let args = read("pods -ojson x --namespace=a -it -l a=b,c=d --wait=false -- ls -l").unwrap();
        assert_eq!(args.words, ["pods", "x"]);
        assert_eq!((args.get("output"), args.get("namespace")), (Some("json"), Some("a")));
        assert!(args.flag("stdin") && args.flag("tty") && !args.flag_or("wait", true));
        assert_eq!(args.get("selector"), Some("a=b,c=d"));
        assert_eq!(args.rest, ["ls", "-l"]);
    }

    #[test]
    fn mistakes_are_named() {
        let said = |line: &str| read(line).unwrap_err().message;
        assert_eq!(said("--colour"), "error: unknown flag: --colour\nSee 'kubectl get --help' for usage.");
        assert_eq!(said("-x"), "error: unknown shorthand flag: 'x' in -x\nSee 'kubectl get --help' for usage.");
        assert_eq!(said("-o"), "error: flag needs an argument: 'o' in -o\nSee 'kubectl get --help' for usage.");
        assert!(said("--wait=perhaps").starts_with("error: invalid argument \"perhaps\" for \"--wait\" flag"));
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(
            ["60s", "1m30s", "0", "2h", "x"].map(duration),
            [Some(60.0), Some(90.0), Some(0.0), Some(7200.0), None]
        );
    }
}
