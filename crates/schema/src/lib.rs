//! One schema engine for built-in kinds and custom resources: decoding, defaulting, protobuf, patches, OpenAPI.
//!
//! Everything here works on [`serde_json::Value`] and is driven by a [`Type`]: the description of one API type, taken
//! from the table in `types.txt` (its layout is described in [`table`]). Nothing in this crate names a kind.
//!
//! ```text
//! bytes ── decode_json / decode_yaml / protobuf::decode ──▶ Value ── apply_defaults, normalise ──▶ Value
//! Value × patch ── strategic_merge / merge_patch / json_patch ──▶ Value ── conform ──▶ Value
//! Value ── protobuf::encode ──▶ bytes          [types] ── openapi::v2 / v3 ──▶ documents
//! ```

mod decode;
mod defaults;
mod descriptions;
pub mod fields;
mod json_patch;
pub mod messages;
pub mod openapi;
pub mod protobuf;
mod scalar;
mod strategic;
pub mod structural;
pub mod table;
pub mod yaml;

pub use decode::{DecodeError, Decoded, conform, decode_json, decode_yaml, key_given_twice};
pub use defaults::{apply_defaults, normalise};
pub use json_patch::{json_patch, merge_patch};
pub use strategic::strategic_merge;
pub use structural::Structural;
pub use table::{Field, Shape, Type, custom_object, type_for, type_named, type_names};

/// Why a patch was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchError {
    /// The patch itself is not well formed (400 Bad Request).
    Malformed(String),
    /// The patch is well formed, but cannot be applied to this object (422 Unprocessable Entity).
    DoesNotApply(String),
    /// What the patch tests for is not so. For a client this is the same as [`Self::DoesNotApply`].
    TestFailed(String),
    /// There is more of it than is allowed (413 Request Entity Too Large).
    TooLarge(String),
}

impl std::fmt::Display for PatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PatchError::Malformed(text)
            | PatchError::DoesNotApply(text)
            | PatchError::TestFailed(text)
            | PatchError::TooLarge(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for PatchError {}
