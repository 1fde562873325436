//! The one place where k8s-openapi's types are read and written, so that their code is compiled once.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, NodeStatus, Pod, PodSpec, PodStatus, PodTemplateSpec, Secret, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde_json::{Error, Value};

macro_rules! objects {
    ($($ty:ident: $read:ident, $from:ident, $write:ident;)*) => {$(
        #[doc = concat!("Reads a ", stringify!($ty), " from JSON text.")]
        pub fn $read(json: &[u8]) -> Result<$ty, Error> {
            serde_json::from_slice(json)
        }

        #[doc = concat!("Reads a ", stringify!($ty), " from a value.")]
        pub fn $from(value: Value) -> Result<$ty, Error> {
            serde_json::from_value(value)
        }

        #[doc = concat!("A ", stringify!($ty), " as a value.")]
        pub fn $write(object: &$ty) -> Result<Value, Error> {
            serde_json::to_value(object)
        }
    )*};
}

objects! {
    Pod: pod, pod_from_value, pod_to_value;
    ReplicaSet: replica_set, replica_set_from_value, replica_set_to_value;
    Deployment: deployment, deployment_from_value, deployment_to_value;
    Node: node, node_from_value, node_to_value;
    Namespace: namespace, namespace_from_value, namespace_to_value;
    Lease: lease, lease_from_value, lease_to_value;
    Event: event, event_from_value, event_to_value;
    ConfigMap: config_map, config_map_from_value, config_map_to_value;
    Secret: secret, secret_from_value, secret_to_value;
    Ingress: ingress, ingress_from_value, ingress_to_value;
    IngressClass: ingress_class, ingress_class_from_value, ingress_class_to_value;
    Service: service, service_from_value, service_to_value;
    EndpointSlice: endpoint_slice, endpoint_slice_from_value, endpoint_slice_to_value;
    PodTemplateSpec: pod_template, pod_template_from_value, pod_template_to_value;
    PodSpec: pod_spec, pod_spec_from_value, pod_spec_to_value;
    PodStatus: pod_status, pod_status_from_value, pod_status_to_value;
    NodeStatus: node_status, node_status_from_value, node_status_to_value;
    DeploymentStatus: deployment_status, deployment_status_from_value, deployment_status_to_value;
    ReplicaSetStatus: replica_set_status, replica_set_status_from_value, replica_set_status_to_value;
}
