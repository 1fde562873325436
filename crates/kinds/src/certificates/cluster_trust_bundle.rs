//! ClusterTrustBundle: certificates of authorities that pods may trust.

use object_model::{FieldError, FieldPath, meta, names};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{GROUP, pem_blocks, signer_name};
use crate::{Column, Kind, Now, Resource, cells, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "ClusterTrustBundle",
    plural: "clustertrustbundles",
    singular: "clustertrustbundle",
    type_name: "certificates.v1.ClusterTrustBundle",
    storage: "clustertrustbundles",
    unconditional_update: false,
    selectable_fields: &["spec.signerName"],
    columns: &[Column::name(), Column::text("SignerName", "Whose certificates they check.")],
    example: EXAMPLE,
    hooks: &ClusterTrustBundle,
    ..crate::CLUSTER
};

/// With a certificate that has signed itself.
const EXAMPLE: &str = "apiVersion: certificates.k8s.io/v1\nkind: ClusterTrustBundle\nmetadata: {name: example}\n\
    spec:\n  trustBundle: |\n\
    \x20   -----BEGIN CERTIFICATE-----\n\
    \x20   MIIBcTCCARegAwIBAgIUEH3z4vb1MoYn0wW5Ozw2M6xN3k8wCgYIKoZIzj0EAwIw\n\
    \x20   DTELMAkGA1UEAwwCY2EwIBcNMjYxMTI2MjE0MDU1WhgPMjEyNjExMDIyMTQwNTVa\n\
    \x20   MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbqU/aElL\n\
    \x20   hvr+PQwKFeKlTpEo018rVSsuPx/E8WX8UN5grH2fEI5BfxUbi78UD76vlt7g2UWX\n\
    \x20   VUjVAQVx6+ostaNTMFEwHQYDVR0OBBYEFB+eo1HqXybyD54zuB6o/Z3my8R/MB8G\n\
    \x20   A1UdIwQYMBaAFB+eo1HqXybyD54zuB6o/Z3my8R/MA8GA1UdEwEB/wQFMAMBAf8w\n\
    \x20   CgYIKoZIzj0EAwIDSAAwRQIhAMF7OASm1tkEN/4hTJmHBylHhMGDcopyeEYi954N\n\
    \x20   wIFRAiBS21dlZt8dZNBLAg/Ku+QisjI1R3VcPvMwRrjS+OIuVQ==\n\
    \x20   -----END CERTIFICATE-----\n";

struct ClusterTrustBundle;

const MAX_BYTES: usize = 1024 * 1024;

impl Kind for ClusterTrustBundle {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let signer = walk::text(object, "spec.signerName");
        if let Some(signer) = signer {
            signer_name(&mut errors, signer, &path.child("signerName"));
        }
        let name = meta::name(object);
        let why = match signer.map(|signer| format!("{}:", signer.replace('/', ":"))) {
            None if name.contains(':') => {
                vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()]
            }
            None => names::dns_subdomain(name),
            Some(prefix) => match name.strip_prefix(&prefix) {
                Some(rest) => names::dns_subdomain(rest),
                None => vec![format!(
                    "ClusterTrustBundle for signerName {} must be named with prefix {prefix}",
                    signer.unwrap_or_default()
                )],
            },
        };
        let at = FieldPath::new("metadata").child("name");
        errors.extend(why.into_iter().map(|why| FieldError::invalid(&at, name, why)));
        bundle(&mut errors, object["spec"]["trustBundle"].as_str().unwrap_or_default(), &path.child("trustBundle"));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec.signerName");
        errors
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        vec![cells::name(object), walk::text(object, "spec.signerName").unwrap_or("<none>").into()]
    }
}

fn bundle(errors: &mut Vec<FieldError>, text: &str, path: &FieldPath) {
    if text.len() > MAX_BYTES {
        errors.push(FieldError::too_long(path, MAX_BYTES));
        return;
    }
    let blocks = pem_blocks(text.as_bytes());
    let mut refuse = |why: String| errors.push(FieldError::invalid(path, "<value omitted>", why));
    for (index, (label, headers, bytes)) in blocks.iter().enumerate() {
        if label != "CERTIFICATE" {
            refuse(format!("entry {index} has bad block type: {label}"));
            continue;
        }
        if *headers {
            refuse(format!("entry {index} has PEM block headers"));
        }
        if !X509Certificate::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
            refuse(format!("entry {index} does not parse as X.509"));
        }
        if let Some(first) = blocks[..index].iter().position(|(_, _, other)| other == bytes) {
            refuse(format!("duplicate trust anchor (indices [{first} {index}])"));
        }
    }
    if blocks.is_empty() {
        refuse("at least one trust anchor must be provided".to_owned());
    }
}
