//! PodCertificateRequest: a pod's wish for a certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_model::{FieldError, FieldPath, meta, names};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{GROUP, pem_blocks, signer_name};
use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "PodCertificateRequest",
    plural: "podcertificaterequests",
    singular: "podcertificaterequest",
    subresources: &[Subresource::status(GROUP, "PodCertificateRequest")],
    type_name: "certificates.v1.PodCertificateRequest",
    storage: "podcertificaterequests",
    has_status: true,
    unconditional_update: false,
    selectable_fields: &["spec.nodeName", "spec.signerName"],
    columns: &[
        Column::name(),
        Column::text("PodName", "The pod."),
        Column::text("ServiceAccountName", "The account the pod acts as."),
        Column::text("NodeName", "The node of the pod."),
        Column::text("SignerName", "Who is asked."),
        Column::text("State", "What became of the request."),
    ],
    example: "apiVersion: certificates.k8s.io/v1\nkind: PodCertificateRequest\nmetadata: {name: example, namespace: default}\n\
              spec:\n  signerName: example.com/pods\n  podName: web\n  podUID: a\n  serviceAccountName: default\n\
              \x20 serviceAccountUID: b\n  nodeName: node-1\n  nodeUID: c\n\
              \x20 stubPKCS10Request: MIGLMD8CAQAwDDEKMAgGA1UEAwwBYTAqMAUGAytlcAMhAFepQnx94ClNxWMo10V8sFowvxAdS4qU2A4Z9n/983VQoA\
              AwBQYDK2VwA0EAEN2WT7567WlDouxTHRFcSRwTnlufRLOyTXBJqSSX/gBbEjMuFSi6hwb3ztEL9Uu7DWSkRiu8epyv\
              bxZVRevKAg==\n",
    hooks: &Request,
    ..crate::NAMESPACED
};

struct Request;

/// Bytes that keys, uids and chains may have.
const MAX_STUB: usize = 10 * 1024;
const MAX_UID: usize = 128;
const MAX_CHAIN: usize = 100 * 1024;
/// Seconds that a certificate may be asked for: an hour to 91 days, and a day of Kubernetes' own signers.
pub(crate) const MIN_SECONDS: i64 = 3600;
pub(crate) const MAX_SECONDS: i64 = 91 * 24 * 3600;
const MAX_OWN_SECONDS: i64 = 24 * 3600;
/// What a request ends in.
const ENDS: [&str; 3] = ["Denied", "Failed", "Issued"];

impl Kind for Request {
    fn ties_to_nodes(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        let signer = spec["signerName"].as_str().unwrap_or_default();
        signer_name(&mut errors, signer, &path.child("signerName"));
        for field in ["podName", "serviceAccountName", "nodeName"] {
            let name = spec[field].as_str().unwrap_or_default();
            rules::named(&mut errors, name, &path.child(field), names::dns_subdomain);
        }
        for field in ["podUID", "serviceAccountUID", "nodeUID"] {
            match spec[field].as_str().unwrap_or_default() {
                "" => errors.push(FieldError::required(&path.child(field), "must not be empty")),
                uid if uid.len() > MAX_UID => errors.push(FieldError::too_long(&path.child(field), MAX_UID)),
                _ => {}
            }
        }
        let most = if signer.starts_with("kubernetes.io/") { MAX_OWN_SECONDS } else { MAX_SECONDS };
        let at = path.child("maxExpirationSeconds");
        match walk::at(spec, "maxExpirationSeconds") {
            None => errors.push(FieldError::required(&at, "must be set")),
            Some(seconds) if !seconds.as_i64().is_some_and(|seconds| (MIN_SECONDS..=most).contains(&seconds)) => {
                let why = format!("must be in the range [{MIN_SECONDS}, {most}]");
                errors.push(FieldError::invalid(&at, seconds.clone(), why));
            }
            Some(_) => {}
        }
        stub(&mut errors, spec, &path.child("stubPKCS10Request"));
        let annotations = path.child("unverifiedUserAnnotations");
        for key in meta::strings(&spec["unverifiedUserAnnotations"]).into_keys() {
            if !key.contains('/') {
                let why = "must be a domain-prefixed key (such as \"acme.io/foo\")";
                errors.push(FieldError::invalid(&annotations, key, why));
            }
            rules::named(&mut errors, &key.to_lowercase(), &annotations, names::qualified_name);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec");
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("status");
        let (status, before) = (&new["status"], &old["status"]);
        if ENDS.iter().any(|end| rules::holds(old, end)) && status != before {
            let why = "immutable after PodCertificateRequest is issued, denied, or failed";
            errors.push(FieldError::invalid(&path, status.clone(), why));
            return errors;
        }
        rules::conditions(&mut errors, status, &path);
        let at = path.child("conditions");
        let conditions = walk::list(status, "conditions");
        for (index, condition) in conditions.iter().enumerate() {
            walk::one_of(&mut errors, condition, "type", &at.index(index), &ENDS);
            walk::one_of(&mut errors, condition, "status", &at.index(index), &["True"]);
        }
        let ended = ENDS.iter().filter(|end| rules::holds(new, end)).count();
        if ended > 1 {
            let why = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(FieldError::invalid(&at, status["conditions"].clone(), why));
        }
        let issued = rules::holds(new, "Issued");
        let chain = walk::text(status, "certificateChain");
        for field in ["certificateChain", "notBefore", "beginRefreshAt", "notAfter"] {
            let (at, given) = (path.child(field), walk::at(status, field));
            match (issued, given) {
                (true, None) => errors.push(FieldError::required(&at, "must be set and valid")),
                (false, Some(given)) if *given != "" => {
                    let why = "must be unset if the request is not issued";
                    errors.push(FieldError::invalid(&at, given.clone(), why));
                }
                _ => {}
            }
        }
        if let Some(chain) = chain.filter(|_| issued) {
            let blocks = pem_blocks(chain.as_bytes());
            if chain.len() > MAX_CHAIN {
                errors.push(FieldError::too_long(&path.child("certificateChain"), MAX_CHAIN));
            } else if blocks.is_empty() || blocks.iter().any(|(label, ..)| label != "CERTIFICATE") {
                let why = "must be a chain of PEM-encoded certificates";
                errors.push(FieldError::invalid(&path.child("certificateChain"), chain, why));
            }
        }
        errors
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        let state = ENDS.into_iter().find(|end| rules::holds(object, end)).unwrap_or("Pending");
        let text = |path: &str| cells::text(object, path);
        vec![
            cells::name(object),
            text("spec.podName"),
            text("spec.serviceAccountName"),
            text("spec.nodeName"),
            text("spec.signerName"),
            state.into(),
        ]
    }
}

fn stub(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let text = spec["stubPKCS10Request"].as_str().unwrap_or_default();
    let bytes = STANDARD.decode(text).unwrap_or_default();
    if bytes.is_empty() {
        errors.push(FieldError::required(path, "must be set"));
    } else if bytes.len() > MAX_STUB {
        errors.push(FieldError::too_long(path, MAX_STUB));
    } else if X509CertificationRequest::from_der(&bytes).is_err() {
        errors.push(FieldError::invalid(path, text, "must be a valid PKCS#10 CSR"));
    }
}
