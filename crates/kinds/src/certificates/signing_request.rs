//! CertificateSigningRequest: somebody's wish for a certificate, somebody else's consent, and the certificate.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_model::{FieldError, FieldPath, names, time};
use serde_json::{Value, json};
use x509_parser::nom::Err;
use x509_parser::prelude::{
    FromDer, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest, X509Error,
};

use super::{GROUP, pem_blocks, signer_name};
use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    subresources: &[
        Subresource::part("approval", GROUP, "CertificateSigningRequest"),
        Subresource::status(GROUP, "CertificateSigningRequest"),
    ],
    type_name: "certificates.v1.CertificateSigningRequest",
    storage: "certificatesigningrequests",
    has_status: true,
    selectable_fields: &["spec.signerName"],
    columns: &[
        Column::name(),
        Column::age(),
        Column::text("SignerName", "Who is asked."),
        Column::text("Requestor", "Who asks."),
        Column::text("RequestedDuration", "How long the certificate should be valid."),
        Column::text("Condition", "What became of the request."),
    ],
    example: "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {name: example}\n\
              spec:\n  signerName: example.com/clients\n  usages: [client auth]\n\
              \x20 request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlHTE1EOENBUUF3RERFS01BZ0dBMVVFQXd3QllUQX\
              FNQVVHQXl0bGNBTWhBRmVwUW54OTRDbE54V01vMTBWOApzRm93dnhBZFM0cVUyQTRaOW4vOTgzVlFvQUF3QlFZREsy\
              VndBMEVBRU4yV1Q3NTY3V2xEb3V4VEhSRmNTUndUCm5sdWZSTE95VFhCSnFTU1gvZ0JiRWpNdUZTaTZod2IzenRFTD\
              lVdTdEV1NrUml1OGVweXZieFpWUmV2S0FnPT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==\n",
    hooks: &Request,
    ..crate::CLUSTER
};

struct Request;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const MIN_SECONDS: i64 = 600;
/// Conditions that stand once they are set, and those of them that only an approver sets.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];
const OF_APPROVERS: [&str; 2] = ["Approved", "Denied"];

impl Kind for Request {
    fn default(&self, object: &mut Value) {
        let Some(status) = object.get_mut("status") else { return };
        for condition in walk::each_mut(status, "conditions").filter(|condition| condition.is_object()) {
            walk::default(condition, "status", "True");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        crate::copy_field(new, old, "spec");
        crate::copy_field(new, old, "status");
    }

    /// Consent is given elsewhere.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        crate::keep_all_but_status(new, old);
        for kind in OF_APPROVERS {
            keep_conditions(new, old, kind);
        }
    }

    fn prepare_subresource_update(&self, name: &str, new: &mut Value, old: &Value) {
        if name != "approval" {
            self.prepare_status_update(new, old);
            return;
        }
        crate::keep_all_but_status(new, old);
        crate::copy_field(walk::value_at(new, "status"), &old["status"], "certificate");
    }

    fn stamp(&self, new: &mut Value, old: &Value, now: Now) {
        let at = time::seconds(now.0);
        let before = walk::list(old, "status.conditions");
        let Some(status) = new.get_mut("status") else { return };
        for condition in walk::each_mut(status, "conditions").filter(|condition| condition.is_object()) {
            walk::default(condition, "lastUpdateTime", at.clone());
            let same = |other: &&Value| other["type"] == condition["type"] && other["status"] == condition["status"];
            let since = before.iter().find(same).and_then(|other| walk::text(other, "lastTransitionTime"));
            walk::default(condition, "lastTransitionTime", since.unwrap_or(&at));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        let text = spec["request"].as_str().unwrap_or_default();
        if let Some(why) = request_problem(&STANDARD.decode(text).unwrap_or_default()) {
            errors.push(FieldError::invalid(&path.child("request"), text, why));
        }
        let usages = walk::list(spec, "usages");
        let at = path.child("usages");
        if usages.is_empty() {
            errors.push(FieldError::required(&at, ""));
        }
        for (index, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
            if !USAGES.contains(&usage) {
                errors.push(FieldError::not_supported(&at.index(index), usage, &USAGES));
            }
        }
        rules::unique(&mut errors, usages.iter().map(Value::as_str), |index| at.index(index));
        let signer = spec["signerName"].as_str().unwrap_or_default();
        if signer == "kubernetes.io/legacy-unknown" {
            let why = "the legacy signerName is not allowed via this API version";
            errors.push(FieldError::invalid(&path.child("signerName"), signer, why));
        } else {
            signer_name(&mut errors, signer, &path.child("signerName"));
        }
        if let Some(seconds) = walk::at(spec, "expirationSeconds").and_then(Value::as_i64)
            && seconds < MIN_SECONDS
        {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, why));
        }
        conditions(&mut errors, object);
        errors
    }

    fn validate_subresource_update(&self, name: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("status");
        let at = path.child("conditions");
        for kind in FINAL {
            let (before, after) = (of_type(old, kind), of_type(new, kind));
            let refused = match before.len().cmp(&after.len()) {
                Ordering::Greater => Some("remove"),
                _ if name == "approval" || !OF_APPROVERS.contains(&kind) => None,
                Ordering::Less => Some("add"),
                Ordering::Equal => (before != after).then_some("modify"),
            };
            if let Some(what) = refused {
                errors.push(FieldError::forbidden(&at, format!("updates may not {what} a condition of type {kind:?}")));
            }
        }
        let certificate = |object: &Value| walk::text(object, "status.certificate").map(str::to_owned);
        let at = path.child("certificate");
        if certificate(old).is_some() && certificate(new) != certificate(old) {
            errors.push(FieldError::forbidden(&at, "updates may not modify existing certificate content"));
        }
        if let Some(text) = certificate(new) {
            let blocks = pem_blocks(&STANDARD.decode(text).unwrap_or_default());
            if blocks.is_empty() || blocks.iter().any(|(label, ..)| label != "CERTIFICATE") {
                let why = "must contain at least one CERTIFICATE PEM block, and nothing else";
                errors.push(FieldError::invalid(&at, "<certificate data>", why));
            }
        }
        errors
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let has = |kind: &str| walk::list(object, "status.conditions").iter().any(|c| c["type"] == kind);
        let mut state = if has("Denied") {
            "Denied"
        } else if has("Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if has("Failed") {
            state.push_str(",Failed");
        }
        if walk::text(object, "status.certificate").is_some() {
            state.push_str(",Issued");
        }
        let duration = walk::at(object, "spec.expirationSeconds").and_then(Value::as_i64);
        vec![
            cells::name(object),
            cells::age(object, now),
            cells::text(object, "spec.signerName"),
            cells::text(object, "spec.username"),
            duration.map_or_else(|| "<none>".to_owned(), time::human_duration).into(),
            state.into(),
        ]
    }
}

/// The conditions of one type.
fn of_type<'a>(object: &'a Value, kind: &'a str) -> Vec<&'a Value> {
    walk::list(object, "status.conditions").iter().filter(|condition| condition["type"] == kind).collect()
}

/// Takes the conditions of one type as they were, unless some came or went: that is refused later.
fn keep_conditions(new: &mut Value, old: &Value, kind: &str) {
    let before = of_type(old, kind);
    if before.len() != of_type(new, kind).len() {
        return;
    }
    let Some(status) = new.get_mut("status") else { return };
    let now = walk::each_mut(status, "conditions").filter(|condition| condition["type"] == kind);
    for (new, old) in now.zip(before) {
        *new = old.clone();
    }
}

/// Whom a request is for, and how many other names it asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Requested {
    /// The name of a user; empty where there is none.
    pub common_name: String,
    /// The groups.
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub addresses: usize,
    pub mails: usize,
    pub uris: usize,
}

/// What a request asks for.
///
/// # Errors
/// When the request does not parse.
pub fn requested(request: &Value) -> Result<Requested, X509Error> {
    let bytes = STANDARD.decode(request["spec"]["request"].as_str().unwrap_or_default()).unwrap_or_default();
    let blocks = pem_blocks(&bytes);
    let der = blocks.first().map_or(&[][..], |(_, _, der)| der.as_slice());
    let (_, parsed) = X509CertificationRequest::from_der(der).map_err(|error| match error {
        Err::Error(error) | Err::Failure(error) => error,
        Err::Incomplete(_) => X509Error::Generic,
    })?;
    let subject = &parsed.certification_request_info.subject;
    let mut requested = Requested {
        // Of several the last counts, as upstream's parser has it.
        common_name: subject
            .iter_common_name()
            .filter_map(|part| part.as_str().ok())
            .last()
            .unwrap_or_default()
            .to_owned(),
        organizations: subject.iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_owned).collect(),
        ..Requested::default()
    };
    for extension in parsed.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(_) => requested.dns_names += 1,
                GeneralName::IPAddress(_) => requested.addresses += 1,
                GeneralName::RFC822Name(_) => requested.mails += 1,
                GeneralName::URI(_) => requested.uris += 1,
                _ => {}
            }
        }
    }
    Ok(requested)
}

/// Until when the certificate of a request is valid, in seconds since 1970.
pub fn issued_until(request: &Value) -> Option<i64> {
    let bytes = STANDARD.decode(walk::text(request, "status.certificate")?).ok()?;
    let blocks = pem_blocks(&bytes);
    let ends =
        blocks.iter().filter_map(|(_, _, der)| Some(X509Certificate::from_der(der).ok()?.1.validity().not_after));
    ends.map(|end| end.timestamp()).min()
}

fn request_problem(bytes: &[u8]) -> Option<String> {
    match pem_blocks(bytes).first() {
        Some((label, _, der)) if label == "CERTIFICATE REQUEST" => {
            let signed = X509CertificationRequest::from_der(der)
                .map_err(|error| error.to_string())
                .and_then(|(_, parsed)| parsed.verify_signature().map_err(|error| error.to_string()));
            signed.err()
        }
        _ => Some("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    }
}

fn conditions(errors: &mut Vec<FieldError>, object: &Value) {
    let path = FieldPath::new("status").child("conditions");
    let list = walk::list(object, "status.conditions");
    rules::unique(errors, list.iter().map(|condition| walk::text(condition, "type")), |index| {
        path.index(index).child("type")
    });
    for (index, condition) in list.iter().enumerate() {
        let path = path.index(index);
        let kind = rules::required(errors, condition, "type", &path).unwrap_or_default();
        let status = condition["status"].as_str().unwrap_or_default();
        if FINAL.contains(&kind) && status != "True" {
            let why = format!("must be True for {kind} conditions");
            errors.push(FieldError::invalid(&path.child("status"), status, why));
        }
        walk::one_of(errors, condition, "status", &path, &["True", "False", "Unknown"]);
    }
    if OF_APPROVERS.iter().all(|kind| list.iter().any(|condition| condition["type"] == *kind)) {
        let why = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid(&path, Value::from(list), why));
    }
}
