//! Impersonation: a request made as somebody else, by who may (the `Impersonate-*` headers, `kubectl --as`).

use auth::{Attributes, User};
use http::HeaderMap;
use object_model::ApiError;

/// The user a request is to be answered as.
///
/// # Errors
/// 403 when its maker may not impersonate that user or group, 400 when the headers do not fit together.
pub fn user_of(maker: User, headers: &HeaderMap) -> Result<User, ApiError> {
    let asked = |name: &str| headers.keys().any(|k| k.as_str().starts_with(name));
    if !asked("impersonate-") {
        return Ok(maker);
    }
    let text = |value: &http::HeaderValue| {
        value.to_str().map(str::to_owned).map_err(|_| ApiError::bad_request("an Impersonate header is not text"))
    };
    let Some(name) = headers.get("impersonate-user").map(text).transpose()?.filter(|n| !n.is_empty()) else {
        return Err(ApiError::bad_request(
            "requested impersonation without impersonating a user: Impersonate-User is missing",
        ));
    };
    if asked("impersonate-uid") || asked("impersonate-extra-") {
        return Err(ApiError::bad_request("impersonating a uid or extra fields is not supported"));
    }
    let groups = headers.get_all("impersonate-group").iter().map(text).collect::<Result<Vec<_>, _>>()?;
    may(&maker, "users", &name)?;
    for group in &groups {
        may(&maker, "groups", group)?;
    }
    let anonymous = User::anonymous();
    if name == anonymous.name && groups.is_empty() {
        return Ok(anonymous);
    }
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Ok(User::authenticated(&name, &groups))
}

fn may(maker: &User, resource: &str, name: &str) -> Result<(), ApiError> {
    auth::authorize(&Attributes {
        user: maker,
        verb: "impersonate",
        group: "",
        resource: resource.into(),
        namespace: "",
        name,
        path: "",
    })
    .map_err(|why| ApiError::forbidden("", resource, name, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn only_who_may_acts_as_somebody_else() {
        let admin = || User::authenticated("admin", &["system:masters"]);
        let bob = headers(&[("impersonate-user", "bob"), ("impersonate-group", "dev")]);
        assert_eq!(user_of(admin(), &bob), Ok(User::authenticated("bob", &["dev"])));
        assert_eq!(user_of(admin(), &headers(&[])), Ok(admin()));
        let refused = user_of(User::authenticated("eve", &[]), &bob).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (
                403,
                "users \"bob\" is forbidden: User \"eve\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            )
        );
        assert_eq!(user_of(admin(), &headers(&[("impersonate-group", "dev")])).unwrap_err().code, 400);
    }
}
