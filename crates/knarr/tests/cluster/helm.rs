//! helm 4 and a chart with most kinds of the tutorial: install, upgrade, roll back, uninstall.

#![expect(clippy::disallowed_methods, reason = "these tests run clients of other makers")]

use std::process::Command;

use crate::node::{Node, Said, eventually, example, helm, run};

fn say(node: &Node, args: &[&str]) -> Said {
    let mut command = Command::new(helm());
    command
        .env("KUBECONFIG", node.data().join("admin.kubeconfig"))
        .env("HOME", node.path("home"))
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    run(command.args(args))
}

fn ok(node: &Node, line: &str) -> String {
    let chart = example("chart");
    let args: Vec<&str> =
        line.split_whitespace().map(|word| if word == "CHART" { chart.as_str() } else { word }).collect();
    let said = say(node, &args);
    assert!(said.status.success(), "helm {line}: {}{}", said.out, said.err);
    said.out
}

#[test]
fn a_chart_is_installed_upgraded_rolled_back_and_uninstalled() {
    let node = Node::ready();
    let image = || node.ok("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}");
    assert!(ok(&node, "install web CHART --wait --timeout 90s").contains("STATUS: deployed"));
    assert_eq!(image(), "gihyodocker/echo:latest");
    for what in [
        "deployment/web",
        "statefulset/web-state",
        "service/web",
        "ingress/web",
        "cronjob/web-tick",
        "role/web",
        "secret/web-secret",
    ] {
        assert_eq!(node.try_kubectl(&format!("get {what}")).code(), 0, "{what}");
    }
    assert_eq!(node.ok("get pvc data-web-state-0 -o jsonpath={.status.phase}"), "Bound");
    assert!(node.try_kubectl("get job web-before").err.contains("not found"), "the hook is gone");

    ok(&node, "upgrade web CHART --set tag=patched,replicas=3,greeting=bye --wait --timeout 90s");
    assert_eq!((image().as_str(), node.list("pods -l app=web").len()), ("gihyodocker/echo:patched", 3));
    assert_eq!(node.ok("get configmap web-settings -o jsonpath={.data.greeting}"), "bye");
    // What somebody scaled by hand is theirs, until helm insists.
    node.ok("scale deployment web --replicas=1");
    let refused = say(&node, &["rollback", "web", "1"]);
    assert!(
        refused.err.contains("conflict with \"kubectl\" with subresource \"scale\" using apps/v1")
            && refused.err.contains(".spec.replicas"),
        "{}",
        refused.err
    );
    ok(&node, "rollback web 1 --wait --timeout 90s --force-conflicts");
    assert_eq!(image(), "gihyodocker/echo:latest");
    eventually("the first number of pods", || {
        (node.ok("get deployment web -o jsonpath={.status.readyReplicas}") == "2").then_some(())
    });
    let history = ok(&node, "history web");
    assert!(history.contains("Rollback to 1") && history.lines().count() == 5, "{history}");
    let starts = node.ok("exec web-state-0 -- cat /data/starts");
    assert!(starts.starts_with("web-state-0"), "{starts}");

    // Mistakes.
    let chart = example("chart");
    let refused = say(&node, &["install", "web", &chart]);
    assert!(
        refused.err.contains("cannot reuse a name that is still in use")
            || refused.err.contains("cannot re-use a name that is still in use"),
        "{}",
        refused.err
    );
    let refused = say(&node, &["upgrade", "web", &chart, "--set", "replicas=many"]);
    assert!(!refused.status.success() && refused.err.contains("replicas"), "{}", refused.err);
    let refused = say(&node, &["rollback", "web", "77"]);
    assert!(!refused.status.success() && refused.err.contains("77"), "{}", refused.err);

    ok(&node, "uninstall web --wait --timeout 90s");
    for what in ["deployments", "statefulsets", "ingresses", "cronjobs", "roles", "pods"] {
        assert_eq!(node.list(what).len(), 0, "{what}");
    }
    assert_eq!(node.list("pvc").len(), 1, "what was stored stays until somebody deletes it");
}
