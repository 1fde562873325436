//! Kinds of the group certificates.k8s.io.

pub(crate) mod cluster_trust_bundle;
pub(crate) mod pod_certificate_request;
pub(crate) mod signing_request;

use object_model::{FieldError, FieldPath, names};

const GROUP: &str = "certificates.k8s.io";

/// Bytes of a signer's name: a domain, a path and the slash between them.
const MAX_SIGNER_NAME: usize = 571;

/// What is wrong with the name of a signer: `example.com/signer`.
pub(crate) fn signer_name(errors: &mut Vec<FieldError>, name: &str, path: &FieldPath) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let [domain, rest] = name.split('/').collect::<Vec<_>>()[..] else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, why));
        return;
    };
    errors.extend(names::dns_subdomain(domain).into_iter().map(|why| FieldError::invalid(path, domain, why)));
    if domain.split('.').count() < 2 {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, why));
    }
    errors.extend(names::dns_subdomain(rest).into_iter().map(|why| FieldError::invalid(path, rest, why)));
    if name.len() > MAX_SIGNER_NAME {
        errors.push(FieldError::too_long(path, MAX_SIGNER_NAME));
    }
}

/// The blocks of a PEM text: their labels, whether they have headers, and their bytes.
fn pem_blocks(text: &[u8]) -> Vec<(String, bool, Vec<u8>)> {
    use x509_parser::pem::Pem;
    let has_headers = |label: &str, body: &[u8]| {
        let begin = format!("-----BEGIN {label}-----");
        String::from_utf8_lossy(body)
            .split(&begin)
            .nth(1)
            .is_some_and(|rest| rest.split("-----END").next().is_some_and(|inside| inside.contains(':')))
    };
    let blocks = Pem::iter_from_buffer(text).filter_map(Result::ok);
    blocks.map(|pem| (pem.label.clone(), has_headers(&pem.label, text), pem.contents)).collect()
}
