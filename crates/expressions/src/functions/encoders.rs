//! Base64, and the keys of JSON patches.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::{Function, Outcome, no_such_overload, only_text};
use crate::error::EvalError;
use crate::value::Value;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function { name: "base64.decode", run: decode, overloads: &[("base64_decode_string", "(string) -> bytes")] },
    Function {
        name: "jsonpatch.escapeKey",
        run: |args| Ok(Value::from(only_text(args)?.replace('~', "~0").replace('/', "~1"))),
        overloads: &[("string_jsonpatch_escapeKey_string", "(string) -> string")],
    },
    Function {
        name: "base64.encode",
        run: |args| match args {
            [Value::Bytes(bytes)] => Ok(Value::from(STANDARD.encode(bytes))),
            _ => no_such_overload(),
        },
        overloads: &[("base64_encode_bytes", "(bytes) -> string")],
    },
];

fn decode<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let text = only_text(args)?;
    // Texts without padding are read as well.
    match STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)) {
        Ok(bytes) => Ok(Value::Bytes(bytes.into())),
        Err(error) => Err(EvalError::new(format!("illegal base64 data: {error}"))),
    }
}
