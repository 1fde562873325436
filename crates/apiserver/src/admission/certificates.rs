//! Who asks for a certificate, who may consent, who may sign (upstream's CertificateSubjectRestriction, CertificateApproval,
//! CertificateSigning and ClusterTrustBundleAttest).

use auth::User;
use object_model::{ApiError, meta};
use serde_json::Value;

use crate::ApiServer;
use crate::served::Served;

const GROUP: &str = "certificates.k8s.io";
/// Whose certificates the API server takes for who they say.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Notes in a new request who asks, and judges what for.
///
/// # Errors
/// 403 when somebody asks to be an administrator, or to be trusted in the name of a signer.
pub fn admit_create(server: &ApiServer, user: &User, served: &Served, object: &mut Value) -> Result<(), ApiError> {
    if served.is(GROUP, "CertificateSigningRequest") {
        let who = user.to_value();
        for field in ["username", "uid", "groups", "extra"] {
            let Some(spec) = object["spec"].as_object_mut() else { break };
            match who.get(field) {
                Some(value) => _ = spec.insert(field.to_owned(), value.clone()),
                None => _ = spec.remove(field),
            }
        }
        let administrator = kinds::requested(object)
            .is_ok_and(|requested| requested.organizations.iter().any(|group| group == "system:masters"));
        if object["spec"]["signerName"] == CLIENT_SIGNER && administrator {
            let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
            return Err(refusal("certificatesigningrequests", object, why));
        }
    }
    attest(server, user, served, object, None)
}

/// Judges a change.
///
/// # Errors
/// 403 when somebody consents or signs who may not for that signer.
pub fn judge_update(
    server: &ApiServer,
    user: &User,
    served: &Served,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    if served.is(GROUP, "CertificateSigningRequest") {
        let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
        let changed = |field: &str| new["status"][field] != old["status"][field];
        let (verb, what) = match subresource {
            "approval" => ("approve", "approve"),
            "status" if changed("certificate") || changed("conditions") => ("sign", "sign"),
            _ => return Ok(()),
        };
        if !may(server, user, verb, signer) {
            let why = format!("user not permitted to {what} requests with signerName {signer:?}");
            return Err(refusal("certificatesigningrequests", new, why));
        }
    }
    attest(server, user, served, new, Some(old))
}

fn attest(
    server: &ApiServer,
    user: &User,
    served: &Served,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let Some(signer) = object["spec"]["signerName"].as_str().filter(|signer| !signer.is_empty()) else { return Ok(()) };
    let unchanged = old.is_some_and(|old| old["spec"] == object["spec"]);
    if !served.is(GROUP, "ClusterTrustBundle") || unchanged || may(server, user, "attest", signer) {
        return Ok(());
    }
    Err(refusal("clustertrustbundles", object, format!("user not permitted to attest for signerName {signer:?}")))
}

/// Whether a user may do something for a signer, or for all of its domain.
fn may(server: &ApiServer, user: &User, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer, &format!("{domain}/*")].iter().any(|name| server.may(user, verb, (GROUP, "signers"), ("", name)))
}

fn refusal(plural: &str, object: &Value, why: String) -> ApiError {
    ApiError::forbidden(GROUP, plural, meta::name(object), why)
}
