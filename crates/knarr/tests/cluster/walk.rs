//! A walk over the whole API with kubectl, in both versions. What is typed and what must come of it is in
//! `tests/walk/*.txt`:
//!
//! - `$ line` is for the shell and must succeed; `$1 line` must end with 1. Lines after it that begin with `> ` belong
//!   to it.
//! - What follows it, indented, must be in what it says; what follows a `- ` must not be.
//! - `#` begins a comment.

#![expect(clippy::disallowed_methods, reason = "the walk goes through a shell, as people do")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::node::{Node, kubectl, other_kubectl, run};

/// Something typed, and what must come of it.
#[derive(Default)]
struct Step {
    number: usize,
    line: String,
    code: i32,
    there: Vec<String>,
    absent: Vec<String>,
}

/// The steps of a file.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, text) in (1..).zip(text.lines()) {
        if let Some(typed) = text.strip_prefix('$') {
            let (code, line) = typed.split_once(' ').expect("a line to type");
            let code = if code.is_empty() { 0 } else { code.parse().expect("an exit code") };
            steps.push(Step { number, line: line.to_owned(), code, ..Step::default() });
        } else if !text.is_empty() && !text.starts_with('#') {
            let (mark, rest) = text.split_at_checked(2).unwrap_or_else(|| panic!("line {number}: {text:?}"));
            let step = steps.last_mut().expect("something is typed first");
            match mark {
                "> " => step.line = format!("{}\n{rest}", step.line),
                "  " => step.there.push(rest.to_owned()),
                "- " => step.absent.push(rest.to_owned()),
                _ => panic!("line {number}: {text:?}"),
            }
        }
    }
    steps
}

/// Goes through a file with a kubectl of its own; what was wrong, and how many steps there were.
fn follow(node: &Node, kubectl: &Path, name: &str) -> (Vec<String>, usize) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/walk");
    let text = fs::read_to_string(files.join(format!("{name}.txt"))).expect("read the walk");
    // Each walk has its own current namespace, and its own place for what it makes.
    let own = node.path(name);
    fs::create_dir(&own).expect("make a directory");
    symlink(kubectl, own.join("kubectl")).expect("put kubectl on the path");
    fs::copy(node.data().join("admin.kubeconfig"), own.join("config")).expect("copy the kubeconfig");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(own.clone()).chain(std::env::split_paths(&path)));
    let path = path.expect("a path");
    let steps = steps(&text);
    let mut wrong = Vec::new();
    for step in &steps {
        let mut shell = Command::new("sh");
        shell.args(["-c", &step.line]).current_dir(&files).env("PATH", &path).env("HOME", &own);
        shell.env("KUBECONFIG", own.join("config")).env("SCRATCH", &own);
        let said = run(shell.stdin(Stdio::null()));
        let all = format!("{}{}", said.out, said.err);
        let mut faults = Vec::new();
        if said.code() != step.code {
            faults.push(format!("ended with {} instead of {}", said.code(), step.code));
        }
        faults.extend(step.there.iter().filter(|part| !all.contains(*part)).map(|part| format!("lacks {part:?}")));
        faults.extend(step.absent.iter().filter(|part| all.contains(*part)).map(|part| format!("has {part:?}")));
        if !faults.is_empty() {
            wrong.push(format!("{name}.txt:{}: {}\n{}\n{all}", step.number, step.line, faults.join("\n")));
        }
    }
    (wrong, steps.len())
}

/// Goes all ways: at the same time, for each has a namespace of its own.
fn walk(kubectl: &Path) {
    const WAYS: [&str; 6] = ["every_kind", "changes", "generators", "custom", "mistakes", "server"];
    let mut node = Node::empty();
    node.start();
    let node = &node;
    let (mut wrong, mut count) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let ways = WAYS.map(|name| scope.spawn(move || follow(node, kubectl, name)));
        for way in ways {
            let (faults, steps) = way.join().expect("a walk to its end");
            wrong.extend(faults);
            count += steps;
        }
    });
    assert!(count >= 300, "only {count} steps");
    assert!(wrong.is_empty(), "{} of {count} steps:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_walk_over_the_api_says_what_it_must() {
    walk(&kubectl());
}

#[test]
fn an_older_kubectl_walks_as_well() {
    walk(&other_kubectl());
}
