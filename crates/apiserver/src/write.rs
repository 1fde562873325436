//! Writing objects: create, update, patch, and the rules all of them share.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use client::{Body, clock};
use http::{Response, StatusCode, header};
use object_model::{ApiError, FieldError, FieldPath, Reason, meta, names, time};
use serde_json::{Value, json};
use store::{Durability, Entry, Expect, Op, StoreError, Write};

use crate::admission::question::{Operation, Question};
use crate::admission::{chain, quota};
use crate::context::{Context, too_large, unsupported_media_type};
use crate::managers::{self, Writer};
use crate::metrics::others::Stored;
use crate::request::ResourceRequest;
use crate::served::{Served, schema_of};
use crate::table::Include;
use crate::{ApiServer, respond, stored};

/// How often a name is made anew when the one generated is taken (upstream's number).
const NAME_TRIES: usize = 8;
/// How often a write is tried anew on what another write left (upstream's number for patches).
pub(crate) const CONFLICT_TRIES: usize = 5;
/// Server-side apply, as a content type.
const APPLY: &str = "application/apply-patch+yaml";
/// The kinds of patch there are.
const PATCH_TYPES: [&str; 4] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", APPLY];

impl ApiServer {
    /// `POST` to a collection: reads, completes, judges and stores one object.
    pub(crate) async fn create(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        if served.namespaced() && request.namespace.is_empty() {
            return Err(ApiError::method_not_allowed());
        }
        let object = cx.decode_object(served, &body)?;
        let made = self.insert(cx, request, served, object, Managers::None).await?;
        made.answer(cx, served, StatusCode::CREATED)
    }

    async fn insert(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        mut object: Value,
        managers: Managers,
    ) -> Result<Written, ApiError> {
        check_identity(served, request, &mut object)?;
        if !meta::resource_version(&object).is_empty() {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            meta::set(&mut object, field, Value::Null);
        }
        let manager = manager(cx)?;
        for field in ["uid", "creationTimestamp"] {
            meta::set(&mut object, field, Value::Null);
        }
        self.complete(served, &mut object);
        if managers == Managers::None {
            let api_version = served.api_version();
            managers::track(
                &writer(served, &request.subresource, &manager, &api_version),
                served.place(),
                &Value::Null,
                &mut object,
            );
        }
        let name = meta::name(&object).to_owned();
        let mut question = Question::of(cx, request, served, Operation::Create)?;
        // A namespace counts as living in itself.
        if request.namespace.is_empty() && served.is_core("Namespace") {
            question.namespace = &name;
        }
        question.name.clone_from(&name);
        question.object = object;
        if chain::mutate(self, &mut question).await? {
            check_identity(served, request, &mut question.object)?;
        }
        meta::set(&mut question.object, "uid", uuid::Uuid::new_v4().to_string());
        meta::set(&mut question.object, "creationTimestamp", time::seconds(clock::now()));
        let base = question.object["metadata"]["generateName"].as_str().unwrap_or_default().to_owned();
        let generate = meta::name(&question.object).is_empty() && !base.is_empty();
        let nameless = generate.then(|| question.object.clone());
        for tried in 1.. {
            let object = &mut question.object;
            if let Some(nameless) = &nameless {
                object.clone_from(nameless);
                meta::set(object, "name", names::generated(&base, &names::suffix(rand::random())));
            }
            // With its name: there are kinds that write it elsewhere, too.
            served.hooks().prepare_create(object);
            served.hooks().stamp(object, &Value::Null, kinds::Now(clock::now()));
            if served.has_generation {
                meta::set(object, "generation", 1);
            }
            self.settle(served, object)?;
            served.normalise(object);
            self.check_types(served, object);
            let name = meta::name(object).to_owned();
            judge(served, &name, &served.validate(object))?;
            let dry_run = question.dry_run;
            let claimed = if dry_run { None } else { self.claim(served, &mut question.object)? };
            question.name.clone_from(&name);
            chain::judge(self, &question).await?;
            let charge = quota::charge(self, &question).await?;
            let object = &mut question.object;
            if dry_run {
                if self.store.get(&served.key(&request.namespace, &name)).is_some() {
                    return Err(ApiError::already_exists(served.group(), served.plural(), &name));
                }
                return Ok(Written { object: question.object, entry: None });
            }
            match self.put(served, &request.namespace, &name, Expect::Absent, object).await {
                Ok(entry) => {
                    if let Some(taken) = claimed {
                        self.keep_claims(served, object, taken).await;
                    }
                    quota::note(self, charge).await;
                    if served.converts() && !served.by_webhook() {
                        return Ok(Written { object: stored::decode(served, &entry)?, entry: None });
                    }
                    // What was stored is what is here, but for its revision.
                    meta::set(object, "resourceVersion", entry.mod_revision.to_string());
                    return Ok(Written { object: question.object, entry: Some(entry) });
                }
                Err(StoreError::Mismatch(_)) if generate && tried < NAME_TRIES => {}
                Err(StoreError::Mismatch(_)) => {
                    let error = ApiError::already_exists(served.group(), served.plural(), &name);
                    return Err(if generate { error.retry_after(1) } else { error });
                }
                Err(error) => return Err(store_failed(&error)),
            }
        }
        unreachable!("the loop above ends by returning")
    }

    /// `PUT` of an object or its subresource.
    pub(crate) async fn update(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        if request.subresource == "scale" {
            let ty = schema_of("autoscaling.v1.Scale")?;
            let scale = cx.decode(ty, &body)?;
            check_place(request, &scale)?;
            return self.modify_scale(cx, request, served, |_| Ok(scale.clone())).await;
        }
        let wanted = cx.decode_object(served, &body)?;
        let missing = self.store.get(&served.key(&request.namespace, &request.name)).is_none();
        if missing && served.create_by_update && request.subresource.is_empty() {
            let made = self.insert(cx, request, served, wanted, Managers::None).await?;
            return made.answer(cx, served, StatusCode::CREATED);
        }
        check_place(request, &wanted)?;
        let given = meta::resource_version(&wanted).to_owned();
        if given.is_empty() && !missing && !served.unconditional_update {
            let path = FieldPath::new("metadata").child("resourceVersion");
            let error = FieldError::invalid(&path, 0, "must be specified for an update");
            return Err(ApiError::invalid(served.group(), served.kind(), &request.name, &[error]));
        }
        let mut wanted = wanted;
        check_identity(served, request, &mut wanted)?;
        let changed = self.modify(cx, request, served, &request.subresource, |_| Ok(wanted.clone())).await?;
        changed.answer(cx, served, StatusCode::OK)
    }

    /// `PATCH` of an object or its subresource.
    pub(crate) async fn patch(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let ty = if request.subresource == "scale" { schema_of("autoscaling.v1.Scale")? } else { served.ty };
        let structure = served.structure.as_deref().filter(|_| request.subresource != "scale");
        let content_type = cx.content_type().to_owned();
        // Lists of custom objects say nothing of how they are merged strategically.
        let known: &[&str] =
            if served.is_custom() { &[PATCH_TYPES[0], PATCH_TYPES[1], PATCH_TYPES[3]] } else { &PATCH_TYPES };
        if !known.contains(&content_type.as_str()) {
            return Err(unsupported_media_type(known));
        }
        if content_type == APPLY && request.subresource == "scale" {
            return self.apply_scale(cx, request, served, &body).await;
        }
        if content_type == APPLY {
            return self.apply(cx, request, served, &body).await;
        }
        if cx.query.has("force") {
            let path = FieldPath::new("force");
            let error = FieldError::forbidden(&path, "may not be specified for non-apply patch");
            return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
        }
        let patch: Value =
            serde_json::from_slice(&body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        if content_type == PATCH_TYPES[1] && !patch.is_object() {
            return Err(ApiError::bad_request("error decoding patch: a merge patch is a JSON object"));
        }
        let apply = |current: &Value| -> Result<Value, ApiError> {
            let patched = match content_type.as_str() {
                "application/json-patch+json" => schema::json_patch(current, &patch),
                "application/merge-patch+json" => Ok(schema::merge_patch(current, &patch)),
                _ => schema::strategic_merge(ty, current, &patch),
            };
            let patched = patched.map_err(|e| match e {
                schema::PatchError::Malformed(text) => ApiError::bad_request(text),
                schema::PatchError::TooLarge(text) => too_large(&text),
                schema::PatchError::DoesNotApply(text) | schema::PatchError::TestFailed(text) => ApiError::new(
                    Reason::Invalid,
                    format!("the server rejected our request due to an error in our request: {text}"),
                ),
            })?;
            cx.decode_patched(ty, structure, patched, &patch)
        };
        if request.subresource == "scale" {
            return self.modify_scale(cx, request, served, apply).await;
        }
        let changed = self.modify(cx, request, served, &request.subresource, apply).await?;
        changed.answer(cx, served, StatusCode::OK)
    }

    /// Server-side apply: the object becomes what the configuration says, and what is not there is created.
    async fn apply(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let manager = manager(cx)?;
        let api_version = served.api_version();
        let writer = writer(served, &request.subresource, &manager, &api_version);
        let force = cx.query.flag("force");
        let configuration = cx.decode_configuration(request, served, body)?;
        let is_there = || self.store.get(&served.key(&request.namespace, &request.name)).is_some();
        if request.subresource.is_empty() && !is_there() {
            let uid = meta::uid(&configuration);
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(ApiError::conflict(served.group(), served.plural(), &request.name, why));
            }
            if !served.verbs.contains(&"create") {
                return Err(ApiError::method_not_allowed());
            }
            let object = managers::apply(&writer, served.place(), &Value::Null, &configuration, force)?;
            match self.insert(cx, request, served, object, Managers::Given).await {
                Ok(made) => return made.answer(cx, served, StatusCode::CREATED),
                // Somebody else was first.
                Err(error) if error.reason == Reason::AlreadyExists && is_there() => {}
                Err(error) => return Err(error),
            }
        }
        let change = |current: &Value| {
            let mut object = managers::apply(&writer, served.place(), current, &configuration, force)?;
            meta::set(&mut object, "resourceVersion", meta::resource_version(&configuration));
            Ok(object)
        };
        let changed = self.modify(cx, request, served, &request.subresource, change).await?;
        changed.answer(cx, served, StatusCode::OK)
    }

    async fn modify_scale(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        change: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Response<Body>, ApiError> {
        let paths = served.scale.as_ref().ok_or_else(ApiError::method_not_allowed)?;
        self.modify_for_scale(cx, request, served, |current| {
            let wanted = change(&kinds::scale::of(paths, current))?;
            let mut object = current.clone();
            set_scale(served, request, &mut object, &wanted)?;
            meta::set(&mut object, "resourceVersion", meta::resource_version(&wanted));
            Ok(object)
        })
        .await
    }

    /// Server-side apply of a Scale: its manager shares in the field that the replicas are kept in.
    async fn apply_scale(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let (manager, api_version) = (manager(cx)?, served.api_version());
        let writer = writer(served, &request.subresource, &manager, &api_version);
        let scale = cx.decode_yaml(schema_of("autoscaling.v1.Scale")?, body)?;
        let mut configuration = json!({});
        set_scale(served, request, &mut configuration, &json!({"spec": scale["spec"]}))?;
        self.modify_for_scale(cx, request, served, |current| {
            let mut object = managers::apply(&writer, served.place(), current, &configuration, cx.query.flag("force"))?;
            meta::set(&mut object, "resourceVersion", meta::resource_version(&scale));
            Ok(object)
        })
        .await
    }

    async fn modify_for_scale(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        change: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Response<Body>, ApiError> {
        let paths = served.scale.as_ref().ok_or_else(ApiError::method_not_allowed)?;
        let main = ResourceRequest { subresource: String::new(), ..request.clone() };
        let changed = self.modify(cx, &main, served, &request.subresource, change).await?;
        let scale = kinds::scale::of(paths, &changed.object);
        respond::scale(&cx.accept, &scale, Include::of(cx)?)
    }

    /// Changes a stored object: the one way by which anything existing is written. The rules of the write are those of the
    /// request's subresource; its managers write `through` this one.
    ///
    /// `change` gets the current object and returns the wanted one; it is called again when another write came between.
    async fn modify(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        through: &str,
        change: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Written, ApiError> {
        let key = served.key(&request.namespace, &request.name);
        let mut tries = 0;
        loop {
            tries += 1;
            let entry = self.store.get(&key).ok_or_else(|| served.not_found(&request.name))?;
            let mut current = self.shown_one(served, stored::decode(served, &entry)?).await?;
            let mut wanted = change(&current)?;
            check_identity(served, request, &mut wanted)?;
            let given = meta::resource_version(&wanted).to_owned();
            let conditional = !given.is_empty() && given != meta::resource_version(&current);
            if conditional {
                return Err(served.stale(&request.name));
            }
            let uid = meta::uid(&wanted);
            if !uid.is_empty() && uid != meta::uid(&current) {
                return Err(ApiError::conflict(
                    served.group(),
                    served.plural(),
                    &request.name,
                    format!(
                        "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                        meta::uid(&current)
                    ),
                ));
            }
            let mut object = self.prepare(served, request, wanted, &current)?;
            if cx.content_type() != APPLY {
                let (manager, api_version) = (manager(cx)?, served.api_version());
                let writer = writer(served, through, &manager, &api_version);
                managers::track(&writer, served.place(), &current, &mut object);
            }
            // Who is asked about a Scale sees the Scale.
            let paths = served.scale.as_ref().filter(|_| through == "scale");
            let mut question = Question::of(cx, request, served, Operation::Update)?;
            question.subresource = through;
            lend(&mut question, &mut object, &mut current, paths);
            let changed = chain::mutate(self, &mut question).await?;
            take_back(&mut question, &mut object, &mut current, paths);
            if changed {
                if paths.is_some() {
                    set_scale(served, request, &mut object, &question.object)?;
                }
                object = self.prepare(served, request, object, &current)?;
            }
            let errors = match request.subresource.as_str() {
                "" => served.validate_change(&object, &current),
                name => served.validate_part(name, &object, &current),
            };
            judge(served, &request.name, &errors)?;
            managers::keep_times(&mut object, &current);
            let same = stored::same(&object, &current);
            let claims = request.subresource.is_empty() && !same && !question.dry_run;
            let claimed = if claims { self.claim(served, &mut object)? } else { None };
            lend(&mut question, &mut object, &mut current, paths);
            chain::judge(self, &question).await?;
            let charge = quota::charge(self, &question).await?;
            take_back(&mut question, &mut object, &mut current, paths);
            if same || question.dry_run {
                return Ok(Written { object, entry: None });
            }
            let written = if is_finished(&object) {
                self.remove(served, &request.namespace, &request.name, entry.mod_revision).await
            } else {
                let expect = Expect::Revision(entry.mod_revision);
                self.put(served, &request.namespace, &request.name, expect, &object).await
            };
            match written {
                Ok(entry) => {
                    if let Some(taken) = claimed {
                        self.keep_claims(served, &object, taken).await;
                    }
                    quota::note(self, charge).await;
                    meta::set(&mut object, "resourceVersion", entry.mod_revision.to_string());
                    return Ok(Written { object, entry: Some(entry) });
                }
                Err(StoreError::Mismatch(_)) if tries < CONFLICT_TRIES => {}
                Err(StoreError::Mismatch(None)) => return Err(served.not_found(&request.name)),
                Err(StoreError::Mismatch(Some(_))) => return Err(served.stale(&request.name)),
                Err(error) => return Err(store_failed(&error)),
            }
        }
    }

    /// Completes the wanted state of an existing object.
    fn prepare(
        &self,
        served: &Served,
        request: &ResourceRequest,
        mut wanted: Value,
        current: &Value,
    ) -> Result<Value, ApiError> {
        let hooks = served.hooks();
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
            "generation",
            "resourceVersion",
        ] {
            meta::set(&mut wanted, field, current["metadata"][field].clone());
        }
        self.complete(served, &mut wanted);
        match request.subresource.as_str() {
            "" => hooks.prepare_update(&mut wanted, current),
            name => hooks.prepare_subresource_update(name, &mut wanted, current),
        }
        hooks.stamp(&mut wanted, current, kinds::Now(clock::now()));
        if request.subresource.is_empty() {
            self.settle(served, &mut wanted)?;
        }
        served.normalise(&mut wanted);
        if served.has_generation && request.subresource != "status" && hooks.spec_changed(&wanted, current) {
            meta::set(&mut wanted, "generation", meta::generation(current) + 1);
        }
        if request.subresource.is_empty() {
            self.check_types(served, &mut wanted);
        }
        let name = &request.name;
        if meta::deletion_timestamp(current).is_some() {
            let old = meta::finalizers(current);
            let new: Vec<&str> = meta::finalizers(&wanted).into_iter().filter(|f| !old.contains(f)).collect();
            if !new.is_empty() {
                let path = FieldPath::new("metadata").child("finalizers");
                let text = format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    new.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
                );
                return Err(ApiError::invalid(
                    served.group(),
                    served.kind(),
                    name,
                    &[FieldError::forbidden(&path, text)],
                ));
            }
        }
        Ok(wanted)
    }

    fn complete(&self, served: &Served, object: &mut Value) {
        object["apiVersion"] = served.api_version().into();
        object["kind"] = served.kind().into();
        served.default(object);
    }

    pub(crate) async fn put(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        expect: Expect,
        object: &Value,
    ) -> Result<Arc<Entry>, StoreError> {
        let value = if served.by_webhook() {
            let stored = self.in_version(served, &served.stored_version, vec![object.clone()]).await;
            let stored = stored.map_err(|error| StoreError::Failed(error.message))?;
            stored::encode(&stored[0], true)
        } else if served.converts() {
            stored::encode(&served.hooks().stored(object.clone()), served.is_custom())
        } else {
            stored::encode(object, false)
        };
        let durability = if served.hooks().is_heartbeat() && expect != Expect::Absent {
            Durability::Relaxed
        } else {
            Durability::Synced
        };
        let key = served.key(namespace, name);
        let _under_way = self.define(served);
        self.tie(served, namespace, name, object);
        let what = if expect == Expect::Absent { Stored::Create } else { Stored::Update };
        let begin = Instant::now();
        let written = match self.store.write(Write { key, expect, op: Op::Put(value), durability }).await {
            Ok(written) => written,
            Err(error) => {
                self.tie_again(served, namespace, name);
                return Err(error);
            }
        };
        self.metrics.others.wrote(what, begin.elapsed());
        self.follow(served, namespace, name);
        Ok(written)
    }

    pub(crate) async fn remove(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        revision: u64,
    ) -> Result<Arc<Entry>, StoreError> {
        let expect = Expect::Revision(revision);
        let key = served.key(namespace, name);
        let under_way = self.define(served);
        let begin = Instant::now();
        let gone = self.store.write(Write { key, expect, op: Op::Delete, durability: Durability::Synced }).await?;
        self.metrics.others.wrote(Stored::Delete, begin.elapsed());
        self.follow(served, namespace, name);
        self.tie_again(served, namespace, name);
        drop(under_way);
        if let Some(release) = self.release(served, &gone) {
            release.await;
        }
        Ok(gone)
    }
}

/// Puts the objects of a change into the question about it: themselves, or their Scales.
fn lend(question: &mut Question<'_>, object: &mut Value, current: &mut Value, scale: Option<&kinds::scale::Paths>) {
    if let Some(paths) = scale {
        question.object = kinds::scale::of(paths, object);
        question.old = kinds::scale::of(paths, current);
        return;
    }
    question.object = std::mem::take(object);
    question.old = std::mem::take(current);
}

/// Takes the objects out again that [`lend`] has put there.
fn take_back(
    question: &mut Question<'_>,
    object: &mut Value,
    current: &mut Value,
    scale: Option<&kinds::scale::Paths>,
) {
    if scale.is_none() {
        *object = std::mem::take(&mut question.object);
        *current = std::mem::take(&mut question.old);
    }
}

/// Whose the managers of a new object are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Managers {
    /// There are none yet.
    None,
    /// An apply has noted itself.
    Given,
}

fn writer<'a>(served: &Served, subresource: &'a str, name: &'a str, api_version: &'a str) -> Writer<'a> {
    Writer { name, api_version, subresource, has_status: served.has_status, now: clock::now() }
}

/// Writes the replicas of a Scale into an object.
fn set_scale(served: &Served, request: &ResourceRequest, object: &mut Value, scale: &Value) -> Result<(), ApiError> {
    let paths = served.scale.as_ref().ok_or_else(ApiError::method_not_allowed)?;
    kinds::scale::set(paths, object, scale).map_err(|error| match error {
        Some(error) => ApiError::invalid("autoscaling", "Scale", &request.name, &[error]),
        None => served.stale(&request.name),
    })
}

/// Who a request says that it is for.
fn manager(cx: &Context) -> Result<Cow<'_, str>, ApiError> {
    let agent = cx.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    managers::name_of(cx.query.get("fieldManager"), agent, cx.options_kind(), cx.content_type() == APPLY)
}

/// An object that has been written, or would have been.
struct Written {
    object: Value,
    /// As it was stored, if it was.
    entry: Option<Arc<Entry>>,
}

impl Written {
    /// The object as the client wants it: where that is the text that was stored, it is not written a second time.
    fn answer(&self, cx: &Context, served: &Served, status: StatusCode) -> Result<Response<Body>, ApiError> {
        if let Some(answer) = self.entry.as_ref().and_then(|entry| respond::text(&cx.accept, served, status, entry)) {
            return Ok(answer);
        }
        let include = Include::of(cx)?;
        respond::object(&cx.accept, Some(served), served.type_name(), status, &self.object, include)
    }
}

/// Whether an object that is being deleted waits for nothing any more.
pub(crate) fn is_finished(object: &Value) -> bool {
    meta::deletion_timestamp(object).is_some()
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !has_finalizers(object)
}

/// Whether anyone wants to do something before the object goes: its finalizers, or those in the spec of a namespace.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    !meta::finalizers(object).is_empty() || object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

fn judge(served: &Served, name: &str, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(served.group(), served.kind(), name, errors)) }
}

/// Checks that a body that is put somewhere says by its name that it belongs there.
fn check_place(request: &ResourceRequest, object: &Value) -> Result<(), ApiError> {
    let (name, namespace) = (meta::name(object), meta::namespace(object));
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            request.name
        )));
    }
    if name != request.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            request.name
        )));
    }
    if !namespace.is_empty() && !request.namespace.is_empty() && namespace != request.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            request.namespace
        )));
    }
    Ok(())
}

/// Checks that the body is what the URL says, and fills in what the URL knows.
fn check_identity(served: &Served, request: &ResourceRequest, object: &mut Value) -> Result<(), ApiError> {
    let (api_version, kind) = (served.api_version(), served.kind());
    let given = (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    if !given.1.is_empty() && given.1 != kind {
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {kind}: the object provided is unrecognized (must be of type {kind})",
            given.1,
            given.0.rsplit('/').next().unwrap_or_default(),
        )));
    }
    if !given.0.is_empty() && given.0 != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({api_version})",
            given.0
        )));
    }
    let namespace = meta::namespace(object).to_owned();
    if served.namespaced() {
        if !namespace.is_empty() && namespace != request.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta::set(object, "namespace", request.namespace.as_str());
    } else {
        meta::set(object, "namespace", Value::Null);
    }
    let name = meta::name(object).to_owned();
    if !request.name.is_empty() {
        if !name.is_empty() && name != request.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                request.name
            )));
        }
        meta::set(object, "name", request.name.as_str());
    } else if name.is_empty() && object["metadata"]["generateName"].as_str().unwrap_or_default().is_empty() {
        let path = FieldPath::new("metadata").child("name");
        return Err(ApiError::invalid(
            served.group(),
            kind,
            "",
            &[FieldError::required(&path, "name or generateName is required")],
        ));
    }
    Ok(())
}

/// The store did not do its work.
pub(crate) fn store_failed(error: &StoreError) -> ApiError {
    match error {
        StoreError::Compacted { asked, oldest } => {
            ApiError::new(Reason::Expired, format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Future { asked, newest } => {
            ApiError::new(Reason::Timeout, format!("Too large resource version: {asked}, current: {newest}"))
                .cause("ResourceVersionTooLarge", "Too large resource version")
                .retry_after(1)
        }
        StoreError::Failed(text) => ApiError::internal(text),
        StoreError::Mismatch(_) => ApiError::internal("the object changed meanwhile"),
    }
}
