//! What no client should send, over HTTP: each is refused as Kubernetes refuses it, and the server goes on.

mod cluster;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cluster::listening::{Listening, request};
use cluster::{MAPS, map};
use http::{HeaderValue, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// An administrator's connection to a server.
struct Client(Listening);

impl Client {
    async fn start() -> Self {
        let client = Self(Listening::start().await);
        assert_eq!(client.send("POST", MAPS, JSON, map("present").to_string()).await.0, 201);
        client
    }

    async fn ask(&self, request: Request<Full<bytes::Bytes>>) -> (u16, Value) {
        let admin = Some(self.0.authority.sign("admin", "system:masters"));
        let (code, answer) = self.0.ask(admin, "http/1.1", request).await;
        (code.as_u16(), answer)
    }

    async fn send(&self, method: &str, path: &str, content: &str, body: impl Into<bytes::Bytes>) -> (u16, Value) {
        let mut request = request(method, path, body);
        request.headers_mut().insert("content-type", content.parse().expect("a header"));
        self.ask(request).await
    }

    /// Code and message of a request that must be refused.
    async fn refusal(&self, method: &str, path: &str, content: &str, body: impl Into<bytes::Bytes>) -> (u16, String) {
        let (code, status) = self.send(method, path, content, body).await;
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{path}: {status}");
        assert_eq!(status["code"], code);
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    }

    /// The server still answers, and nothing has been made.
    async fn goes_on(self) {
        let (code, list) = self.send("GET", MAPS, JSON, "").await;
        assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(1)), "{list}");
        self.0.end().await;
    }

    /// A connection that a request has been written to, as it is.
    async fn raw(&self, text: &str) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let admin = Some(self.0.authority.sign("admin", "system:masters"));
        let mut stream = self.0.connect(admin, "http/1.1").await;
        stream.write_all(text.as_bytes()).await.expect("write");
        stream
    }

    /// How many watches of maps are open.
    async fn watches(&self) -> usize {
        let text = self.0.cluster.get("/metrics").await.text();
        let row = |line: &&str| line.starts_with("apiserver_longrunning_requests") && line.contains("\"configmaps\"");
        let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        text.lines().find(row).map_or(0, value)
    }

    async fn until_watches(&self, wanted: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.watches().await != wanted {
            assert!(Instant::now() < deadline, "{} watches, not {wanted}", self.watches().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn is_refused(said: &(u16, String), code: u16, words: &str) {
    assert!(said.0 == code && said.1.contains(words), "not {code} with {words:?}: {said:?}");
}

/// Memory that the process holds, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("read statm");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

#[tokio::test]
async fn a_body_beyond_three_mebibytes_is_too_large() {
    let client = Client::start().await;
    for content in [JSON, YAML, PROTOBUF] {
        let said = client.refusal("POST", MAPS, content, vec![b' '; (3 << 20) + 1]).await;
        assert_eq!(said, (413, "Request entity too large: limit is 3145728".to_owned()));
    }
    let long = format!("{}x", "a".repeat(2 << 20));
    let large = json!({"metadata": {"name": "large"}, "data": {"a": long}}).to_string();
    is_refused(&client.refusal("POST", MAPS, JSON, large).await, 422, "Too long: may not be more than 1048576 bytes");
    client.goes_on().await;
}

#[tokio::test]
async fn what_is_nested_without_end_is_refused() {
    let client = Client::start().await;
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let lists = format!("{{\"metadata\":{{\"name\":\"deep\"}},\"data\":{open}{close}}}");
    let maps = format!("{}1{}", "{\"data\":".repeat(100_000), "}".repeat(100_000));
    let indented = (0..1000).fold(String::new(), |mut text, depth| {
        let _ = writeln!(text, "{}data:", " ".repeat(depth));
        text
    });
    for text in [lists, maps, indented] {
        for content in [JSON, YAML] {
            is_refused(&client.refusal("POST", MAPS, content, text.clone()).await, 400, "");
        }
        let present = format!("{MAPS}/present");
        for kind in ["merge-patch+json", "strategic-merge-patch+json", "json-patch+json", "apply-patch+yaml"] {
            let path = format!("{present}?fieldManager=me");
            is_refused(&client.refusal("PATCH", &path, &format!("application/{kind}"), text.clone()).await, 400, "");
        }
        is_refused(&client.refusal("DELETE", &present, JSON, text.clone()).await, 400, "");
    }
    client.goes_on().await;
}

#[tokio::test]
async fn aliases_that_multiply_are_refused_at_once() {
    let client = Client::start().await;
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let ten = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(laughs, "a{level}: &a{level} [{ten}]");
    }
    let (begin, before) = (Instant::now(), resident());
    let said = client.refusal("POST", MAPS, YAML, format!("metadata: {{name: laughs}}\n{laughs}data: *a11\n")).await;
    is_refused(&said, 400, "yaml");
    let path = format!("{MAPS}/laughs?fieldManager=me");
    let said = client.refusal("PATCH", &path, "application/apply-patch+yaml", format!("{laughs}data: *a11\n")).await;
    is_refused(&said, 400, "");
    let grown = resident().saturating_sub(before);
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
    assert!(grown < 256 << 20, "took {grown} bytes");
    client.goes_on().await;
}

#[tokio::test]
async fn a_patch_has_only_so_many_operations_and_copies() {
    let client = Client::start().await;
    let path = format!("{MAPS}/present");
    let many = vec![json!({"op": "add", "path": "/data/x", "value": "y"}); 10_001];
    let said = client.refusal("PATCH", &path, JSON_PATCH, Value::from(many).to_string()).await;
    let why = "The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!(said, (413, format!("Request entity too large: {why}")));
    // Each copy doubles what there is.
    let mut copies = vec![json!({"op": "add", "path": "/data/a", "value": "x".repeat(600_000)})];
    copies.extend((0..9).map(|to| json!({"op": "copy", "from": "/data/a", "path": format!("/data/b{to}")})));
    let said = client.refusal("PATCH", &path, JSON_PATCH, Value::from(copies).to_string()).await;
    is_refused(&said, 422, "the accumulated size increase of copy is 3600012, exceeding the limit 3145728");
    let doubling = (0..40).map(|_| json!({"op": "copy", "from": "/data", "path": "/data/a"}));
    let said = client.refusal("PATCH", &path, JSON_PATCH, Value::from_iter(doubling).to_string()).await;
    is_refused(&said, 422, "");
    client.goes_on().await;
}

#[tokio::test]
async fn parameters_and_headers_that_are_wrong_are_refused_and_odd_ones_are_borne() {
    let client = Client::start().await;
    for (query, code, words) in [
        ("limit=many", 400, "limit"),
        ("limit=99999999999999999999999", 400, "limit"),
        ("continue=%00%ff", 400, "continue key is not valid"),
        ("continue=bm90IGpzb24", 400, "continue key is not valid"),
        (
            "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTUsInN0YXJ0IjoiLi4vLi4vc2VjcmV0cyJ9",
            400,
            "continue key is not valid",
        ),
        ("resourceVersion=newest", 400, "resourceVersion"),
        ("resourceVersion=-1", 400, "resourceVersion"),
        ("resourceVersionMatch=Exact", 422, "resourceVersionMatch"),
        ("resourceVersion=1&resourceVersionMatch=Nearly", 422, "resourceVersionMatch"),
        ("labelSelector=a+in+(", 400, "unable to parse requirement"),
        ("labelSelector=%3D%3D", 400, ""),
        ("labelSelector=-a-%3Db", 400, ""),
        ("fieldSelector=spec.colour%3Dred", 400, "not a known field selector"),
        ("fieldSelector=metadata.name", 400, ""),
        ("timeout=soon", 400, "invalid timeout"),
        ("watch=true&timeoutSeconds=soon", 400, "timeoutSeconds"),
        ("watch=true&resourceVersion=x", 400, "resourceVersion"),
        ("watch=true&sendInitialEvents=true", 422, "sendInitialEvents"),
    ] {
        let said = client.refusal("GET", &format!("{MAPS}?{query}"), JSON, "").await;
        assert!(said.0 == code && said.1.contains(words), "{query}: not {code} with {words:?}: {said:?}");
    }
    let object = map("odd").to_string();
    for (query, code, words) in [
        ("dryRun=Some", 422, "dryRun"),
        ("fieldValidation=Mostly", 422, "fieldValidation"),
        (&*format!("fieldManager={}", "x".repeat(129)), 422, "fieldManager"),
        ("fieldManager=%07", 422, "fieldManager"),
    ] {
        is_refused(&client.refusal("POST", &format!("{MAPS}?{query}"), JSON, object.clone()).await, code, words);
    }
    let odd = |name: &'static str, value: HeaderValue| {
        let mut request = request("GET", MAPS, "");
        request.headers_mut().insert(name, value);
        request
    };
    let bytes = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("a header");
    for (name, value, code) in [
        ("accept", bytes(b"text/html"), 406),
        ("accept", bytes(b"\xff\xfe"), 200),
        ("accept", bytes(b"application/json;q=NaN;;;=,,"), 200),
        ("audit-id", bytes(&[b'x'; 4000]), 200),
        ("user-agent", bytes(b"\xff\xfe"), 200),
        ("accept-encoding", bytes(b"gzip;q=x,\xff"), 200),
        ("impersonate-user", bytes(b"\xff"), 400),
        ("impersonate-group", bytes(b"system:masters"), 400),
    ] {
        let (got, answer) = client.ask(odd(name, value.clone())).await;
        assert_eq!(got, code, "{name}: {value:?}: {answer}");
    }
    for path in ["/api/v1/namespaces/%ff%fe/configmaps/x", "/api/v1/namespaces/default/configmaps/..%2f..%2fx"] {
        is_refused(&client.refusal("GET", path, JSON, "").await, 404, "");
    }
    let long = format!("{MAPS}?labelSelector={}", vec!["a=b"; 8_000].join(","));
    assert_eq!(client.send("GET", &long, JSON, "").await.0, 200);
    client.goes_on().await;
}

#[tokio::test]
async fn bodies_that_are_not_what_they_say_are_refused() {
    let client = Client::start().await;
    for (content, body, code) in [
        (JSON, &b"{\"metadata\":{\"name\":\"\xff\xfe\"}}"[..], 400),
        (JSON, b"", 400),
        (JSON, b"null", 422),
        (JSON, b"[]", 400),
        (JSON, b"{} {}", 400),
        (JSON, b"{\"metadata\":{\"name\":\"\\ud800\"}}", 400),
        (YAML, b"\xff\xfe\xfd", 400),
        (YAML, b"a: [", 400),
        (YAML, b"--- a\n--- b\n", 400),
        (YAML, b"!!binary x: &a *a\n", 400),
        (PROTOBUF, b"k8s\0", 422),
        (PROTOBUF, b"k8s", 400),
        (PROTOBUF, b"{\"metadata\":{}}", 400),
        (PROTOBUF, b"k8s\0\x0a\xff\xff\xff\xff\x0f", 400),
        (PROTOBUF, b"k8s\0\x12\x06\x0a\xff\xff\xff\xff\x0f", 400),
        (PROTOBUF, b"k8s\0\x12\x04\x0a\x02\x08\x80", 400),
        ("application/xml", b"<map/>", 415),
        ("text/plain; charset=\"", b"{}", 415),
        ("", b"{}", 415),
        ("application/cbor", b"\xd9\xd9\xf7\xa0", 415),
    ] {
        let (got, message) = client.refusal("POST", MAPS, content, body).await;
        assert_eq!(got, code, "{content}: {:?}: {message}", String::from_utf8_lossy(body));
    }
    let present = format!("{MAPS}/present");
    for (content, body, code) in [
        (JSON, "{}", 415),
        ("application/merge-patch+json", "[]", 400),
        ("application/merge-patch+json", "{", 400),
        ("application/strategic-merge-patch+json", "1", 400),
        (JSON_PATCH, "{}", 400),
        (JSON_PATCH, "[{\"op\":\"sing\"}]", 400),
        (JSON_PATCH, "[{\"op\":\"remove\",\"path\":\"/nowhere\"}]", 422),
    ] {
        let (got, message) = client.refusal("PATCH", &present, content, body).await;
        assert_eq!(got, code, "{content}: {body}: {message}");
    }
    client.goes_on().await;
}

#[tokio::test]
async fn a_body_that_does_not_end_is_waited_for_no_longer_than_the_request_says() {
    let client = Client::start().await;
    let head = format!(
        "POST {MAPS}?timeout=1s HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\ncontent-length: 1000\r\n\r\n{{\"kind\":"
    );
    let begin = Instant::now();
    let mut stream = client.raw(&head).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 504 ") && text.contains("\"reason\":\"Timeout\""), "{read:?} {text}");
    assert!((1..15).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    client.goes_on().await;
}

#[tokio::test]
async fn a_watcher_that_is_gone_is_forgotten() {
    let client = Client::start().await;
    let text = format!("GET {MAPS}?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = client.raw(&text).await;
        let mut first = [0; 512];
        assert!(stream.read(&mut first).await.expect("read") > 0);
        streams.push(stream);
    }
    client.until_watches(3).await;
    drop(streams);
    client.until_watches(0).await;
    client.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_never_reads_is_ended_and_keeps_no_memory() {
    let client = Client::start().await;
    let text = format!("GET {MAPS}?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut stuck = Vec::new();
    for _ in 0..8 {
        stuck.push(client.raw(&text).await);
    }
    client.until_watches(8).await;
    let mut reading = client.0.cluster.watch(&format!("{MAPS}?watch=true"), "").await;
    let path = format!("{MAPS}/present");
    // More than what the connections and the queue of a watch hold, of a kibibyte each.
    let write = async |count: usize| {
        for number in 0..count {
            client.0.cluster.merge(&path, json!({"data": {"a": format!("{number:01024}")}})).await.ok();
        }
    };
    let follow = async |reading: &mut cluster::Events, count: usize| {
        for _ in 0..count {
            assert!(reading.next().await.is_some(), "who reads is not ended");
        }
    };
    reading.next().await.expect("the state");
    for _ in 0..8 {
        write(2_000).await;
        follow(&mut reading, 2_000).await;
        let newest = store::Store::revision(client.0.cluster.store.as_ref());
        store::Store::compact(client.0.cluster.store.as_ref(), newest).await.expect("compact");
    }
    // Those that are stuck have been cut off by now: the next 6000 changes take room for nobody.
    let before = resident();
    for _ in 0..3 {
        write(2_000).await;
        follow(&mut reading, 2_000).await;
        let newest = store::Store::revision(client.0.cluster.store.as_ref());
        store::Store::compact(client.0.cluster.store.as_ref(), newest).await.expect("compact");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "8 stuck watchers took {grown} bytes");
    // Who begins to read finds the end behind what was on its way.
    for mut stream in stuck {
        let mut rest = Vec::new();
        let read = async {
            let mut piece = vec![0; 64 << 10];
            while !rest.ends_with(b"\r\n0\r\n\r\n") {
                let count = stream.read(&mut piece).await.expect("read");
                assert!(count > 0, "the connection ended before the watch");
                rest.extend_from_slice(&piece[..count]);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), read).await.expect("the watch ends");
    }
    client.until_watches(1).await;
    client.goes_on().await;
}
