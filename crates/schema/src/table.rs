//! The table of API types: what a field is called, what it holds, its number in protobuf and how it is merged.
//!
//! `types.txt` has one block per type, sorted by name, with `core.v1.Pod`-like names (`package.version.Kind`):
//!
//! ```text
//! E core.v1.Protocol SCTP TCP UDP              a closed set of strings
//! T core.v1.Pod root                           a struct; `root` has kind and apiVersion as well, `open` any field
//! metadata meta.v1.ObjectMeta 1 - ?            field: JSON name, type, protobuf number, then marks
//! ```
//!
//! Types: `string bool int32 int64 float64 bytes any quantity time microtime intorstring raw fieldsv1 json
//! strings schemaor…`, a name, or `[]` (list of) and `{}` (map from strings to) before another type. Marks: `*` pointer
//! (absent and zero differ), `-` omitted when empty, `?` optional, `inline` (no JSON level of its own; name `~`),
//! `patch=` strategic merge strategy, `key=` merge key, `list=` `keys=` `map=` `struct=` apply semantics, `default=` JSON
//! text. Number 0: not in protobuf. The facts are those of Kubernetes 1.37.
//!
//! The table is split into blocks when the first type is asked for; a block is parsed when its type is first used.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, OnceLock};

static TEXT: &str = include_str!("types.txt");

/// One API type. Compare by name; all types live as long as the process.
pub struct Type {
    /// `core.v1.Pod`, or an expression such as `[]core.v1.Container` for a type without a name.
    pub name: &'static str,
    block: &'static str,
    shape: OnceLock<Shape>,
}

/// What a [`Type`] holds.
#[derive(Debug)]
pub enum Shape {
    /// An object with known fields.
    Struct(Struct),
    /// An object with string keys and values of one type.
    Map(&'static Type),
    /// An array.
    List(&'static Type),
    /// A string out of a set. The set is for documentation: validation decides, and answers with a field path.
    Enum(Vec<&'static str>),
    /// Text.
    String,
    /// true or false.
    Bool,
    /// A signed number of 32 bits.
    Int32,
    /// A signed number of 64 bits.
    Int64,
    /// A floating-point number.
    Float64,
    /// Base64 text in JSON, bytes in protobuf.
    Bytes,
    /// An exact amount such as `500m` or `1Gi`.
    Quantity,
    /// RFC 3339 with whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// A number or a text.
    IntOrString,
    /// Any object; in protobuf its bytes are wrapped in a message.
    Raw,
    /// The set of owned fields in `managedFields`; as `Raw`.
    FieldsV1,
    /// Any JSON value; in protobuf its text is wrapped in a message.
    Json,
    /// A list of strings that protobuf wraps in a message (`ExtraValue`).
    Strings,
    /// A JSON schema or a list of schemas.
    SchemaOrArray,
    /// A JSON schema or a boolean.
    SchemaOrBool,
    /// A JSON schema or a list of strings.
    SchemaOrStrings,
    /// Any JSON value that never travels as protobuf.
    Any,
}

/// The fields of a struct type.
#[derive(Debug)]
pub struct Struct {
    /// Fields in declaration order, those of inlined structs not included.
    pub fields: &'static [Field],
    /// Whether objects of this type carry `kind` and `apiVersion`.
    pub root: bool,
    /// Applied as a whole: `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    /// Whether other fields may be there as well: those of objects that a definition describes.
    pub open: bool,
    by_name: HashMap<&'static str, &'static Field>,
}

/// One field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    /// Name in JSON; empty for an inlined struct.
    pub json: &'static str,
    /// What it holds.
    pub ty: &'static Type,
    /// Number in protobuf, 0 if it does not travel.
    pub number: u32,
    /// Absent and zero are two different things.
    pub pointer: bool,
    /// Left out of JSON when it has the zero value.
    pub omitempty: bool,
    /// A client need not set it.
    pub optional: bool,
    /// Its fields appear in the parent's JSON object.
    pub inline: bool,
    /// Strategic merge: join lists by merge key (or as a set) rather than replace.
    pub patch_merge: bool,
    /// Strategic merge: replace an object rather than join it.
    pub patch_replace: bool,
    /// Strategic merge: `$retainKeys` is understood.
    pub patch_retain_keys: bool,
    /// Strategic merge: field by which list elements are matched.
    pub merge_key: Option<&'static str>,
    /// `atomic`, `set` or `map`.
    pub list_type: Option<&'static str>,
    /// Keys of a `map` list.
    pub list_map_keys: Vec<&'static str>,
    /// `atomic` or `granular`, of a map or a struct.
    pub map_type: Option<&'static str>,
    /// JSON text of the default.
    pub default: Option<&'static str>,
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

struct Table {
    named: HashMap<&'static str, Type>,
    unnamed: Mutex<HashMap<&'static str, &'static Type>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut named = HashMap::with_capacity(1024);
    let mut insert = |block: &'static str| {
        let name = block.split([' ', '\n']).nth(1).unwrap_or_default();
        named.insert(name, Type { name, block, shape: OnceLock::new() });
    };
    let (mut start, mut at) = (0, 0);
    for line in TEXT.split_inclusive('\n') {
        if at > start && (line.starts_with("T ") || line.starts_with("E ")) {
            insert(&TEXT[start..at - 1]);
            start = at;
        }
        at += line.len();
    }
    insert(TEXT[start..].trim_end());
    Table { named, unnamed: Mutex::new(HashMap::new()) }
});

/// The type with this name, such as `core.v1.Pod` or `meta.v1.DeleteOptions`.
pub fn type_named(name: &str) -> Option<&'static Type> {
    TABLE.named.get(name)
}

/// All names in the table, sorted.
pub fn type_names() -> Vec<&'static str> {
    let mut names: Vec<_> = TABLE.named.keys().copied().collect();
    names.sort_unstable();
    names
}

/// The type of objects with this `apiVersion` and `kind`.
pub fn type_for(api_version: &str, kind: &str) -> Option<&'static Type> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = match group {
        "" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        other => other.split('.').next().unwrap_or(other),
    };
    type_named(&format!("{package}.{version}.{kind}")).or_else(|| {
        (group.is_empty() || group == "meta.k8s.io").then(|| type_named(&format!("meta.{version}.{kind}")))?
    })
}

/// The type an expression stands for, made on its first use.
fn type_of(expression: &'static str) -> &'static Type {
    if let Some(ty) = TABLE.named.get(expression) {
        return ty;
    }
    let mut unnamed = TABLE.unnamed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    unnamed
        .entry(expression)
        .or_insert_with(|| Box::leak(Box::new(Type { name: expression, block: "", shape: OnceLock::new() })))
}

/// The type that holds any JSON value.
pub(crate) fn any() -> &'static Type {
    type_of("any")
}

/// The type that holds text.
pub(crate) fn string() -> &'static Type {
    type_of("string")
}

/// The type of objects that a CustomResourceDefinition describes: their metadata is known here, all else is its matter.
pub fn custom_object() -> &'static Type {
    type_of("custom.v1.Object")
}

/// The type of an embedded JSON schema; the shapes that hold one occur only beside it in the table.
pub(crate) fn json_schema() -> &'static Type {
    type_of("apiextensions.v1.JSONSchemaProps")
}

impl Type {
    /// What this type holds.
    pub fn shape(&'static self) -> &'static Shape {
        self.shape.get_or_init(|| self.parse())
    }

    /// The struct, if it is one.
    pub fn as_struct(&'static self) -> Option<&'static Struct> {
        match self.shape() {
            Shape::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    /// A field by its JSON name, found through inlined structs too.
    pub fn field(&'static self, json: &str) -> Option<&'static Field> {
        self.as_struct()?.by_name.get(json).copied()
    }

    /// Whether objects of this type carry `kind` and `apiVersion`.
    pub fn is_root(&'static self) -> bool {
        self.as_struct().is_some_and(|s| s.root)
    }

    fn parse(&'static self) -> Shape {
        if self.block.starts_with("E ") {
            let values = self.block.split(' ').skip(2).map(|v| if v == "\"\"" { "" } else { v });
            return Shape::Enum(values.collect());
        }
        if self.block.starts_with("T ") {
            return Shape::Struct(self.parse_struct());
        }
        if let Some(element) = self.name.strip_prefix("[]") {
            return Shape::List(type_of(element));
        }
        if let Some(element) = self.name.strip_prefix("{}") {
            return Shape::Map(type_of(element));
        }
        match self.name {
            "string" => Shape::String,
            "bool" => Shape::Bool,
            "int32" => Shape::Int32,
            "int64" => Shape::Int64,
            "float64" => Shape::Float64,
            "bytes" => Shape::Bytes,
            "quantity" => Shape::Quantity,
            "time" => Shape::Time,
            "microtime" => Shape::MicroTime,
            "intorstring" => Shape::IntOrString,
            "raw" => Shape::Raw,
            "fieldsv1" => Shape::FieldsV1,
            "json" => Shape::Json,
            "strings" => Shape::Strings,
            "schemaorarray" => Shape::SchemaOrArray,
            "schemaorbool" => Shape::SchemaOrBool,
            "schemaorstrings" => Shape::SchemaOrStrings,
            _ => Shape::Any,
        }
    }

    fn parse_struct(&'static self) -> Struct {
        let mut lines = self.block.lines();
        let head = lines.next().unwrap_or_default();
        let root = head.split(' ').any(|mark| mark == "root");
        let mut fields = Vec::new();
        if root {
            for json in ["kind", "apiVersion"] {
                fields.push(Field { omitempty: true, optional: true, ..Field::new(json, "string", 0) });
            }
        }
        fields.extend(lines.filter_map(Field::parse));
        let fields: &'static [Field] = Vec::leak(fields);
        let mut by_name = HashMap::with_capacity(fields.len());
        for field in fields {
            if field.inline {
                if let Some(inner) = field.ty.as_struct() {
                    by_name.extend(inner.by_name.iter().map(|(name, field)| (*name, *field)));
                }
            } else {
                by_name.insert(field.json, field);
            }
        }
        Struct { fields, root, atomic: head.contains(" struct=atomic"), open: head.ends_with(" open"), by_name }
    }
}

impl Field {
    fn new(json: &'static str, ty: &'static str, number: u32) -> Field {
        Field {
            json,
            ty: type_of(ty),
            number,
            pointer: false,
            omitempty: false,
            optional: false,
            inline: false,
            patch_merge: false,
            patch_replace: false,
            patch_retain_keys: false,
            merge_key: None,
            list_type: None,
            list_map_keys: Vec::new(),
            map_type: None,
            default: None,
        }
    }

    fn parse(line: &'static str) -> Option<Field> {
        let mut words = line.split(' ');
        let (json, ty, number) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let mut field = Field::new(if json == "~" { "" } else { json }, ty, number);
        for word in words {
            match word.split_once('=') {
                None if word == "*" => field.pointer = true,
                None if word == "-" => field.omitempty = true,
                None if word == "?" => field.optional = true,
                None if word == "inline" => field.inline = true,
                Some(("patch", how)) => {
                    field.patch_merge = how.contains("merge");
                    field.patch_replace = how.contains("replace");
                    field.patch_retain_keys = how.contains("retainKeys");
                }
                Some(("key", key)) => field.merge_key = Some(key),
                Some(("list", kind)) => field.list_type = Some(kind),
                Some(("keys", keys)) => field.list_map_keys = keys.split(',').collect(),
                Some(("map" | "struct", kind)) => field.map_type = Some(kind),
                Some(("default", text)) => field.default = Some(text),
                _ => {}
            }
        }
        Some(field)
    }
}
