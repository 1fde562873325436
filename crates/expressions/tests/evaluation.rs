//! What expressions are worth, and how they fail.

use expressions::{Declaration, Environment, EvalError, Field, ListKind, Program, Type, Value, escape};
use serde_json::{Value as Json, json};

const BUDGET: u64 = 1_000_000;

/// Evaluates with `self` being dynamic data.
fn evaluate(text: &str, data: &Json) -> Result<Json, String> {
    let environment = Environment::new().with_type("self", Type::Dyn);
    let program = Program::compile(text, &environment).map_err(|error| error.to_string())?;
    let mut budget = BUDGET;
    let value = program.evaluate(&[("self", Value::dynamic(data))], &mut budget).map_err(|error| error.to_string())?;
    value.to_json().map_err(|error| error.to_string())
}

#[track_caller]
fn is_true(texts: &[&str]) {
    let wrong: Vec<String> = texts
        .iter()
        .map(|text| (text, evaluate(text, &Json::Null)))
        .filter(|(_, result)| *result != Ok(json!(true)))
        .map(|(text, result)| format!("{text}: {result:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_operators_of_the_standard_work() {
    is_true(&[
        "1 + 2 * 3 == 7",
        "7 % 4 == 3 && 7 / 2 == 3 && -7 / 2 == -3",
        "1.5 + 1.5 == 3.0",
        "2u * 3u == 6u",
        "0x1F == 31",
        "-9223372036854775808 < 0",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab'",
        "[1] + [2] == [1, 2]",
        "'a' < 'b' && b'a' <= b'b' && false < true",
        "1 < 2.5 && 3u > 2 && 2.5 >= 2u",
        "dyn(1) == 1.0 && dyn(1u) == 1",
        "1 in [1, 2] && !(3 in [1, 2])",
        "'k' in {'k': 1} && !('x' in {'k': 1})",
        "{'a': 1, 'b': 2}['b'] == 2 && {1: 'x'}[1] == 'x'",
        "[1, 2, 3][1] == 2",
        "(true ? 1 : 2) == 1",
        "!!true && --1 == 1",
        "size('äö') == 2 && size([1]) == 1 && {'a': 1}.size() == 1 && b'\\xff'.size() == 1",
        "{'a': {'b': 1}}.a.b == 1",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(1 / 0 == 1 && false)",
        "r'\\d' == '\\\\d' && '''a'b''' == \"a'b\"",
        "// comment\n true",
        "null == null",
        "{'a': null}.a == null",
    ]);
}

#[test]
fn the_macros_work_with_one_and_two_variables() {
    is_true(&[
        "[1, 2].all(x, x > 0) && ![1, 2].all(x, x > 1)",
        "[1, 2].exists(x, x > 1) && ![].exists(x, x > 1)",
        "[1, 2].exists_one(x, x > 1) && ![1, 1].exists_one(x, x == 1)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6]",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x > 1) == [2, 3]",
        "{'a': 1}.all(k, k == 'a')",
        "[[1], [2]].all(x, x.all(y, y > 0))",
        "[1, 0].exists(x, 1 / x == 1)",
        "[0, 1].exists(x, 1 / x == 1)",
        "{'a': 1, 'b': 2}.all(k, v, k != '' && v > 0)",
        "[1, 2].all(i, v, v == i + 1)",
        "['a', 'b'].exists(i, v, i == 1 && v == 'b')",
        "['a', 'b'].existsOne(i, v, v == 'b')",
        "[1, 2].transformList(i, v, i + v) == [1, 3]",
        "[1, 2].transformList(i, v, i > 0, v) == [2]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "{'a': 1, 'b': 2}.transformMap(k, v, k == 'b', v) == {'b': 2}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
    ]);
}

#[test]
fn values_may_be_missing() {
    is_true(&[
        "optional.of(1).hasValue() && !optional.none().hasValue()",
        "optional.of(1).value() == 1 && optional.none().orValue(2) == 2",
        "{'a': 1}.?a.orValue(0) == 1 && {'a': 1}.?b.orValue(0) == 0",
        "{'a': {'b': 1}}.?a.?b == optional.of(1) && {'a': {'b': 1}}.?x.b == optional.none()",
        "[1][?0] == optional.of(1) && [1][?5].hasValue() == false",
        "{'a': 1}[?'a'].value() == 1",
        "[?optional.none(), 1] == [1] && {?'a': optional.of(1)} == {'a': 1}",
        "optional.of(1).optMap(x, x + 1).value() == 2",
        "optional.of(1).optFlatMap(x, optional.of(x + 1)).value() == 2",
        "!optional.none().optMap(x, x).hasValue()",
        "optional.none().or(optional.of(1)).value() == 1",
        "!optional.ofNonZeroValue(0).hasValue()",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.none(), optional.of(2)].unwrapOpt() == [2]",
        "has({'a': {'b': 1}}.?a.b)",
    ]);
}

#[test]
fn texts_have_their_functions() {
    is_true(&[
        "'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')",
        "'hello'.charAt(4) == 'o' && 'a'.charAt(1) == ''",
        "'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'hello'.indexOf('x') == -1",
        "'hello'.indexOf('l', 3) == 3 && 'hello'.lastIndexOf('l', 2) == 2 && 'abab'.lastIndexOf('ab', 1) == 0",
        "'TacoCat'.lowerAscii() == 'tacocat' && 'TacoCat'.upperAscii() == 'TACOCAT'",
        "'aXbXc'.replace('X', '-') == 'a-b-c' && 'aXbXc'.replace('X', '-', 1) == 'a-bXc'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'abc'.split('') == ['a', 'b', 'c'] && 'a'.split(',', 0) == []",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco'",
        "'  x '.trim() == 'x' && 'abc'.reverse() == 'cba'",
        "['a', 'b'].join() == 'ab' && ['a', 'b'].join('-') == 'a-b'",
        "strings.quote('a\"b\\n') == '\"a\\\\\"b\\\\n\"'",
        "'%s=%d (%.2f) %x %b %%'.format(['a', 1, 2.5, 255, 5]) == 'a=1 (2.50) ff 101 %'",
        "'%d %s %f %s %s'.format([1, 'abc', 1.0, duration('1m'), timestamp('2000-01-01T00:00:00.000Z')]) == '1 abc 1.000000 60s 2000-01-01T00:00:00Z'",
        "'%s %s'.format([[1, 'x'], {'a': true}]) == '[1, x] {a: true}'",
        "'%e'.format([3.14]) == '3.140000 × 10⁰⁰'",
        "'abc123'.matches('^[a-z]+\\\\d+$') && matches('a', 'a')",
        "'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2'] && 'a1b2'.findAll('[0-9]', 1) == ['1']",
        "base64.encode(b'hello') == 'aGVsbG8=' && base64.decode('aGVsbG8') == b'hello'",
    ]);
}

#[test]
fn lists_sets_and_numbers_have_their_functions() {
    is_true(&[
        "[1, 2, 3].isSorted() && ![2, 1].isSorted() && ['a', 'b'].isSorted()",
        "[1, 2, 3].sum() == 6 && [1.5, 1.5].sum() == 3.0 && [duration('1s'), duration('2s')].sum() == duration('3s')",
        "[3, 1].min() == 1 && [3, 1].max() == 3 && ['b', 'a'].min() == 'a'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(5) == -1",
        "[[1], [2, 3]].flatten() == [1, 2, 3] && [1, 2, 3].slice(1, 3) == [2, 3]",
        "[1, 2, 1].distinct() == [1, 2] && [3, 1, 2].sort() == [1, 2, 3] && [1, 2].reverse() == [2, 1]",
        "lists.range(3) == [0, 1, 2] && [1, 2].first().value() == 1 && [1, 2].last().value() == 2",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && !sets.intersects([1], [2])",
        "math.greatest(1, 2, 3) == 3 && math.least(1.5, 2) == 1.5 && math.greatest([1, 5]) == 5",
        "math.ceil(1.2) == 2.0 && math.floor(1.8) == 1.0 && math.abs(-1) == 1 && math.sign(-2) == -1",
    ]);
}

#[test]
fn types_convert_into_each_other() {
    is_true(&[
        "int('42') == 42 && int(4.9) == 4 && int(4u) == 4 && uint('4') == 4u && double('1.5') == 1.5",
        "string(1) == '1' && string(1.5) == '1.5' && string(true) == 'true' && string(b'a') == 'a'",
        "bytes('a') == b'a' && bool('true')",
        "type(1) == int && type('a') == string && type([]) == list && type({}) == map && type(null) == null_type",
        "type(type(1)) == type && type(1.0) != int",
        "type(ip('1.1.1.1')) == net.IP",
        "timestamp('2023-01-02T03:04:05Z').getFullYear() == 2023",
        "timestamp('2023-01-02T03:04:05Z').getMonth() == 0 && timestamp('2023-01-02T03:04:05Z').getDate() == 2",
        "timestamp('2023-01-02T03:04:05Z').getDayOfMonth() == 1 && timestamp('2023-01-02T03:04:05Z').getDayOfWeek() == 1",
        "timestamp('2023-01-02T03:04:05Z').getHours('America/Los_Angeles') == 19",
        "timestamp('2023-01-02T03:04:05Z').getHours('-02:00') == 1",
        "timestamp('2023-01-02T03:04:05Z') + duration('1h') == timestamp('2023-01-02T04:04:05Z')",
        "timestamp('2023-01-02T03:04:05Z') - timestamp('2023-01-02T03:04:00Z') == duration('5s')",
        "timestamp(0) < timestamp('2023-01-02T03:04:05Z') && int(timestamp('1970-01-01T00:00:01Z')) == 1",
        "duration('1h30m').getMinutes() == 90 && string(duration('1h30m')) == '5400s' && duration('-1.5s') < duration('0')",
        "string(timestamp('2023-01-02T03:04:05.5+01:00')) == '2023-01-02T02:04:05.5Z'",
    ]);
}

#[test]
fn kubernetes_has_types_of_its_own() {
    is_true(&[
        "quantity('1.5Gi').isGreaterThan(quantity('1Gi')) && quantity('100m').asApproximateFloat() == 0.1",
        "quantity('50k').asInteger() == 50000 && !quantity('1500m').isInteger() && quantity('-1').sign() == -1",
        "quantity('1').add(quantity('500m')) == quantity('1500m') && quantity('50k').add(20) == quantity('50020')",
        "quantity('50k').sub(20000).compareTo(quantity('30k')) == 0 && !isQuantity('abc') && isQuantity('1e3')",
        "url('https://example.com:80/a b?k=v&k=w').getHostname() == 'example.com'",
        "url('https://example.com:80/').getPort() == '80' && url('https://example.com:80/').getHost() == 'example.com:80'",
        "url('https://example.com/a b').getEscapedPath() == '/a%20b' && url('HTTPS://x/').getScheme() == 'https'",
        "url('https://x/?k=v&k=w').getQuery()['k'] == ['v', 'w'] && url('/path').getScheme() == ''",
        "url('https://[::1]:80/').getHostname() == '::1' && isURL('https://x') && !isURL('../x') && !isURL('x:y')",
        "ip('192.168.0.1').family() == 4 && ip('::1').isLoopback() && ip('224.0.0.1').isLinkLocalMulticast()",
        "ip('fe80::1').isLinkLocalUnicast() && ip('8.8.8.8').isGlobalUnicast() && ip('0.0.0.0').isUnspecified()",
        "!isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && ip.isCanonical('::1') && !ip.isCanonical('0:0::1')",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1') && !cidr('192.168.0.0/24').containsIP(ip('10.0.0.1'))",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24')",
        "cidr('192.168.0.1/24').ip() == ip('192.168.0.1') && cidr('::1/128').prefixLength() == 128 && !isCIDR('1.2.3.4')",
        "string(ip('::1')) == '::1' && string(cidr('::1/128')) == '::1/128'",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.2.3').major() == 1 && !isSemver('1.2')",
        "isSemver('v1.2', true) && semver('v1.2', true) == semver('1.2.0') && semver('1.0.0-a').compareTo(semver('1.0.0')) == -1",
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My').hasValue()",
        "format.named('qualifiedName').value().validate('example.com/x').hasValue() == false",
        "!format.named('nothing').hasValue() && format.uuid().validate('x').value().size() == 1",
        "!format.datetime().validate('2023-01-02T03:04:05Z').hasValue() && format.date().validate('x').hasValue()",
        "!format.dns1123LabelPrefix().validate('my-').hasValue()",
    ]);
}

#[test]
fn failures_are_worded_as_cel_go_words_them() {
    let data = json!({"a": 1, "list": [1], "s": "x"});
    for (text, error) in [
        ("self.b", "no such key: b"),
        ("self['b']", "no such key: b"),
        ("self.list[3]", "index out of bounds: 3"),
        ("self.list[-1]", "index out of bounds: -1"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("1u - 2u", "unsigned integer overflow"),
        ("self.a + self.s", "no such overload"),
        ("self.a ? 1 : 2", "no such overload"),
        ("self.a.b", "no such overload"),
        ("optional.none().value()", "optional.none() dereference"),
        ("[].min()", "min called on empty list"),
        ("{'a': 1, 'a': 2}", "Failed with repeated key a"),
    ] {
        assert_eq!(evaluate(text, &data), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn mistakes_are_shown_below_the_text() {
    let fields = [("n", Type::Int), ("s", Type::String)]
        .map(|(name, ty)| (name.to_owned(), Field { key: name.to_owned(), declaration: Declaration::of(ty) }));
    let environment = Environment::new().with("self", Declaration::object("T", fields.into()));
    for (text, error) in [
        (
            "self.n == foo",
            "ERROR: <input>:1:11: undeclared reference to 'foo' (in container '')\n | self.n == foo\n | ..........^",
        ),
        ("self.x", "ERROR: <input>:1:5: undefined field 'x'\n | self.x\n | ....^"),
        (
            "self.n + self.s",
            "ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(int, string)'\n | self.n + self.s\n | .......^",
        ),
        (
            "self.n.size()",
            "ERROR: <input>:1:12: found no matching overload for 'size' applied to 'int.()'\n | self.n.size()\n | ...........^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("self.n.x", "ERROR: <input>:1:7: type 'int' does not support field selection\n | self.n.x\n | ......^"),
        ("nope(1)", "ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')\n | nope(1)\n | ....^"),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
        ),
        (
            "1 == 1.0",
            "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, double)'\n | 1 == 1.0\n | ..^",
        ),
        ("for", "ERROR: <input>:1:1: reserved identifier: for\n | for\n | ^"),
        ("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^"),
        ("duration('1')", "ERROR: <input>:1:10: invalid duration argument\n | duration('1')\n | .........^"),
        (
            "self.n.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.n.all(x, true)\n | ....^",
        ),
        ("true\n&& self.x", "ERROR: <input>:2:8: undefined field 'x'\n | && self.x\n | .......^"),
    ] {
        let found = Program::compile(text, &environment).map(|_| ()).unwrap_err().to_string();
        assert_eq!(found, error, "{text}");
    }
}

#[test]
fn declared_data_has_the_declared_types() {
    let plain = |ty| Declaration::sized(ty, 0);
    let fields = [
        ("when", plain(Type::Timestamp)),
        ("long", plain(Type::Duration)),
        ("raw", plain(Type::Bytes)),
        ("share", plain(Type::Double)),
        ("namespace", plain(Type::String)),
        ("set", Declaration::list(plain(Type::Int), ListKind::Set, 10)),
        ("labels", Declaration::map(plain(Type::String), 10)),
        ("absent", plain(Type::String)),
        ("null", plain(Type::String)),
    ];
    let fields = fields.map(|(key, declaration)| (escape(key).unwrap(), Field { key: key.to_owned(), declaration }));
    let declaration = Declaration::object("T", fields.into());
    let data = json!({
        "when": "2023-01-02T03:04:05Z", "long": "1h", "raw": "aGVsbG8=", "share": 1, "namespace": "x",
        "set": [1, 2], "labels": {"a-b": "c"}, "null": null, "unknown": 1,
    });
    let environment = Environment::new().with("self", declaration.clone());
    for text in [
        "self.when.getFullYear() == 2023",
        "self.long == duration('60m')",
        "self.raw == b'hello'",
        "self.share + 0.5 == 1.5",
        "self.__namespace__ == 'x'",
        "self.set == [2, 1]",
        "self.set + [2, 3] == [3, 2, 1] || (self.set + [2, 3]).size() == 3",
        "self.labels['a-b'] == 'c' && self.labels.all(k, k == 'a-b')",
        "!has(self.absent) && has(self.labels)",
        "self == self",
    ] {
        let program = Program::compile(text, &environment).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(*program.output(), Type::Bool);
        let value = Value::declared(&data, &declaration).unwrap();
        assert_eq!(program.evaluate(&[("self", value)], &mut BUDGET.clone()), Ok(Value::Bool(true)), "{text}");
    }
}

#[test]
fn a_program_knows_which_variables_it_uses() {
    let environment = Environment::new().with_type("self", Type::Dyn).with_type("oldSelf", Type::Dyn);
    let uses = |text: &str| Program::compile(text, &environment).unwrap().uses("oldSelf");
    assert!(uses("self == oldSelf"));
    assert!(!uses("[1].all(oldSelf, oldSelf > 0)"));
}

#[test]
fn an_evaluation_ends_when_it_costs_too_much() {
    let environment = Environment::new().with_type("self", Type::Dyn);
    let program = Program::compile("self.all(x, self.all(y, x + y > 0)) || true", &environment).unwrap();
    let data = json!(vec![1; 1000]);
    let mut budget = 10_000;
    let result = program.evaluate(&[("self", Value::dynamic(&data))], &mut budget);
    assert_eq!(result, Err(EvalError::CostExceeded));
    assert_eq!(result.unwrap_err().to_string(), "operation cancelled: actual cost limit exceeded");
    assert_eq!(budget, 0);
}

#[test]
fn what_is_gathered_grows_in_place() {
    let environment = Environment::new().with_type("self", Type::Dyn);
    let program = Program::compile("self.map(x, x).filter(x, true).size() == 30000", &environment).unwrap();
    let data = json!(vec![1; 30_000]);
    let mut budget = 10_000_000;
    assert_eq!(program.evaluate(&[("self", Value::dynamic(&data))], &mut budget), Ok(Value::Bool(true)));
}

#[test]
fn a_result_that_would_be_huge_is_refused() {
    let long = json!({"s": "a".repeat(1_000_000)});
    assert_eq!(evaluate("self.s.replace('a', self.s) == ''", &long), Err("result of replace is too long".to_owned()));
    assert_eq!(evaluate("self.s.replace('', self.s) == ''", &long), Err("result of replace is too long".to_owned()));
    let list = json!(vec![1; 10_000]);
    let result = evaluate("self.map(x, self + self).size() > 0", &list);
    assert_eq!(result, Err("operation cancelled: actual cost limit exceeded".to_owned()));
}

#[test]
fn nesting_has_a_limit() {
    for text in [
        format!("{}1{}", "(".repeat(300), ")".repeat(300)),
        format!("{}true", "!(".repeat(300)),
        (0..400).map(|n| n.to_string()).collect::<Vec<_>>().join(" + "),
        format!("self{}", ".a".repeat(400)),
        format!("self{}", ".optMap(x, x)".repeat(40)),
        format!("{}1{}", "[".repeat(5000), "]".repeat(5000)),
    ] {
        let environment = Environment::new().with_type("self", Type::Dyn);
        let error = Program::compile(&text, &environment).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("limit exceeded"), "{error}");
    }
    // Chains of && and || are balanced, and may be long.
    let long = vec!["true"; 2000].join(" && ");
    assert_eq!(evaluate(&long, &Json::Null), Ok(json!(true)));
    let deep = format!("{}true{}", "[1].all(x, ".repeat(60), ")".repeat(60));
    assert_eq!(evaluate(&deep, &Json::Null), Ok(json!(true)));
}

#[test]
fn messages_are_made_of_declared_types() {
    let ty = expressions::ObjectType {
        name: "JSONPatch".to_owned(),
        fields: Some([("op".to_owned(), Type::String), ("value".to_owned(), Type::Dyn)].into()),
    };
    let environment = Environment::new().with_message(ty);
    let program = Program::compile("[JSONPatch{op: 'add', value: 1}]", &environment).unwrap();
    let value = program.evaluate(&[], &mut BUDGET.clone()).unwrap();
    assert_eq!(value.to_json().unwrap(), json!([{"op": "add", "value": 1}]));
    let error = |text: &str| Program::compile(text, &environment).map(|_| ()).unwrap_err().to_string();
    assert!(error("JSONPatch{x: 1}").contains("undefined field 'x'"));
    assert!(error("JSONPatch{op: 1}").contains("expected type of field 'op' is 'string' but provided type is 'int'"));
    assert!(error("Other{op: 1}").contains("undeclared reference to 'Other'"));
}

/// Allows reading everything but one secret, and fails on paths.
#[derive(Debug)]
struct Reader;

impl expressions::Authorize for Reader {
    fn decide(&self, question: &expressions::Question) -> expressions::Decision {
        let allowed = question.verb == "get" && question.name != "hidden";
        let error = if question.path.is_empty() { String::new() } else { "no paths".to_owned() };
        expressions::Decision { allowed, reason: format!("{}/{}", question.group, question.resource), error }
    }
}

#[test]
fn an_authoriser_is_asked_what_has_been_said() {
    let environment = Environment::new()
        .with_type("authorizer", Type::AUTHORIZER)
        .with_type("authorizer.requestResource", Type::RESOURCE_CHECK);
    let access = expressions::Access::new(std::sync::Arc::new(Reader));
    let question = expressions::Question { resource: "pods".to_owned(), ..Default::default() };
    let request = expressions::Access::of_resource(std::sync::Arc::new(Reader), question);
    for text in [
        "authorizer.group('apps').resource('deployments').namespace('x').check('get').allowed()",
        "!authorizer.group('').resource('secrets').name('hidden').check('get').allowed()",
        "authorizer.group('apps').resource('deployments').check('get').reason() == 'apps/deployments'",
        "authorizer.path('/healthz').check('get').errored()",
        "!authorizer.serviceAccount('ns', 'sa').group('').resource('pods').fieldSelector('a=b').check('list').allowed()",
        "authorizer.requestResource.check('get').allowed()",
    ] {
        let program = Program::compile(text, &environment).unwrap_or_else(|error| panic!("{error}"));
        let variables = [
            ("authorizer", Value::Access(access.clone())),
            ("authorizer.requestResource", Value::Access(request.clone())),
        ];
        let mut budget = 400_000;
        assert_eq!(program.evaluate(&variables, &mut budget), Ok(Value::Bool(true)), "{text}");
        assert!(budget < 50_000, "asking is dear");
    }
    assert!(Program::compile("authorizer.check('get')", &environment).is_err());
}

#[test]
fn variables_are_made_when_they_are_needed() {
    let environment = Environment::new().with_type("given", Type::Bool).with_type("later.list", Type::list(Type::Int));
    let program = Program::compile("given || later.list.size() == 2", &environment).unwrap();
    let list = json!([1, 2]);
    let asked = std::cell::Cell::new(0);
    let later = |name: &str| {
        asked.set(asked.get() + 1);
        (name == "later.list").then(|| Ok(Value::dynamic(&list)))
    };
    for (given, times) in [(true, 0), (false, 1)] {
        let mut budget = BUDGET;
        let value = program.evaluate_with(&[("given", Value::from(given))], &later, &mut budget);
        assert_eq!((value, asked.get()), (Ok(Value::from(true)), times));
    }
}

#[test]
fn objects_within_objects_are_named_after_their_fields() {
    let environment = Environment::new().with_open_messages("Object").with_open_messages("Patch");
    let misnamed = |text: &str| {
        let program = Program::compile(text, &environment).unwrap();
        program.evaluate(&[], &mut BUDGET.clone()).unwrap().misnamed()
    };
    assert_eq!(misnamed("Object{spec: Object.spec{list: [Object.spec.list{a: {'b': 1}}]}}"), None);
    assert_eq!(misnamed("[Patch{value: Object.spec.list{a: Object.spec.list.a{}}}]"), None);
    let wrong = "unexpected type name \"Object.specx\", expected \"Object.spec\", which matches field name path from root \
                 Object type";
    assert_eq!(misnamed("Object{spec: Object.specx{replicas: 1}}").as_deref(), Some(wrong));
}
