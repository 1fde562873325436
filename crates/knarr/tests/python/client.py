"""What a program does with the Python client: typed and dynamic, watches, patches and server-side apply."""

import threading

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException

config.load_kube_config()
core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()
assert client.VersionApi().get_code().minor == "37"
core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="python")))

# Typed objects, selectors, pages.
for number in range(7):
    meta = client.V1ObjectMeta(name=f"map-{number}", labels={"odd": str(number % 2)})
    core.create_namespaced_config_map("python", client.V1ConfigMap(metadata=meta, data={"n": str(number)}))
odd = core.list_namespaced_config_map("python", label_selector="odd=1")
assert [item.data["n"] for item in odd.items] == ["1", "3", "5"], odd
page = core.list_namespaced_config_map("python", limit=3)
names = [item.metadata.name for item in page.items]
while page.metadata._continue:
    page = core.list_namespaced_config_map("python", limit=3, _continue=page.metadata._continue)
    names += [item.metadata.name for item in page.items]
assert [name for name in names if name.startswith("map-")] == [f"map-{n}" for n in range(7)], names

# Conflicts and what is missing.
one = core.read_namespaced_config_map("map-1", "python")
core.patch_namespaced_config_map("map-1", "python", {"data": {"more": "yes"}})
one.data["n"] = "11"
for attempt, status, reason in [
    (lambda: core.replace_namespaced_config_map("map-1", "python", one), 409, "Conflict"),
    (lambda: core.read_namespaced_config_map("none", "python"), 404, "NotFound"),
    (lambda: core.create_namespace(client.V1Namespace(metadata={"name": "python"})), 409, "AlreadyExists"),
    (lambda: core.create_namespace(client.V1Namespace(metadata={"name": "A B"})), 422, "Invalid"),
]:
    try:
        attempt()
    except ApiException as error:
        assert error.status == status and f'"reason":"{reason}"' in error.body.replace('": "', '":"'), error
    else:
        raise AssertionError(f"{reason} was expected")
patched = core.patch_namespaced_config_map("map-1", "python", [{"op": "remove", "path": "/data/more"}])
assert patched.data == {"n": "1"}, patched

# A watch from where a list ended.
version = core.list_namespaced_config_map("python").metadata.resource_version
threading.Timer(0.3, lambda: core.delete_namespaced_config_map("map-0", "python")).start()
stream = watch.Watch()
for event in stream.stream(core.list_namespaced_config_map, "python", resource_version=version, timeout_seconds=30):
    assert (event["type"], event["object"].metadata.name) == ("DELETED", "map-0"), event
    stream.stop()

# A Deployment without pods: its scale and its status.
template = {"metadata": {"labels": {"app": "py"}}, "spec": {"containers": [{"name": "main", "image": "none:1"}]}}
spec = {"replicas": 0, "selector": {"matchLabels": {"app": "py"}}, "template": template}
deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "py"}, "spec": spec}
utils.create_from_dict(client.ApiClient(), deployment, namespace="python")
scale = apps.read_namespaced_deployment_scale("py", "python")
assert scale.status.replicas == 0 and scale.status.selector == "app=py", scale
image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "none:2"}]}}}}
assert apps.patch_namespaced_deployment("py", "python", image).spec.template.spec.containers[0].image == "none:2"

# Dynamic: a kind that is defined now, server-side apply, and its conflicts.
dyn = dynamic.DynamicClient(client.ApiClient())
definitions = dyn.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
definition = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "snakes.python.knarr.example"},
    "spec": {
        "group": "python.knarr.example",
        "scope": "Namespaced",
        "names": {"kind": "Snake", "plural": "snakes"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
    },
}
definitions.create(body=definition)
for event in definitions.watch(name="snakes.python.knarr.example", timeout=30):
    conditions = (event["raw_object"].get("status") or {}).get("conditions") or []
    if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
        break
dyn.resources.invalidate_cache()
snakes = dyn.resources.get(api_version="python.knarr.example/v1", kind="Snake")
snake = {"apiVersion": "python.knarr.example/v1", "kind": "Snake", "metadata": {"name": "kaa"}, "spec": {"size": 3}}
assert snakes.server_side_apply(body=snake, namespace="python", field_manager="first").spec.size == 3
snake["spec"]["size"] = 4
try:
    snakes.server_side_apply(body=snake, namespace="python", field_manager="second")
except dynamic.exceptions.ConflictError as error:
    assert 'conflict with \\"first\\"' in str(error.body), error.body
else:
    raise AssertionError("a conflict was expected")
snakes.server_side_apply(body=snake, namespace="python", field_manager="second", force_conflicts=True)
assert snakes.get(name="kaa", namespace="python").spec.size == 4
merged = snakes.patch(
    body={"metadata": {"name": "kaa"}, "spec": {"size": 5}},
    namespace="python",
    content_type="application/merge-patch+json",
)
assert merged.spec.size == 5
plain = client.CustomObjectsApi().list_namespaced_custom_object("python.knarr.example", "v1", "python", "snakes")
assert [item["spec"]["size"] for item in plain["items"]] == [5], plain
snakes.delete(name="kaa", namespace="python")

# Rights and tokens.
review = client.V1SelfSubjectAccessReview(
    spec={"resourceAttributes": {"verb": "create", "group": "apps", "resource": "deployments", "namespace": "python"}}
)
assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed
core.create_namespaced_service_account("python", client.V1ServiceAccount(metadata={"name": "robot"}))
token = core.create_namespaced_service_account_token(
    "robot", "python", client.AuthenticationV1TokenRequest(spec={"audiences": [], "expirationSeconds": 600})
)
reviewed = client.AuthenticationV1Api().create_token_review(client.V1TokenReview(spec={"token": token.status.token}))
assert reviewed.status.user.username == "system:serviceaccount:python:robot", reviewed

core.delete_collection_namespaced_config_map("python", label_selector="odd")
assert not core.list_namespaced_config_map("python", label_selector="odd").items
print("all of it")
