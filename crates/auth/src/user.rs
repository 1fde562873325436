//! Users: what a request is made as.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who makes a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The name, like `system:node:host`.
    pub name: String,
    /// What tells users of one name apart over time, where there is such a thing.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else is known, like the pod that a token was issued for.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The user of requests that name no one.
pub const ANONYMOUS: &str = "system:anonymous";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The groups that every service account of a namespace is in.
fn account_groups(namespace: &str) -> [String; 2] {
    ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

impl User {
    /// A user that has been authenticated, with these groups.
    pub fn authenticated(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// The user of a request without credentials.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// A service account, with its uid and what is known of the token it showed.
    pub fn service_account_of(namespace: &str, name: &str, uid: &str, extra: BTreeMap<String, Vec<String>>) -> Self {
        let groups = account_groups(namespace);
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        Self { uid: uid.to_owned(), extra, ..Self::authenticated(&Self::name_of_account(namespace, name), &groups) }
    }

    /// The user name of a service account.
    pub fn name_of_account(namespace: &str, name: &str) -> String {
        format!("{ACCOUNT_PREFIX}{namespace}:{name}")
    }

    /// The namespace and name of the service account that this user is, if it is one.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')
    }

    /// The user with the groups that every user of its name has: what impersonation of it means.
    pub fn impersonated(name: &str, groups: &[&str]) -> Self {
        match name.strip_prefix(ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':')) {
            Some((namespace, account)) if groups.is_empty() => {
                Self::service_account_of(namespace, account, "", BTreeMap::new())
            }
            _ => Self::authenticated(name, groups),
        }
    }

    /// Whether this is the user of requests without credentials.
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// The user a client certificate stands for: the common name is the name, the organisations are the groups
    /// (Kubernetes' X.509 client certificate rule). The certificate must have been verified already.
    ///
    /// # Errors
    /// When the certificate does not parse or has no common name.
    pub fn of_certificate(der: &[u8]) -> Result<Self> {
        let (_, certificate) = X509Certificate::from_der(der).context("read client certificate")?;
        let subject = certificate.subject();
        let name = subject
            .iter_common_name()
            .next()
            .and_then(|cn| cn.as_str().ok())
            .context("the client certificate has no common name")?;
        let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
        Ok(Self::authenticated(name, &groups))
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The user as `userInfo` of reviews.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            value["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            value["extra"] = json!(self.extra);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_stands_for_its_common_name_and_organisations() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "alice");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "dev");
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate = params.self_signed(&key).expect("certificate");
        let user = User::of_certificate(certificate.der()).expect("a user");
        assert_eq!(user, User::authenticated("alice", &["dev"]));
        assert!(User::of_certificate(b"nonsense").is_err());
    }
}
