//! Pulls from a small registry on loopback.

mod made;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image_store::{ImageStore, PullError};
use made::{Item, build, digest};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Answers GET for fixed paths and counts what it was asked.
struct Peer {
    address: String,
    asked: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

type Pages = HashMap<String, (u16, &'static str, Vec<u8>)>;

impl Peer {
    async fn serve(pages: Pages) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (pages, asked) = (Arc::new(pages), Arc::new(AtomicUsize::new(0)));
        let counter = asked.clone();
        #[expect(clippy::disallowed_methods, reason = "the peer stops it when it is dropped")]
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (pages, counter) = (pages.clone(), counter.clone());
                connections.spawn(async move {
                    // A client that hangs up ends its connection, nothing more.
                    let _ = connection(stream, &pages, &counter).await;
                });
            }
        });
        Peer { address, asked, serving }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connection(stream: TcpStream, pages: &Pages, asked: &AtomicUsize) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if stream.read_line(&mut request).await? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 2 {
            line.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or("").to_owned();
        if path != "/v2/" {
            asked.fetch_add(1, Ordering::SeqCst);
        }
        let unknown = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        let empty = (200, "application/json", b"{}".to_vec());
        let missing = (404, "application/json", unknown.to_vec());
        let (status, kind, body) = pages.get(&path).unwrap_or(if path == "/v2/" { &empty } else { &missing });
        let head = format!("HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        stream.flush().await?;
    }
}

fn pages(built: &made::Built) -> Pages {
    let manifest = built.manifest();
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "1".repeat(64)),
              "size": 1, "platform": { "os": "linux", "architecture": "arm64" } },
            { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest),
              "size": manifest.len(), "platform": { "os": "linux", "architecture": "amd64" } },
        ],
    }))
    .unwrap();
    let mut pages = Pages::new();
    let index_type = "application/vnd.oci.image.index.v1+json";
    pages.insert("/v2/team/app/manifests/1".into(), (200, index_type, index));
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    pages.insert(format!("/v2/team/app/manifests/{}", digest(&manifest)), (200, manifest_type, manifest));
    for blob in built.layers.iter().chain([&built.config]) {
        pages.insert(format!("/v2/team/app/blobs/{}", digest(blob)), (200, "application/octet-stream", blob.clone()));
    }
    let denied = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    pages.insert("/v2/secret/app/manifests/1".into(), (401, "application/json", denied.to_vec()));
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_the_image_of_this_platform_and_callers_share_the_pull() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let built = build(&[vec![Item::file("hello", "world")], vec![Item::file("again", "x")]]);
    let peer = Peer::serve(pages(&built)).await;
    let name = format!("{}/team/app:1", peer.address);
    let pulls = futures::future::join_all((0..20).map(|_| store.pull(&name, None))).await;
    for image in pulls {
        assert_eq!(image.unwrap().id, built.id());
    }
    assert_eq!(peer.asked.load(Ordering::SeqCst), 5, "index, manifest, configuration, two layers");
    let image = store.resolve(&name).unwrap();
    assert_eq!(image.tags, std::slice::from_ref(&name));
    assert_eq!(image.digests.len(), 1);
    assert!(store.lower_dirs(&image).await.unwrap()[1].join("hello").exists());
    // Again: the manifests are looked at, no blob is fetched.
    store.pull(&name, None).await.unwrap();
    assert_eq!(peer.asked.load(Ordering::SeqCst), 7);
    assert_eq!(store.resolve(&image.digests[0]).unwrap().id, built.id());
}

#[tokio::test]
async fn a_registry_that_answers_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let built = build(&[vec![Item::file("hello", "world")]]);
    let mut pages = pages(&built);
    let peer = Peer::serve(pages.clone()).await;
    let missing = store.pull(&format!("{}/team/none:1", peer.address), None).await.unwrap_err();
    assert!(matches!(missing, PullError::NotFound { .. }), "{missing:?}");
    let denied = store.pull(&format!("{}/secret/app:1", peer.address), None).await.unwrap_err();
    assert!(matches!(denied, PullError::Unauthorized { .. }), "{denied:?}");
    let layer = format!("/v2/team/app/blobs/{}", digest(&built.layers[0]));
    let forged = made::tar(&[Item::file("hello", "wordl")]);
    pages.insert(layer, (200, "application/octet-stream", forged));
    let liar = Peer::serve(pages).await;
    let forged = store.pull(&format!("{}/team/app:1", liar.address), None).await.unwrap_err();
    assert!(matches!(&forged, PullError::Other(cause) if cause.contains("igest")), "{forged:?}");
    assert!(store.list().is_empty());
    assert!(matches!(store.pull("Bad Name", None).await, Err(PullError::Other(_))));
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_found_out_fast_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let started = Instant::now();
    for number in 0..100 {
        let error = store.pull(&format!("{address}/app:{number}"), None).await.unwrap_err();
        let PullError::Unreachable { registry, cause } = error else { panic!("{error:?}") };
        assert_eq!(registry, address.to_string());
        assert!(cause.contains("refused"), "{cause}");
    }
    assert!(started.elapsed() < Duration::from_secs(2));
}
