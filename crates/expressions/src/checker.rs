//! Finds the type of every part of an expression, and the functions that its calls mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ast::{Call, Entry, Expr, Fold, Kind};
use crate::environment::Environment;
use crate::error::Issue;
use crate::functions::{self, Function, patterns, time};
use crate::types::Type;
use crate::unify::{Unifier, most_general};
use crate::value::Value;

/// What the checker found, by the ids of the parts.
#[derive(Debug)]
pub(crate) struct Checked {
    pub types: Vec<Type>,
    /// The signatures that a call may mean.
    pub overloads: BTreeMap<usize, Vec<&'static str>>,
    /// The variables of the environment that are used.
    pub uses: BTreeSet<String>,
}

struct Checker<'e> {
    environment: &'e Environment,
    offsets: &'e [usize],
    unifier: Unifier,
    scopes: Vec<(Arc<str>, Type)>,
    issues: Vec<Issue>,
    found: Checked,
    /// Whether lists and maps may mix types: the arguments of `format` may.
    mixed: bool,
}

/// Checks a tree, and binds its calls.
pub(crate) fn check(expr: &mut Expr, offsets: &[usize], environment: &Environment) -> Result<Checked, Vec<Issue>> {
    let found = Checked { types: vec![Type::Dyn; offsets.len()], overloads: BTreeMap::new(), uses: BTreeSet::new() };
    let unifier = Unifier::default();
    let mut checker =
        Checker { environment, offsets, unifier, scopes: Vec::new(), issues: Vec::new(), found, mixed: false };
    checker.check(expr);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let types = checker.found.types.iter().map(|ty| checker.unifier.finish(ty)).collect();
    Ok(Checked { types, ..checker.found })
}

impl Checker<'_> {
    fn report(&mut self, expr: usize, message: String) {
        let issue = Issue { offset: self.offsets[expr], message };
        // A part that a macro repeats is checked again.
        if !self.issues.contains(&issue) {
            self.issues.push(issue);
        }
    }

    fn undeclared(&mut self, expr: usize, name: &str) -> Type {
        self.report(expr, format!("undeclared reference to '{name}' (in container '')"));
        Type::Dyn
    }

    /// The type of a part; an error has been reported where it is dynamic for want of one.
    fn check(&mut self, expr: &mut Expr) -> Type {
        self.name_types(expr);
        let id = expr.id;
        let ty = match &mut expr.kind {
            Kind::Literal(value) => value.ty(),
            Kind::Ident(name) => self.ident(id, name),
            Kind::Select { operand, field, test } => {
                let operand_type = self.check(operand);
                let ty = self.select(id, &operand_type, field);
                if *test { Type::Bool } else { ty }
            }
            Kind::Call(call) => self.call(id, call),
            Kind::List { elements, optional } => {
                let mut joined = None;
                for (element, optional) in elements.iter_mut().zip(optional) {
                    let ty = self.check(element);
                    let ty = if *optional { self.unwrapped(element.id, ty) } else { ty };
                    joined = Some(self.joined(element.id, joined, ty));
                }
                Type::list(joined.unwrap_or_else(|| self.unifier.fresh()))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for Entry { key, value, optional } in entries {
                    let ty = self.check(key);
                    keys = Some(self.joined(key.id, keys, ty));
                    let ty = self.check(value);
                    let ty = if *optional { self.unwrapped(value.id, ty) } else { ty };
                    values = Some(self.joined(value.id, values, ty));
                }
                let keys = keys.unwrap_or_else(|| self.unifier.fresh());
                let values = values.unwrap_or_else(|| self.unifier.fresh());
                Type::Map(Arc::new(keys), Arc::new(values))
            }
            Kind::Message { name, entries } => self.message(id, name, entries),
            Kind::Fold(fold) => self.fold(fold),
        };
        self.found.types[id] = ty.clone();
        ty
    }

    /// A dotted name of a variable or a type, like `net.IP`, becomes one name.
    fn name_types(&self, expr: &mut Expr) {
        if let Kind::Select { test: false, .. } = &expr.kind
            && let Some(name) = expr.qualified_name()
            && let Some(first) = name.split('.').next()
            && (self.environment.variable(&name).is_some() && !self.is_local(first)
                || Type::named(&name).is_some() && self.known(first).is_none())
        {
            expr.kind = Kind::Ident(name.into());
        }
    }

    fn is_local(&self, name: &str) -> bool {
        self.scopes.iter().any(|(scoped, _)| &**scoped == name)
    }

    fn known(&self, name: &str) -> Option<Type> {
        let local = self.scopes.iter().rev().find(|(scoped, _)| &**scoped == name).map(|(_, ty)| ty.clone());
        local.or_else(|| self.environment.variable(name).map(|declaration| declaration.ty.clone()))
    }

    fn ident(&mut self, id: usize, name: &str) -> Type {
        if let Some((_, ty)) = self.scopes.iter().rev().find(|(scoped, _)| &**scoped == name) {
            return ty.clone();
        }
        if let Some(declaration) = self.environment.variable(name) {
            self.found.uses.insert(name.to_owned());
            return declaration.ty.clone();
        }
        match Type::named(name) {
            Some(ty) => Type::TypeType(Some(Arc::new(ty))),
            None => self.undeclared(id, name),
        }
    }

    fn select(&mut self, id: usize, operand: &Type, field: &str) -> Type {
        let operand = self.unifier.resolve(operand);
        match &operand {
            Type::Optional(inner) => {
                let ty = self.select(id, inner, field);
                if matches!(ty, Type::Optional(_)) { ty } else { Type::optional(ty) }
            }
            Type::Map(_, value) => Type::clone(value),
            Type::Object(object) => match &object.fields {
                None => Type::Dyn,
                Some(fields) => match fields.get(field) {
                    Some(ty) => ty.clone(),
                    None => {
                        self.report(id, format!("undefined field '{field}'"));
                        Type::Dyn
                    }
                },
            },
            Type::Parameter(_) => {
                // What it turns out to be later must be dynamic as well.
                self.unifier.fits(&Type::Dyn, &operand);
                Type::Dyn
            }
            Type::Dyn => Type::Dyn,
            other => {
                self.report(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        }
    }

    fn unwrapped(&mut self, id: usize, ty: Type) -> Type {
        match self.unifier.resolve(&ty) {
            Type::Optional(inner) => Type::clone(&inner),
            Type::Dyn => Type::Dyn,
            other => {
                self.mismatch(id, &Type::optional(other.clone()), &other);
                other
            }
        }
    }

    fn mismatch(&mut self, id: usize, expected: &Type, found: &Type) {
        let (expected, found) = (self.unifier.resolve(expected), self.unifier.resolve(found));
        self.report(id, format!("expected type '{expected}' but found '{found}'"));
    }

    /// The type of both, which must fit.
    fn joined(&mut self, id: usize, before: Option<Type>, ty: Type) -> Type {
        let Some(before) = before else { return ty };
        if self.unifier.fits(&before, &ty) {
            return most_general(&before, &ty).clone();
        }
        if !self.mixed {
            self.mismatch(id, &before, &ty);
        }
        Type::Dyn
    }

    fn call(&mut self, id: usize, call: &mut Call) -> Type {
        if &*call.function == "_?._" {
            return self.optional_select(id, call);
        }
        if let Some(target) = &call.target
            && let Some(module) = target.qualified_name()
            && module.split('.').next().is_some_and(|first| self.known(first).is_none())
        {
            let name = format!("{module}.{}", call.function);
            if functions::is_global(&name) {
                call.function = name.into();
                call.target = None;
            }
        }
        let mixed = self.mixed;
        self.mixed |= &*call.function == "format";
        let mut types = Vec::new();
        for part in call.target.iter_mut().chain(&mut call.args) {
            types.push(self.check(part));
        }
        self.mixed = mixed;
        let method = call.target.is_some();
        if functions::named(&call.function).is_empty() {
            return self.undeclared(id, &call.function);
        }
        let Some((function, ty)) = self.overload(id, &call.function, method, &types) else {
            let shown: Vec<String> = types.iter().map(|ty| self.unifier.resolve(ty).to_string()).collect();
            let applied = match (method, &shown[..]) {
                (true, [receiver, rest @ ..]) => format!("{receiver}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            self.report(id, format!("found no matching overload for '{}' applied to '{applied}'", call.function));
            return Type::Dyn;
        };
        call.bound = Some(function);
        self.literals(call);
        ty
    }

    /// The function that fits the types. If several signatures fit, the result may be of any of theirs.
    fn overload(&mut self, id: usize, name: &str, method: bool, types: &[Type]) -> Option<(&'static Function, Type)> {
        let mut result: Option<(&'static Function, Type)> = None;
        let mut ids = Vec::new();
        for declared in functions::named(name) {
            for overload in declared.overloads.iter().filter(|overload| overload.method == method) {
                if overload.arguments.len() != types.len() {
                    continue;
                }
                let (arguments, ty) = self.unifier.instance(overload);
                if !self.unifier.all_fit(types, &arguments) {
                    continue;
                }
                ids.push(overload.id);
                let ty = self.unifier.resolve(&ty);
                result = Some(match result {
                    None => (declared.function, ty),
                    Some((function, before)) if before == ty || before == Type::Dyn => (function, before),
                    Some((function, _)) => (function, Type::Dyn),
                });
            }
        }
        self.found.overloads.insert(id, ids);
        result
    }

    /// Literals that are read when they are evaluated must be readable.
    fn literals(&mut self, call: &Call) {
        let argument = match &*call.function {
            "duration" | "timestamp" => call.args.first(),
            name if patterns::takes_pattern(name) => call.args.last().filter(|_| name == "matches"),
            _ => None,
        };
        if let Some(Expr { id, kind: Kind::Literal(Value::String(text)), .. }) = argument {
            let valid = match &*call.function {
                "duration" => time::parse_duration(text.as_str()).is_some(),
                "timestamp" => time::parse_timestamp(text.as_str()).is_some(),
                _ => patterns::compile(text.as_str()).is_ok(),
            };
            if !valid {
                self.report(*id, format!("invalid {} argument", call.function));
            }
        }
    }

    fn optional_select(&mut self, id: usize, call: &mut Call) -> Type {
        call.bound = functions::named("_?._").first().map(|declared| declared.function);
        self.found.overloads.insert(id, vec!["select_optional_field"]);
        let [operand, field] = &mut call.args[..] else { return Type::Dyn };
        let operand = self.check(operand);
        self.check(field);
        let Kind::Literal(Value::String(field)) = &field.kind else { return Type::Dyn };
        let ty = self.select(id, &operand, field.as_str());
        if matches!(ty, Type::Optional(_)) { ty } else { Type::optional(ty) }
    }

    fn message(&mut self, id: usize, name: &str, entries: &mut [Entry]) -> Type {
        let Some(object) = self.environment.message(name) else {
            for entry in entries {
                self.check(&mut entry.value);
            }
            return self.undeclared(id, name);
        };
        for Entry { key, value, optional } in entries {
            let ty = self.check(value);
            let ty = if *optional { self.unwrapped(value.id, ty) } else { ty };
            let Kind::Literal(Value::String(field)) = &key.kind else { continue };
            let field = field.as_str();
            match object.fields.as_ref().map(|fields| fields.get(field)) {
                None => {}
                Some(None) => self.report(key.id, format!("undefined field '{field}'")),
                Some(Some(wanted)) if self.unifier.fits(&ty, wanted) => {}
                Some(Some(wanted)) => {
                    let ty = self.unifier.resolve(&ty);
                    let message = format!("expected type of field '{field}' is '{wanted}' but provided type is '{ty}'");
                    self.report(key.id, message);
                }
            }
        }
        Type::Object(object)
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        let range = self.check(&mut fold.range);
        let init = self.check(&mut fold.init);
        let range = self.unifier.resolve(&range);
        let (first, second) = match &range {
            Type::List(element) if fold.second.is_some() => (Type::Int, Type::clone(element)),
            Type::List(element) => (Type::clone(element), Type::Dyn),
            Type::Map(key, value) => (Type::clone(key), Type::clone(value)),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            Type::Parameter(_) => {
                self.unifier.fits(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(fold.range.id, message);
                (Type::Dyn, Type::Dyn)
            }
        };
        let outside = self.scopes.len();
        self.scopes.push((fold.accumulator.clone(), init.clone()));
        self.scopes.push((fold.variable.clone(), first));
        if let Some(name) = &fold.second {
            self.scopes.push((name.clone(), second));
        }
        let condition = self.check(&mut fold.condition);
        if !self.unifier.fits(&condition, &Type::Bool) {
            self.mismatch(fold.condition.id, &Type::Bool, &condition);
        }
        let step = self.check(&mut fold.step);
        if !self.unifier.fits(&step, &init) {
            self.mismatch(fold.step.id, &init, &step);
        }
        self.scopes.truncate(outside + 1);
        let result = self.check(&mut fold.result);
        self.scopes.truncate(outside);
        self.unifier.resolve(&result)
    }
}
