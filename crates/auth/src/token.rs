//! Tokens of service accounts: signed claims (RFC 7519, ES256) about an account and the pod it was issued for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::User;

/// Who issues the tokens, which is also whom they are for when nobody else is asked for.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How long a token lives if nothing else is asked for, in seconds.
pub const DEFAULT_SECONDS: i64 = 3600;
/// The shortest life that may be asked for, in seconds (upstream's limit).
pub const SHORTEST_SECONDS: i64 = 600;
/// Seconds by which clocks may differ.
const LEEWAY: i64 = 60;

/// The key that signs tokens, and what checks them.
pub struct TokenKey {
    signing: EncodingKey,
    checking: DecodingKey,
    /// The two coordinates of the public point, as a JSON Web Key has them.
    point: [String; 2],
    id: String,
    checked: Checked,
}

/// Tokens whose signature has been found good, by their SHA-256, with what they say. A client sends the same one with each
/// request, and the signature is by far the dearest part of a small one.
#[derive(Default)]
struct Checked(Mutex<HashMap<[u8; 32], Arc<Claims>>>);

/// How many of them are remembered.
const REMEMBERED: usize = 4096;

impl Checked {
    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Claims>>> {
        // An entry is put in whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a token says; `check` is asked where it is not known.
    fn claims(&self, token: &str, check: impl FnOnce() -> Result<Claims>) -> Result<Arc<Claims>> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(claims) = self.known().get(&digest) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(check()?);
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            // Those in use are back with their next request.
            known.clear();
        }
        known.insert(digest, claims.clone());
        Ok(claims)
    }
}

/// What a token is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Namespace of the account.
    pub namespace: String,
    /// The account.
    pub account: String,
    /// Its uid.
    pub account_uid: String,
    /// Name and uid of what the token ends with: `pod` or `secret`.
    pub bound: Option<Bound>,
    /// Name and uid of the node the pod is on.
    pub node: Option<(String, String)>,
    /// Whom the token is for.
    pub audiences: Vec<String>,
    /// When it was issued, in seconds since 1970.
    pub issued: i64,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
    /// Its own id.
    pub id: String,
}

/// An object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// `pod` or `secret`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl TokenKey {
    /// A P-256 key: the private part as PKCS #8 DER, the public one as an uncompressed point (SEC 1).
    ///
    /// # Errors
    /// When the point is not one of P-256.
    pub fn new(pkcs8: &[u8], point: &[u8]) -> Result<Self> {
        let [4, coordinates @ ..] = point else { bail!("read the public key of tokens: not an uncompressed point") };
        let (x, y) = coordinates.split_at_checked(32).context("read the public key of tokens: too short")?;
        let point = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        let checking = DecodingKey::from_ec_components(&point[0], &point[1]).context("use the public key of tokens")?;
        // The thumbprint of RFC 7638.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, point[0], point[1]);
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
        Ok(Self { signing: EncodingKey::from_ec_der(pkcs8), checking, point, id, checked: Checked::default() })
    }

    /// The public key as a set of one (RFC 7517), for those who check tokens themselves.
    pub fn key_set(&self) -> Value {
        let [x, y] = &self.point;
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y}]})
    }

    /// A signed token.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, claims: &Claims) -> Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        header.typ = None;
        jsonwebtoken::encode(&header, &claims.to_value(), &self.signing).context("sign a token")
    }

    /// What a token says, if it is one of ours and its time has not passed. `now` is in seconds since 1970. Whether the
    /// account and the pod still exist is for the caller to see.
    ///
    /// # Errors
    /// Why it is not to be trusted.
    pub fn check(&self, token: &str, now: i64) -> Result<Claims> {
        let claims = self.checked.claims(token, || self.read(token))?;
        if claims.expires < now - LEEWAY {
            bail!("the token has expired");
        }
        if claims.issued > now + LEEWAY {
            bail!("the token is not valid yet");
        }
        Ok(Claims::clone(&claims))
    }

    /// What a token with a good signature says, at whatever time.
    fn read(&self, token: &str) -> Result<Claims> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        // Time is handed in, and audiences are the caller's question.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let data = jsonwebtoken::decode::<Value>(token, &self.checking, &validation).context("check the token")?;
        Claims::of(&data.claims)
    }
}

impl Claims {
    /// The user that a token stands for.
    pub fn user(&self) -> User {
        const PREFIX: &str = "authentication.kubernetes.io";
        let mut extra = BTreeMap::from([(format!("{PREFIX}/credential-id"), vec![format!("JTI={}", self.id)])]);
        let mut tell = |what: &str, name: &str, uid: &str| {
            extra.insert(format!("{PREFIX}/{what}-name"), vec![name.to_owned()]);
            extra.insert(format!("{PREFIX}/{what}-uid"), vec![uid.to_owned()]);
        };
        if let Some(pod) = self.bound.as_ref().filter(|bound| bound.kind == "pod") {
            tell("pod", &pod.name, &pod.uid);
        }
        if let Some((name, uid)) = &self.node {
            tell("node", name, uid);
        }
        User::service_account_of(&self.namespace, &self.account, &self.account_uid, extra)
    }

    fn to_value(&self) -> Value {
        let mut kubernetes = json!({
            "namespace": self.namespace,
            "serviceaccount": {"name": self.account, "uid": self.account_uid},
        });
        if let Some(bound) = &self.bound {
            kubernetes[&bound.kind] = json!({"name": bound.name, "uid": bound.uid});
        }
        if let Some((name, uid)) = &self.node {
            kubernetes["node"] = json!({"name": name, "uid": uid});
        }
        json!({
            "iss": ISSUER, "sub": User::name_of_account(&self.namespace, &self.account), "aud": self.audiences,
            "exp": self.expires, "iat": self.issued, "nbf": self.issued, "jti": self.id, "kubernetes.io": kubernetes,
        })
    }

    fn of(value: &Value) -> Result<Self> {
        let own = &value["kubernetes.io"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = |field: &str| own[field].is_object().then(|| (text(&own[field]["name"]), text(&own[field]["uid"])));
        let bound = ["pod", "secret"].into_iter().find_map(|kind| {
            let (name, uid) = named(kind)?;
            Some(Bound { kind: kind.to_owned(), name, uid })
        });
        let (account, account_uid) = named("serviceaccount").context("the token names no service account")?;
        let claims = Self {
            namespace: text(&own["namespace"]),
            account,
            account_uid,
            bound,
            node: named("node"),
            audiences: value["aud"].as_array().into_iter().flatten().map(text).collect(),
            issued: value["nbf"].as_i64().context("the token does not say from when it is valid")?,
            expires: value["exp"].as_i64().context("the token does not say when it ends")?,
            id: text(&value["jti"]),
        };
        if text(&value["sub"]) != User::name_of_account(&claims.namespace, &claims.account) {
            bail!("the token's subject is not its service account");
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        let pair = rcgen::KeyPair::generate().expect("key");
        TokenKey::new(&pair.serialize_der(), pair.public_key_raw()).expect("key")
    }

    fn claims() -> Claims {
        Claims {
            namespace: "a".into(),
            account: "app".into(),
            account_uid: "1".into(),
            bound: Some(Bound { kind: "pod".into(), name: "p".into(), uid: "2".into() }),
            node: Some(("n".into(), "3".into())),
            audiences: vec![ISSUER.into()],
            issued: 1000,
            expires: 4600,
            id: "x".into(),
        }
    }

    #[test]
    fn a_token_says_what_it_was_issued_for_until_it_ends() {
        let (key, claims) = (key(), claims());
        let token = key.sign(&claims).expect("signed");
        // The second time from memory.
        for _ in 0..2 {
            assert_eq!(key.check(&token, 2000).expect("valid"), claims);
        }
        assert!(key.check(&token, 4700).unwrap_err().to_string().contains("expired"));
        assert!(key.check(&token, 0).unwrap_err().to_string().contains("not valid yet"));
        let user = claims.user();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:app", "1"));
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    }

    #[test]
    fn nobody_elses_token_is_taken() {
        let token = key().sign(&claims()).expect("signed");
        let own = key();
        assert!(own.check(&token, 2000).is_err());
        let mut forged = own.sign(&claims()).expect("signed");
        forged.truncate(forged.len() - 4);
        assert!(own.check(&format!("{forged}AAAA"), 2000).is_err());
        assert!(own.check("not.a.token", 2000).is_err());
        // The classic forgery: a header that asks for no signature.
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let body = URL_SAFE_NO_PAD.encode(claims().to_value().to_string());
        assert!(own.check(&format!("{none}.{body}."), 2000).is_err());
    }
}
