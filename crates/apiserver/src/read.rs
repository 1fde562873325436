//! Reading objects: get and list, with selectors, pages and views.

use std::time::Duration;

use client::Body;
use http::{Response, StatusCode};
use object_model::{ApiError, Continue, FieldSelector, LabelSelector, Reason, meta};
use serde_json::{Value, json};
use store::{Entry, StoreError};

use crate::context::{Context, unsupported};
use crate::request::{Format, ResourceRequest, View};
use crate::served::Served;
use crate::table::Include;
use crate::watch::forbidden;
use crate::write::store_failed;
use crate::{ApiServer, listing, respond, stored, table};

/// How long a read waits for a revision that has not happened yet (upstream's time).
const WAIT_FOR_REVISION: Duration = Duration::from_secs(3);

/// Which objects a request wants.
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    served: Served,
}

impl Selection {
    /// Reads the selectors of a request.
    ///
    /// # Errors
    /// 400 for a selector that does not parse, or a field the kind does not select by.
    pub fn of(cx: &Context, served: &Served) -> Result<Self, ApiError> {
        let (label_text, field_text) = (cx.query.get("labelSelector"), cx.query.get("fieldSelector"));
        let labels = LabelSelector::parse(label_text).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let fields = FieldSelector::parse(field_text).map_err(|e| ApiError::bad_request(e.to_string()))?;
        for (path, _, _) in &fields.terms {
            let generic = path == "metadata.name" || (path == "metadata.namespace" && served.namespaced());
            if !generic && !served.selectable_fields.contains(path) {
                // kubectl puts this sentence into one of its own.
                return Err(ApiError::bad_request(if served.selectable_fields.is_empty() {
                    format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                } else {
                    format!("field label not supported: {path}")
                }));
            }
        }
        Ok(Self { labels, fields, served: served.clone() })
    }

    /// The same, of the object that the path names, where it names one.
    pub fn named(mut self, name: &str) -> Self {
        if !name.is_empty() {
            self.fields.terms.push(("metadata.name".to_owned(), name.to_owned(), true));
        }
        self
    }

    /// Whether every object is wanted.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether this object is wanted.
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches_object(object)
            && self.fields.matches(|path| match path {
                "metadata.name" => Some(meta::name(object).to_owned()),
                "metadata.namespace" => Some(meta::namespace(object).to_owned()),
                path => self.served.hooks().field(object, path),
            })
    }
}

/// Of a page on which everything is wanted.
const ALL: Option<fn(&Entry) -> Result<bool, ApiError>> = None;

/// One page of a list, not decoded.
struct Page {
    entries: Vec<std::sync::Arc<Entry>>,
    metadata: Value,
}

impl ApiServer {
    /// `GET` of one object, or of its scale.
    pub(crate) async fn get(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
    ) -> Result<Response<Body>, ApiError> {
        self.await_revision(cx).await?;
        let key = served.key(&request.namespace, &request.name);
        let entry = self.store.get(&key).ok_or_else(|| served.not_found(&request.name))?;
        let include = Include::of(cx)?;
        if request.subresource == "scale" {
            let object = self.shown_one(served, stored::decode(served, &entry)?).await?;
            let paths = served.scale.as_ref().ok_or_else(ApiError::method_not_allowed)?;
            let scale = kinds::scale::of(paths, &object);
            return respond::scale(&cx.accept, &scale, include);
        }
        if served.by_webhook() {
            let object = self.shown_one(served, stored::decode(served, &entry)?).await?;
            return respond::object(&cx.accept, Some(served), served.type_name(), StatusCode::OK, &object, include);
        }
        respond::entry(&cx.accept, served, StatusCode::OK, &entry, include)
    }

    /// `GET` of a collection.
    pub(crate) async fn list(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
    ) -> Result<Response<Body>, ApiError> {
        self.await_revision(cx).await?;
        let selection = Selection::of(cx, served)?;
        let (format, view) = cx.accept.for_list(served.is_custom())?;
        if (format, view) == (Format::Json, View::Object) && selection.is_everything() && served.may_be_plain() {
            let page = self.page(cx, request, served, true, ALL)?;
            if page.entries.iter().all(|entry| served.is_plain(entry.mod_revision)) {
                return Ok(listing::texts(served, &page.metadata, page.entries));
            }
        }
        if (format, view) == (Format::Protobuf, View::Object) {
            let mut messages = listing::Messages::new(served)?;
            let metadata = self.each(cx, request, served, |object| messages.push(&object))?;
            return messages.finish(served, &metadata);
        }
        let (objects, metadata) = self.select(cx, request, served).await?;
        self.list_response(cx, served, objects, metadata)
    }

    /// The objects a request selects, decoded, and the metadata of their list.
    pub(crate) async fn select(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
    ) -> Result<(Vec<Value>, Value), ApiError> {
        if served.by_webhook() {
            // All of a page at once: each question costs a connection.
            let selection = Selection::of(cx, served)?;
            let page = self.page(cx, request, served, true, ALL)?;
            let stored = page.entries.iter().map(|entry| stored::decode(served, entry)).collect::<Result<_, _>>()?;
            let mut objects = self.shown(served, stored).await?;
            objects.retain(|object| selection.matches(object));
            let mut metadata = page.metadata;
            if !selection.is_everything()
                && let Some(map) = metadata.as_object_mut()
            {
                map.remove("remainingItemCount");
            }
            return Ok((objects, metadata));
        }
        let mut objects = Vec::new();
        let metadata = self.each(cx, request, served, |object| {
            objects.push(object);
            Ok(())
        })?;
        Ok((objects, metadata))
    }

    /// Hands each object that a request selects to `take`, decoded, and returns the metadata of their list.
    fn each(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        mut take: impl FnMut(Value) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let selection = Selection::of(cx, served)?;
        let wanted = |entry: &Entry| {
            let object = stored::decode(served, entry)?;
            let wanted = selection.matches(&object);
            if wanted {
                take(object)?;
            }
            Ok(wanted)
        };
        let page = self.page(cx, request, served, selection.is_everything(), Some(wanted))?;
        Ok(page.metadata)
    }

    /// Decoded objects as a list in the form the client wants.
    pub(crate) fn list_response(
        &self,
        cx: &Context,
        served: &Served,
        mut objects: Vec<Value>,
        metadata: Value,
    ) -> Result<Response<Body>, ApiError> {
        let (format, view) = cx.accept.for_list(served.is_custom())?;
        let list_kind = served.list_kind().to_owned();
        let (value, type_name) = match view {
            View::Table(version) => {
                let include = Include::of(cx)?;
                (table::table(served, version, &objects, &metadata, include), String::new())
            }
            View::Metadata(version) => {
                let items: Vec<Value> = objects.iter().map(|o| respond::partial(o, version)).collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                    "metadata": metadata, "items": items,
                });
                (list, "meta.v1.PartialObjectMetadataList".to_owned())
            }
            _ => {
                // Items of custom resources say what they are; those of built-in ones do not.
                for object in objects.iter_mut().filter(|_| !served.is_custom()) {
                    if let Some(map) = object.as_object_mut() {
                        map.remove("kind");
                        map.remove("apiVersion");
                    }
                }
                let list = json!({"kind": list_kind, "apiVersion": served.api_version(), "metadata": metadata, "items": objects});
                (list, format!("{}List", served.type_name()))
            }
        };
        respond::one(format, StatusCode::OK, &value, &type_name)
    }

    /// One page of entries. `wanted`, where it is given, is asked for each until the limit is reached; where `all` are
    /// wanted, no more are looked at than the page has.
    fn page(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        all: bool,
        wanted: Option<impl FnMut(&Entry) -> Result<bool, ApiError>>,
    ) -> Result<Page, ApiError> {
        let limit = usize::try_from(cx.query.number("limit")?.unwrap_or(0)).unwrap_or(0);
        let token = cx.query.get("continue");
        let asked = cx.query.get("resourceVersion");
        if cx.query.has("sendInitialEvents") {
            return Err(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        if !token.is_empty() && !asked.is_empty() && asked != "0" {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let field = "resourceVersionMatch";
        let exact = match cx.query.get(field) {
            "" => false,
            _ if asked.is_empty() => {
                return Err(forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
            }
            _ if !token.is_empty() => {
                return Err(forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
            }
            "Exact" if asked == "0" => {
                return Err(forbidden(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
            }
            "Exact" => true,
            "NotOlderThan" => false,
            other => return Err(unsupported("ListOptions", field, other, &["Exact", "NotOlderThan"])),
        };
        let prefix = served.namespace_prefix(&request.namespace);
        let (after, at) = if token.is_empty() {
            (None, if exact { Some(parse_revision(asked)?) } else { None })
        } else {
            let token = Continue::decode(token)?;
            (Some(token.start().to_owned()), token.revision())
        };
        if after.as_deref().is_some_and(|a| !a.starts_with(&prefix)) {
            return Err(ApiError::bad_request("continue key is not valid: it belongs to another list"));
        }
        let at_once = if all { limit } else { 0 };
        let range = self.store.range(&prefix, after.as_deref(), at_once, at).map_err(|e| match e {
            StoreError::Compacted { .. } if after.is_some() => {
                let start = after.as_deref().unwrap_or_default();
                let mut error = ApiError::new(
                    Reason::Expired,
                    "The provided continue parameter is too old to display a consistent list result. You can start a new \
                     list without the continue parameter, or use the continue token in this response to retrieve the \
                     remainder of the results. Continuing with the provided token results in an inconsistent list - \
                     objects that were created, modified, or deleted between the time the first chunk was returned and \
                     now may show up in the list.",
                );
                error.continue_token = Some(Continue::after(start, None).encode());
                error
            }
            e => store_failed(&e),
        })?;
        let (entries, rest) = match wanted {
            None => (range.entries, range.remaining),
            Some(mut wanted) => {
                let (mut entries, mut rest) = (Vec::new(), range.remaining);
                for entry in range.entries {
                    if limit > 0 && entries.len() == limit {
                        rest += 1;
                    } else if wanted(&entry)? {
                        entries.push(entry);
                    }
                }
                (entries, rest)
            }
        };
        let mut metadata = json!({"resourceVersion": range.revision.to_string()});
        if rest > 0
            && let Some(last) = entries.last()
        {
            metadata["continue"] = Continue::after(&last.key, Some(range.revision)).encode().into();
            // With a selector upstream does not count what is left.
            if all {
                metadata["remainingItemCount"] = rest.into();
            }
        }
        Ok(Page { entries, metadata })
    }

    /// Waits until the revision a read asks for has happened.
    pub(crate) async fn await_revision(&self, cx: &Context) -> Result<(), ApiError> {
        let text = cx.query.get("resourceVersion");
        if text.is_empty() || text == "0" {
            return Ok(());
        }
        let asked = parse_revision(text)?;
        if asked <= self.store.revision() {
            return Ok(());
        }
        let newest = self.store.revision();
        let too_new = || store_failed(&StoreError::Future { asked, newest });
        let mut watch = self.store.watch("", newest).map_err(|e| store_failed(&e))?;
        let reached = async {
            while let Some(event) = watch.next().await {
                if event.revision >= asked {
                    return Ok(());
                }
            }
            Err(too_new())
        };
        tokio::time::timeout(WAIT_FOR_REVISION, reached).await.unwrap_or_else(|_| Err(too_new()))
    }
}

/// The revision a client names.
pub(crate) fn parse_revision(text: &str) -> Result<u64, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}: it must be a number")))
}
