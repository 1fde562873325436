//! The variables by which containers find the Services of their namespace: `REDIS_SERVICE_HOST` and the like. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};

/// The Service through which every container finds the API, whether it asks for links or not.
const API: (&str, &str) = ("default", "kubernetes");

/// The variables for a pod, from all Services there are.
pub fn variables<'a>(pod: &Pod, services: impl IntoIterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let mut found = BTreeMap::new();
    for service in services {
        let place = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let wanted = (place, name) == API || (links && place == namespace);
        // One in the pod's own namespace wins over the API's, should it have the same name.
        if wanted && (place == namespace || !found.contains_key(&format!("{}_SERVICE_HOST", upper(name)))) {
            add(&mut found, name, service);
        }
    }
    found
}

fn upper(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn add(found: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().filter(|address| !matches!(*address, "" | "None"));
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(address), Some(first)) = (address, ports.first()) else { return };
    let name = upper(name);
    found.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    found.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    // The form of docker's links, which upstream keeps alive.
    let link = |port: i32, protocol: &str| format!("{}://{address}:{port}", protocol.to_lowercase());
    found.insert(format!("{name}_PORT"), link(first.port, first.protocol.as_deref().unwrap_or("TCP")));
    for port in ports {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if let Some(label) = port.name.as_deref().filter(|label| !label.is_empty()) {
            found.insert(format!("{name}_SERVICE_PORT_{}", upper(label)), port.port.to_string());
        }
        let one = format!("{name}_PORT_{}_{protocol}", port.port);
        found.insert(format!("{one}_PROTO"), protocol.to_lowercase());
        found.insert(format!("{one}_PORT"), port.port.to_string());
        found.insert(format!("{one}_ADDR"), address.to_owned());
        found.insert(one, link(port.port, protocol));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(namespace: &str, name: &str, address: &str, ports: Value) -> Service {
        let object = json!({"metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": address, "ports": ports}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_container_finds_the_services_of_its_namespace_and_the_api() {
        let services = [
            service("default", "kubernetes", "10.96.0.1", json!([{"name": "https", "port": 443}])),
            service("default", "other", "10.96.0.7", json!([{"port": 1}])),
            service("d", "my-db", "10.96.0.5", json!([{"port": 5432, "protocol": "TCP"}])),
            service("d", "headless", "None", json!([{"port": 5432}])),
        ];
        let pod = |links: bool| -> Pod {
            let object = json!({"metadata": {"name": "p", "namespace": "d"},
                "spec": {"containers": [], "enableServiceLinks": links}});
            serde_json::from_value(object).unwrap()
        };
        let text = |links| -> String {
            variables(&pod(links), &services).iter().map(|(name, value)| format!("{name}={value}\n")).collect()
        };
        expect_test::expect![[r#"
            KUBERNETES_PORT=tcp://10.96.0.1:443
            KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
            KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
            KUBERNETES_PORT_443_TCP_PORT=443
            KUBERNETES_PORT_443_TCP_PROTO=tcp
            KUBERNETES_SERVICE_HOST=10.96.0.1
            KUBERNETES_SERVICE_PORT=443
            KUBERNETES_SERVICE_PORT_HTTPS=443
            MY_DB_PORT=tcp://10.96.0.5:5432
            MY_DB_PORT_5432_TCP=tcp://10.96.0.5:5432
            MY_DB_PORT_5432_TCP_ADDR=10.96.0.5
            MY_DB_PORT_5432_TCP_PORT=5432
            MY_DB_PORT_5432_TCP_PROTO=tcp
            MY_DB_SERVICE_HOST=10.96.0.5
            MY_DB_SERVICE_PORT=5432
        "#]]
        .assert_eq(&text(true));
        assert!(!text(false).contains("MY_DB") && text(false).contains("KUBERNETES_SERVICE_HOST"));
    }
}
