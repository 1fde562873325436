//! Estimates what an expression may cost, from the declared sizes of what it looks at.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Call, Expr, Fold, Kind};
use crate::checker::Checked;
use crate::cost::{self, CostEstimate, PATTERN, TEXT};
use crate::declaration::Declaration;
use crate::environment::Environment;
use crate::types::Type;
use crate::value::Value;

/// How long the pattern of a named format is at most.
const LONGEST_FORMAT_PATTERN: f64 = 128.0;
/// How large a named format is at most.
const LARGEST_FORMAT: u64 = 64;

/// The estimate for a checked tree.
pub(crate) fn estimate(expr: &Expr, checked: &Checked, environment: &Environment) -> CostEstimate {
    let mut estimator = Estimator {
        checked,
        environment,
        places: BTreeMap::new(),
        sizes: BTreeMap::new(),
        entries: BTreeMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(expr)
}

/// The sizes of the keys and values inside a list or map.
#[derive(Debug, Clone, Copy)]
struct Entries {
    list: bool,
    key: CostEstimate,
    value: CostEstimate,
}

#[derive(Debug)]
struct Local<'e> {
    name: Arc<str>,
    place: Option<&'e Declaration>,
    size: Option<CostEstimate>,
    entries: Option<Entries>,
}

struct Estimator<'e> {
    checked: &'e Checked,
    environment: &'e Environment,
    /// What parts refer to among the declared data.
    places: BTreeMap<usize, &'e Declaration>,
    sizes: BTreeMap<usize, CostEstimate>,
    entries: BTreeMap<usize, Entries>,
    locals: Vec<Local<'e>>,
}

/// An argument of a call.
struct Node<'e> {
    ty: &'e Type,
    place: Option<&'e Declaration>,
    size: Option<CostEstimate>,
    whole: Option<i64>,
}

impl Node<'_> {
    fn size(&self) -> CostEstimate {
        self.size.or_else(|| declared_size(self.place)).unwrap_or(CostEstimate::UNKNOWN)
    }

    /// The type and size of the elements, if it has any.
    fn element(&self) -> Option<(&Type, CostEstimate)> {
        let ty = self.ty.parameters().into_iter().next()?;
        let size = declared_size(self.place.and_then(Declaration::element));
        Some((ty, size.unwrap_or(CostEstimate::UNKNOWN)))
    }
}

fn declared_size(place: Option<&Declaration>) -> Option<CostEstimate> {
    place.and_then(|place| place.max_size).map(|max| CostEstimate { min: 0, max })
}

/// What a call costs, and how large its answer is.
type Estimate = (CostEstimate, Option<CostEstimate>);

const ONE: CostEstimate = CostEstimate::fixed(1);

impl<'e> Estimator<'e> {
    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            Kind::Literal(_) => CostEstimate::default(),
            Kind::Ident(name) => {
                let place = match self.local(name) {
                    Some(local) => local.place,
                    None => self.environment.variable(name),
                };
                self.set_place(expr, place);
                ONE
            }
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, test: false } => {
                let below = self.cost(operand);
                let place = self.place(operand).and_then(|place| place.field(field));
                self.set_place(expr, place);
                match &self.checked.types[operand.id] {
                    Type::Map(..) | Type::Object(_) | Type::Parameter(_) => below.plus(ONE),
                    _ => below,
                }
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::List { elements, .. } => {
                let mut sum = CostEstimate::fixed(cost::LIST);
                let mut size = if elements.is_empty() { CostEstimate::default() } else { nothing() };
                for element in elements {
                    sum = sum.plus(self.cost(element));
                    size = size.union(self.size_or_unknown(element));
                }
                self.entries.insert(expr.id, Entries { list: true, key: ONE, value: size });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = CostEstimate::fixed(cost::MAP);
                let empty = if entries.is_empty() { CostEstimate::default() } else { nothing() };
                let (mut keys, mut values) = (empty, empty);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    keys = keys.union(self.size_or_unknown(&entry.key));
                    values = values.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entries { list: false, key: keys, value: values });
                sum
            }
            Kind::Message { entries, .. } => {
                let fields = entries.iter().map(|entry| self.cost(&entry.value));
                fields.fold(CostEstimate::fixed(cost::MESSAGE), CostEstimate::plus)
            }
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn local(&self, name: &str) -> Option<&Local<'e>> {
        self.locals.iter().rev().find(|local| &*local.name == name)
    }

    fn local_of(&self, expr: &Expr) -> Option<&Local<'e>> {
        match &expr.kind {
            Kind::Ident(name) => self.local(name),
            _ => None,
        }
    }

    fn place(&self, expr: &Expr) -> Option<&'e Declaration> {
        match self.local_of(expr) {
            Some(local) => local.place,
            None => self.places.get(&expr.id).copied(),
        }
    }

    fn set_place(&mut self, expr: &Expr, place: Option<&'e Declaration>) {
        match place {
            Some(place) => self.places.insert(expr.id, place),
            None => self.places.remove(&expr.id),
        };
    }

    fn size(&self, expr: &Expr) -> Option<CostEstimate> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        match &expr.kind {
            Kind::Literal(Value::String(_) | Value::Bytes(_)) | Kind::List { .. } | Kind::Map(_) => {}
            Kind::Literal(_) => return Some(ONE),
            _ => {
                let ty = &self.checked.types[expr.id];
                return declared_size(self.place(expr))
                    .or_else(|| is_scalar(ty).then_some(ONE))
                    // Types are compared by their names, which upstream takes for nothing.
                    .or_else(|| matches!(ty, Type::TypeType(_)).then(CostEstimate::default))
                    .or_else(|| self.local_of(expr).and_then(|local| local.size));
            }
        }
        let size = match &expr.kind {
            Kind::Literal(value) => value.size(),
            Kind::List { elements, .. } => elements.len() as u64,
            Kind::Map(entries) => entries.len() as u64,
            _ => 1,
        };
        Some(CostEstimate::fixed(size))
    }

    fn size_or_unknown(&self, expr: &Expr) -> CostEstimate {
        self.size(expr).unwrap_or(CostEstimate::UNKNOWN)
    }

    fn entries(&self, expr: &Expr) -> Option<Entries> {
        let known = self.entries.get(&expr.id).copied();
        known.or_else(|| self.local_of(expr).and_then(|local| local.entries))
    }

    fn node(&self, expr: &Expr) -> Node<'e> {
        let whole = match &expr.kind {
            Kind::Literal(Value::Int(n)) => Some(*n),
            _ => None,
        };
        Node { ty: &self.checked.types[expr.id], place: self.place(expr), size: self.size(expr), whole }
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> CostEstimate {
        if &*call.function == "dyn"
            && let [argument] = &call.args[..]
        {
            let below = self.cost(argument);
            self.copy_sizes(expr, argument);
            return below.plus(ONE);
        }
        let costs: Vec<CostEstimate> = call.args.iter().map(|argument| self.cost(argument)).collect();
        let target_cost = call.target.as_ref().map_or(CostEstimate::default(), |target| self.cost(target));
        let nodes: Vec<Node<'e>> = call.args.iter().map(|argument| self.node(argument)).collect();
        let target = call.target.as_ref().map(|target| self.node(target));
        let overloads = self.checked.overloads.get(&expr.id).cloned().unwrap_or_default();
        if overloads.is_empty() {
            return CostEstimate::default();
        }
        let (mut total, mut size) = (nothing(), None);
        for overload in overloads {
            let (cost, answer) = match library(&call.function, overload, target.as_ref(), &nodes) {
                Some((cost, answer)) => (cost.plus(sum(&costs)), answer),
                None => self.standard(expr, call, overload, target.as_ref(), &costs),
            };
            total = total.union(cost);
            size = match (size, answer) {
                (Some(a), Some(b)) => Some(CostEstimate::union(a, b)),
                (a, b) => a.or(b),
            };
            if matches!(overload, "index_list" | "index_map")
                && let Some(container) = call.args.first()
            {
                size = self.entries(container).map(|entries| entries.value);
                let place = self.place(container).and_then(Declaration::element);
                self.set_place(expr, place);
            }
            size = size.or_else(|| self.size(expr));
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        target_cost.plus(total)
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entries(from) {
            self.entries.insert(to.id, entries);
        }
    }

    /// The functions of the standard.
    fn standard(
        &mut self,
        expr: &Expr,
        call: &Call,
        overload: &str,
        target: Option<&Node<'_>>,
        costs: &[CostEstimate],
    ) -> Estimate {
        let all = sum(costs);
        let sizes: Vec<CostEstimate> = call.args.iter().map(|argument| self.size_or_unknown(argument)).collect();
        let target_size = target.map(|target| target.size.unwrap_or(CostEstimate::UNKNOWN));
        match (overload, &sizes[..], target_size) {
            ("string_to_bytes", [size], _) => {
                let answer = CostEstimate { min: size.min, max: size.max.saturating_mul(4) };
                (size.scaled(TEXT).plus(all), Some(answer))
            }
            ("bytes_to_string", [size], _) => {
                (size.scaled(TEXT).plus(all), Some(CostEstimate { min: size.min / 4, max: size.max }))
            }
            ("strings_quote", [size], _) => {
                let answer = size.times(CostEstimate { min: 1, max: 2 }).plus(CostEstimate::fixed(2));
                (size.scaled(TEXT).plus(all), Some(answer))
            }
            ("string_format", [_], Some(size)) => (size.scaled(TEXT).plus(all), None),
            ("starts_with_string" | "ends_with_string", [size], _) => (size.scaled(TEXT).plus(all), None),
            ("in_list", [_, size], _) => (size.plus(all), None),
            ("matches_string", [pattern], Some(size)) => {
                let text = CostEstimate::plus(size, ONE).scaled(TEXT);
                (text.times(pattern.scaled(PATTERN)).plus(all), None)
            }
            ("contains_string", [part], Some(size)) => (size.scaled(TEXT).times(part.scaled(TEXT)).plus(all), None),
            ("logical_or" | "logical_and", ..) => {
                let first = costs.first().copied().unwrap_or_default();
                (CostEstimate { min: first.min, max: all.max }, None)
            }
            ("conditional", [_, truthy, falsy], _) => {
                let branches = self.entries(&call.args[1]).zip(self.entries(&call.args[2]));
                self.join_entries(expr, branches);
                (costs[0].plus(costs[1].union(costs[2])), Some(truthy.union(*falsy)))
            }
            ("add_string" | "add_bytes" | "add_list", [left, right], _) => {
                let both = self.entries(&call.args[0]).zip(self.entries(&call.args[1]));
                self.join_entries(expr, both);
                let answer = left.plus(*right);
                let cost = if overload == "add_list" { ONE } else { answer.scaled(TEXT) };
                (cost.plus(all), Some(answer))
            }
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                [left, right],
                _,
            ) => {
                let max = left.max.min(right.max);
                (CostEstimate { min: max.min(1), max }.scaled(TEXT).plus(all), None)
            }
            _ => (ONE.plus(all), None),
        }
    }

    fn join_entries(&mut self, expr: &Expr, both: Option<(Entries, Entries)>) {
        if let Some((a, b)) = both {
            let joined = Entries { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) };
            self.entries.insert(expr.id, joined);
        }
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> CostEstimate {
        let mut total = self.cost(&fold.range).plus(self.cost(&fold.init));
        let outside = self.locals.len();
        self.locals.push(Local {
            name: fold.accumulator.clone(),
            place: self.place(&fold.init),
            size: self.size(&fold.init),
            entries: self.entries(&fold.init),
        });
        if fold.is_binding() {
            total = total.plus(self.cost(&fold.result));
            self.copy_sizes(expr, &fold.result);
            self.locals.truncate(outside);
            return total;
        }
        let entries = self.entries(&fold.range);
        let list =
            entries.map_or_else(|| matches!(self.checked.types[fold.range.id], Type::List(_)), |entries| entries.list);
        let element = self.place(&fold.range).and_then(Declaration::element);
        let value = entries.map(|entries| entries.value);
        let key = entries.map(|entries| entries.key);
        let local = |name: &Arc<str>, place, size| Local { name: name.clone(), place, size, entries: None };
        match &fold.second {
            Some(second) => {
                self.locals.push(local(&fold.variable, None, key));
                self.locals.push(local(second, element, value));
            }
            None if list => self.locals.push(local(&fold.variable, element, value)),
            // The keys of declared maps have no bound of their own, and count as nothing.
            None => {
                let size = key.or_else(|| self.place(&fold.range).map(|_| CostEstimate::default()));
                self.locals.push(local(&fold.variable, None, size));
            }
        }
        let each = self.cost(&fold.condition).plus(self.cost(&fold.step));
        let step_entries = self.entries(&fold.step);
        self.locals.truncate(outside + 1);
        total = total.plus(self.cost(&fold.result));
        self.locals.truncate(outside);
        let count = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List { .. } | Kind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = step_entries {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        total.plus(count.times(each))
    }
}

/// The range that every other one widens.
fn nothing() -> CostEstimate {
    CostEstimate { min: u64::MAX, max: 0 }
}

fn sum(costs: &[CostEstimate]) -> CostEstimate {
    costs.iter().copied().fold(CostEstimate::default(), CostEstimate::plus)
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}

/// The functions that Kubernetes adds, without the cost of their arguments.
fn library(function: &str, overload: &str, target: Option<&Node<'_>>, args: &[Node<'_>]) -> Option<Estimate> {
    let unsized_ = |cost: CostEstimate| Some((cost, None));
    let first = args.first();
    match function {
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            let target = target?;
            let Some((ty, size)) = target.element() else { return unsized_(target.size().scaled(TEXT)) };
            let each = match ty {
                Type::String | Type::Bytes => ONE.plus(size.scaled(TEXT)),
                _ => ONE,
            };
            unsized_(target.size().times(each))
        }
        "url" | "jsonpatch.escapeKey" => {
            let size = first?.size();
            Some((size.scaled(TEXT), Some(size)))
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" => {
            let size = target?.size();
            Some((size.scaled(TEXT), Some(size)))
        }
        "replace" => {
            let (size, [from, to, ..]) = (target?.size(), args) else { return None };
            Some((size.scaled(2.0 * TEXT), Some(replaced(size, from.size(), to.size()))))
        }
        "split" => {
            let size = target?.size();
            let most = args.get(1).and_then(|limit| limit.whole).map_or(size.max, |limit| limit as u64);
            Some((size.scaled(2.0 * TEXT), Some(CostEstimate { min: 0, max: most })))
        }
        "join" => {
            let target = target?;
            let list = target.size();
            let mut size = target.element().map_or(CostEstimate::default(), |(_, element)| list.times(element));
            if let Some(separator) = first {
                let between = CostEstimate { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                size = size.plus(separator.size().times(between));
            }
            Some((size.scaled(TEXT), Some(size)))
        }
        "find" | "findAll" => {
            let size = target?.size();
            let pattern = first?.size().scaled(PATTERN);
            let cost = size.plus(ONE).scaled(TEXT).times(pattern);
            Some((cost, Some(CostEstimate { min: 0, max: size.max })))
        }
        // Upstream looks for a receiver here, which these do not have: they cost what any function costs.
        "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" | "ip.isCanonical" => None,
        "ip" => target.and_then(|_| unsized_(ONE)),
        "masked"
        | "prefixLength"
        | "family"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast" => unsized_(ONE),
        "containsIP" | "containsCIDR" => {
            let address = CostEstimate { min: 4, max: 16 };
            let mut cost = address.plus(address).scaled(TEXT);
            if function == "containsCIDR" {
                cost = cost.plus(address.scaled(TEXT)).plus(ONE);
            }
            if overload.ends_with("_string") {
                cost = cost.plus(first?.size().scaled(TEXT));
            }
            unsized_(cost)
        }
        "validate" => unsized_(first?.size().scaled(TEXT).scaled(LONGEST_FORMAT_PATTERN * PATTERN)),
        "format.named" | "sign" | "asInteger" | "isInteger" | "asApproximateFloat" | "isGreaterThan" | "isLessThan"
        | "compareTo" | "add" | "sub" | "major" | "minor" | "patch" | "getScheme" | "getHostname" | "getHost"
        | "getPort" | "getEscapedPath" | "getQuery" => unsized_(ONE),
        "_==_" => {
            let [left, right] = args else { return None };
            match left.ty {
                ty if ty != right.ty => None,
                Type::Opaque(_) if *left.ty == Type::FORMAT => {
                    unsized_(CostEstimate { min: 1, max: LARGEST_FORMAT }.scaled(TEXT))
                }
                Type::Opaque(_) if *left.ty == Type::URL => {
                    let most = right.size.map_or(1, |size| size.max);
                    unsized_(CostEstimate { min: 1, max: most }.scaled(TEXT))
                }
                Type::Opaque(_) => unsized_(ONE),
                _ => None,
            }
        }
        "check" => unsized_(CostEstimate::fixed(cost::AUTHORIZATION)),
        "fieldSelector" | "labelSelector" => unsized_(cost::of_selector(first?.size())),
        "sets.contains" | "sets.equivalent" | "sets.intersects" => {
            let [left, right] = args else { return None };
            let both = left.size().times(right.size());
            let walks = if function == "sets.equivalent" { 2 } else { 1 };
            unsized_(both.times(CostEstimate::fixed(walks)).plus(ONE))
        }
        "distinct" => {
            let size = target?.size();
            Some((size.times(size).plus(ONE), Some(size)))
        }
        "sort" | "slice" | "reverse" => {
            let size = target?.size();
            Some((size.plus(ONE), Some(size)))
        }
        "flatten" => unsized_(target?.size().plus(ONE)),
        _ => None,
    }
}

/// How long a text is after replacements.
fn replaced(size: CostEstimate, from: CostEstimate, to: CostEstimate) -> CostEstimate {
    let (mut count, mut kept) = (CostEstimate::default(), CostEstimate::default());
    if from.min == 0 {
        // Nothing is replaced around every character.
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = size.max.div_ceil(from.min);
    }
    if from.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if from.max <= to.min {
        kept.min = size.min;
    } else {
        count.min = size.min.div_ceil(from.max);
    }
    count.times(to).plus(kept)
}
