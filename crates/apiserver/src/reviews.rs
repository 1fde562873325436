//! What is answered and not stored. Questions to the server: who am I, may I, may they, what stands for this token. And the
//! binding of a pod, and how the parts of the control plane are.

use auth::{Attributes, ISSUER, Rule, User};
use bytes::Bytes;
use client::{Body, clock};
use http::{Response, StatusCode};
use object_model::{ApiError, meta, time};
use serde_json::{Value, json};

use crate::context::Context;
use crate::request::ResourceRequest;
use crate::served::Served;
use crate::table::Include;
use crate::{ApiServer, respond};

impl ApiServer {
    /// A request for a kind that is not stored.
    pub(crate) async fn answer_unstored(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        match (served.kind(), request.verb) {
            // The same as what is written to the pod, which the object names here.
            ("Binding", _) => {
                let binding = cx.decode(served.ty, &body)?;
                let pod = ResourceRequest { name: meta::name(&binding).to_owned(), ..request.clone() };
                self.bind(cx, &pod, &Served::find("", "v1", "pods")?, body).await
            }
            ("ComponentStatus", "list") => {
                let metadata = json!({"resourceVersion": self.store.revision().to_string()});
                self.list_response(cx, served, self.components(), metadata)
            }
            ("ComponentStatus", _) => {
                let all = self.components();
                let found = all.iter().find(|component| meta::name(component) == request.name);
                let found = found.ok_or_else(|| served.not_found(&request.name))?;
                let include = Include::of(cx)?;
                respond::object(&cx.accept, Some(served), served.type_name(), StatusCode::OK, found, include)
            }
            _ => self.answer_review(cx, request, served, &body),
        }
    }

    /// How the parts of the control plane are, which all run in this process: the store serves as long as it is open, the
    /// others from the moment the first objects are there until the process ends.
    fn components(&self) -> Vec<Value> {
        let runs = self.is_ready() && !self.shutdown.is_cancelled();
        let parts = [("controller-manager", runs), ("etcd-0", self.store.is_open()), ("scheduler", runs)];
        let status = |(name, well): (&str, bool)| {
            let condition = if well {
                json!({"type": "Healthy", "status": "True", "message": "ok"})
            } else {
                json!({"type": "Healthy", "status": "False", "message": "not running"})
            };
            json!({
                "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition],
            })
        };
        parts.map(status).to_vec()
    }

    /// `POST` of a question: the same object with the answer in its status.
    fn answer_review(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let mut review = cx.decode(served.ty, body)?;
        served.default(&mut review);
        let errors = served.validate(&review);
        if !errors.is_empty() {
            return Err(ApiError::invalid(served.group(), served.kind(), meta::name(&review), &errors));
        }
        review["status"] = match served.kind() {
            "SelfSubjectReview" => {
                meta::set(&mut review, "creationTimestamp", time::seconds(clock::now()));
                json!({"userInfo": cx.user.to_value()})
            }
            "SelfSubjectAccessReview" => self.verdict(&cx.user, &review["spec"]),
            "SubjectAccessReview" => self.verdict(&named_user(&review["spec"]), &review["spec"]),
            "LocalSubjectAccessReview" => {
                let namespace = review["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
                if namespace != request.namespace {
                    return Err(ApiError::bad_request(format!(
                        "spec.resourceAttributes.namespace must match metadata.namespace: {namespace:?} is not {:?}",
                        request.namespace
                    )));
                }
                self.verdict(&named_user(&review["spec"]), &review["spec"])
            }
            "SelfSubjectRulesReview" => {
                let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
                if namespace.is_empty() {
                    return Err(ApiError::bad_request("no namespace on request"));
                }
                let mut status = rules_status(&self.with_policy(|policy| policy.rules_of(&cx.user, namespace)));
                if auth::node::name_of(&cx.user).is_some() {
                    status["incomplete"] = true.into();
                    status["evaluationError"] = "node authorizer does not support user rule resolution".into();
                }
                status
            }
            "TokenReview" => self.token_status(&review["spec"]),
            other => return Err(ApiError::internal(format!("no answer to a {other}"))),
        };
        // There is no table of questions: who asks for one is told so.
        respond::object(&cx.accept, None, served.type_name(), StatusCode::CREATED, &review, Include::None)
    }

    /// What a user may, as the status of an access review.
    fn verdict(&self, user: &User, spec: &Value) -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let asked = if resource.is_object() { resource } else { path };
        let (verb, group) = (text(&asked["verb"]), text(&asked["group"]));
        let (namespace, name) = (text(&asked["namespace"]), text(&asked["name"]));
        let full = match (text(&asked["resource"]), text(&asked["subresource"])) {
            _ if !resource.is_object() => String::new(),
            // No resource means all of them.
            (resource, _) if resource.is_empty() => "*".to_owned(),
            (resource, subresource) if subresource.is_empty() => resource,
            (resource, subresource) => format!("{resource}/{subresource}"),
        };
        let path = if resource.is_object() { String::new() } else { text(&asked["path"]) };
        let attributes = Attributes {
            user,
            verb: &verb,
            group: &group,
            resource: full.into(),
            namespace: &namespace,
            name: &name,
            path: &path,
            fields: &selected_fields(&asked["fieldSelector"]),
        };
        let (allowed, reason) = self.verdict_on(&attributes);
        let mut status = json!({"allowed": allowed});
        if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        status
    }

    fn token_status(&self, spec: &Value) -> Value {
        let audiences = audiences(spec);
        match self.claims_of(spec["token"].as_str().unwrap_or_default(), &audiences) {
            Ok((claims, common)) => {
                json!({"authenticated": true, "user": claims.user().to_value(), "audiences": common})
            }
            Err(error) => {
                json!({"authenticated": false, "user": {}, "error": format!("[invalid bearer token, {error:#}]")})
            }
        }
    }
}

/// Whom a token is for: the audiences that a spec names, or the API server.
pub(crate) fn audiences(spec: &Value) -> Vec<String> {
    let named = strings(&spec["audiences"]);
    if named.is_empty() { vec![ISSUER.to_owned()] } else { named }
}

/// The field selector of a question, as a query would hold it. What no query can say is left out.
fn selected_fields(asked: &Value) -> String {
    if let Some(raw) = asked["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let requirements = asked["requirements"].as_array().into_iter().flatten();
    let terms = requirements.filter_map(|one| match (one["operator"].as_str()?, strings(&one["values"]).as_slice()) {
        ("In", [value]) => Some(format!("{}={value}", one["key"].as_str()?)),
        _ => None,
    });
    terms.collect::<Vec<_>>().join(",")
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The user that a question is about, just as it is given.
fn named_user(spec: &Value) -> User {
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), strings(values))).collect(),
    }
}

fn rules_status(rules: &[Rule]) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rules {
        if rule.paths.is_empty() {
            let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
            if !rule.names.is_empty() {
                shown["resourceNames"] = json!(rule.names);
            }
            resources.push(shown);
        } else {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
