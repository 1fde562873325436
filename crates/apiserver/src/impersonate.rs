//! Impersonation: a request made as somebody else, by who may (the `Impersonate-*` headers, `kubectl --as`).

use std::collections::BTreeMap;

use auth::{Attributes, User};
use http::{HeaderMap, HeaderValue};
use object_model::ApiError;
use percent_encoding::percent_decode_str;

const AUTHENTICATION: &str = "authentication.k8s.io";
const EXTRA: &str = "impersonate-extra-";

/// The user a request is to be answered as.
///
/// # Errors
/// 403 when its maker may not impersonate that user or group, 400 when the headers do not fit together.
pub fn user_of(
    maker: User,
    headers: &HeaderMap,
    authorize: impl Fn(&Attributes<'_>) -> Result<(), String>,
) -> Result<User, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(maker);
    }
    let name = headers.get("impersonate-user").map(text).transpose()?.filter(|n| !n.is_empty());
    let Some(name) = name else {
        return Err(ApiError::bad_request(
            "requested impersonation without impersonating a user: Impersonate-User is missing",
        ));
    };
    let groups = headers.get_all("impersonate-group").iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let uid = headers.get("impersonate-uid").map(text).transpose()?.unwrap_or_default();
    let may = |group: &str, resource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            user: &maker,
            verb: "impersonate",
            group,
            resource: resource.into(),
            namespace,
            name,
            path: "",
            fields: "",
        };
        authorize(&attributes).map_err(|why| {
            let plain = resource.split('/').next().unwrap_or_default();
            ApiError::forbidden(group, plain, name, why)
        })
    };
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut user = User::impersonated(&name, &groups);
    match user.service_account() {
        Some((namespace, account)) => may("", "serviceaccounts", namespace, account)?,
        None => may("", "users", "", &name)?,
    }
    for group in &groups {
        may("", "groups", "", group)?;
    }
    if !uid.is_empty() {
        may(AUTHENTICATION, "uids", "", &uid)?;
    }
    let extra = extra_of(headers)?;
    for (key, values) in &extra {
        for value in values {
            may(AUTHENTICATION, &format!("userextras/{key}"), "", value)?;
        }
    }
    let anonymous = User::anonymous();
    if name == anonymous.name && groups.is_empty() {
        return Ok(anonymous);
    }
    user.uid = uid;
    user.extra = extra;
    Ok(user)
}

/// What the `Impersonate-Extra-*` headers say; their keys are percent-encoded.
fn extra_of(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
            extra.entry(key).or_default().push(text(value)?);
        }
    }
    Ok(extra)
}

fn text(value: &HeaderValue) -> Result<String, ApiError> {
    value.to_str().map(str::to_owned).map_err(|_| ApiError::bad_request("an Impersonate header is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn only_who_may_acts_as_somebody_else() {
        let admin = || User::authenticated("admin", &["system:masters"]);
        let policy = auth::Policy::default();
        let ask = |maker, headers: &HeaderMap| user_of(maker, headers, |attributes| policy.authorize(attributes));
        let bob = headers(&[("impersonate-user", "bob"), ("impersonate-group", "dev")]);
        assert_eq!(ask(admin(), &bob), Ok(User::authenticated("bob", &["dev"])));
        assert_eq!(ask(admin(), &headers(&[])), Ok(admin()));
        let refused = ask(User::authenticated("eve", &[]), &bob).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (
                403,
                "users \"bob\" is forbidden: User \"eve\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            )
        );
        assert_eq!(ask(admin(), &headers(&[("impersonate-group", "dev")])).unwrap_err().code, 400);
        let account = headers(&[
            ("impersonate-user", "system:serviceaccount:a:app"),
            ("impersonate-extra-example.com%2fteam", "blue"),
        ]);
        let user = ask(admin(), &account).expect("allowed");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        assert_eq!(user.extra["example.com/team"], ["blue"]);
    }
}
