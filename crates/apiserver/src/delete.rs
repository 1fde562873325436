//! Deleting objects: grace, finalizers, what happens to dependents, preconditions.

use bytes::Bytes;
use client::{Body, clock};
use futures::{StreamExt, stream};
use http::{Response, StatusCode};
use object_model::{ApiError, FieldError, FieldPath, meta, time};
use serde_json::{Value, json};
use store::{Expect, StoreError};

use crate::admission::chain;
use crate::admission::question::{Operation, Question};
use crate::context::{Context, unsupported};
use crate::request::ResourceRequest;
use crate::served::{Served, schema_of};
use crate::table::Include;
use crate::write::{has_finalizers, store_failed};
use crate::{ApiServer, respond, stored};

/// How many objects of a collection are being deleted at a time.
const DELETIONS_AT_ONCE: usize = 64;

/// What a client wants of a deletion: body and query of the request, read together.
#[derive(Default)]
struct Options {
    grace: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: bool,
    /// The client asked in the old way that dependents go, too.
    not_orphaned: bool,
    /// The same as the client gave it, for those who are asked about the deletion.
    given: Value,
}

impl Options {
    fn read(cx: &Context, body: &[u8]) -> Result<Self, ApiError> {
        let given = if body.is_empty() {
            Value::Null
        } else {
            let ty = schema_of("meta.v1.DeleteOptions")?;
            cx.decode(ty, body)?
        };
        Self::of(cx, &given)
    }

    /// As those who are asked about the deletion see them.
    fn shown(&self) -> Value {
        let mut shown = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        for (field, value) in self.given.as_object().into_iter().flatten() {
            if !matches!(field.as_str(), "kind" | "apiVersion") {
                shown[field] = value.clone();
            }
        }
        if let Some(grace) = self.grace {
            shown["gracePeriodSeconds"] = grace.into();
        }
        if let Some(propagation) = self.propagation.as_deref().filter(|_| self.given["orphanDependents"].is_null()) {
            shown["propagationPolicy"] = propagation.into();
        }
        if self.dry_run {
            shown["dryRun"] = json!(["All"]);
        }
        shown
    }

    fn of(cx: &Context, given: &Value) -> Result<Self, ApiError> {
        if let Some(kind) = given["kind"].as_str().filter(|k| !matches!(*k, "" | "DeleteOptions")) {
            return Err(ApiError::bad_request(format!(
                "decoded object cannot be converted to DeleteOptions: it is a {kind}"
            )));
        }
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let query = |key: &str| Some(cx.query.get(key).to_owned()).filter(|v| !v.is_empty());
        let orphan = given["orphanDependents"]
            .as_bool()
            .or_else(|| cx.query.has("orphanDependents").then(|| cx.query.flag("orphanDependents")));
        let propagation = text(&given["propagationPolicy"]).or_else(|| query("propagationPolicy"));
        if orphan.is_some() && propagation.is_some() {
            let path = FieldPath::new("propagationPolicy");
            let text = "orphanDependents and deletionPropagation cannot be both set";
            return Err(ApiError::invalid(
                "",
                "DeleteOptions",
                "",
                &[FieldError::invalid(&path, propagation.unwrap_or_default(), text)],
            ));
        }
        let propagation = propagation.or_else(|| orphan.map(|o| if o { "Orphan" } else { "Background" }.to_owned()));
        if let Some(p) = &propagation
            && !matches!(p.as_str(), "Orphan" | "Background" | "Foreground")
        {
            let path = FieldPath::new("propagationPolicy");
            let error = FieldError::not_supported(&path, p.as_str(), &["Foreground", "Background", "Orphan", "nil"]);
            return Err(ApiError::invalid("", "DeleteOptions", "", &[error]));
        }
        let grace = given["gracePeriodSeconds"]
            .as_i64()
            .map_or_else(|| cx.query.number("gracePeriodSeconds"), |g| Ok(Some(g)))?;
        Ok(Self {
            // Upstream takes a negative grace period for one second.
            grace: grace.map(|g| if g < 0 { 1 } else { g }),
            propagation,
            uid: text(&given["preconditions"]["uid"]),
            resource_version: text(&given["preconditions"]["resourceVersion"]),
            dry_run: cx.dry_run()? || dry_run(given)?,
            not_orphaned: orphan == Some(false),
            given: given.clone(),
        })
    }
}

/// Whether the body asks that nothing is stored.
fn dry_run(given: &Value) -> Result<bool, ApiError> {
    let stages = given["dryRun"].as_array().map_or(&[][..], Vec::as_slice);
    match stages.iter().find(|stage| **stage != "All") {
        Some(other) => Err(unsupported("DeleteOptions", "dryRun", other.as_str().unwrap_or_default(), &["All"])),
        None => Ok(!stages.is_empty()),
    }
}

/// What a deletion left: the object that stays for a while, or the last state of one that is gone.
enum Outcome {
    Pending(Value),
    Gone(Value),
}

impl ApiServer {
    /// `DELETE` of one object.
    pub(crate) async fn delete(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let options = Options::read(cx, &body)?;
        let asker = Some((cx, request));
        match self.delete_one(asker, served, &request.namespace, &request.name, &options).await? {
            Outcome::Gone(object) if !served.graceful => {
                let mut details = json!({"name": request.name, "kind": served.plural(), "uid": meta::uid(&object)});
                if !served.group().is_empty() {
                    details["group"] = served.group().into();
                }
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
                respond::status(&cx.accept, StatusCode::OK, &status)
            }
            outcome => {
                // Who asked in the old way is told that it goes on.
                let pending = matches!(outcome, Outcome::Pending(_)) && options.not_orphaned;
                let code = if pending { StatusCode::ACCEPTED } else { StatusCode::OK };
                let (Outcome::Pending(object) | Outcome::Gone(object)) = outcome;
                respond::object(&cx.accept, Some(served), served.type_name(), code, &object, Include::Metadata)
            }
        }
    }

    /// `POST …/eviction`: a deletion that asks the disruption budgets first.
    pub(crate) async fn evict(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let ty = schema_of("policy.v1.Eviction")?;
        let eviction = cx.decode(ty, &body)?;
        if !matches!(meta::name(&eviction), "") && meta::name(&eviction) != request.name {
            return Err(ApiError::bad_request(format!(
                "name in URL does not match name in Eviction object: {:?} and {:?}",
                request.name,
                meta::name(&eviction)
            )));
        }
        let mut question = Question::of(cx, request, served, Operation::Create)?;
        question.object = eviction;
        question.object["apiVersion"] = "policy/v1".into();
        question.object["kind"] = "Eviction".into();
        chain::admit(self, &mut question).await?;
        let options = Options::of(cx, &question.object["deleteOptions"])?;
        self.ask_budget(served, &request.namespace, &request.name, options.dry_run).await?;
        // Who has been asked about the eviction is not asked about the deletion that it is.
        self.delete_one(None, served, &request.namespace, &request.name, &options).await?;
        respond::created(&cx.accept)
    }

    /// `DELETE` of a collection: every object the selectors name.
    pub(crate) async fn delete_collection(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let options = Options::read(cx, &body)?;
        let (objects, metadata) = self.select(cx, request, served).await?;
        // Side by side, so that the store takes many of them in one durable step.
        let asker = Some((cx, request));
        let delete = |o| self.delete_one(asker, served, meta::namespace(o), meta::name(o), &options);
        let deletions = objects.iter().map(delete);
        let mut outcomes = stream::iter(deletions.collect::<Vec<_>>()).buffer_unordered(DELETIONS_AT_ONCE);
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Err(error) if error.code == 404 => {}
                outcome => drop(outcome?),
            }
        }
        drop(outcomes);
        self.list_response(cx, served, objects, metadata)
    }

    /// Deletes one object of a cluster-scoped resource because of something that has happened to another.
    pub(crate) async fn delete_named(&self, served: &Served, name: &str) -> Result<(), ApiError> {
        match self.delete_one(None, served, "", name, &Options::default()).await {
            Err(error) if error.code != 404 => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes every object of a resource, in the background of whatever happens to them.
    pub(crate) async fn delete_all(&self, served: &Served) -> Result<(), ApiError> {
        let range = self.store.range(&served.prefix(), None, 0, None).map_err(|e| store_failed(&e))?;
        let options = Options::default();
        for entry in range.entries {
            let object = stored::decode(served, &entry)?;
            match self.delete_one(None, served, meta::namespace(&object), meta::name(&object), &options).await {
                Err(error) if error.code == 404 => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// Deletes one object. Others have a say in it where somebody asks for it, and not where it follows from something else.
    async fn delete_one(
        &self,
        asker: Option<(&Context, &ResourceRequest)>,
        served: &Served,
        namespace: &str,
        name: &str,
        options: &Options,
    ) -> Result<Outcome, ApiError> {
        let key = served.key(namespace, name);
        loop {
            let entry = self.store.get(&key).ok_or_else(|| served.not_found(name))?;
            let current = stored::decode(served, &entry)?;
            let conflict = |what: &str, wanted: &str, is: &str| {
                let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}");
                ApiError::conflict(served.group(), served.plural(), name, why)
            };
            if let Some(uid) = options.uid.as_deref().filter(|u| *u != meta::uid(&current)) {
                return Err(conflict("UID", uid, meta::uid(&current)));
            }
            if let Some(rv) = options.resource_version.as_deref().filter(|r| *r != meta::resource_version(&current)) {
                return Err(conflict("ResourceVersion", rv, meta::resource_version(&current)));
            }
            let Some(object) = mark(served, &current, options) else {
                // Already being deleted, and this request does not shorten the wait.
                return Ok(Outcome::Pending(current));
            };
            if let Some((cx, request)) = asker {
                let mut question = Question::of(cx, request, served, Operation::Delete)?;
                question.namespace = if request.namespace.is_empty() { namespace } else { &request.namespace };
                question.dry_run = options.dry_run;
                question.options = options.shown();
                question.old = if chain::is_idle(self) { current } else { self.shown_one(served, current).await? };
                chain::admit(self, &mut question).await?;
            }
            let finished = !has_finalizers(&object) && object["metadata"]["deletionGracePeriodSeconds"] == 0;
            if options.dry_run {
                return Ok(if finished { Outcome::Gone(object) } else { Outcome::Pending(object) });
            }
            let written = if finished {
                self.remove(served, namespace, name, entry.mod_revision).await
            } else {
                self.put(served, namespace, name, Expect::Revision(entry.mod_revision), &object).await
            };
            match written {
                Ok(entry) => {
                    let mut object = object;
                    meta::set(&mut object, "resourceVersion", entry.mod_revision.to_string());
                    return Ok(if finished { Outcome::Gone(object) } else { Outcome::Pending(object) });
                }
                // Someone else wrote it meanwhile: look again.
                Err(StoreError::Mismatch(_)) => {}
                Err(error) => return Err(store_failed(&error)),
            }
        }
    }
}

/// The object as the deletion leaves it; `None` when the deletion changes nothing.
fn mark(served: &Served, current: &Value, options: &Options) -> Option<Value> {
    let grace = if served.graceful { served.hooks().grace_period(current, options.grace) } else { 0 };
    let mut object = current.clone();
    let begins = meta::deletion_timestamp(current).is_none();
    let own = (begins && served.hooks().orphans_dependents()).then_some("Orphan");
    if let Some(policy) = options.propagation.as_deref().or(own) {
        // The last word on the dependents holds, also where the deletion has begun.
        meta::remove_finalizer(&mut object, "orphan");
        meta::remove_finalizer(&mut object, "foregroundDeletion");
        match policy {
            "Orphan" => meta::add_finalizer(&mut object, "orphan"),
            "Foreground" => meta::add_finalizer(&mut object, "foregroundDeletion"),
            _ => {}
        }
    }
    let Some(ends) = meta::deletion_timestamp(current).map(str::to_owned) else {
        let at = jiff::Timestamp::from_second(clock::now().as_second().saturating_add(grace)).ok()?;
        meta::set(&mut object, "deletionTimestamp", time::seconds(at));
        meta::set(&mut object, "deletionGracePeriodSeconds", grace);
        served.hooks().begin_deletion(&mut object);
        if served.has_generation {
            meta::set(&mut object, "generation", meta::generation(current) + 1);
        }
        return Some(object);
    };
    let old = current["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    // A second deletion may shorten the wait and never lengthen it.
    if options.grace.is_some() && grace < old {
        let at = jiff::Timestamp::from_second(time::parse(&ends)?.as_second() - old + grace).ok()?;
        meta::set(&mut object, "deletionTimestamp", time::seconds(at));
        meta::set(&mut object, "deletionGracePeriodSeconds", grace);
        return Some(object);
    }
    let finished = old == 0 && !has_finalizers(&object);
    (finished || meta::finalizers(&object) != meta::finalizers(current)).then_some(object)
}
