//! Defaults as clients see them.

use expect_test::{Expect, expect};
use kinds::resource;
use schema::decode_yaml;

fn check(resource_path: (&str, &str), yaml: &str, expected: Expect) {
    let row = resource(resource_path.0, "v1", resource_path.1).expect("in the table");
    let mut object = decode_yaml(row.ty(), yaml.as_bytes()).expect("decodes").value;
    row.default(&mut object);
    row.hooks.prepare_create(&mut object);
    expected.assert_eq(&serde_json::to_string_pretty(&object).expect("prints"));
}

#[test]
fn a_pod() {
    check(
        ("", "pods"),
        "metadata: {name: a}\nspec:\n  containers:\n  - name: c\n    image: nginx\n    ports: [{containerPort: 80}]\n    \
         resources: {limits: {cpu: 1, memory: 1Gi}}\n    readinessProbe: {httpGet: {port: 80}}\n  volumes:\n  \
         - {name: e}\n  - {name: c, configMap: {name: c}}\n",
        expect![[r#"
            {
              "metadata": {
                "name": "a"
              },
              "spec": {
                "containers": [
                  {
                    "image": "nginx",
                    "imagePullPolicy": "Always",
                    "name": "c",
                    "ports": [
                      {
                        "containerPort": 80,
                        "protocol": "TCP"
                      }
                    ],
                    "readinessProbe": {
                      "failureThreshold": 3,
                      "httpGet": {
                        "path": "/",
                        "port": 80,
                        "scheme": "HTTP"
                      },
                      "periodSeconds": 10,
                      "successThreshold": 1,
                      "timeoutSeconds": 1
                    },
                    "resources": {
                      "limits": {
                        "cpu": "1",
                        "memory": "1Gi"
                      },
                      "requests": {
                        "cpu": "1",
                        "memory": "1Gi"
                      }
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": true,
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30,
                "tolerations": [
                  {
                    "effect": "NoExecute",
                    "key": "node.kubernetes.io/not-ready",
                    "operator": "Exists",
                    "tolerationSeconds": 300
                  },
                  {
                    "effect": "NoExecute",
                    "key": "node.kubernetes.io/unreachable",
                    "operator": "Exists",
                    "tolerationSeconds": 300
                  }
                ],
                "volumes": [
                  {
                    "emptyDir": {},
                    "name": "e"
                  },
                  {
                    "configMap": {
                      "defaultMode": 420,
                      "name": "c"
                    },
                    "name": "c"
                  }
                ]
              },
              "status": {
                "phase": "Pending",
                "qosClass": "Guaranteed"
              }
            }"#]],
    );
}

#[test]
fn a_deployment() {
    check(
        ("apps", "deployments"),
        "metadata: {name: a}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    \
         spec: {containers: [{name: c, image: \"nginx:1\"}]}\n",
        expect![[r#"
            {
              "metadata": {
                "name": "a"
              },
              "spec": {
                "progressDeadlineSeconds": 600,
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "selector": {
                  "matchLabels": {
                    "a": "b"
                  }
                },
                "strategy": {
                  "rollingUpdate": {
                    "maxSurge": "25%",
                    "maxUnavailable": "25%"
                  },
                  "type": "RollingUpdate"
                },
                "template": {
                  "metadata": {
                    "labels": {
                      "a": "b"
                    }
                  },
                  "spec": {
                    "containers": [
                      {
                        "image": "nginx:1",
                        "imagePullPolicy": "IfNotPresent",
                        "name": "c",
                        "resources": {},
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File"
                      }
                    ],
                    "dnsPolicy": "ClusterFirst",
                    "restartPolicy": "Always",
                    "schedulerName": "default-scheduler",
                    "securityContext": {},
                    "terminationGracePeriodSeconds": 30
                  }
                }
              },
              "status": {}
            }"#]],
    );
}

#[test]
fn a_namespace() {
    check(
        ("", "namespaces"),
        "metadata: {name: a}\n",
        expect![[r#"
        {
          "metadata": {
            "labels": {
              "kubernetes.io/metadata.name": "a"
            },
            "name": "a"
          },
          "spec": {
            "finalizers": [
              "kubernetes"
            ]
          },
          "status": {
            "phase": "Active"
          }
        }"#]],
    );
}

#[test]
fn a_secret() {
    check(
        ("", "secrets"),
        "metadata: {name: a}\ndata: {a: eA==, b: eQ==}\nstringData: {b: hello}\n",
        expect![[r#"
        {
          "data": {
            "a": "eA==",
            "b": "aGVsbG8="
          },
          "metadata": {
            "name": "a"
          },
          "type": "Opaque"
        }"#]],
    );
}
