//! Questions to an authoriser: `authorizer.group('apps').resource('deployments').check('create').allowed()`.

use std::fmt;
use std::sync::Arc;

use super::{Function, Outcome, no_such_overload, text};
use crate::value::Value;

/// Says whether somebody may do something.
pub trait Authorize: fmt::Debug + Send + Sync {
    /// The verdict on a question.
    fn decide(&self, question: &Question) -> Decision;
}

/// What is asked of an authoriser. What has not been said is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of the service account that is meant instead of the user of the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource.
    pub path: String,
    /// API group.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name of one object.
    pub name: String,
    /// What the objects' fields must be like.
    pub field_selector: String,
    /// What the objects' labels must be like.
    pub label_selector: String,
    /// What is to be done.
    pub verb: String,
}

/// A verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong; empty if nothing.
    pub error: String,
}

/// An authoriser and what of a question has been said so far.
#[derive(Debug, Clone)]
pub struct Access {
    authorizer: Arc<dyn Authorize>,
    question: Arc<Question>,
    pub(crate) stage: Stage,
}

/// What has been said of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Nothing,
    Path,
    Group,
    Resource,
}

impl Access {
    /// Nothing has been asked yet.
    pub fn new(authorizer: Arc<dyn Authorize>) -> Self {
        Self { authorizer, question: Arc::default(), stage: Stage::Nothing }
    }

    /// A question about a resource of which everything but the verb has been said.
    pub fn of_resource(authorizer: Arc<dyn Authorize>, question: Question) -> Self {
        Self { authorizer, question: Arc::new(question), stage: Stage::Resource }
    }
}

/// A row for something that is said of a question: where, and what is next.
macro_rules! said {
    ($name:literal, $id:literal, $signature:literal, $from:ident, $to:ident, $field:ident) => {
        Function {
            name: $name,
            run: |args| say(args, Stage::$from, Stage::$to, |question, value| question.$field = value),
            overloads: &[($id, $signature)],
        }
    };
}

/// A row for something that a verdict tells.
macro_rules! told {
    ($name:literal, $id:literal, $signature:literal, $answer:expr) => {
        Function {
            name: $name,
            run: |args| match args {
                [Value::Decision(decision)] => Ok(Value::from($answer(decision))),
                _ => no_such_overload(),
            },
            overloads: &[($id, $signature)],
        }
    };
}

pub(crate) const FUNCTIONS: &[Function] = &[
    said!("path", "authorizer_path", "authorizer.(string) -> path_check", Nothing, Path, path),
    said!("group", "authorizer_group", "authorizer.(string) -> group_check", Nothing, Group, group),
    Function {
        name: "serviceAccount",
        run: service_account,
        overloads: &[("authorizer_serviceaccount", "authorizer.(string, string) -> authorizer")],
    },
    said!("resource", "groupcheck_resource", "group_check.(string) -> resource_check", Group, Resource, resource),
    said!(
        "subresource",
        "resourcecheck_subresource",
        "resource_check.(string) -> resource_check",
        Resource,
        Resource,
        subresource
    ),
    said!(
        "namespace",
        "resourcecheck_namespace",
        "resource_check.(string) -> resource_check",
        Resource,
        Resource,
        namespace
    ),
    said!("name", "resourcecheck_name", "resource_check.(string) -> resource_check", Resource, Resource, name),
    said!(
        "fieldSelector",
        "resourcecheck_fieldselector",
        "resource_check.(string) -> resource_check",
        Resource,
        Resource,
        field_selector
    ),
    said!(
        "labelSelector",
        "resourcecheck_labelselector",
        "resource_check.(string) -> resource_check",
        Resource,
        Resource,
        label_selector
    ),
    Function {
        name: "check",
        run: check,
        overloads: &[
            ("pathcheck_check", "path_check.(string) -> decision"),
            ("resourcecheck_check", "resource_check.(string) -> decision"),
        ],
    },
    told!("allowed", "decision_allowed", "decision.() -> bool", |decision: &Decision| decision.allowed),
    told!("reason", "decision_reason", "decision.() -> string", |decision: &Decision| decision.reason.clone()),
    told!("errored", "decision_errored", "decision.() -> bool", |decision: &Decision| !decision.error.is_empty()),
    told!("error", "decision_error", "decision.() -> string", |decision: &Decision| decision.error.clone()),
];

fn say<'a>(args: &[Value<'a>], from: Stage, to: Stage, set: fn(&mut Question, String)) -> Outcome<'a> {
    match args {
        [Value::Access(access), value] if access.stage == from => {
            let mut access = access.clone();
            set(Arc::make_mut(&mut access.question), text(value)?.to_owned());
            access.stage = to;
            Ok(Value::Access(access))
        }
        _ => no_such_overload(),
    }
}

fn service_account<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Access(access), namespace, name] if access.stage == Stage::Nothing => {
            let mut access = access.clone();
            let account = (text(namespace)?.to_owned(), text(name)?.to_owned());
            Arc::make_mut(&mut access.question).service_account = Some(account);
            Ok(Value::Access(access))
        }
        _ => no_such_overload(),
    }
}

fn check<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Access(access), verb] if matches!(access.stage, Stage::Path | Stage::Resource) => {
            let question = Question { verb: text(verb)?.to_owned(), ..Question::clone(&access.question) };
            Ok(Value::Decision(Arc::new(access.authorizer.decide(&question))))
        }
        _ => no_such_overload(),
    }
}
