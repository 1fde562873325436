//! Who makes a request, and whether they may: bearer tokens, and the policy as the stored roles and bindings have it.

use std::borrow::Cow;
use std::sync::PoisonError;

use auth::{Attributes, Claims, ISSUER, Policy, User};
use client::clock;
use http::{HeaderMap, header};
use object_model::{ApiError, Reason, meta};
use serde_json::Value;
use store::Store;

use crate::served::Served;
use crate::{ApiServer, stored};

/// The policy that the stored roles and bindings make.
///
/// # Errors
/// When one of them cannot be read.
pub fn policy_of(store: &dyn Store) -> anyhow::Result<Policy> {
    let mut policy = Policy::default();
    for served in Served::built_in().filter(|served| served.hooks().is_policy()) {
        let range = store.range(&served.prefix(), None, 0, None)?;
        for entry in range.entries {
            let object = stored::decode(&served, &entry)?;
            policy.observe(served.kind(), meta::namespace(&object), meta::name(&object), Some(&object));
        }
    }
    Ok(policy)
}

impl ApiServer {
    /// Follows a write that the server itself goes by: of a definition, a policy, a webhook, a role, a flow schema. What is stored
    /// by now counts, so that two writes at once end in the newer.
    pub(crate) fn follow(&self, served: &Served, namespace: &str, name: &str) {
        self.follow_definition(served, name);
        self.follow_aggregation(served, name);
        self.follow_webhooks(served);
        self.follow_policy(served, name);
        self.follow_fairness(served);
        if !served.hooks().is_policy() {
            return;
        }
        let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        match self.store.get(&served.key(namespace, name)).map(|entry| stored::decode(served, &entry)).transpose() {
            Ok(object) => policy.observe(served.kind(), namespace, name, object.as_ref()),
            Err(error) => tracing::error!("read {} {namespace}/{name}: {error}", served.plural()),
        }
    }

    /// Asks the policy.
    pub(crate) fn with_policy<T>(&self, ask: impl FnOnce(&Policy) -> T) -> T {
        ask(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a request is allowed.
    ///
    /// # Errors
    /// Upstream's sentence of refusal.
    pub(crate) fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), String> {
        if auth::node::name_of(attributes.user).is_none() {
            return self.with_policy(|policy| policy.authorize(attributes));
        }
        match self.verdict_on(attributes) {
            (true, _) => Ok(()),
            (false, reason) => Err(auth::refusal(attributes, &reason)),
        }
    }

    /// Whether `user` may do something to a resource: a check beside that of the request itself.
    pub(crate) fn may(&self, user: &User, verb: &str, (group, resource): (&str, &str), place: (&str, &str)) -> bool {
        let (namespace, name) = place;
        let resource = Cow::Borrowed(resource);
        self.authorize(&Attributes { user, verb, group, resource, namespace, name, path: "", fields: "" }).is_ok()
    }

    /// The user that a bearer token in the headers stands for; `None` where there is none.
    ///
    /// # Errors
    /// 401 when the credentials are of another kind, or are not valid.
    pub(crate) fn user_of_token(&self, headers: &HeaderMap) -> Result<Option<User>, ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let unauthorized = || ApiError::new(Reason::Unauthorized, "Unauthorized");
        let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized());
        }
        match self.claims_of(token.trim(), &[ISSUER.to_owned()]) {
            Ok((claims, _)) => Ok(Some(claims.user())),
            Err(error) => {
                tracing::debug!("bearer token: {error:#}");
                Err(unauthorized())
            }
        }
    }

    /// What a token says, and for which of the audiences it is, if it is valid and what it is bound to still exists.
    ///
    /// # Errors
    /// Why it is not to be trusted.
    pub(crate) fn claims_of(&self, token: &str, audiences: &[String]) -> anyhow::Result<(Claims, Vec<String>)> {
        let claims = self.tokens.check(token, clock::now().as_second())?;
        let common: Vec<String> = audiences.iter().filter(|a| claims.audiences.contains(a)).cloned().collect();
        anyhow::ensure!(
            !common.is_empty(),
            "token audiences {:?} is invalid for the target audiences {audiences:?}",
            claims.audiences
        );
        let exists = |resource: &str, name: &str, uid: &str| -> anyhow::Result<()> {
            let object = self.stored_object(resource, &claims.namespace, name)?;
            let same = object.as_ref().is_some_and(|o| meta::uid(o) == uid);
            anyhow::ensure!(
                same,
                "the token is for {resource} {}/{name} of uid {uid}, which is gone",
                claims.namespace
            );
            Ok(())
        };
        exists("serviceaccounts", &claims.account, &claims.account_uid)?;
        if let Some(bound) = &claims.bound {
            exists(&format!("{}s", bound.kind), &bound.name, &bound.uid)?;
        }
        Ok((claims, common))
    }

    /// An object of the core group, as it is stored.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn stored_object(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        let served = Served::find("", "v1", resource)?;
        self.store.get(&served.key(namespace, name)).map(|entry| stored::decode(&served, &entry)).transpose()
    }
}
