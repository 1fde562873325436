//! The macros: calls that are rewritten into folds, tests and bindings before anything else looks at them.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Expr, Fold, Kind};
use crate::error::Issue;
use crate::parser::{Outcome, Parser};
use crate::value::Value;

/// The parts of a fold that differ between the macros.
struct Walk {
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

impl Parser {
    /// `has(a.b)`.
    pub fn expand_function(&mut self, offset: usize, name: &str, args: &[Expr]) -> Outcome<Option<Expr>> {
        let [argument] = args else { return Ok(None) };
        if name != "has" {
            return Ok(None);
        }
        match &argument.kind {
            Kind::Select { operand, field, test: false } => {
                let kind = Kind::Select { operand: operand.clone(), field: field.clone(), test: true };
                self.node(self.offsets[argument.id], kind).map(Some)
            }
            _ => Err(Issue { offset, message: "invalid argument to has() macro".to_owned() }),
        }
    }

    /// The macros that look like methods.
    pub fn expand_method(&mut self, at: usize, name: &str, target: &Expr, args: &[Expr]) -> Outcome<Option<Expr>> {
        if matches!(&target.kind, Kind::Ident(module) if &**module == "math")
            && (name == "greatest" || name == "least")
            && args.len() > 2
        {
            let optional = vec![false; args.len()];
            let list = self.node(at, Kind::List { elements: args.to_vec(), optional })?;
            return self.call(at, &format!("math.{name}"), vec![list]).map(Some);
        }
        match (name, args) {
            ("optMap" | "optFlatMap", [variable, body]) => {
                let variable = self.variable(variable)?;
                self.expand_optional(at, name == "optFlatMap", target, variable, body.clone()).map(Some)
            }
            ("all" | "exists" | "exists_one" | "existsOne" | "filter", [variable, body])
            | ("map", [variable, body]) => self.fold(at, name, target, &[variable], None, body),
            ("map", [variable, filter, body]) => self.fold(at, name, target, &[variable], Some(filter), body),
            ("all" | "exists" | "exists_one" | "existsOne", [key, value, body])
            | ("transformList" | "transformMap" | "transformMapEntry", [key, value, body]) => {
                self.fold(at, name, target, &[key, value], None, body)
            }
            ("transformList" | "transformMap" | "transformMapEntry", [key, value, filter, body]) => {
                self.fold(at, name, target, &[key, value], Some(filter), body)
            }
            _ => Ok(None),
        }
    }

    fn variable(&self, expr: &Expr) -> Outcome<Arc<str>> {
        match &expr.kind {
            Kind::Ident(name) => Ok(name.clone()),
            _ => Err(Issue { offset: self.offsets[expr.id], message: "argument must be a simple name".to_owned() }),
        }
    }

    fn accumulator(&mut self, at: usize) -> Outcome<Expr> {
        self.node(at, Kind::Ident(ACCUMULATOR.into()))
    }

    fn value(&mut self, at: usize, value: Value<'static>) -> Outcome<Expr> {
        self.node(at, Kind::Literal(value))
    }

    fn fold(
        &mut self,
        at: usize,
        name: &str,
        range: &Expr,
        variables: &[&Expr],
        filter: Option<&Expr>,
        body: &Expr,
    ) -> Outcome<Option<Expr>> {
        let names = variables.iter().map(|variable| self.variable(variable)).collect::<Outcome<Vec<_>>>()?;
        if let [first, second] = &names[..]
            && first == second
        {
            let offset = self.offsets[variables[1].id];
            return Err(Issue { offset, message: format!("duplicate variable name: {second}") });
        }
        let body = body.clone();
        let walk = match name {
            "all" => self.all(at, body)?,
            "exists" => self.exists(at, body)?,
            "exists_one" | "existsOne" => self.exists_one(at, body)?,
            "filter" => {
                let variable = self.node(self.offsets[variables[0].id], Kind::Ident(names[0].clone()))?;
                self.gather(at, Some(body), variable)?
            }
            "map" | "transformList" => self.gather(at, filter.cloned(), body)?,
            _ => {
                let mut args = vec![self.accumulator(at)?];
                if name == "transformMap" {
                    args.push(self.node(self.offsets[variables[0].id], Kind::Ident(names[0].clone()))?);
                }
                args.push(body);
                let step = self.call(at, "cel.@mapInsert", args)?;
                let init = self.node(at, Kind::Map(Vec::new()))?;
                self.unconditional(at, filter.cloned(), init, step)?
            }
        };
        let mut names = names.into_iter();
        let fold = Fold {
            variable: names.next().unwrap_or_else(|| ACCUMULATOR.into()),
            second: names.next(),
            range: range.clone(),
            accumulator: ACCUMULATOR.into(),
            init: walk.init,
            condition: walk.condition,
            step: walk.step,
            result: walk.result,
        };
        self.node(at, Kind::Fold(Box::new(fold))).map(Some)
    }

    fn all(&mut self, at: usize, body: Expr) -> Outcome<Walk> {
        let accumulator = self.accumulator(at)?;
        let condition = self.call(at, "@not_strictly_false", vec![accumulator.clone()])?;
        let step = self.call(at, "_&&_", vec![accumulator.clone(), body])?;
        Ok(Walk { init: self.value(at, Value::Bool(true))?, condition, step, result: accumulator })
    }

    fn exists(&mut self, at: usize, body: Expr) -> Outcome<Walk> {
        let accumulator = self.accumulator(at)?;
        let not_yet = self.call(at, "!_", vec![accumulator.clone()])?;
        let condition = self.call(at, "@not_strictly_false", vec![not_yet])?;
        let step = self.call(at, "_||_", vec![accumulator.clone(), body])?;
        Ok(Walk { init: self.value(at, Value::Bool(false))?, condition, step, result: accumulator })
    }

    fn exists_one(&mut self, at: usize, body: Expr) -> Outcome<Walk> {
        let accumulator = self.accumulator(at)?;
        let one = self.value(at, Value::Int(1))?;
        let more = self.call(at, "_+_", vec![accumulator.clone(), one.clone()])?;
        let step = self.call(at, "_?_:_", vec![body, more, accumulator.clone()])?;
        let result = self.call(at, "_==_", vec![accumulator, one])?;
        Ok(Walk { init: self.value(at, Value::Int(0))?, condition: self.value(at, Value::Bool(true))?, step, result })
    }

    /// A list of `body` for each element that passes the filter.
    fn gather(&mut self, at: usize, filter: Option<Expr>, body: Expr) -> Outcome<Walk> {
        let one = self.node(at, Kind::List { elements: vec![body], optional: vec![false] })?;
        let accumulator = self.accumulator(at)?;
        let step = self.call(at, "_+_", vec![accumulator, one])?;
        let init = self.node(at, Kind::List { elements: Vec::new(), optional: Vec::new() })?;
        self.unconditional(at, filter, init, step)
    }

    /// A walk over everything, whose step is taken for what passes the filter.
    fn unconditional(&mut self, at: usize, filter: Option<Expr>, init: Expr, step: Expr) -> Outcome<Walk> {
        let accumulator = self.accumulator(at)?;
        let step = match filter {
            Some(filter) => self.call(at, "_?_:_", vec![filter, step, accumulator.clone()])?,
            None => step,
        };
        Ok(Walk { init, condition: self.value(at, Value::Bool(true))?, step, result: accumulator })
    }

    /// `target.hasValue() ? optional.of(body) : optional.none()`, where the body sees the value.
    fn expand_optional(
        &mut self,
        at: usize,
        flat: bool,
        target: &Expr,
        variable: Arc<str>,
        body: Expr,
    ) -> Outcome<Expr> {
        let has_value = self.method_call(at, "hasValue", target.clone())?;
        let init = self.method_call(at, "value", target.clone())?;
        let fold = Fold {
            variable: "#unused".into(),
            second: None,
            range: self.node(at, Kind::List { elements: Vec::new(), optional: Vec::new() })?,
            init,
            condition: self.value(at, Value::Bool(false))?,
            step: self.node(at, Kind::Ident(variable.clone()))?,
            accumulator: variable,
            result: body,
        };
        let bound = self.node(at, Kind::Fold(Box::new(fold)))?;
        let present = if flat { bound } else { self.call(at, "optional.of", vec![bound])? };
        let absent = self.call(at, "optional.none", Vec::new())?;
        self.call(at, "_?_:_", vec![has_value, present, absent])
    }

    fn method_call(&mut self, at: usize, name: &str, target: Expr) -> Outcome<Expr> {
        let call = crate::ast::Call { function: name.into(), target: Some(target), args: Vec::new(), bound: None };
        self.node(at, Kind::Call(Box::new(call)))
    }
}
