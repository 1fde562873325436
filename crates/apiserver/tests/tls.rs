//! The listener: TLS with optional client certificates, HTTP/1.1 and HTTP/2.

mod cluster;

use cluster::listening::{Listening, request};
use cluster::{MAPS, map};
use http::StatusCode;

#[tokio::test]
async fn a_certificate_says_who_asks_over_both_versions_of_http() {
    let l = Listening::start().await;
    for (protocol, name) in [("h2", "a"), ("http/1.1", "b")] {
        let admin = Some(l.authority.sign("admin", "system:masters"));
        let (code, object) = l.ask(admin, protocol, request("POST", MAPS, map(name).to_string())).await;
        assert_eq!((code, object["metadata"]["name"].as_str()), (StatusCode::CREATED, Some(name)));
    }
    let bob = Some(l.authority.sign("bob", "dev"));
    let (code, status) = l.ask(bob, "h2", request("GET", MAPS, "")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(status["message"].as_str().expect("text").contains("User \"bob\" cannot list resource \"configmaps\""));
    l.end().await;
}

#[tokio::test]
async fn without_a_certificate_one_is_anonymous_and_a_token_nobody_issued_is_refused() {
    let l = Listening::start().await;
    let (code, status) = l.ask(None, "http/1.1", request("GET", MAPS, "")).await;
    assert_eq!((code, status["reason"].as_str()), (StatusCode::FORBIDDEN, Some("Forbidden")));
    let mut with_token = request("GET", MAPS, "");
    with_token.headers_mut().insert("authorization", "Bearer x".parse().expect("header"));
    let (code, status) = l.ask(None, "http/1.1", with_token).await;
    assert_eq!((code, status["message"].as_str()), (StatusCode::UNAUTHORIZED, Some("Unauthorized")));
    l.end().await;
}
