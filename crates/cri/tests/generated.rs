//! The committed Rust code and the protocol file say the same.

use std::{fs, path::Path};

/// Renew the committed file with `UPDATE_GENERATED=1 cargo nextest run -p cri`.
#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/runtime_v1.rs");
    let descriptors = protox::compile(["api.proto"], [root.join("proto")]).expect("api.proto is valid");
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure().out_dir(out.path()).compile_fds(descriptors).expect("generate from the descriptors");
    let body = fs::read_to_string(out.path().join("runtime.v1.rs")).unwrap();
    let fresh = format!("//! Generated from `proto/api.proto`: change that, then see `tests/generated.rs`.\n{body}");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&committed, &fresh).unwrap();
    }
    let current = fs::read_to_string(&committed).unwrap_or_default();
    assert!(current == fresh, "src/runtime_v1.rs differs from proto/api.proto: run with UPDATE_GENERATED=1");
}
