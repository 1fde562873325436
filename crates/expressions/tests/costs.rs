//! What evaluations cost and what estimates say, against the numbers that upstream is held to.

use expressions::{CostEstimate, Declaration, Environment, Field, ListKind, Program, Type, Value};
use serde_json::{Value as Json, json};

fn plain(ty: Type) -> Declaration {
    Declaration::sized(ty, 0)
}

fn object(fields: Vec<(&str, Declaration)>) -> Declaration {
    let fields =
        fields.into_iter().map(|(key, declaration)| (key.to_owned(), Field { key: key.to_owned(), declaration }));
    Declaration::object("T", fields.collect())
}

#[track_caller]
fn costs(fields: Vec<(&str, Declaration)>, data: &Json, expected: &[(&str, u64)]) {
    let declaration = object(fields);
    let environment = Environment::new().with("self", declaration.clone());
    let mut wrong = Vec::new();
    for (text, cost) in expected {
        let program = Program::compile(text, &environment).unwrap_or_else(|error| panic!("{error}"));
        let mut budget = 1_000_000;
        let value = Value::declared(data, &declaration).unwrap();
        let result = program.evaluate(&[("self", value)], &mut budget);
        let found = 1_000_000 - budget;
        if result != Ok(Value::Bool(true)) || found != *cost {
            wrong.push(format!("{text}: {result:?}, cost {found} instead of {cost}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn scalars_cost_what_they_cost_upstream() {
    let data = json!({
        "i": 5, "d": 10.0, "s": "Rook takes 👑", "b": "QUI=", "span": "1h2m3s4ms", "t": "2011-08-18T19:03:37.01+01:00",
        "dyn": "25%", "enum": "Pending", "current": 5, "available": 10,
    });
    let fields = vec![
        ("i", plain(Type::Int)),
        ("d", plain(Type::Double)),
        ("s", plain(Type::String)),
        ("b", plain(Type::Bytes)),
        ("span", plain(Type::Duration)),
        ("t", plain(Type::Timestamp)),
        ("dyn", Declaration::of(Type::Dyn)),
        ("enum", plain(Type::String)),
        ("current", plain(Type::Int)),
        ("available", plain(Type::Int)),
    ];
    costs(
        fields,
        &data,
        &[
            ("type(self.i) == int", 4),
            ("self.i + 1 == 5 + 1", 5),
            ("double(self.i) < self.d", 6),
            ("double(5) < 10.0", 1),
            ("double(self.i) < 10.0", 4),
            ("self.s.startsWith('Rook')", 4),
            ("!self.s.startsWith('knight')", 5),
            ("self.s.matches('^[^0-9]*$')", 8),
            ("size(self.s) == 12", 4),
            ("self.s.charAt(3) == 'k'", 4),
            ("self.s.indexOf('o', 2) == 2", 4),
            ("self.s.replace(' ', 'x') == 'Rookxtakesx👑'", 7),
            ("self.s.split(' ') == ['Rook', 'takes', '👑']", 6),
            ("self.s.substring(4, 10).trim() == 'takes'", 6),
            ("self.s.lowerAscii() == self.s.lowerAscii()", 10),
            ("'%o %o %o'.format([7, 8, 9]) == '7 10 11'", 2),
            ("'%e'.format([3.14]) == '3.140000 × 10⁰⁰'", 3),
            ("self.b == b'AB'", 3),
            ("self.span == duration('1h2m') + duration('3s4ms')", 4),
            ("self.t.getDate('01:00') == 18", 4),
            ("self.enum in ['Pending', 'Available']", 2),
            ("type(self.dyn) == int ? self.dyn == 1 : self.dyn == '25%'", 7),
            ("self.dyn == 1 || self.dyn == '25%'", 6),
            ("type(self.dyn) == string && self.dyn.matches(r'(\\d+(\\.\\d+)?%)')", 10),
        ],
    );
}

#[test]
fn lists_and_maps_cost_what_they_cost_upstream() {
    let entry = || object(vec![("k", plain(Type::String)), ("v", plain(Type::String)), ("v2", plain(Type::String))]);
    let list = |ty, kind| Declaration::list(plain(ty), kind, 100);
    let data = json!({
        "a": [1, 2, 3], "set": ["a", "b", "c"], "large": (0..1000).collect::<Vec<_>>(), "val": {"b": 1, "d": 2},
        "array": [1, 1, 2, 2, 3, 3, 4, 5],
        "listMap": [{"k": "a1", "v": "b1"}, {"k": "a2", "v": "b2"}, {"k": "a3", "v": "b3", "v2": "z"}],
        "objs": [[{"k": "a", "v": "1"}, {"k": "b", "v": "2"}], [{"k": "b", "v": "2"}, {"k": "a", "v": "1"}]],
    });
    let keyed = |items| Declaration::list(items, ListKind::Map(["k".to_owned()].into()), 100);
    let fields = vec![
        ("a", list(Type::Int, ListKind::Atomic)),
        ("set", list(Type::String, ListKind::Set)),
        ("large", list(Type::Int, ListKind::Set)),
        ("val", Declaration::map(plain(Type::Int), 100)),
        ("array", list(Type::Int, ListKind::Atomic)),
        ("listMap", keyed(entry())),
        ("objs", Declaration::list(keyed(entry()), ListKind::Atomic, 100)),
    ];
    costs(
        fields,
        &data,
        &[
            ("1 in self.a", 5),
            ("self.a[0] in self.a", 8),
            ("self.a + [4, 5] == [1, 2, 3, 4, 5]", 4),
            ("has(self.a) && has(self.set)", 2),
            ("self.set == ['c', 'b', 'a']", 3),
            ("self.set + ['c', 'd'] == ['a', 'b', 'c', 'd']", 4),
            ("sets.contains(self.set, ['a'])", 6),
            ("sets.equivalent(self.set, ['a', 'b', 'c'])", 21),
            ("!sets.equivalent(self.large, [1, 2, 3])", 6004),
            ("self.objs[0] == self.objs[1]", 7),
            ("self.objs[0] == [self.objs[0][1], self.objs[0][0]]", 22),
            ("'b' in self.val", 3),
            ("has(self.val.b)", 2),
            ("self.val.all(k, self.val[k] > 0)", 17),
            ("self.val.exists_one(k, self.val[k] == 2)", 14),
            ("!self.val.exists_one(k, self.val[k] > 0)", 17),
            ("size(self.val.filter(k, self.val[k] > 1)) == 1", 26),
            ("self.listMap.all(m, m.k.startsWith('a'))", 21),
            ("self.listMap.all(m, !has(m.v2) || m.v2 == 'z')", 21),
            ("self.listMap.exists(m, m.k.endsWith('1'))", 13),
            ("self.listMap.exists_one(m, m.k == 'a3')", 15),
            ("!self.listMap.all(m, m.k.endsWith('1'))", 18),
            ("size(self.listMap.filter(m, m.k == 'a1')) == 1", 27),
            ("self.listMap.map(m, m.v).exists(v, v == 'b1')", 55),
            ("self.listMap.filter(m, has(m.v2) && m.v2 == 'z').map(m, m.v2).size() == 1", 39),
            ("self.listMap.exists(m, m.v2 == 'z')", 24),
            ("!self.listMap.all(m, m.v2 != 'z')", 22),
            ("self.array.exists(e, e > 2)", 36),
            ("!self.array.exists_one(e, e == 2)", 25),
            ("size(self.array.filter(e, e%2 == 0)) == 3", 68),
            ("self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)", 194),
        ],
    );
}

/// The estimate for a rule over a declaration.
fn estimate(declaration: Declaration, text: &str) -> CostEstimate {
    let environment = Environment::new().with("self", declaration);
    Program::compile(text, &environment).unwrap_or_else(|error| panic!("{error}")).estimate()
}

#[test]
fn estimates_follow_from_declared_sizes() {
    let list = |max| Declaration::list(Declaration::sized(Type::String, 10), ListKind::Atomic, max);
    let all = "self.all(x, x == x)";
    // For each element: the condition 2, the accumulator 1, both sides 1 each, the comparison 1; around it 2.
    assert_eq!(estimate(list(10), all).max, 62);
    assert_eq!(estimate(list(1000), all).max, 6002);
    assert_eq!(estimate(list(10), "true").max, 0);
    // A text of up to 100 characters against a pattern of 4.
    assert_eq!(estimate(Declaration::sized(Type::String, 100), "self.matches('abcd')").max, 12);
    assert!(estimate(Declaration::of(Type::String), "self.matches('abcd')").max > 1_000_000_000_000);
    assert_eq!(estimate(Declaration::map(plain(Type::Int), 7), "self.all(k, true)").max, 3 * 7 + 2);
    assert_eq!(estimate(plain(Type::Int), "self == 1"), CostEstimate { min: 1, max: 1 });
}
