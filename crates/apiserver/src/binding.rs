//! `POST …/binding`: gives a pod its node, and what the binding says of both.

use bytes::Bytes;
use client::{Body, clock};
use http::Response;
use object_model::{ApiError, FieldError, FieldPath, meta, time};
use serde_json::{Value, json};
use store::{Expect, StoreError};

use crate::admission::chain;
use crate::admission::question::{Operation, Question};
use crate::context::Context;
use crate::request::ResourceRequest;
use crate::served::{Served, schema_of};
use crate::write::{CONFLICT_TRIES, store_failed};
use crate::{ApiServer, respond, stored};

/// The labels of a node that its pods get, so that a container can be told where it runs.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

impl ApiServer {
    /// `POST …/binding`: gives a pod its node. The pod's own row refuses that in any other way.
    pub(crate) async fn bind(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let mut question = Question::of(cx, request, served, Operation::Create)?;
        question.subresource = "binding";
        question.object = cx.decode(schema_of("core.v1.Binding")?, &body)?;
        question.object["apiVersion"] = "v1".into();
        question.object["kind"] = "Binding".into();
        self.add_topology(&mut question.object)?;
        chain::admit(self, &mut question).await?;
        let binding = question.object;
        if !meta::name(&binding).is_empty() && meta::name(&binding) != request.name {
            return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
        }
        judge(&request.name, &binding)?;
        let key = served.key(&request.namespace, &request.name);
        for tried in 1.. {
            let entry = self.store.get(&key).ok_or_else(|| served.not_found(&request.name))?;
            let pod = bound(stored::decode(served, &entry)?, &binding)
                .map_err(|why| ApiError::conflict("", "pods/binding", &request.name, why))?;
            if question.dry_run {
                break;
            }
            let expect = Expect::Revision(entry.mod_revision);
            match self.put(served, &request.namespace, &request.name, expect, &pod).await {
                Ok(_) => break,
                Err(StoreError::Mismatch(_)) if tried < CONFLICT_TRIES => {}
                Err(StoreError::Mismatch(_)) => return Err(served.stale(&request.name)),
                Err(error) => return Err(store_failed(&error)),
            }
        }
        respond::created(&cx.accept)
    }

    /// Adds to a binding where its node is, unless it says so itself. A node may be missing as yet.
    fn add_topology(&self, binding: &mut Value) -> Result<(), ApiError> {
        let nodes = Served::find("", "v1", "nodes")?;
        let name = binding["target"]["name"].as_str().unwrap_or_default();
        let Some(entry) = self.store.get(&nodes.key("", name)) else { return Ok(()) };
        let node = stored::decode(&nodes, &entry)?;
        for label in TOPOLOGY {
            let value = &node["metadata"]["labels"][label];
            if !value.is_null() && binding["metadata"]["labels"][label].is_null() {
                binding["metadata"]["labels"][label] = value.clone();
            }
        }
        Ok(())
    }
}

/// Whether a binding says where to.
fn judge(name: &str, binding: &Value) -> Result<(), ApiError> {
    let (path, target) = (FieldPath::new("target"), &binding["target"]);
    let mut errors = Vec::new();
    let kind = target["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if target["name"].as_str().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Binding", name, &errors)) }
}

/// A pod as a binding leaves it, or why it cannot be bound.
fn bound(mut pod: Value, binding: &Value) -> Result<Value, String> {
    let name = meta::name(&pod).to_owned();
    for (field, wanted, is) in [
        ("UID", meta::uid(binding), meta::uid(&pod)),
        ("ResourceVersion", meta::resource_version(binding), meta::resource_version(&pod)),
    ] {
        if !wanted.is_empty() && wanted != is {
            return Err(format!(
                "Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {is}"
            ));
        }
    }
    if meta::deletion_timestamp(&pod).is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(taken) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return Err(format!("pod {name} is already assigned to node {taken:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    // It was a guess of where the pod would go, and now that is known.
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "observedGeneration": meta::generation(&pod), "lastTransitionTime": time::seconds(clock::now()),
    });
    let conditions = &mut pod["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => {
            list.retain(|condition| condition["type"] != scheduled["type"]);
            list.push(scheduled);
        }
        None => *conditions = json!([scheduled]),
    }
    Ok(pod)
}
