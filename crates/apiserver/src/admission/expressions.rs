//! What the expressions of match conditions see of a request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use auth::{Attributes, User};
use expressions::{Access, Authorize, Decision};
use serde_json::{Value, json};

use super::question::Question;
use crate::ApiServer;
use crate::served::Served;

/// The server's policy, asked about one user.
pub(crate) struct Authorizer {
    server: Arc<ApiServer>,
    user: User,
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Authorize for Authorizer {
    fn decide(&self, question: &expressions::Question) -> Decision {
        let account = question.service_account.as_ref();
        let account = account.map(|(namespace, name)| User::service_account_of(namespace, name, "", BTreeMap::new()));
        let resource = match question.subresource.as_str() {
            "" => question.resource.clone(),
            subresource => format!("{}/{subresource}", question.resource),
        };
        let (allowed, reason) = self.server.verdict_on(&Attributes {
            user: account.as_ref().unwrap_or(&self.user),
            verb: &question.verb,
            group: &question.group,
            resource: resource.into(),
            namespace: &question.namespace,
            name: &question.name,
            path: &question.path,
            fields: "",
        });
        Decision { allowed, reason: reason.to_string(), error: String::new() }
    }
}

/// The authoriser of a request, and the question to it about the resource of the request.
pub(crate) fn authorizer(server: &ApiServer, question: &Question<'_>) -> Option<(Access, Access)> {
    let user = question.cx.user.clone();
    let authorizer: Arc<dyn Authorize> = Arc::new(Authorizer { server: server.me.upgrade()?, user });
    let about = expressions::Question {
        group: question.served.group().to_owned(),
        resource: question.served.plural().to_owned(),
        subresource: question.subresource.to_owned(),
        namespace: question.namespace.to_owned(),
        name: question.name.clone(),
        ..expressions::Question::default()
    };
    Some((Access::new(authorizer.clone()), Access::of_resource(authorizer, about)))
}

/// Group, version and kind of what a request carries.
pub(crate) fn kind_of<'s>(served: &'s Served, subresource: &str) -> (&'s str, &'s str, &'s str) {
    match served.subresource(subresource) {
        Some(sub) => (&sub.group, &sub.version, &sub.kind),
        None => (served.group(), served.version(), served.kind()),
    }
}

/// The name of the type of what a subresource takes.
pub(crate) fn body_type(served: &Served, subresource: &str) -> String {
    let (group, version, kind) = kind_of(served, subresource);
    let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
    format!("{group}.{version}.{kind}")
}

/// A request as reviews and expressions show it: without its id and its objects, as if it were one for `shown`, which is
/// the same resource in another version.
pub(crate) fn request(question: &Question<'_>, shown: &Served) -> Value {
    let kind = |served: &Served| {
        let (group, version, kind) = kind_of(served, question.subresource);
        json!({"group": group, "version": version, "kind": kind})
    };
    let resource =
        |served: &Served| json!({"group": served.group(), "version": served.version(), "resource": served.plural()});
    let mut request = json!({
        "kind": kind(shown),
        "resource": resource(shown),
        "requestKind": kind(question.served),
        "requestResource": resource(question.served),
        "operation": question.operation.name(),
        "userInfo": question.cx.user.to_value(),
        "dryRun": question.dry_run,
        "options": question.options(),
    });
    for (field, text) in [
        ("subResource", question.subresource),
        ("requestSubResource", question.subresource),
        ("name", &question.name),
        ("namespace", question.namespace),
    ] {
        if !text.is_empty() {
            request[field] = text.into();
        }
    }
    request
}
