//! What `kubectl get services` shows.

use serde_json::Value;

use super::service::type_of;
use crate::{Now, walk};

/// One cell for each column.
pub(super) fn cells(object: &Value, now: Now) -> Vec<Value> {
    let spec = &object["spec"];
    let none = || "<none>".to_owned();
    let address = match type_of(spec) {
        "ExternalName" => none(),
        _ => walk::text(spec, "clusterIP").map_or_else(none, str::to_owned),
    };
    let selector = object_model::meta::strings(&spec["selector"]);
    let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        object_model::meta::name(object).into(),
        type_of(spec).into(),
        address.into(),
        outside(object).into(),
        ports(spec).into(),
        object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        if selector.is_empty() { none().into() } else { selector.join(",").into() },
    ]
}

/// The addresses from outside: `<pending>` for a load balancer that has none yet.
fn outside(object: &Value) -> String {
    let spec = &object["spec"];
    let mut addresses: Vec<&str> = walk::list(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    match type_of(spec) {
        "ExternalName" => walk::text(spec, "externalName").unwrap_or_default().to_owned(),
        "LoadBalancer" => {
            let given = walk::list(object, "status.loadBalancer.ingress").iter();
            let given = given.filter_map(|one| walk::text(one, "ip").or_else(|| walk::text(one, "hostname")));
            let mut all: Vec<&str> = given.collect();
            all.append(&mut addresses);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if addresses.is_empty() => "<none>".to_owned(),
        _ => addresses.join(","),
    }
}

fn ports(spec: &Value) -> String {
    let ports = walk::list(spec, "ports").iter().map(|port| {
        let (number, protocol) = (walk::number(port, "port"), walk::text(port, "protocol").unwrap_or("TCP"));
        match walk::number(port, "nodePort") {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    });
    let ports: Vec<String> = ports.collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}
