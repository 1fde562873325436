//! Custom objects from one version to another, where their definition names a webhook that knows how.

use std::borrow::Cow;
use std::time::Duration;

use object_model::{ApiError, meta};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::outbound::Webhook;
use crate::served::Served;

/// How long a webhook may take (upstream's number).
const PATIENCE: Duration = Duration::from_secs(30);

impl ApiServer {
    /// Stored objects in the version that is served.
    ///
    /// # Errors
    /// 500 when the webhook does not convert them.
    pub(crate) async fn shown(&self, served: &Served, objects: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        if !served.by_webhook() {
            return Ok(objects);
        }
        let mut objects = self.in_version(served, &served.api_version(), objects).await?;
        objects.iter_mut().for_each(|object| *object = served.hooks().served(std::mem::take(object)));
        Ok(objects)
    }

    /// One stored object in the version that is served.
    ///
    /// # Errors
    /// As [`Self::shown`].
    pub(crate) async fn shown_one(&self, served: &Served, object: Value) -> Result<Value, ApiError> {
        if !served.by_webhook() {
            return Ok(object);
        }
        let mut shown = self.shown(served, vec![object]).await?;
        shown.pop().ok_or_else(|| ApiError::internal("a conversion lost the object"))
    }

    /// An object in the form of another resource that serves the same ones. What is no such object stays as it is.
    ///
    /// # Errors
    /// As [`Self::shown`].
    pub(crate) async fn in_form<'o>(
        &self,
        from: &Served,
        to: &Served,
        object: &'o Value,
    ) -> Result<Cow<'o, Value>, ApiError> {
        let same = from.group() == to.group() && from.version() == to.version();
        if same || object["kind"] != from.kind() {
            return Ok(Cow::Borrowed(object));
        }
        let object = object.clone();
        if to.by_webhook() {
            let mut objects = self.in_version(to, &to.api_version(), vec![object]).await?;
            return objects.pop().map(Cow::Owned).ok_or_else(|| ApiError::internal("a conversion lost the object"));
        }
        let mut object = if from.converts() { from.hooks().stored(object) } else { object };
        object["apiVersion"] = to.api_version().into();
        object["kind"] = to.kind().into();
        Ok(Cow::Owned(if to.converts() { to.hooks().served(object) } else { object }))
    }

    /// Objects in a version, by the webhook of their definition. Those that are in it already stay as they are.
    pub(crate) async fn in_version(
        &self,
        served: &Served,
        version: &str,
        mut objects: Vec<Value>,
    ) -> Result<Vec<Value>, ApiError> {
        let strange: Vec<usize> = (0..objects.len()).filter(|at| objects[*at]["apiVersion"] != version).collect();
        if strange.is_empty() {
            return Ok(objects);
        }
        let from = objects[strange[0]]["apiVersion"].as_str().unwrap_or_default().to_owned();
        let failed = |why: String| {
            ApiError::internal(format!("conversion webhook for {from}, Kind={} failed: {why}", served.kind()))
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let sent: Vec<&Value> = strange.iter().map(|at| &objects[*at]).collect();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "request": {"uid": uid, "desiredAPIVersion": version, "objects": sent},
        });
        let webhook = Webhook::new(served.conversion["webhook"]["clientConfig"].clone());
        let answer =
            self.ask_webhook(&webhook, &review, PATIENCE).await.map_err(|error| failed(format!("{error:#}")))?;
        let response = &answer["response"];
        if response["uid"] != uid.as_str() {
            return Err(failed(format!("expected response.uid={uid:?}, got {}", response["uid"])));
        }
        if response["result"]["status"] != "Success" {
            let why = response["result"]["message"].as_str().unwrap_or("no reason was given");
            return Err(failed(why.to_owned()));
        }
        let converted = response["convertedObjects"].as_array().map_or(&[][..], Vec::as_slice);
        if converted.len() != strange.len() {
            return Err(failed(format!("returned {} objects, expected {}", converted.len(), strange.len())));
        }
        for (at, object) in strange.into_iter().zip(converted) {
            if object["apiVersion"] != version {
                return Err(failed(format!("returned an object of {}, expected {version}", object["apiVersion"])));
            }
            objects[at] = with_metadata(object.clone(), &objects[at]).map_err(&failed)?;
        }
        Ok(objects)
    }
}

/// A converted object with the metadata of the one it was: a webhook may change labels and annotations alone.
fn with_metadata(mut converted: Value, original: &Value) -> Result<Value, String> {
    for field in ["name", "namespace", "uid"] {
        let (new, old) = (&converted["metadata"][field], &original["metadata"][field]);
        if !new.is_null() && new != old {
            return Err(format!("must preserve metadata.{field}: {new} is not {old}"));
        }
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let value = converted["metadata"].get(field).cloned().unwrap_or(Value::Null);
        match metadata.as_object_mut() {
            Some(map) if value.is_null() => drop(map.remove(field)),
            Some(map) => drop(map.insert(field.to_owned(), value)),
            None => {}
        }
    }
    *meta_place(&mut converted) = metadata;
    Ok(converted)
}

fn meta_place(object: &mut Value) -> &mut Value {
    meta::metadata_mut(object);
    &mut object["metadata"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_keeps_the_metadata_but_for_labels_and_annotations() {
        let original =
            json!({"apiVersion": "e/v1", "metadata": {"name": "a", "uid": "u", "labels": {"x": "1"}}, "spec": 1});
        let converted = json!({"apiVersion": "e/v2", "metadata": {"name": "a", "labels": {"y": "2"}}, "spec": 2});
        let kept = with_metadata(converted, &original).expect("kept");
        assert_eq!(kept["metadata"], json!({"name": "a", "uid": "u", "labels": {"y": "2"}}));
        let renamed = json!({"metadata": {"name": "b"}});
        assert!(with_metadata(renamed, &original).unwrap_err().contains("must preserve metadata.name"));
    }
}
