//! Protobuf as Kubernetes writes it.
use crate::Type;
use serde_json::Value;
/// First bytes of an enveloped message.
pub const MAGIC: [u8; 4] = *b"k8s\0";
/// Malformed protobuf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);
/// What an envelope says and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// The message.
    pub raw: &'a [u8],
}
/// Message to object; kind and apiVersion are not part of it.
pub fn decode(ty: &'static Type, raw: &[u8]) -> Result<Value, Error> { let _ = (ty, raw); todo!() }
/// Object to message.
pub fn encode(ty: &'static Type, value: &Value) -> Result<Vec<u8>, Error> { let _ = (ty, value); todo!() }
/// Envelope.
pub fn unwrap_envelope(body: &[u8]) -> Result<Envelope<'_>, Error> { let _ = body; todo!() }
/// Envelope.
pub fn wrap_envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> { let _ = (api_version, kind, raw); todo!() }
