//! `apiextensions.k8s.io`: kinds that users define.

pub mod custom_resource_definition;
mod validation;
