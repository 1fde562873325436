//! Lists taken as sets.

use std::collections::BTreeSet;

use super::{Function, Outcome, no_such_overload};
use crate::error::EvalError;
use crate::value::{Key, Value};

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "sets.contains",
        run: |args| with(args, contains),
        overloads: &[("list_sets_contains_list", "(list(A), list(A)) -> bool")],
    },
    Function {
        name: "sets.equivalent",
        run: |args| with(args, |a, b| contains(a, b) && contains(b, a)),
        overloads: &[("list_sets_equivalent_list", "(list(A), list(A)) -> bool")],
    },
    Function {
        name: "sets.intersects",
        run: |args| with(args, intersects),
        overloads: &[("list_sets_intersects_list", "(list(A), list(A)) -> bool")],
    },
];

/// The values met so far: what may be a key is looked up, the rest is compared one by one.
#[derive(Default)]
pub(crate) struct Seen<'a> {
    keys: BTreeSet<Key>,
    others: Vec<Value<'a>>,
}

impl<'a> Seen<'a> {
    /// Whether the value is there.
    fn has(&self, value: &Value<'a>) -> bool {
        match Key::of(value) {
            Ok(key) => self.keys.contains(&key),
            Err(_) => self.others.iter().any(|other| other.equals(value)),
        }
    }

    /// Adds a value; whether it is new.
    pub(crate) fn insert(&mut self, value: &Value<'a>) -> bool {
        match Key::of(value) {
            Ok(key) => self.keys.insert(key),
            Err(_) if self.others.iter().any(|other| other.equals(value)) => false,
            Err(_) => {
                self.others.push(value.clone());
                true
            }
        }
    }
}

fn seen<'a>(values: &[Value<'a>]) -> Seen<'a> {
    let mut seen = Seen::default();
    for value in values {
        seen.insert(value);
    }
    seen
}

fn with<'a>(args: &[Value<'a>], holds: fn(&[Value<'a>], &[Value<'a>]) -> bool) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => {
            let (a, b): (Result<_, EvalError>, Result<_, EvalError>) = (a.values(), b.values());
            Ok(Value::Bool(holds(&a?, &b?)))
        }
        _ => no_such_overload(),
    }
}

fn contains<'a>(all: &[Value<'a>], some: &[Value<'a>]) -> bool {
    let all = seen(all);
    some.iter().all(|value| all.has(value))
}

fn intersects<'a>(a: &[Value<'a>], b: &[Value<'a>]) -> bool {
    let a = seen(a);
    b.iter().any(|value| a.has(value))
}
