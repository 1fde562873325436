//! Kinds of the group storage.k8s.io.

pub(crate) mod csi_driver;
pub(crate) mod csi_node;
pub(crate) mod csi_storage_capacity;
pub(crate) mod storage_class;
pub(crate) mod volume_attachment;
pub(crate) mod volume_attributes_class;

const GROUP: &str = "storage.k8s.io";

/// Bytes and entries that the parameters of a class may have.
const MAX_PARAMETER_BYTES: usize = 256 * 1024;
const MAX_PARAMETERS: usize = 512;

/// What is wrong with the parameters of a class.
fn parameters(errors: &mut Vec<object_model::FieldError>, object: &serde_json::Value, may_be_empty: bool) {
    use object_model::{FieldError, FieldPath};
    let path = FieldPath::new("parameters");
    let given = object_model::meta::strings(&object["parameters"]);
    if given.len() > MAX_PARAMETERS {
        errors.push(FieldError::too_long(&path, MAX_PARAMETERS));
        return;
    }
    if given.is_empty() && !may_be_empty {
        errors.push(FieldError::required(&path, "must contain at least one key/value pair"));
    }
    if given.contains_key("") {
        errors.push(FieldError::invalid(&path, "", "field can not be empty."));
    }
    if given.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_PARAMETER_BYTES {
        errors.push(FieldError::too_long(&path, MAX_PARAMETER_BYTES));
    }
}
