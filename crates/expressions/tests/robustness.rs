//! No text and no data makes compiling or evaluating panic.

use expressions::{Environment, Program, Type, Value};
use proptest::prelude::*;
use serde_json::json;

const WORDS: &[&str] = &[
    "self",
    "self.a",
    "self.list",
    "1",
    "2u",
    "-3",
    "1.5",
    "'text'",
    "b'x'",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    ".",
    ",",
    ":",
    "?",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    "&&",
    "||",
    "==",
    "!=",
    "<",
    ">=",
    " in ",
    ".?a",
    "[?0]",
    ".all(x, ",
    ".map(x, ",
    ".exists(k, v, ",
    ".transformMap(k, v, ",
    ".optMap(x, ",
    "x",
    "v",
    ".size()",
    ".split(',')",
    ".replace('a', 'b')",
    ".matches('a+')",
    ".substring(1)",
    ".format([1])",
    "duration('1h')",
    "timestamp('2023-01-02T03:04:05Z')",
    "quantity('1Ki')",
    "ip('::1')",
    "cidr('10.0.0.0/8')",
    "url('https://x/')",
    "semver('1.2.3')",
    "optional.none()",
    ".orValue(1)",
    "has(self.a)",
    "type(",
    "int(",
    "string(",
    "dyn(",
    ".sum()",
    ".sort()",
    ".flatten()",
    "lists.range(3)",
    "math.greatest(1, 2, 3)",
    "sets.contains([1], [1])",
    "null",
    "true",
    "'%s %d'",
    "\"\"\"",
    "\\",
    "é",
];

fn run(text: &str) {
    let environment = Environment::new().with_type("self", Type::Dyn);
    let data = json!({"a": 1, "list": [1, "x", null, {"b": [true]}], "ä": 1.5, "long": "aaaaaaaaaaaaaaaaaaa"});
    match Program::compile(text, &environment) {
        Ok(program) => {
            let mut budget = 100_000;
            if let Ok(value) = program.evaluate(&[("self", Value::dynamic(&data))], &mut budget) {
                let _ = value.to_json();
            }
        }
        Err(error) => assert!(error.to_string().starts_with("ERROR: <input>:")),
    }
}

/// Expressions that are whole, to be damaged.
const WHOLE: &[&str] = &[
    "self.list.all(x, type(x) == int ? x > 0 : has(x.b) && x.b.exists(y, y))",
    "'%s-%.3f'.format([self.a, 1.5]).split('-', 2).map(s, s.upperAscii()).join('/').matches('^[A-Z0-9/.]+$')",
    "self.?list[?0].optMap(x, [x, self.a].min()).orValue(quantity('1Gi').asInteger())",
    "{'a': self.a, ?'b': self.?b}.transformMap(k, v, k != 'b', string(v).substring(0, 1))",
    "timestamp('2023-01-02T03:04:05Z') - duration('1h') > timestamp(0) || cidr('10.0.0.0/8').containsIP('10.1.1.1')",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,60}") {
        run(&text);
    }

    #[test]
    fn any_sequence_of_words_is_answered(words in prop::collection::vec(prop::sample::select(WORDS), 0..25)) {
        run(&words.concat());
    }

    #[test]
    fn a_damaged_expression_is_answered(
        whole in prop::sample::select(WHOLE),
        at in 0usize..120,
        remove in 0usize..4,
        insert in prop::sample::select(WORDS),
    ) {
        let chars: Vec<char> = whole.chars().collect();
        let at = at.min(chars.len());
        let end = (at + remove).min(chars.len());
        let text: String = chars[..at].iter().copied().chain(insert.chars()).chain(chars[end..].iter().copied()).collect();
        run(&text);
    }

    #[test]
    fn any_argument_of_a_parser_is_answered(text in "[0-9a-zA-Z:./%+\\-\\[\\]{}() ]{0,24}") {
        let quoted = format!("'{text}'");
        for function in ["quantity", "url", "ip", "cidr", "semver", "duration", "timestamp", "int", "double", "isURL"] {
            run(&format!("{function}(dyn({quoted}))"));
        }
        run(&format!("'abc'.matches(dyn({quoted})) || {quoted}.format([1, 2]) == {quoted}"));
        for format in ["uri", "byte", "date", "datetime", "uuid", "qualifiedName", "dns1123Subdomain", "labelValue"] {
            run(&format!("format.{format}().validate({quoted})"));
        }
    }
}
