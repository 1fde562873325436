//! Carries out a checked expression and counts what it costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use crate::ast::{ACCUMULATOR, Call, Entry, Expr, Fold, Kind};
use crate::cost;
use crate::error::EvalError;
use crate::functions::{Outcome, no_such_overload, operators, patterns};
use crate::types::Type;
use crate::value::{Key, Map, Value};

pub(crate) struct Interpreter<'p, 'v, 'a> {
    /// The patterns that the text has literally.
    pub patterns: &'p BTreeMap<String, Regex>,
    pub variables: &'v [(&'v str, Value<'a>)],
    /// Makes the values of other variables when they are needed.
    pub later: &'v dyn Fn(&str) -> Option<Outcome<'a>>,
    /// What folds have named, innermost last. An error is kept: it may turn out not to matter.
    pub locals: Vec<(Arc<str>, Outcome<'a>)>,
    pub cost: u64,
    pub limit: u64,
}

impl<'a> Interpreter<'_, '_, 'a> {
    fn charge(&mut self, units: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(units);
        if self.cost > self.limit { Err(EvalError::CostExceeded) } else { Ok(()) }
    }

    pub fn evaluate(&mut self, expr: &Expr) -> Outcome<'a> {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, test } => {
                let value = self.evaluate(operand)?;
                if *test {
                    return operators::has(&value, field);
                }
                // What is no path of names is looked at once more.
                self.charge(if is_path(operand) { 1 } else { 2 })?;
                operators::select(&value, field)
            }
            Kind::Call(call) => self.call(call),
            Kind::List { elements, optional } => {
                self.charge(if is_constant(expr) { 0 } else { cost::LIST })?;
                self.list(elements, optional)
            }
            Kind::Map(entries) => {
                self.charge(if is_constant(expr) { 0 } else { cost::MAP })?;
                self.entries(entries, None)
            }
            Kind::Message { name, entries } => {
                self.charge(cost::MESSAGE)?;
                self.entries(entries, Some(name.clone()))
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&mut self, name: &str) -> Outcome<'a> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| &**local == name) {
            let value = value.clone();
            self.charge(1)?;
            return value;
        }
        if let Some((_, value)) = self.variables.iter().find(|(variable, _)| *variable == name) {
            self.charge(1)?;
            return Ok(value.clone());
        }
        if let Some(value) = (self.later)(name) {
            // It is a field of something, as far as the cost is concerned.
            self.charge(2)?;
            return value;
        }
        match Type::named(name) {
            Some(ty) => Ok(Value::Type(ty)),
            None => Err(EvalError::new(format!("no such attribute(s): {name}"))),
        }
    }

    fn list(&mut self, elements: &[Expr], optional: &[bool]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(elements.len());
        for (element, optional) in elements.iter().zip(optional) {
            let value = self.evaluate(element)?;
            values.extend(if *optional { present(value)? } else { Some(value) });
        }
        Ok(Value::from(values))
    }

    fn entries(&mut self, entries: &[Entry], ty: Option<Arc<str>>) -> Outcome<'a> {
        let mut made = BTreeMap::new();
        for entry in entries {
            let key = self.evaluate(&entry.key)?;
            let value = self.evaluate(&entry.value)?;
            let Some(value) = (if entry.optional { present(value)? } else { Some(value) }) else { continue };
            if matches!(key, Value::Double(_)) {
                return Err(EvalError::new("unsupported key type: double"));
            }
            let key = Key::of(&key)?;
            if made.contains_key(&key) {
                return Err(EvalError::new(format!("Failed with repeated key {key}")));
            }
            made.insert(key, value);
        }
        Ok(Value::Map(Map::Made { entries: Arc::new(made), ty }))
    }

    fn call(&mut self, call: &Call) -> Outcome<'a> {
        match (&*call.function, &call.args[..]) {
            ("_&&_", [left, right]) => return self.logical(left, right, false),
            ("_||_", [left, right]) => return self.logical(left, right, true),
            ("_?_:_", [condition, truthy, falsy]) => {
                return match self.evaluate(condition)? {
                    Value::Bool(true) => self.within_path(truthy),
                    Value::Bool(false) => self.within_path(falsy),
                    _ => no_such_overload(),
                };
            }
            ("@not_strictly_false", [value]) => {
                let value = self.evaluate(value);
                self.charge(1)?;
                return Ok(Value::Bool(!matches!(value, Ok(Value::Bool(false)))));
            }
            ("_+_" | "cel.@mapInsert", [Expr { kind: Kind::Ident(name), .. }, rest @ ..]) if &**name == ACCUMULATOR => {
                return self.accumulate(&call.function, rest);
            }
            _ => {}
        }
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for part in call.target.iter().chain(&call.args) {
            let index = &*call.function == "_[_]" && !args.is_empty();
            match if index { self.within_path(part) } else { self.evaluate(part) } {
                Ok(value) => args.push(value),
                Err(error) => {
                    // A call that fails for its arguments has its cost all the same.
                    if error != EvalError::CostExceeded {
                        self.charge(1)?;
                    }
                    return Err(error);
                }
            }
        }
        let Some(function) = call.bound else { return no_such_overload() };
        let answer = match args.get(1) {
            Some(Value::String(pattern)) if patterns::takes_pattern(function.name) => {
                let known = self.patterns.get(pattern.as_str());
                patterns::run(function.name, &args, known)
            }
            _ => self.dispatch(call, &args, function.run),
        };
        let free = is_folded(call) || (&*call.function == "@in" && call.args.last().is_some_and(is_constant));
        if !free {
            let relative = &*call.function == "_[_]" && !call.args.first().is_some_and(is_path);
            self.charge(cost::of_call(function.name, &args, &answer) + u64::from(relative))?;
        }
        answer
    }

    /// A name that is an index or a branch is looked up on the way, without a cost of its own.
    fn within_path(&mut self, expr: &Expr) -> Outcome<'a> {
        let value = self.evaluate(expr);
        if is_path(expr) && value != Err(EvalError::CostExceeded) {
            self.cost = self.cost.saturating_sub(1);
        }
        value
    }

    /// Several libraries may have a function of the same name: which one is meant shows in the values where the types
    /// were not known.
    fn dispatch(&self, call: &Call, args: &[Value<'a>], run: crate::functions::Run) -> Outcome<'a> {
        let answer = run(args);
        if answer != Err(EvalError::no_such_overload()) {
            return answer;
        }
        for declared in crate::functions::named(&call.function) {
            match (declared.function.run)(args) {
                Err(error) if error == EvalError::no_such_overload() => {}
                other => return other,
            }
        }
        answer
    }

    /// `&&` and `||`: an error does not matter if the other side decides.
    fn logical(&mut self, left: &Expr, right: &Expr, decisive: bool) -> Outcome<'a> {
        let left = self.evaluate(left);
        match &left {
            Ok(Value::Bool(b)) if *b == decisive => return left,
            Err(EvalError::CostExceeded) => return left,
            _ => {}
        }
        match (left, self.evaluate(right)) {
            (_, right @ Err(EvalError::CostExceeded)) => right,
            (_, Ok(Value::Bool(b))) if b == decisive => Ok(Value::Bool(b)),
            (left @ Err(_), _) => left,
            (Ok(Value::Bool(_)), right @ (Ok(Value::Bool(_)) | Err(_))) => right,
            _ => no_such_overload(),
        }
    }

    /// Adds to what a fold has gathered. Nobody else looks at it, so that it can grow in place.
    fn accumulate(&mut self, function: &str, rest: &[Expr]) -> Outcome<'a> {
        self.charge(1)?;
        let mut args = Vec::with_capacity(rest.len());
        for part in rest {
            args.push(self.evaluate(part)?);
        }
        self.charge(1)?;
        let gathered = self.locals.iter_mut().rev().find(|(local, _)| &**local == ACCUMULATOR);
        let Some((_, gathered)) = gathered else { return no_such_overload() };
        let gathered = std::mem::replace(gathered, Ok(Value::Null))?;
        match (function, &args[..]) {
            ("_+_", [other]) => operators::append(gathered, other),
            _ => operators::insert(gathered, &args),
        }
    }

    fn fold(&mut self, fold: &Fold) -> Outcome<'a> {
        let range = self.evaluate(&fold.range)?;
        let init = match self.evaluate(&fold.init) {
            Err(EvalError::CostExceeded) => return Err(EvalError::CostExceeded),
            init => init,
        };
        let outside = self.locals.len();
        self.locals.push((fold.accumulator.clone(), init));
        let walked = if fold.is_binding() { Ok(()) } else { self.walk(fold, &range, outside) };
        self.locals.truncate(outside + 1);
        let result = walked.and_then(|()| self.evaluate(&fold.result));
        self.locals.truncate(outside);
        result
    }

    fn walk(&mut self, fold: &Fold, range: &Value<'a>, accumulator: usize) -> Result<(), EvalError> {
        match range {
            Value::List(list) => {
                for index in 0..list.len() {
                    let Some(element) = list.get(index) else { break };
                    let index = Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
                    let second = fold.second.is_some();
                    let (first, second) = if second { (Ok(index), Some(element)) } else { (element, None) };
                    if !self.step(fold, accumulator, first, second)? {
                        break;
                    }
                }
                Ok(())
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = fold.second.is_some().then(|| {
                        Key::of(&key).and_then(|key| map.get(&key).unwrap_or_else(|| Err(EvalError::no_such_key(&key))))
                    });
                    if !self.step(fold, accumulator, Ok(key), value)? {
                        break;
                    }
                }
                Ok(())
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// One step of a fold; whether there may be another.
    fn step(
        &mut self,
        fold: &Fold,
        accumulator: usize,
        first: Outcome<'a>,
        second: Option<Outcome<'a>>,
    ) -> Result<bool, EvalError> {
        self.locals.push((fold.variable.clone(), first));
        if let (Some(name), Some(second)) = (&fold.second, second) {
            self.locals.push((name.clone(), second));
        }
        let goes_on = matches!(self.evaluate(&fold.condition)?, Value::Bool(true));
        if goes_on {
            let next = self.evaluate(&fold.step);
            if next == Err(EvalError::CostExceeded) {
                return Err(EvalError::CostExceeded);
            }
            self.locals[accumulator].1 = next;
        }
        self.locals.truncate(accumulator + 1);
        Ok(goes_on)
    }
}

/// Whether upstream would have made a value of it before any evaluation, so that it costs nothing.
fn is_constant(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Literal(_) => true,
        Kind::Call(call) => is_folded(call),
        Kind::List { elements, .. } => elements.iter().all(is_constant),
        Kind::Map(entries) => entries.iter().all(|entry| is_constant(&entry.key) && is_constant(&entry.value)),
        _ => false,
    }
}

/// Whether it is the conversion of a literal.
fn is_folded(call: &Call) -> bool {
    let conversion = matches!(
        &*call.function,
        "bool" | "bytes" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "type" | "uint"
    );
    conversion && matches!(&call.args[..], [Expr { kind: Kind::Literal(_), .. }])
}

/// Whether it is a variable, or reached from one by names and indexes.
fn is_path(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Ident(_) => true,
        Kind::Select { operand, test: false, .. } => is_path(operand),
        Kind::Call(call) => &*call.function == "_[_]" && call.args.first().is_some_and(is_path),
        _ => false,
    }
}

fn present<'a>(value: Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
    match value {
        Value::Optional(inner) => Ok(inner.map(|inner| Value::clone(&inner))),
        other => {
            let message =
                format!("cannot initialize optional list element from non-optional value {}", other.type_name());
            Err(EvalError::new(message))
        }
    }
}
