//! Text or value to an object of a known type: unknown and duplicate fields are reported, scalars are checked.
use crate::Type;
use serde_json::Value;

/// A decoded object and what was questionable about its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object; unknown fields are gone.
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`: refused by strict validation, warned about otherwise.
    pub problems: Vec<String>,
}

/// Why a body could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON or YAML at all.
    Malformed(String),
    /// A value of the wrong type.
    Type {
        /// The whole sentence, `json: cannot unmarshal string into Go struct field …`.
        message: String,
        /// Where, such as `spec.replicas`.
        path: String,
    },
}

/// JSON text.
pub fn decode_json(ty: &'static Type, body: &[u8]) -> Result<Decoded, DecodeError> { let _ = (ty, body); todo!() }
/// YAML text.
pub fn decode_yaml(ty: &'static Type, body: &[u8]) -> Result<Decoded, DecodeError> { let _ = (ty, body); todo!() }
/// Value.
pub fn conform(ty: &'static Type, value: Value) -> Result<Decoded, DecodeError> { let _ = (ty, value); todo!() }
