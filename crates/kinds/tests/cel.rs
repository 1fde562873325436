//! Rules in CEL: of custom resources, and of what guards admission.

use expect_test::{Expect, expect};
use kinds::cel::{self, CompiledRules, RUNTIME_BUDGET};
use object_model::{FieldError, FieldPath};
use serde_json::{Value, json};

fn lines(errors: &[FieldError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// What is wrong with the rules of a schema.
fn mistakes(schema: Value) -> String {
    lines(&cel::compile(&schema, &FieldPath::new("schema")).1)
}

fn compiled(schema: Value) -> CompiledRules {
    let (rules, errors) = cel::compile(&schema, &FieldPath::new("schema"));
    assert_eq!(lines(&errors), "");
    rules
}

/// What is wrong with an object, and with its change.
fn problems(rules: &CompiledRules, object: Value, old: Option<Value>) -> String {
    lines(&rules.validate(&object, old.as_ref(), &mut RUNTIME_BUDGET.clone()))
}

/// A schema with a spec of these fields and these rules on the spec.
fn of_spec(properties: Value, rules: Value) -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules},
    }})
}

fn check(found: &str, expected: Expect) {
    expected.assert_eq(found);
}

#[test]
fn rules_compare_fields_and_say_what_failed() {
    let number = json!({"type": "integer"});
    let properties =
        json!({"minReplicas": number, "replicas": number, "maxReplicas": number, "health": {"type": "string"}});
    let rules = compiled(of_spec(
        properties,
        json!([
            {"rule": "self.minReplicas <= self.replicas"},
            {"rule": "self.replicas <= self.maxReplicas", "message": "replicas should be smaller than or equal to maxReplicas."},
            {"rule": "self.replicas != 13", "messageExpression": "'%d is one too many'.format([self.replicas])"},
            {"rule": "!has(self.health) || self.health == 'ok'", "reason": "FieldValueForbidden", "fieldPath": ".health"},
        ]),
    ));
    let spec = |min: i32, replicas: i32, max: i32| json!({"spec": {"minReplicas": min, "replicas": replicas, "maxReplicas": max}});
    assert_eq!(problems(&rules, spec(1, 2, 3), None), "");
    check(
        &problems(&rules, spec(3, 2, 1), None),
        expect![[r#"
            spec: Invalid value: "object": failed rule: self.minReplicas <= self.replicas
            spec: Invalid value: "object": replicas should be smaller than or equal to maxReplicas.
        "#]],
    );
    check(
        &problems(&rules, spec(1, 13, 20), None),
        expect![[r#"
            spec: Invalid value: "object": 13 is one too many
        "#]],
    );
    let mut ill = spec(1, 2, 3);
    ill["spec"]["health"] = json!("bad");
    check(
        &problems(&rules, ill, None),
        expect![[r#"
            spec.health: Forbidden: failed rule: !has(self.health) || self.health == 'ok'
        "#]],
    );
    check(
        &problems(&rules, json!({"spec": {"replicas": 1, "maxReplicas": 1}}), None),
        expect![[r#"
            spec: Invalid value: "object": no such key: minReplicas evaluating rule: self.minReplicas <= self.replicas
        "#]],
    );
}

#[test]
fn rules_of_the_documentation_hold_or_fail_as_they_say() {
    let text = json!({"type": "string", "maxLength": 100});
    let properties = json!({
        "stateCounts": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 10},
        "states": {"type": "array", "items": text, "maxItems": 10},
        "set1": {"type": "array", "items": text, "maxItems": 10},
        "set2": {"type": "array", "items": text, "maxItems": 10},
        "details": {"type": "object", "additionalProperties": text, "maxProperties": 10},
        "startDate": {"type": "string", "format": "date-time"},
        "ttl": {"type": "string", "format": "duration"},
        "namespace": text,
        "int-or-string": {"x-kubernetes-int-or-string": true},
        "widgets": {"type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"],
            "items": {"type": "object", "properties": {"key": text, "foo": {"type": "integer"}}}},
        "items": {"type": "array", "maxItems": 5, "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    });
    let spec = json!({
        "stateCounts": {"Available": 3}, "states": ["a", "b"], "set1": ["x"], "set2": ["y"], "details": {"a": "z1"},
        "startDate": "2024-01-01T00:00:00Z", "ttl": "24h", "namespace": "one", "int-or-string": "50%",
        "widgets": [{"key": "a", "foo": 1}], "items": [{"n": 1}, {"n": 2}], "extra": {"anything": 1},
    });
    for (rule, holds) in [
        ("'Available' in self.stateCounts", true),
        ("(self.states.size() == 0) != (self.set1.size() == 0)", false),
        ("!('MY_KEY' in self.details) || self.details['MY_KEY'].matches('^[a-zA-Z]*$')", true),
        ("self.widgets.exists(w, w.key == 'a' && w.foo < 10)", true),
        ("has(self.extra)", true),
        ("self.startDate + self.ttl > timestamp('2024-01-01T00:00:00Z')", true),
        ("self.set1.all(e, !(e in self.set2))", true),
        ("self.details.all(key, self.details[key].matches('^[a-z]+$'))", false),
        ("self.__namespace__ == 'one'", true),
        (
            "type(self.int__dash__or__dash__string) == string ? self.int__dash__or__dash__string.endsWith('%') : true",
            true,
        ),
        ("self.items.map(i, i.n).sum() == 3", true),
        ("self.?missing.hasValue()", false),
    ] {
        let schema = of_spec(properties.clone(), json!([{"rule": rule}]));
        if rule.contains("missing") {
            assert!(mistakes(schema).contains("undefined field 'missing'"));
            continue;
        }
        let rules = compiled(schema);
        let found = problems(&rules, json!({"spec": spec}), None);
        assert_eq!(found.is_empty(), holds, "{rule}: {found}");
    }
}

#[test]
fn the_name_of_an_object_is_seen_at_its_root_alone() {
    let rules = compiled(json!({"type": "object", "properties": {"spec": {"type": "object"}},
        "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('my-') && self.kind == 'Foo'"}]}));
    let named = |name: &str| json!({"apiVersion": "v1", "kind": "Foo", "metadata": {"name": name}});
    assert_eq!(problems(&rules, named("my-foo"), None), "");
    assert!(problems(&rules, named("foo"), None).contains("failed rule"));
    let hidden = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.labels.size() > 0"}]});
    assert!(mistakes(hidden).contains("undefined field 'labels'"));
}

#[test]
fn transition_rules_wait_for_an_old_value() {
    let rules = compiled(of_spec(
        json!({
            "name": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "Value is immutable"}]},
            "count": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "!oldSelf.hasValue() || self >= oldSelf.value()", "optionalOldSelf": true}]},
        }),
        json!([]),
    ));
    let spec = |name: &str, count: i32| json!({"spec": {"name": name, "count": count}});
    assert_eq!(problems(&rules, spec("a", 1), None), "");
    assert_eq!(problems(&rules, spec("a", 1), Some(json!({"spec": {}}))), "");
    assert_eq!(problems(&rules, spec("a", 2), Some(spec("a", 1))), "");
    check(
        &problems(&rules, spec("b", 1), Some(spec("a", 2))),
        expect![[r#"
            spec.count: Invalid value: "integer": failed rule: !oldSelf.hasValue() || self >= oldSelf.value()
            spec.name: Invalid value: "string": Value is immutable
        "#]],
    );
}

#[test]
fn elements_with_keys_are_compared_with_their_old_ones() {
    let rules = compiled(of_spec(
        json!({"ports": {"type": "array", "maxItems": 10, "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {"type": "object", "required": ["port"],
                "properties": {
                    "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP", "maxLength": 5},
                    "name": {"type": "string", "maxLength": 10}},
                "x-kubernetes-validations": [{"rule": "self.name == oldSelf.name"}]}}}),
        json!([]),
    ));
    let old = json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "protocol": "UDP", "name": "b"}]}});
    let moved = json!({"spec": {"ports": [{"port": 2, "protocol": "UDP", "name": "b"}, {"port": 1, "protocol": "TCP", "name": "a"}, {"port": 3, "name": "c"}]}});
    assert_eq!(problems(&rules, moved, Some(old.clone())), "");
    let renamed = json!({"spec": {"ports": [{"port": 1, "name": "x"}]}});
    check(
        &problems(&rules, renamed, Some(old)),
        expect![[r#"
            spec.ports[0]: Invalid value: "object": failed rule: self.name == oldSelf.name
        "#]],
    );
}

#[test]
fn what_has_not_changed_is_not_asked_again() {
    let rules = compiled(of_spec(
        json!({
            "a": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [{"rule": "self == 'good'"}]},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 5,
                "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}},
            "list": {"type": "array", "maxItems": 5,
                "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}},
        }),
        json!([]),
    ));
    let bad = json!({"spec": {"a": "bad", "set": [-1], "list": [-1]}});
    assert_eq!(problems(&rules, bad.clone(), Some(bad.clone())), "");
    let changed = json!({"spec": {"a": "worse", "set": [-1, 1], "list": [-1, 1]}});
    // The element of the set is the same as before; that of the list may have been another.
    check(
        &problems(&rules, changed, Some(bad)),
        expect![[r#"
            spec.a: Invalid value: "string": failed rule: self == 'good'
            spec.list[0]: Invalid value: "integer": failed rule: self > 0
        "#]],
    );
}

#[test]
fn a_rule_that_does_not_compile_is_refused() {
    let schema = of_spec(
        json!({"n": {"type": "integer"}, "list": {"type": "array", "maxItems": 5, "items": {
            "type": "object", "properties": {"x": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.x == oldSelf.x"}]}}}),
        json!([
            {"rule": "self.x > 0"},
            {"rule": "self.n"},
            {"rule": "self.n > 0", "messageExpression": "self.n"},
            {"rule": "self.n > 0", "messageExpression": "self.y"},
            {"rule": "self.n > 0", "optionalOldSelf": true},
        ]),
    );
    check(
        &mistakes(schema),
        expect![[r#"
            schema.properties[spec].properties[list].items.x-kubernetes-validations[0].rule: Invalid value: "self.x == oldSelf.x": oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec].properties[list]
            schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {"rule":"self.x > 0"}: compilation failed: ERROR: <input>:1:5: undefined field 'x'
             | self.x > 0
             | ....^
            schema.properties[spec].x-kubernetes-validations[1].rule: Invalid value: {"rule":"self.n"}: cel expression must evaluate to a bool
            schema.properties[spec].x-kubernetes-validations[2].messageExpression: Invalid value: {"messageExpression":"self.n","rule":"self.n > 0"}: messageExpression must evaluate to a string
            schema.properties[spec].x-kubernetes-validations[3].messageExpression: Invalid value: {"messageExpression":"self.y","rule":"self.n > 0"}: messageExpression compilation failed: ERROR: <input>:1:5: undefined field 'y'
             | self.y
             | ....^
            schema.properties[spec].x-kubernetes-validations[4].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule
        "#]],
    );
}

#[test]
fn the_form_of_a_rule_is_checked_first() {
    let schema = of_spec(
        json!({"n": {"type": "integer"}}),
        json!([
            {"rule": " "},
            {"rule": "self.x", "message": " "},
            {"rule": "self.x", "message": "a\nb"},
            {"rule": "true\n&& true"},
            {"rule": "true", "messageExpression": " "},
            {"rule": "true", "reason": "Other"},
            {"rule": "true", "fieldPath": ".x"},
        ]),
    );
    check(
        &mistakes(schema),
        expect![[r#"
            schema.properties[spec].x-kubernetes-validations[0].rule: Required value: rule is not specified
            schema.properties[spec].x-kubernetes-validations[1].message: Invalid value: " ": message must be non-empty if specified
            schema.properties[spec].x-kubernetes-validations[2].message: Invalid value: "a\nb": message must not contain line breaks
            schema.properties[spec].x-kubernetes-validations[3].message: Required value: message must be specified if rule contains line breaks
            schema.properties[spec].x-kubernetes-validations[4].messageExpression: Required value: messageExpression must be non-empty if specified
            schema.properties[spec].x-kubernetes-validations[5].reason: Unsupported value: "Other": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"
            schema.properties[spec].x-kubernetes-validations[6].fieldPath: Invalid value: ".x": fieldPath must be a valid path: does not refer to a valid field
        "#]],
    );
}

#[test]
fn rules_that_may_become_expensive_are_refused() {
    let nested = |max: Value| {
        let mut list = json!({"type": "array", "items": {"type": "string", "maxLength": 100}});
        if max.is_number() {
            list["maxItems"] = max;
        }
        of_spec(json!({"list": list}), json!([{"rule": "self.list.all(a, self.list.all(b, a == b))"}]))
    };
    assert_eq!(mistakes(nested(json!(100))), "");
    check(
        &mistakes(nested(json!(1000))),
        expect![[r#"
            schema.properties[spec].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of 4.5x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)
        "#]],
    );
    check(
        &mistakes(nested(Value::Null)),
        expect![[r#"
            schema.properties[spec].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)
            schema.properties[spec].x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema
            schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)
        "#]],
    );
    // The same rule below a list counts for each element.
    let below = |max: i32| {
        json!({"type": "object", "properties": {"list": {"type": "array", "maxItems": max, "items": {
            "type": "string", "maxLength": 1000, "x-kubernetes-validations": [{"rule": "self.matches('^[a-z]+$')"}]}}}})
    };
    assert_eq!(mistakes(below(1000)), "");
    assert!(mistakes(below(100_000)).contains("estimated rule cost exceeds budget by factor of"));
}

#[test]
fn evaluation_ends_with_the_budget() {
    let rules = compiled(of_spec(
        json!({"list": {"type": "array", "maxItems": 1000, "items": {"type": "integer"}}}),
        json!([{"rule": "self.list.all(a, a >= 0)"}, {"rule": "self.list.all(a, a >= 0)"}]),
    ));
    let object = json!({"spec": {"list": (0..1000).collect::<Vec<_>>()}});
    let mut budget = 7_000;
    let errors = rules.validate(&object, None, &mut budget);
    check(
        &lines(&errors),
        expect![[r#"
            spec: Invalid value: "object": validation failed due to running out of cost budget, no further validation rules will be run
        "#]],
    );
    assert_eq!(budget, 0);
    let mut budget = RUNTIME_BUDGET;
    assert!(rules.validate(&object, None, &mut budget).is_empty());
    assert_eq!(RUNTIME_BUDGET - budget, 2 * (3 + 1000 * 5));
}

#[test]
fn match_conditions_are_bools_with_unique_names() {
    let path = FieldPath::new("webhooks").index(0).child("matchConditions");
    let good = json!([
        {"name": "exclude-leases", "expression": "!(request.resource.group == 'coordination.k8s.io' && request.resource.resource == 'leases')"},
        {"name": "exclude-kubelet-requests", "expression": "!('system:nodes' in request.userInfo.groups)"},
        {"name": "rbac", "expression": "!authorizer.group('rbac').resource('roles').check('bind').allowed()"},
        {"name": "breakglass", "expression": "authorizer.requestResource.check('breakglass').allowed() || object.metadata.?name.orValue('') == ''"},
    ]);
    assert_eq!(lines(&cel::match_conditions(&good, &path)), "");
    let bad = json!([
        {"name": "a", "expression": "foo"},
        {"name": "a", "expression": "'text'"},
        {"name": "no good", "expression": " "},
        {"expression": "true"},
    ]);
    check(
        &lines(&cel::match_conditions(&bad, &path)),
        expect![[r#"
            webhooks[0].matchConditions[0].expression: Invalid value: "foo": compilation failed: ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')
             | foo
             | ^
            webhooks[0].matchConditions[1].expression: Invalid value: "'text'": must evaluate to bool
            webhooks[0].matchConditions[2].expression: Required value
            webhooks[0].matchConditions[2].name: Invalid value: "no good": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            webhooks[0].matchConditions[3].name: Required value
            webhooks[0].matchConditions[1].name: Duplicate value: "a"
        "#]],
    );
}

#[test]
fn a_policy_is_compiled_with_its_variables() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [
            {"name": "limit", "expression": "int(params.data['limit'])"},
            {"name": "fits", "expression": "object.spec.replicas <= variables.limit"},
        ],
        "validations": [{"expression": "variables.fits", "messageExpression": "'at most ' + string(variables.limit)", "reason": "Invalid"}],
        "auditAnnotations": [{"key": "replicas", "valueExpression": "string(object.spec.replicas)"}],
        "matchConditions": [{"name": "named", "expression": "namespaceObject.metadata.name != 'kube-system'"}],
    });
    let (policy, errors) = cel::policy(&spec, &FieldPath::new("spec"));
    assert_eq!(lines(&errors), "");
    assert_eq!(
        (policy.variables.len(), policy.validations.len(), policy.audit.len(), policy.conditions.len()),
        (2, 1, 1, 1)
    );
    assert!(
        policy.validations[0].expression.program.uses("variables.fits")
            && !policy.validations[0].expression.program.uses("variables.limit")
    );
    let bad = json!({
        "validations": [
            {"expression": "variables.nothing"}, {"expression": "1"}, {"expression": "params.x"},
            {"expression": "true", "messageExpression": "string(authorizer.path('/a').check('get').allowed())"},
        ],
        "auditAnnotations": [{"key": "x", "valueExpression": "1"}],
    });
    check(
        &lines(&cel::policy(&bad, &FieldPath::new("spec")).1),
        expect![[r#"
            spec.validations[0].expression: Invalid value: "variables.nothing": compilation failed: ERROR: <input>:1:10: undefined field 'nothing'
             | variables.nothing
             | .........^
            spec.validations[1].expression: Invalid value: "1": must evaluate to bool
            spec.validations[2].expression: Invalid value: "params.x": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')
             | params.x
             | ^
            spec.validations[3].messageExpression: Invalid value: "string(authorizer.path('/a').check('get').allowed())": compilation failed: ERROR: <input>:1:8: undeclared reference to 'authorizer' (in container '')
             | string(authorizer.path('/a').check('get').allowed())
             | .......^
            spec.auditAnnotations[0].valueExpression: Invalid value: "1": must evaluate to one of [string null_type]
        "#]],
    );
}

#[test]
fn mutations_make_objects_and_patches() {
    let spec = json!({"mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'mesh', restartPolicy: 'Always'}]}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}]"}},
    ]});
    let (policy, errors) = cel::policy(&spec, &FieldPath::new("spec"));
    assert_eq!(lines(&errors), "");
    let values: Vec<Value> = policy
        .mutations
        .iter()
        .map(|mutation| mutation.expression.program.evaluate(&[], &mut 1000).unwrap().to_json().unwrap())
        .collect();
    assert_eq!(
        values,
        [
            json!({"spec": {"initContainers": [{"name": "mesh", "restartPolicy": "Always"}]}}),
            json!([{"op": "add", "path": "/metadata/labels/a~1b", "value": "x"}]),
        ]
    );
}

#[test]
fn devices_are_chosen_by_what_they_are() {
    let good = "device.driver == 'dra.example.com' && device.attributes['dra.example.com'].family == 'gpu' && \
                device.capacity['dra.example.com'].memory.isGreaterThan(quantity('1Gi'))";
    assert!(cel::device_selector(good).is_ok());
    assert_eq!(cel::device_selector("device.driver").map(|_| ()), Err("must evaluate to bool".to_owned()));
    assert!(cel::device_selector("device.name == ''").unwrap_err().contains("undefined field 'name'"));
}

#[test]
fn expressions_are_checked_against_the_types_they_meet() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "limit", "expression": "object.spec.replicas + 1"}],
        "validations": [
            {"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas"},
            {"expression": "object.spec.template.spec.containers.all(c, c.image != '') && variables.limit > 2"},
            {"expression": "object.spec.nothing == 1"},
            {"expression": "params.data['a'] == 1 || object.metadata.labels['a'] == 'b'"},
        ],
    });
    let deployment = cel::type_of_table(schema::type_named("apps.v1.Deployment").unwrap());
    let map = cel::type_of_table(schema::type_named("core.v1.ConfigMap").unwrap());
    let types = [cel::Checked { shown: "apps/v1, Kind=Deployment".to_owned(), ty: deployment }];
    let warnings = cel::warnings(&spec, &types, Some(map));
    let shown: Vec<String> = warnings
        .iter()
        .map(|w| format!("{}: {}", w["fieldRef"].as_str().unwrap(), w["warning"].as_str().unwrap()))
        .collect();
    check(
        &shown.join("\n"),
        expect![[r#"
            spec.validations[0].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'
             | object.spec.replicas > '1'
             | .....................^

            spec.validations[0].messageExpression: apps/v1, Kind=Deployment: ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(string, int)'
             | 'got ' + object.spec.replicas
             | .......^

            spec.validations[2].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'nothing'
             | object.spec.nothing == 1
             | ...........^

            spec.validations[3].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:18: found no matching overload for '_==_' applied to '(string, int)'
             | params.data['a'] == 1 || object.metadata.labels['a'] == 'b'
             | .................^
        "#]],
    );
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
    let widget = cel::Checked { shown: "e/v1, Kind=Widget".to_owned(), ty: cel::type_of_schema(&schema).unwrap() };
    let spec = json!({"validations": [
        {"expression": "object.spec.size > 1 && object.metadata.labels['a'] == '' && object.kind == 'Widget'"},
        {"expression": "object.spec.sizes > 1"},
    ]});
    let warnings = cel::warnings(&spec, &[widget], None);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]["warning"]
            .as_str()
            .unwrap()
            .starts_with("e/v1, Kind=Widget: ERROR: <input>:1:12: undefined field 'sizes'")
    );
}
