//! `POST …/serviceaccounts/NAME/token`: issues tokens; and the documents by which others check them.

use auth::{Bound, Claims, DEFAULT_SECONDS, ISSUER, SHORTEST_SECONDS};
use bytes::Bytes;
use client::{Body, clock};
use http::{Response, StatusCode};
use jiff::Timestamp;
use object_model::{ApiError, FieldError, FieldPath, meta, time};
use serde_json::{Value, json};

use crate::admission::chain;
use crate::admission::question::{Operation, Question};
use crate::context::Context;
use crate::request::ResourceRequest;
use crate::reviews::audiences;
use crate::served::{Served, schema_of};
use crate::table::Include;
use crate::{ApiServer, respond};

/// The longest life that may be asked for, in seconds (upstream's limit).
const LONGEST_SECONDS: i64 = 1 << 32;

impl ApiServer {
    /// Issues a token.
    pub(crate) async fn issue_token(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let type_name = "authentication.v1.TokenRequest";
        let mut asked = cx.decode(schema_of(type_name)?, body)?;
        let account = self
            .stored_object(served.plural(), &request.namespace, &request.name)?
            .ok_or_else(|| served.not_found(&request.name))?;
        let mut question = Question::of(cx, request, served, Operation::Create)?;
        asked["apiVersion"] = "authentication.k8s.io/v1".into();
        asked["kind"] = "TokenRequest".into();
        question.object = asked;
        chain::admit(self, &mut question).await?;
        let mut asked = question.object;
        let path = FieldPath::new("spec").child("expirationSeconds");
        let seconds = asked["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        let refuse = |why: &str| {
            let error = FieldError::invalid(&path, seconds, why);
            Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
        };
        if seconds < SHORTEST_SECONDS {
            return refuse("may not specify a duration less than 10 minutes");
        }
        if seconds > LONGEST_SECONDS {
            return refuse("may not specify a duration larger than 2^32 seconds");
        }
        let audiences = audiences(&asked["spec"]);
        let (bound, node) = self.bound(cx, request, &asked["spec"]["boundObjectRef"], &asked["spec"]["audiences"])?;
        let issued = clock::now().as_second();
        let claims = Claims {
            namespace: request.namespace.clone(),
            account: request.name.clone(),
            account_uid: meta::uid(&account).to_owned(),
            bound,
            node,
            audiences,
            issued,
            expires: issued + seconds,
            id: uuid::Uuid::new_v4().to_string(),
        };
        let token = self.tokens.sign(&claims).map_err(|error| ApiError::internal(format!("{error:#}")))?;
        let end = Timestamp::from_second(claims.expires).map_err(ApiError::internal)?;
        asked["metadata"] = json!({
            "name": request.name, "namespace": request.namespace, "creationTimestamp": time::seconds(clock::now()),
        });
        asked["spec"]["audiences"] = json!(claims.audiences);
        asked["spec"]["expirationSeconds"] = seconds.into();
        asked["status"] = json!({"token": token, "expirationTimestamp": time::seconds(end)});
        respond::object(&cx.accept, None, type_name, StatusCode::CREATED, &asked, Include::None)
    }

    /// What the token is to end with, and the node that is on.
    #[allow(clippy::type_complexity, reason = "two parts of one claim")]
    fn bound(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        reference: &Value,
        audiences: &Value,
    ) -> Result<(Option<Bound>, Option<(String, String)>), ApiError> {
        let node_asks = auth::node::name_of(&cx.user).is_some();
        let refused = |why: &str| {
            Err(ApiError::forbidden("", "serviceaccounts/token", &request.name, format!("node requested {why}")))
        };
        if !reference.is_object() {
            return if node_asks { refused("token not bound to a pod") } else { Ok((None, None)) };
        }
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (resource, kind) = match text("kind") {
            "Pod" => ("pods", "pod"),
            "Secret" if !node_asks => ("secrets", "secret"),
            _ if node_asks => return refused("token not bound to a pod"),
            other => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to type {:?} with name {:?}",
                    request.name,
                    format!("{}, Kind={other}", text("apiVersion")),
                    text("name")
                )));
            }
        };
        if node_asks && text("uid").is_empty() {
            return refused("token with a pod binding without a uid");
        }
        let name = text("name");
        let object = self
            .stored_object(resource, &request.namespace, name)?
            .ok_or_else(|| ApiError::not_found("", resource, name))?;
        let uid = meta::uid(&object);
        if !text("uid").is_empty() && text("uid") != uid {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                text("uid")
            );
            return Err(ApiError::conflict("", resource, name, why));
        }
        let bound = Bound { kind: kind.to_owned(), name: name.to_owned(), uid: uid.to_owned() };
        if kind != "pod" {
            return Ok((Some(bound), None));
        }
        if object["spec"]["serviceAccountName"] != request.name.as_str() {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                request.name
            )));
        }
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
        if auth::node::name_of(&cx.user).is_some_and(|asking| asking != node) {
            return refused("token bound to a pod scheduled on a different node");
        }
        if node_asks {
            self.judge_audience(cx, request, &object, audiences)?;
        }
        let node =
            self.stored_object("nodes", "", node)?.map(|object| (node.to_owned(), meta::uid(&object).to_owned()));
        Ok((Some(bound), node))
    }

    /// Whether a node may ask for a token of a pod for these: the pod, or a driver of its volumes, wants one for them, or a
    /// role says so (upstream's restriction of audiences).
    fn judge_audience(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        pod: &Value,
        audiences: &Value,
    ) -> Result<(), ApiError> {
        let refused = |why: String| Err(ApiError::forbidden("", "serviceaccounts/token", &request.name, why));
        let audience = match audiences.as_array().map_or(&[][..], Vec::as_slice) {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return refused("node may only request 0 or 1 audiences".to_owned()),
        };
        let place = (request.namespace.as_str(), request.name.as_str());
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        for volume in volumes {
            let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
            let mut tokens = sources.map(|source| &source["serviceAccountToken"]).filter(|token| token.is_object());
            let projected = tokens.any(|token| token["audience"].as_str().unwrap_or_default() == audience);
            if projected || self.driver_wants(&request.namespace, meta::name(pod), volume, audience)? {
                return Ok(());
            }
        }
        let verb = "request-serviceaccounts-token-audience";
        if self.may(&cx.user, verb, ("", audience), place) {
            return Ok(());
        }
        refused(format!("audience {audience:?} not found in pod spec volume"))
    }

    /// Whether the driver of a volume wants tokens for an audience.
    fn driver_wants(&self, namespace: &str, pod: &str, volume: &Value, audience: &str) -> Result<bool, ApiError> {
        let claim = match (&volume["persistentVolumeClaim"]["claimName"], &volume["ephemeral"]) {
            (Value::String(name), _) => Some(name.clone()),
            (_, Value::Object(_)) => Some(format!("{pod}-{}", volume["name"].as_str().unwrap_or_default())),
            _ => None,
        };
        let driver = match claim {
            None => volume["csi"]["driver"].clone(),
            Some(claim) => {
                let claim = self.stored_object("persistentvolumeclaims", namespace, &claim)?.unwrap_or_default();
                let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
                let volume = self.stored_object("persistentvolumes", "", name)?.unwrap_or_default();
                volume["spec"]["csi"]["driver"].clone()
            }
        };
        let Some(driver) = driver.as_str() else { return Ok(false) };
        let drivers = Served::find("storage.k8s.io", "v1", "csidrivers")?;
        let Ok(driver) = self.object(&drivers, "", driver) else { return Ok(false) };
        let mut wanted = driver["spec"]["tokenRequests"].as_array().into_iter().flatten();
        Ok(wanted.any(|one| one["audience"].as_str().unwrap_or_default() == audience))
    }

    /// The documents of OpenID Connect discovery, by which others check tokens; `None` for other paths.
    pub(crate) fn issuer_document(&self, path: &str) -> Option<Response<Body>> {
        match path.trim_end_matches('/') {
            "/.well-known/openid-configuration" => Some(respond::json_value(
                StatusCode::OK,
                &json!({
                    "issuer": ISSUER, "jwks_uri": format!("https://{}/openid/v1/jwks", self.address),
                    "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["ES256"],
                }),
            )),
            "/openid/v1/jwks" => {
                Some(respond::typed(StatusCode::OK, "application/jwk-set+json", self.tokens.key_set().to_string()))
            }
            _ => None,
        }
    }
}
