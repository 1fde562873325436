//! `cargo xtask fuzz`: random bytes for the readers, guided by what they cover (libFuzzer).
//!
//! The coverage is LLVM's own and needs no other compiler: see the flags.

use std::fs;

use anyhow::Context;

use crate::host::{self, cmd};

/// What makes the compiler count edges and comparisons for libFuzzer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Options {
    /// How long to go on
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    minutes: u32,
}

/// Builds the target and runs it. Ends with an error at the first input that breaks a reader, and keeps that input.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::install(&[("c++", "g++")])?;
    let target = host::target()?.join("fuzz");
    let corpus = target.join("corpus");
    fs::create_dir_all(&corpus).with_context(|| format!("create {}", corpus.display()))?;
    seed(&corpus)?;
    host::say("Building the fuzz target");
    cmd(env!("CARGO"))
        .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", TRIPLE, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", FLAGS)
        .run()?;
    host::say(&format!("Fuzzing for {} minutes", options.minutes));
    cmd(target.join(TRIPLE).join("release/fuzz"))
        .arg(format!("-max_total_time={}", options.minutes * 60))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", target.display()))
        .arg(&corpus)
        .run()
}

/// With a target, build scripts are built without the flags.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// One input for each reader, to begin with.
fn seed(corpus: &std::path::Path) -> anyhow::Result<()> {
    let seeds: [(u8, &str); 12] = [
        (
            0,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
        ),
        (
            1,
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: &l {x: \"1\"}}\nspec:\n  containers:\n  - name: c\n",
        ),
        (2, "k8s\u{0}\n\u{9}\n\u{2}v1\u{12}\u{3}Pod\u{12}\u{5}\n\u{3}\n\u{1}a"),
        (3, r#"[{"op":"add","path":"/spec/replicas","value":2},{"op":"copy","from":"/metadata","path":"/spec/x"}]"#),
        (4, "a=b,c in (d,e),!f,g notin (h)"),
        (4, "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Nywic3RhcnQiOiJwb2RzL2EvYiJ9"),
        (5, "{.a[?(@.b==1)].b}"),
        (
            6,
            r#"{"type":"object","properties":{"spec":{"type":"object","properties":{"a":{"type":"integer","default":1}},"x-kubernetes-validations":[{"rule":"self.a > 0"}]}}}"#,
        ),
        (7, "self.a.all(x, x > 0) && self.b.matches('^t.*') || has(self.c.d)"),
        (8, r#"{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{}}}}}"#),
        (9, "\u{0}\u{0}\u{0}\u{1}\u{1}\u{0}\u{0}\u{2}hi\u{0}\u{0}\u{0}\u{1}\u{1}\u{0}\u{0}\u{0}"),
        (10, r#"{"metadata":{"name":"a","annotations":{"a":"yes","b":"0x1f","c":"- x\n  y\n","d":" 1_000"}}}"#),
    ];
    for (number, (reader, text)) in seeds.into_iter().enumerate() {
        for kind in 0..8_u8 {
            let path = corpus.join(format!("seed-{number}-{kind}"));
            let bytes = [&[reader, kind], text.as_bytes()].concat();
            fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}
