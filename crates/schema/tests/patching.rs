//! Patches by example.

use schema::{PatchError, json_patch, merge_patch, strategic_merge, type_named};
use serde_json::{Value, json};

fn pod_spec(current: Value, patch: Value) -> Value {
    let ty = type_named("core.v1.Pod").expect("in the table");
    strategic_merge(ty, &json!({"spec": current}), &json!({"spec": patch})).expect("applies")["spec"].clone()
}

#[test]
fn lists_are_merged_by_their_key() {
    assert_eq!(
        pod_spec(
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
        ),
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
    );
    assert_eq!(
        pod_spec(
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}],
                "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}]}),
        ),
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
            "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}, {"containerPort": 81}]}]}),
    );
}

#[test]
fn atomic_lists_are_replaced() {
    assert_eq!(
        pod_spec(json!({"tolerations": [{"key": "a"}]}), json!({"tolerations": [{"key": "b"}]})),
        json!({"tolerations": [{"key": "b"}]}),
    );
    assert_eq!(
        pod_spec(
            json!({"containers": [{"name": "a", "args": ["1", "2"]}]}),
            json!({"containers": [{"name": "a", "args": ["3"]}]}),
        ),
        json!({"containers": [{"name": "a", "args": ["3"]}]}),
    );
}

#[test]
fn conditions_are_merged_by_type() {
    let ty = type_named("apps.v1.Deployment").expect("in the table");
    let current = json!({"status": {"conditions": [{"type": "Available", "status": "False"}, {"type": "Progressing", "status": "True"}]}});
    let patch = json!({"status": {"conditions": [{"type": "Available", "status": "True"}]}});
    assert_eq!(
        strategic_merge(ty, &current, &patch),
        Ok(
            json!({"status": {"conditions": [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "True"}]}})
        ),
    );
}

#[test]
fn null_removes() {
    assert_eq!(
        pod_spec(json!({"nodeName": "n", "hostNetwork": true}), json!({"nodeName": null, "hostname": null})),
        json!({"hostNetwork": true}),
    );
    let ty = type_named("core.v1.ConfigMap").expect("in the table");
    assert_eq!(
        strategic_merge(ty, &json!({"data": {"a": "1", "b": "2"}}), &json!({"data": {"a": null}})),
        Ok(json!({"data": {"b": "2"}})),
    );
}

#[test]
fn elements_can_be_deleted_and_lists_replaced() {
    let current = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(
        pod_spec(current.clone(), json!({"containers": [{"$patch": "delete", "name": "a"}]})),
        json!({"containers": [{"name": "b"}]}),
    );
    assert_eq!(
        pod_spec(current.clone(), json!({"containers": [{"$patch": "replace"}, {"name": "c"}]})),
        json!({"containers": [{"name": "c"}]}),
    );
    assert_eq!(
        pod_spec(
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "replace", "runAsGroup": 2}})
        ),
        json!({"securityContext": {"runAsGroup": 2}}),
    );
    assert_eq!(pod_spec(current, json!({"$patch": "delete"})), json!({}));
}

#[test]
fn the_element_order_can_be_set() {
    assert_eq!(
        pod_spec(
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "server"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "new"}],
                "containers": [{"name": "new", "image": "n"}, {"name": "a", "image": "x"}]}),
        ),
        json!({"containers": [{"name": "b"}, {"name": "a", "image": "x"}, {"name": "new", "image": "n"}, {"name": "server"}]}),
    );
    let ty = type_named("core.v1.Pod").expect("in the table");
    assert_eq!(
        strategic_merge(
            ty,
            &json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}}),
        ),
        Ok(json!({"metadata": {"finalizers": ["c", "a"]}})),
    );
    assert_eq!(
        strategic_merge(
            ty,
            &json!({"metadata": {"finalizers": ["a", "b"]}}),
            &json!({"metadata": {"finalizers": ["b", "c"]}})
        ),
        Ok(json!({"metadata": {"finalizers": ["a", "b", "c"]}})),
    );
}

#[test]
fn a_union_keeps_only_the_named_keys() {
    let ty = type_named("apps.v1.Deployment").expect("in the table");
    let current = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(strategic_merge(ty, &current, &patch), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    assert!(matches!(strategic_merge(ty, &current, &patch), Err(PatchError::Malformed(_))));
    assert_eq!(
        pod_spec(
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}),
        ),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
    );
}

#[test]
fn directives_do_not_reach_new_objects() {
    assert_eq!(
        pod_spec(
            json!({}),
            json!({"$setElementOrder/containers": [{"name": "a"}],
                "containers": [{"name": "a", "nodeName": null, "securityContext": {"$retainKeys": ["x"], "$patch": "replace"}}, {"name": "b", "$patch": "delete"}]}),
        ),
        json!({"containers": [{"name": "a", "securityContext": {}}]}),
    );
}

#[test]
fn bad_patches_are_told_apart() {
    let ty = type_named("core.v1.Pod").expect("in the table");
    let current = json!({"spec": {"containers": [{"name": "a"}]}});
    assert!(matches!(strategic_merge(ty, &current, &json!([])), Err(PatchError::Malformed(_))));
    let keyless = json!({"spec": {"containers": [{"image": "x"}]}});
    assert_eq!(
        strategic_merge(ty, &current, &keyless),
        Err(PatchError::DoesNotApply("map: {\"image\":\"x\"} does not contain declared merge key: name".into())),
    );
    assert!(matches!(json_patch(&current, &json!({"op": "add"})), Err(PatchError::Malformed(_))));
    assert!(matches!(json_patch(&current, &json!([{"op": "sing", "path": "/a"}])), Err(PatchError::Malformed(_))));
    assert!(matches!(
        json_patch(&current, &json!([{"op": "test", "path": "/spec", "value": 1}])),
        Err(PatchError::TestFailed(_))
    ));
    assert!(matches!(
        json_patch(&current, &json!([{"op": "remove", "path": "/none"}])),
        Err(PatchError::DoesNotApply(_))
    ));
    let many = Value::Array(vec![json!({"op": "add", "path": "/x", "value": 1}); 10_001]);
    assert!(matches!(json_patch(&current, &many), Err(PatchError::Malformed(_))));
}

#[test]
fn plain_patches_follow_their_standards() {
    assert_eq!(
        merge_patch(&json!({"a": {"b": 1, "c": 2}}), &json!({"a": {"b": null, "d": 3}})),
        json!({"a": {"c": 2, "d": 3}})
    );
    assert_eq!(
        json_patch(
            &json!({"a": [1]}),
            &json!([{"op": "add", "path": "/a/-", "value": 2}, {"op": "copy", "from": "/a", "path": "/b"}])
        ),
        Ok(json!({"a": [1, 2], "b": [1, 2]})),
    );
}

#[test]
fn a_patch_cannot_build_a_bottomless_object() {
    // Each copy doubles the depth: forty of them would overflow any stack.
    let doubling: Vec<Value> = (0..40)
        .map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a{}", "/x".repeat(1 << n.min(20)))}))
        .collect();
    let result = json_patch(&json!({"a": {}}), &Value::Array(doubling));
    assert!(matches!(result, Err(PatchError::DoesNotApply(why)) if why.contains("nested deeper")));
}
