//! Nobody gives away more than they have: a role may only hold what its maker holds, and a binding only give a role that
//! its maker has or may bind (upstream: RBAC privilege escalation prevention).

use auth::{Rule, User};
use object_model::ApiError;
use serde_json::Value;

use crate::ApiServer;
use crate::served::Served;

/// Judges a role or binding that is about to be written; `old` is what it replaces.
///
/// # Errors
/// 403, with the rules its maker lacks.
pub fn judge(
    server: &ApiServer,
    user: &User,
    served: &Served,
    namespace: &str,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let name = object_model::meta::name(new);
    let role_resource = |kind: &Value| if kind == "ClusterRole" { "clusterroles" } else { "roles" };
    let group = served.group();
    let wanted = if new["roleRef"].is_object() {
        if old.is_some_and(|old| old["subjects"] == new["subjects"]) {
            return Ok(());
        }
        let reference = &new["roleRef"];
        let role = reference["name"].as_str().unwrap_or_default();
        if server.may(user, "bind", (group, role_resource(&reference["kind"])), (namespace, role)) {
            return Ok(());
        }
        server
            .with_policy(|policy| policy.rules_of_role(reference, namespace))
            .ok_or_else(|| ApiError::not_found(group, role_resource(&reference["kind"]), role))?
    } else {
        if old.is_some_and(|old| old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]) {
            return Ok(());
        }
        if server.may(user, "escalate", (group, served.plural()), (namespace, name)) {
            return Ok(());
        }
        if new["aggregationRule"].is_object() {
            // Who gathers the rules of others may come to hold any rule at all.
            let everything = Rule {
                verbs: vec!["*".to_owned()],
                groups: vec!["*".to_owned()],
                resources: vec!["*".to_owned()],
                ..Rule::default()
            };
            vec![everything]
        } else {
            Rule::all_of(new)
        }
    };
    let lacking = server.with_policy(|policy| policy.lacking(user, namespace, &wanted));
    if lacking.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = user.groups.iter().map(|g| format!("{g:?}")).collect();
    let rules: Vec<String> = lacking.iter().map(ToString::to_string).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        rules.join("\n")
    );
    Err(ApiError::forbidden(group, served.plural(), name, why))
}
