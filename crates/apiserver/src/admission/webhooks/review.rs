//! The document in which a webhook is asked, and how its answer is read (`AdmissionReview`).

use base64::Engine as _;
use object_model::{ApiError, Reason};
use serde_json::{Value, json};

use super::hook::Hook;
use crate::admission::expressions::request;
use crate::admission::question::Question;
use crate::served::Served;

const GROUP: &str = "admission.k8s.io";

/// The review of a request, shown as one for `served` with these objects.
pub(super) fn review(
    hook: &Hook,
    question: &Question<'_>,
    served: &Served,
    uid: &str,
    (object, old): (&Value, &Value),
) -> Value {
    let mut request = request(question, served);
    request["uid"] = uid.into();
    request["object"] = object.clone();
    request["oldObject"] = old.clone();
    let version = &hook.review_version;
    json!({"kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": request})
}

/// What a webhook that consents wants changed.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// A JSON patch.
    pub patch: Option<Value>,
    /// What the client is to be warned of.
    pub warnings: Vec<String>,
    /// The refusal.
    pub denial: Option<ApiError>,
}

/// Reads an answer to the review of this uid.
///
/// # Errors
/// What is wrong with it.
pub(super) fn answer(hook: &Hook, review: &Value, uid: &str, mutating: bool) -> Result<Answer, String> {
    let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
    let response = &review["response"];
    if !response.is_object() {
        return invalid("webhook response was absent".to_owned());
    }
    let strict = hook.review_version == "v1";
    if strict && response["uid"] != uid {
        let given = response["uid"].as_str().unwrap_or_default();
        return invalid(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let (api_version, kind) = (text(review, "apiVersion"), text(review, "kind"));
    if strict && (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        return invalid(format!(
            "expected webhook response of {GROUP}/v1, Kind=AdmissionReview, got {api_version}, Kind={kind}"
        ));
    }
    let encoded = text(response, "patch");
    let patch_type = response["patchType"].as_str();
    if strict && mutating {
        match (encoded.is_empty(), patch_type) {
            (false, None) => return invalid("webhook returned response.patch but not response.patchType".to_owned()),
            (true, Some(_)) => {
                return invalid("webhook returned response.patchType but not response.patch".to_owned());
            }
            (false, Some("")) => {
                return invalid("webhook returned invalid response.patchType of \"\"".to_owned());
            }
            _ => {}
        }
    }
    if strict && !mutating {
        if !encoded.is_empty() {
            return invalid("validating webhook may not return response.patch".to_owned());
        }
        if patch_type.is_some() {
            return invalid("validating webhook may not return response.patchType".to_owned());
        }
    }
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let warnings = warnings.map(str::to_owned).collect();
    if response["allowed"] != true {
        return Ok(Answer { patch: None, warnings, denial: Some(denial(&hook.name, &response["status"])) });
    }
    let patch = if mutating && !encoded.is_empty() {
        if strict && patch_type != Some("JSONPatch") {
            return Err(format!("unsupported patch type {:?}", patch_type.unwrap_or_default()));
        }
        let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
        let patch =
            base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|e| undecodable(e.to_string()))?;
        let patch: Value = serde_json::from_slice(&patch).map_err(|e| undecodable(e.to_string()))?;
        if !patch.is_array() {
            return Err(undecodable("a JSON patch is a list of operations".to_owned()));
        }
        Some(patch).filter(|patch| patch != &json!([]))
    } else {
        None
    };
    Ok(Answer { patch, warnings, denial: None })
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// What the client is told of a refusal.
fn denial(name: &str, status: &Value) -> ApiError {
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let code = code.unwrap_or(400);
    let (message, reason) = (text(status, "message"), text(status, "reason"));
    let denied = format!("admission webhook {name:?} denied the request");
    let message = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    ApiError {
        code,
        stated: Some(reason.to_owned()),
        details: status["details"].clone(),
        ..ApiError::new(Reason::parse(reason).unwrap_or(Reason::of_code(code)), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(version: &str) -> Hook {
        Hook::of("c", &json!({"name": "h.example.com", "admissionReviewVersions": [version]}))
    }

    fn read(mutating: bool, mut response: Value) -> Result<Answer, String> {
        response["uid"] = "u".into();
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        answer(&hook("v1"), &review, "u", mutating)
    }

    #[test]
    fn a_refusal_has_a_code_and_a_sentence_whatever_the_webhook_says() {
        let refusal = |status: Value| {
            let answer = read(false, json!({"allowed": false, "status": status})).expect("an answer");
            let status = answer.denial.expect("a refusal").to_status();
            (status["code"].clone(), status["message"].as_str().expect("text").to_owned(), status["reason"].clone())
        };
        let denied = "admission webhook \"h.example.com\" denied the request";
        assert_eq!(refusal(Value::Null), (400.into(), format!("{denied} without explanation"), Value::Null));
        assert_eq!(
            refusal(json!({"code": 200, "status": "Success", "reason": "no pods"})),
            (400.into(), format!("{denied}: no pods"), "no pods".into())
        );
        assert_eq!(
            refusal(json!({"code": 403, "message": "bad", "reason": "Forbidden"})),
            (403.into(), format!("{denied}: bad"), "Forbidden".into())
        );
    }

    #[test]
    fn an_answer_must_be_one_to_the_question() {
        let refused = |review: Value, mutating| answer(&hook("v1"), &review, "u", mutating).unwrap_err();
        assert!(refused(json!({}), true).ends_with("webhook response was absent"));
        let other = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": {"uid": "x"}});
        assert!(refused(other, true).ends_with("expected response.uid=\"u\", got \"x\""));
        let kind = json!({"kind": "Pod", "apiVersion": "v1", "response": {"uid": "u", "allowed": true}});
        assert!(refused(kind, true).contains("got v1, Kind=Pod"));
        let beta = json!({"response": {"allowed": true}});
        assert!(answer(&hook("v1beta1"), &beta, "u", true).expect("an answer").denial.is_none());
    }

    #[test]
    fn a_patch_comes_with_its_type_and_from_those_who_may_change_something() {
        let patch = base64::engine::general_purpose::STANDARD.encode(r#"[{"op":"remove","path":"/a"}]"#);
        let given = read(true, json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"})).expect("an answer");
        assert_eq!(given.patch, Some(json!([{"op": "remove", "path": "/a"}])));
        let why = |mutating, response| read(mutating, response).unwrap_err();
        assert!(why(true, json!({"allowed": true, "patch": patch})).contains("but not response.patchType"));
        assert!(why(true, json!({"allowed": true, "patchType": "JSONPatch"})).contains("but not response.patch"));
        assert!(why(false, json!({"allowed": true, "patch": patch})).contains("may not return response.patch"));
        let other = json!({"allowed": true, "patch": patch, "patchType": "Merge"});
        assert_eq!(why(true, other), "unsupported patch type \"Merge\"");
        let broken = json!({"allowed": true, "patch": "bm8=", "patchType": "JSONPatch"});
        assert!(why(true, broken).starts_with("received undecodable patch in webhook response"));
    }
}
