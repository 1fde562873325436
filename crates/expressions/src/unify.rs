//! Which types fit which, and what the parameters of signatures stand for.

use crate::functions::Overload;
use crate::types::Type;

/// What is known of the parameters so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unifier {
    known: Vec<Option<Type>>,
}

impl Unifier {
    /// A type about which nothing is known yet.
    pub fn fresh(&mut self) -> Type {
        self.known.push(None);
        Type::Parameter(self.known.len() - 1)
    }

    /// The arguments and the result of a signature, with parameters of its own.
    pub fn instance(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        let own = [self.fresh(), self.fresh()];
        let mut with = |n: usize| own.get(n).cloned().unwrap_or(Type::Dyn);
        let arguments = overload.arguments.iter().map(|argument| argument.replace(&mut with)).collect();
        (arguments, overload.result.replace(&mut with))
    }

    fn find(&self, parameter: usize) -> Option<&Type> {
        self.known.get(parameter).and_then(Option::as_ref)
    }

    /// The type with everything filled in that is known.
    pub fn resolve(&self, ty: &Type) -> Type {
        ty.replace(&mut |n| match self.find(n) {
            Some(known) => self.resolve(known),
            None => Type::Parameter(n),
        })
    }

    /// The type with what is not known being dynamic.
    pub fn finish(&self, ty: &Type) -> Type {
        self.resolve(ty).replace(&mut |_| Type::Dyn)
    }

    /// Whether a value of one type may be used as another. What is learnt is kept if so.
    pub fn fits(&mut self, from: &Type, to: &Type) -> bool {
        self.all_fit(std::slice::from_ref(from), std::slice::from_ref(to))
    }

    /// The same for a list of arguments.
    pub fn all_fit(&mut self, from: &[Type], to: &[Type]) -> bool {
        let before = self.known.clone();
        let fit = from.len() == to.len() && from.iter().zip(to).all(|(from, to)| self.unify(from, to));
        if !fit {
            self.known = before;
        }
        fit
    }

    fn unify(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Parameter(parameter) = b {
            let (valid, known) = self.substitute(a, *parameter);
            if valid || known {
                return valid;
            }
        }
        if let Type::Parameter(parameter) = a {
            return self.substitute(b, *parameter).0;
        }
        match (a, b) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Object(_) | Type::Optional(_) | Type::Opaque(_) | Type::Duration | Type::Timestamp
            ),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Map(a, c), Type::Map(b, d)) => self.unify(a, b) && self.unify(c, d),
            (Type::TypeType(_), Type::TypeType(_)) => true,
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (a, b) => a == b,
        }
    }

    /// Whether a type may stand for a parameter, and whether something did already.
    fn substitute(&mut self, ty: &Type, parameter: usize) -> (bool, bool) {
        if *ty == Type::Parameter(parameter) {
            return (true, true);
        }
        if let Some(known) = self.find(parameter).cloned() {
            if *ty == known {
                return (true, true);
            }
            if !self.unify(ty, &known) {
                return (false, true);
            }
            let general = most_general(ty, &known).clone();
            if !self.mentions(&general, parameter) {
                self.known[parameter] = Some(general);
            }
            return (true, true);
        }
        if self.mentions(ty, parameter) {
            return (false, false);
        }
        self.known[parameter] = Some(ty.clone());
        (true, false)
    }

    fn mentions(&self, ty: &Type, parameter: usize) -> bool {
        match ty {
            Type::Parameter(other) => {
                *other == parameter || self.find(*other).is_some_and(|known| self.mentions(known, parameter))
            }
            other => other.parameters().into_iter().any(|part| self.mentions(part, parameter)),
        }
    }
}

/// The one of two types that fit which says less.
pub(crate) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if is_less_specific(a, b) { a } else { b }
}

fn is_less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Parameter(_), _) => true,
        (_, Type::Dyn | Type::Parameter(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => is_less_specific(a, b),
        (Type::Map(a, c), Type::Map(b, d)) => is_less_specific(a, b) && is_less_specific(c, d),
        (Type::TypeType(_), Type::TypeType(_)) => true,
        (a, Type::Null) => *a != Type::Null,
        (a, b) => a == b,
    }
}
