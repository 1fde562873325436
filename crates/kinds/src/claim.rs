//! What objects take from the pools of the cluster: values of which each is held by one object only.

use object_model::FieldPath;

/// A pool of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pool {
    /// Virtual addresses, out of the cluster's service range.
    Address,
    /// Ports at the addresses of all nodes, 30000 to 32767.
    NodePort,
}

/// One value that an object wants of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The pool.
    pub pool: Pool,
    /// The value; any that is free where it is not given.
    pub value: Option<String>,
    /// JSON pointers of the fields that hold the value.
    pub fields: Vec<String>,
    /// The field that an error names.
    pub path: FieldPath,
}
