//! Priority and fairness: which requests are served at once, which wait, and which are refused when there are too many
//! (upstream's flow control).
//!
//! The first schema that matches a request gives it a level. A level has seats by its share of all; what finds none waits
//! in the queue of its flow, and flows take turns. Upstream deals flows to a few queues at random to save memory; here each
//! flow has its own, as long as a hand of upstream's, so that none waits behind another by bad luck. A list takes as many
//! seats as it is long; levels lend each other what they do not need ([`level`]).

mod level;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use auth::User;
use client::metrics::{Durations, Page};
use http::{HeaderName, HeaderValue, Response};
use object_model::{ApiError, Reason, meta};
use serde_json::Value;
use tokio::sync::oneshot;

use self::level::{Level, Limits, Pool, Room};
use crate::ApiServer;
use crate::context::Context;
use crate::custom::texts;
use crate::definitions::stored_objects;
use crate::request::ResourceRequest;
use crate::served::Served;

/// How many requests are served at a time, by all levels together (upstream's 400 that read and 200 that write).
const SEATS: f64 = 600.0;
/// How many objects a seat stands for, and how many seats a request takes at most, in all and as a part of its level
/// (upstream's numbers).
const OBJECTS_PER_SEAT: usize = 100;
const WIDEST: usize = 10;
const WIDEST_PERCENT: usize = 15;
/// Bounds of the buckets of times of waiting, in seconds (upstream's).
const WAITS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
/// How long a request may wait for a seat (a quarter of the time that it has, as upstream).
const PATIENCE: Duration = Duration::from_secs(15);
/// What the headers are called that tell of schema and level.
const SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The schemas and levels as they are stored.
#[derive(Default)]
pub(crate) struct Fairness(RwLock<Arc<Plan>>);

#[derive(Default)]
struct Plan {
    /// In the order in which they are asked.
    schemas: Vec<Arc<Schema>>,
    levels: HashMap<String, Arc<Level>>,
    pool: Arc<Pool>,
}

impl Plan {
    /// Gives seats back, to whoever waits for them.
    fn leave(&self, level: &Level, seats: usize) {
        if level.leave(seats) {
            self.levels.values().for_each(|level| level.call());
        }
    }
}

struct Schema {
    name: String,
    uid: HeaderValue,
    level: Arc<Level>,
    by_namespace: Option<bool>,
    rules: Vec<Rule>,
    dispatched: AtomicU64,
    rejected: AtomicU64,
    /// How long those waited who did not find a seat at once.
    waits: Durations<13>,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<(Vec<String>, Vec<String>)>,
}

enum Subject {
    User(String),
    Group(String),
    /// Namespace and name of an account.
    Account(String, String),
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    cluster: bool,
    namespaces: Vec<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn names(list: &[String], name: &str) -> bool {
    list.iter().any(|one| one == "*" || one == name)
}

impl Subject {
    fn of(value: &Value) -> Option<Self> {
        Some(match value["kind"].as_str()? {
            "User" => Self::User(text(&value["user"]["name"])),
            "Group" => Self::Group(text(&value["group"]["name"])),
            _ => Self::Account(text(&value["serviceAccount"]["namespace"]), text(&value["serviceAccount"]["name"])),
        })
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.groups.contains(name),
            Self::Account(namespace, name) => {
                user.service_account().is_some_and(|(of, account)| of == namespace && (name == "*" || account == name))
            }
        }
    }
}

impl Rule {
    fn of(value: &Value) -> Self {
        let list = |field: &str| value[field].as_array().into_iter().flatten();
        Self {
            subjects: list("subjects").filter_map(Subject::of).collect(),
            resources: list("resourceRules")
                .map(|rule| ResourceRule {
                    verbs: texts(&rule["verbs"]),
                    groups: texts(&rule["apiGroups"]),
                    resources: texts(&rule["resources"]),
                    cluster: rule["clusterScope"] == true,
                    namespaces: texts(&rule["namespaces"]),
                })
                .collect(),
            paths: list("nonResourceRules")
                .map(|rule| (texts(&rule["verbs"]), texts(&rule["nonResourceURLs"])))
                .collect(),
        }
    }

    fn matches(&self, user: &User, asked: &Asked<'_>) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(user)) {
            return false;
        }
        match asked {
            Asked::Resource(r) => {
                let below;
                let resource = if r.subresource.is_empty() {
                    r.resource.as_str()
                } else {
                    below = format!("{}/{}", r.resource, r.subresource);
                    &below
                };
                self.resources.iter().any(|rule| {
                    names(&rule.verbs, r.verb)
                        && names(&rule.groups, &r.group)
                        && names(&rule.resources, resource)
                        && if r.namespace.is_empty() { rule.cluster } else { names(&rule.namespaces, &r.namespace) }
                })
            }
            Asked::Path(verb, path) => self.paths.iter().any(|(verbs, urls)| {
                names(verbs, verb)
                    && urls.iter().any(|url| match url.strip_suffix('*') {
                        Some(start) => path.starts_with(start),
                        None => url == path,
                    })
            }),
        }
    }
}

/// What a request is about.
pub(crate) enum Asked<'a> {
    /// A resource.
    Resource(&'a ResourceRequest),
    /// A verb in lower case and a path.
    Path(&'a str, &'a str),
}

/// A seat. Dropped, it is free again.
pub(crate) struct Seat {
    plan: Arc<Plan>,
    schema: Arc<Schema>,
    seats: usize,
}

impl Seat {
    /// Tells in an answer which schema and level the request had.
    pub fn tell<B>(&self, response: &mut Response<B>) {
        tell(&self.schema, response);
    }
}

fn tell<B>(schema: &Schema, response: &mut Response<B>) {
    response.headers_mut().insert(SCHEMA_HEADER, schema.uid.clone());
    response.headers_mut().insert(LEVEL_HEADER, schema.level.uid.clone());
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.plan.leave(&self.schema.level, self.seats);
    }
}

/// A seat that somebody waits for. The seat may have been given when the waiting is given up.
struct Waiting<'s> {
    plan: &'s Plan,
    schema: &'s Schema,
    seats: usize,
    turn: Option<oneshot::Receiver<()>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(mut turn) = self.turn.take() {
            turn.close();
            if turn.try_recv().is_ok() {
                self.plan.leave(&self.schema.level, self.seats);
            }
        }
    }
}

/// A refusal, with the schema that it is due to.
pub(crate) struct Refused {
    schema: Arc<Schema>,
}

impl Refused {
    /// The error for the client.
    pub fn error(&self) -> ApiError {
        ApiError::new(Reason::TooManyRequests, "Too many requests, please try again later.").retry_after(1)
    }

    /// As [`Seat::tell`].
    pub fn tell<B>(&self, response: &mut Response<B>) {
        tell(&self.schema, response);
    }
}

impl Fairness {
    fn plan(&self) -> Arc<Plan> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds a seat for a request, if need be by waiting. `None` where no schema matches: while the first objects of a
    /// cluster are made. A request is so many seats wide as `width` says, as far as its level has them.
    ///
    /// # Errors
    /// When nobody more may wait, or the request has waited too long.
    pub async fn seat(
        &self,
        user: &User,
        asked: &Asked<'_>,
        width: impl FnOnce() -> usize,
    ) -> Result<Option<Seat>, Refused> {
        let plan = self.plan();
        let matching = |schema: &&Arc<Schema>| schema.rules.iter().any(|rule| rule.matches(user, asked));
        let Some(schema) = plan.schemas.iter().find(matching) else { return Ok(None) };
        let flow = || match schema.by_namespace {
            None => String::new(),
            Some(false) => user.name.clone(),
            Some(true) => match asked {
                Asked::Resource(request) => request.namespace.clone(),
                Asked::Path(..) => String::new(),
            },
        };
        let refused = || {
            schema.rejected.fetch_add(1, Ordering::Relaxed);
            Refused { schema: schema.clone() }
        };
        let seats = schema.level.as_wide_as(width);
        if let Some(turn) = schema.level.enter(seats, flow).map_err(|()| refused())? {
            let begin = tokio::time::Instant::now();
            let mut waiting = Waiting { plan: &plan, schema, seats, turn: Some(turn) };
            if let Some(turn) = waiting.turn.as_mut() {
                match tokio::time::timeout(PATIENCE, turn).await {
                    Ok(Ok(())) => {
                        waiting.turn = None;
                        schema.waits.observe_in(&WAITS, begin.elapsed());
                    }
                    _ => return Err(refused()),
                }
            }
        }
        schema.dispatched.fetch_add(1, Ordering::Relaxed);
        let schema = schema.clone();
        Ok(Some(Seat { plan, schema, seats }))
    }

    /// The rows of `/metrics`.
    pub fn rows(&self, page: &mut Page) {
        let plan = self.plan();
        let mut levels: Vec<&Arc<Level>> = plan.levels.values().collect();
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        type Value = fn(&Room) -> Option<usize>;
        let by_level: [(&str, &str, Value); 7] = [
            ("nominal_limit_seats", "Seats that a level has by its share.", |room| Some(room.limits?.nominal)),
            ("lower_limit_seats", "Seats that a level keeps for itself.", |room| Some(room.limits?.kept)),
            ("upper_limit_seats", "Seats that a level may come to by borrowing.", |room| Some(room.limits?.most)),
            ("current_limit_seats", "Seats that a level has, with those that it has borrowed.", |room| {
                Some(room.limits?.nominal.max(room.taken))
            }),
            ("current_executing_seats", "Seats that are taken, by level.", |room| Some(room.taken)),
            ("current_executing_requests", "Requests that are served, by level.", |room| Some(room.served)),
            ("current_inqueue_requests", "Requests that wait, by level.", |room| Some(room.waiting)),
        ];
        for (name, help, value) in by_level {
            let name = format!("apiserver_flowcontrol_{name}");
            page.head(&name, "gauge", help);
            for level in &levels {
                if let Some(value) = value(&level.room()) {
                    page.row(&name, &format!("priority_level=\"{}\"", level.name), value);
                }
            }
        }
        let labels =
            |schema: &Schema| format!("flow_schema=\"{}\",priority_level=\"{}\"", schema.name, schema.level.name);
        let name = "apiserver_flowcontrol_dispatched_requests_total";
        page.head(name, "counter", "Requests that found a seat, by schema and level.");
        for schema in &plan.schemas {
            page.row(name, &labels(schema), schema.dispatched.load(Ordering::Relaxed));
        }
        let name = "apiserver_flowcontrol_rejected_requests_total";
        page.head(name, "counter", "Requests that were refused, by schema and level.");
        for schema in &plan.schemas {
            let labels = format!("{},reason=\"queue-full\"", labels(schema));
            page.row(name, &labels, schema.rejected.load(Ordering::Relaxed));
        }
        let name = "apiserver_flowcontrol_request_wait_duration_seconds";
        page.head(name, "histogram", "How long requests waited for a seat that found one at last, in seconds.");
        for schema in plan.schemas.iter().filter(|schema| !schema.waits.is_empty()) {
            schema.waits.rows(page, name, &format!("execute=\"true\",{}", labels(schema)), WAITS);
        }
    }

    /// Takes over what is stored. Who has a seat keeps it, and who waits goes on.
    fn renew(&self, objects: &[Value]) {
        let mut plan = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let (schemas, levels): (Vec<&Value>, Vec<&Value>) =
            objects.iter().partition(|object| object["spec"]["priorityLevelConfiguration"].is_object());
        let shares = |level: &Value| match &level["spec"]["limited"] {
            Value::Null => level["spec"]["exempt"]["nominalConcurrencyShares"].as_f64().unwrap_or(0.0),
            limited => limited["nominalConcurrencyShares"].as_f64().unwrap_or(0.0),
        };
        let all: f64 = levels.iter().map(|level| shares(level)).sum();
        let pool = plan.pool.clone();
        let limits = |object: &Value| {
            let limited = object["spec"]["limited"].as_object()?;
            let percent = |field: &str| limited.get(field).and_then(Value::as_f64);
            let nominal = (SEATS * shares(object) / all.max(1.0)).ceil();
            let kept = nominal - (nominal * percent("lendablePercent").unwrap_or(0.0) / 100.0).round();
            // Where nothing is said, there is no limit but what all have.
            let most =
                percent("borrowingLimitPercent").map_or(SEATS * 2.0, |percent| nominal * (1.0 + percent / 100.0));
            Some(Limits { nominal: nominal as usize, kept: kept as usize, most: most.round() as usize })
        };
        let levels: HashMap<String, (Arc<Level>, &Value)> = levels
            .into_iter()
            .map(|object| {
                let (name, uid) = (meta::name(object).to_owned(), header(meta::uid(object)));
                let known = plan.levels.get(&name).filter(|level| level.uid == uid).cloned();
                let level = known.unwrap_or_else(|| Arc::new(Level::new(name.clone(), uid, pool.clone())));
                (name, (level, object))
            })
            .collect();
        {
            // All rooms at once, so that nobody sits down while it is counted who sits.
            let gone = plan
                .levels
                .values()
                .filter(|old| levels.get(&old.name).is_none_or(|(level, _)| !Arc::ptr_eq(level, old)));
            // Who still sits in a level that is gone takes nothing from the others.
            let mut left: Vec<_> = gone.map(|level| level.room()).collect();
            left.iter_mut().for_each(|room| room.limits = None);
            let mut rooms = Vec::new();
            for (level, object) in levels.values() {
                let mut room = level.room();
                let queuing = &object["spec"]["limited"]["limitResponse"]["queuing"];
                let number = |field: &str| queuing[field].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                let length = number("queueLengthLimit");
                room.limits = limits(object);
                room.waiting_max = (number("handSize").saturating_mul(length), number("queues").saturating_mul(length));
                rooms.push(room);
            }
            let total = rooms.iter().filter_map(|room| room.limits).map(|limits| limits.nominal).sum();
            pool.renew(total, rooms.iter().map(|room| room.used()).sum());
        }
        let levels: HashMap<String, Arc<Level>> = levels.into_iter().map(|(name, (level, _))| (name, level)).collect();
        levels.values().for_each(|level| level.call());
        let mut ordered: Vec<&Value> = schemas;
        let precedence = |object: &Value| object["spec"]["matchingPrecedence"].as_i64().unwrap_or(i64::MAX);
        ordered.sort_by(|a, b| precedence(a).cmp(&precedence(b)).then_with(|| meta::name(a).cmp(meta::name(b))));
        let schemas = ordered
            .into_iter()
            .filter_map(|object| {
                // A schema whose level is missing is passed over, as upstream does.
                let level = levels.get(object["spec"]["priorityLevelConfiguration"]["name"].as_str()?)?;
                let (name, uid) = (meta::name(object), header(meta::uid(object)));
                let known = plan.schemas.iter().find(|schema| schema.uid == uid);
                let count = |of: fn(&Schema) -> &AtomicU64| known.map_or(0, |known| of(known).load(Ordering::Relaxed));
                Some(Arc::new(Schema {
                    name: name.to_owned(),
                    level: level.clone(),
                    by_namespace: object["spec"]["distinguisherMethod"]["type"].as_str().map(|by| by == "ByNamespace"),
                    rules: object["spec"]["rules"].as_array().into_iter().flatten().map(Rule::of).collect(),
                    dispatched: count(|schema| &schema.dispatched).into(),
                    rejected: count(|schema| &schema.rejected).into(),
                    waits: Durations::default(),
                    uid,
                }))
            })
            .collect();
        *plan = Arc::new(Plan { schemas, levels, pool });
    }
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

impl ApiServer {
    /// How many seats a request takes: a list, and a watch that begins with the state, by the objects that are looked at.
    pub(crate) fn width(&self, cx: &Context, request: &ResourceRequest) -> usize {
        let revision = cx.query.get("resourceVersion");
        let looks = match request.verb {
            "list" | "deletecollection" => true,
            "watch" => match cx.query.get("sendInitialEvents") {
                "" => matches!(revision, "" | "0"),
                _ => cx.query.flag("sendInitialEvents"),
            },
            _ => false,
        };
        if !looks || !request.name.is_empty() {
            return 1;
        }
        let Ok(served) = self.catalogue().find(&request.group, &request.version, &request.resource) else { return 1 };
        let selects = cx.query.has("labelSelector") || cx.query.has("fieldSelector");
        let limit = cx.query.number("limit").ok().flatten().and_then(|limit| usize::try_from(limit).ok());
        let most = limit.filter(|limit| *limit > 0 && !selects).unwrap_or(usize::MAX).min(WIDEST * OBJECTS_PER_SEAT);
        let objects = self.store.count_up_to(&served.namespace_prefix(&request.namespace), most);
        objects.div_ceil(OBJECTS_PER_SEAT).max(1)
    }

    /// Follows a write of a schema or a level.
    pub(crate) fn follow_fairness(&self, served: &Served) {
        if served.hooks().limits_requests() {
            self.renew_fairness();
        }
    }

    /// Takes over the schemas and levels that are stored.
    pub(crate) fn renew_fairness(&self) {
        match stored_objects(self.store.as_ref(), |served| served.hooks().limits_requests()) {
            Ok(objects) => self.fairness.renew(&objects),
            Err(error) => tracing::error!("read what limits requests: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn level(name: &str, response: Value) -> Value {
        json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": response}},
        })
    }

    fn schema(name: &str, level: &str, precedence: i64, user: &str) -> Value {
        json!({
            "metadata": {"name": name, "uid": name},
            "spec": {
                "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": user}}],
                    "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/x/*"]}],
                }],
            },
        })
    }

    fn user(name: &str) -> User {
        User { name: name.to_owned(), ..User::anonymous() }
    }

    const ASKED: Asked<'static> = Asked::Path("get", "/x/y");

    fn fairness() -> Fairness {
        let fairness = Fairness::default();
        let queuing = json!({"type": "Queue", "queuing": {"queues": 2, "handSize": 1, "queueLengthLimit": 1}});
        let wide = json!({
            "metadata": {"name": "wide", "uid": "wide"},
            "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 598, "limitResponse": {"type": "Reject"}}},
        });
        fairness.renew(&[
            level("narrow", queuing),
            level("closed", json!({"type": "Reject"})),
            wide,
            schema("everybody", "narrow", 10, "*"),
            schema("eve", "closed", 1, "eve"),
            schema("dangling", "missing", 1, "*"),
        ]);
        fairness
    }

    #[tokio::test]
    async fn the_first_schema_that_matches_gives_the_level() {
        let fairness = fairness();
        let seat = |name: &'static str| {
            let fairness = &fairness;
            async move { fairness.seat(&user(name), &ASKED, || 1).await.ok().flatten().expect("a seat") }
        };
        let (eve, ann) = (seat("eve").await, seat("ann").await);
        assert_eq!((eve.schema.name.as_str(), ann.schema.name.as_str()), ("eve", "everybody"));
        let mut answer = Response::new(());
        eve.tell(&mut answer);
        assert_eq!(answer.headers()[LEVEL_HEADER], "closed");
        let elsewhere = Asked::Path("get", "/y");
        assert!(fairness.seat(&user("ann"), &elsewhere, || 1).await.ok().flatten().is_none());
        // One seat each, of 600 shares.
        let refused = fairness.seat(&user("eve"), &ASKED, || 1).await.err().expect("a refusal").error();
        assert_eq!((refused.code, refused.details["retryAfterSeconds"].as_u64()), (429, Some(1)));
        drop(eve);
        assert!(fairness.seat(&user("eve"), &ASKED, || 1).await.is_ok());
    }

    #[tokio::test]
    async fn flows_take_turns_and_nobody_waits_for_ever() {
        let fairness = Arc::new(fairness());
        let first = fairness.seat(&user("ann"), &ASKED, || 1).await.ok().flatten().expect("a seat");
        let wait = |name: &'static str| {
            let fairness = fairness.clone();
            async move { fairness.seat(&user(name), &ASKED, || 1).await.ok().flatten().expect("a seat") }
        };
        let (mut ann, mut ben) = (Box::pin(wait("ann")), Box::pin(wait("ben")));
        assert!(futures::poll!(&mut ann).is_pending() && futures::poll!(&mut ben).is_pending());
        // Each flow's queue is full, and so are all together.
        assert!(fairness.seat(&user("ann"), &ASKED, || 1).await.is_err());
        assert!(fairness.seat(&user("cid"), &ASKED, || 1).await.is_err());
        // Who goes away leaves the place, and takes no seat with it.
        drop(ann);
        drop(first);
        drop(ben.await);
        let level = fairness.plan().levels["narrow"].clone();
        let room = level.room();
        assert_eq!((room.taken, room.waiting), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_too_long_is_refused() {
        let fairness = fairness();
        let first = fairness.seat(&user("ann"), &ASKED, || 1).await.ok().flatten().expect("a seat");
        for _ in 0..3 {
            // Whoever gave up leaves room for the next.
            let begin = tokio::time::Instant::now();
            assert!(fairness.seat(&user("ben"), &ASKED, || 1).await.is_err());
            assert_eq!(begin.elapsed(), PATIENCE);
        }
        drop(first);
        let level = fairness.plan().levels["narrow"].clone();
        let room = level.room();
        assert_eq!((room.taken, room.waiting), (0, 0));
    }

    /// Two levels of 300 seats: one keeps half of its own, the other all, and may borrow a tenth of its own.
    fn lending() -> Fairness {
        let fairness = Fairness::default();
        let level = |name: &str, lends: u64, borrows: Value| {
            json!({
                "metadata": {"name": name, "uid": name},
                "spec": {"type": "Limited", "limited": {
                    "nominalConcurrencyShares": 1, "lendablePercent": lends, "borrowingLimitPercent": borrows,
                    "limitResponse": {"type": "Queue", "queuing": {"queues": 9, "handSize": 1, "queueLengthLimit": 9}},
                }},
            })
        };
        fairness.renew(&[
            level("rich", 50, Value::Null),
            level("poor", 0, json!(10)),
            schema("ann", "rich", 1, "ann"),
            schema("ben", "poor", 1, "ben"),
        ]);
        fairness
    }

    fn taken(fairness: &Fairness, level: &str) -> usize {
        fairness.plan().levels[level].room().taken
    }

    #[tokio::test]
    async fn a_level_borrows_what_another_does_not_need_up_to_its_limit() {
        let fairness = lending();
        let mut seats = Vec::new();
        let now = |name: &'static str| {
            let user = user(name);
            let seat = fairness.seat(&user, &ASKED, || 10);
            futures::FutureExt::now_or_never(seat).and_then(Result::ok).flatten()
        };
        while let Some(seat) = now("ben") {
            seats.push(seat);
        }
        assert_eq!(taken(&fairness, "poor"), 330);
        // The other has what is left: of its half that it lends, 30 are away.
        let mut others = Vec::new();
        while let Some(seat) = now("ann") {
            others.push(seat);
        }
        assert_eq!(taken(&fairness, "rich"), 270);
        // What comes back is its own again.
        let ann = user("ann");
        let waiting = fairness.seat(&ann, &ASKED, || 10);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        seats.pop();
        let seat = waiting.await.ok().flatten().expect("a seat");
        assert_eq!((taken(&fairness, "poor"), taken(&fairness, "rich")), (320, 280));
        drop((seats, others, seat));
        assert_eq!((taken(&fairness, "poor"), taken(&fairness, "rich")), (0, 0));
        let all: Vec<Seat> = std::iter::from_fn(|| now("ann")).collect();
        // What the other does not lend is not to be had.
        assert_eq!((all.len(), taken(&fairness, "rich")), (30, 300));
    }

    #[tokio::test]
    async fn a_wide_request_takes_no_more_than_its_part_of_the_level_and_waits_for_that() {
        let fairness = fairness();
        let seat = fairness.seat(&user("ann"), &ASKED, || 10).await.ok().flatten().expect("a seat");
        assert_eq!(seat.seats, 1, "of a level of one seat");
        drop(seat);
        let lending = lending();
        let seat = lending.seat(&user("ann"), &ASKED, || 10).await.ok().flatten().expect("a seat");
        assert_eq!((seat.seats, taken(&lending, "rich")), (10, 10));
        let fill: Vec<Seat> = {
            let ann = user("ann");
            let one = || lending.seat(&ann, &ASKED, || 1);
            let now = || futures::FutureExt::now_or_never(one()).and_then(Result::ok).flatten();
            std::iter::from_fn(now).take(285).collect()
        };
        assert_eq!(taken(&lending, "rich"), 295);
        let ann = user("ann");
        let wide = lending.seat(&ann, &ASKED, || 10);
        tokio::pin!(wide);
        assert!(futures::poll!(wide.as_mut()).is_pending());
        // A narrow one does not pass it.
        let narrow = lending.seat(&ann, &ASKED, || 1);
        tokio::pin!(narrow);
        assert!(futures::poll!(narrow.as_mut()).is_pending());
        drop(fill);
        assert!(wide.await.is_ok_and(|seat| seat.is_some()) && narrow.await.is_ok_and(|seat| seat.is_some()));
        drop(seat);
        assert_eq!(taken(&lending, "rich"), 0);
    }
}
