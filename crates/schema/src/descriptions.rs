//! What types and fields are for, in words: read when documents are made, and not kept.

use std::collections::HashMap;
use std::io::Read as _;

/// Made by the build script; gzip (RFC 1952) of a line for each type and field.
static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.gz"));

/// Descriptions by the name of the type, and by type and field.
#[derive(Default)]
pub(crate) struct Descriptions {
    types: HashMap<String, String>,
    fields: HashMap<(String, String), String>,
}

impl Descriptions {
    /// Reads all of them. What cannot be read describes nothing: documents are complete without words.
    pub fn read() -> Self {
        let mut text = String::new();
        if let Err(error) = flate2::read::GzDecoder::new(COMPRESSED).read_to_string(&mut text) {
            debug_assert!(false, "the build script writes gzip: {error}");
            return Self::default();
        }
        let mut all = Self::default();
        let mut current = String::new();
        for (name, said) in text.lines().filter_map(|line| line.split_once('\t')) {
            let said = said.replace("\\n", "\n").replace("\\\\", "\\");
            match name.strip_prefix("T ") {
                Some(ty) => {
                    current = ty.to_owned();
                    all.types.insert(current.clone(), said);
                }
                None => drop(all.fields.insert((current.clone(), name.to_owned()), said)),
            }
        }
        all
    }

    /// What a type is.
    pub fn of_type(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// What a field, by its JSON name, is for.
    pub fn of_field(&self, ty: &str, json: &str) -> Option<&str> {
        let plain: String = json.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        self.fields.get(&(ty.to_owned(), plain)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_fields_have_a_description() {
        let all = Descriptions::read();
        assert!(all.of_type("core.v1.Pod").is_some_and(|text| text.contains("containers")));
        for (ty, field) in
            [("core.v1.ServiceSpec", "clusterIP"), ("core.v1.Container", "image"), ("meta.v1.ObjectMeta", "labels")]
        {
            assert!(all.of_field(ty, field).is_some_and(|text| text.len() > 20), "{ty}.{field}");
        }
        assert_eq!(all.of_field("core.v1.Pod", "unheardOf"), None);
    }
}
