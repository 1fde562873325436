//! Kinds of the group flowcontrol.apiserver.k8s.io: who waits while the server is busy.

pub(crate) mod flow_schema;
pub(crate) mod priority_level;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// What is wrong with the conditions of either kind.
fn conditions(status: &serde_json::Value) -> Vec<object_model::FieldError> {
    use crate::{rules, walk};
    let mut errors = Vec::new();
    let path = object_model::FieldPath::new("status").child("conditions");
    let list = walk::list(status, "conditions");
    let at = |index: usize| path.index(index).child("type");
    rules::unique(&mut errors, list.iter().map(|condition| walk::text(condition, "type")), at);
    for (index, condition) in list.iter().enumerate() {
        if walk::text(condition, "type").is_none() {
            errors.push(object_model::FieldError::required(&at(index), "must not be empty"));
        }
    }
    errors
}
