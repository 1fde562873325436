//! Priority and fairness: which requests are served at once, which wait, and which are refused when there are too many
//! (upstream's flow control).
//!
//! The first schema that matches a request gives it a level. A level has seats by its share of all; what finds none waits
//! in the queue of its flow, and flows take turns. Upstream deals flows to a few queues at random to save memory; here each
//! flow has its own, as long as a hand of upstream's, so that none waits behind another by bad luck.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use auth::User;
use http::{HeaderName, HeaderValue, Response};
use object_model::{ApiError, Reason, meta};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::ApiServer;
use crate::custom::texts;
use crate::definitions::stored_objects;
use crate::request::ResourceRequest;
use crate::served::Served;

/// How many requests are served at a time, by all levels together (upstream's 400 that read and 200 that write).
const SEATS: f64 = 600.0;
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
}

struct Schema {
    name: String,
    uid: HeaderValue,
    level: Arc<Level>,
    by_namespace: Option<bool>,
    rules: Vec<Rule>,
    dispatched: AtomicU64,
    rejected: AtomicU64,
}

struct Level {
    name: String,
    uid: HeaderValue,
    room: Mutex<Room>,
}

/// The seats of a level, and who waits for them.
#[derive(Default)]
struct Room {
    /// `None`: as many as there are requests.
    seats: Option<usize>,
    /// How many may wait, in one flow and in all.
    waiting_max: (usize, usize),
    taken: usize,
    waiting: usize,
    flows: HashMap<String, VecDeque<oneshot::Sender<()>>>,
    /// Flows that have somebody waiting, in the order of their turns.
    turns: VecDeque<String>,
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

impl Level {
    fn room(&self) -> MutexGuard<'_, Room> {
        // Counts and queues are changed in single steps: a panic leaves none half changed.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat, or a place in the queue of a flow; `Err` when there is none.
    fn enter(&self, flow: impl FnOnce() -> String) -> Result<Option<oneshot::Receiver<()>>, ()> {
        let mut room = self.room();
        if room.seats.is_none_or(|seats| room.taken < seats) {
            room.taken += 1;
            return Ok(None);
        }
        let flow = flow();
        if room.is_full(&flow) {
            room.sweep();
            if room.is_full(&flow) {
                return Err(());
            }
        }
        let (sender, turn) = oneshot::channel();
        room.waiting += 1;
        let room = &mut *room;
        let queue = room.flows.entry(flow.clone()).or_default();
        if queue.is_empty() {
            room.turns.push_back(flow);
        }
        queue.push_back(sender);
        Ok(Some(turn))
    }

    /// Gives a seat back, or on to who has waited.
    fn leave(&self) {
        let mut room = self.room();
        room.taken = room.taken.saturating_sub(1);
        room.call();
    }
}

impl Room {
    fn is_full(&self, flow: &str) -> bool {
        let (one, all) = self.waiting_max;
        self.waiting >= all || self.flows.get(flow).map_or(0, VecDeque::len) >= one
    }

    /// Forgets those who have gone away while they waited.
    fn sweep(&mut self) {
        self.flows.retain(|_, queue| {
            queue.retain(|sender| !sender.is_closed());
            !queue.is_empty()
        });
        self.turns.retain(|flow| self.flows.contains_key(flow));
        self.waiting = self.flows.values().map(VecDeque::len).sum();
    }

    /// Gives seats that are free to those who wait, a flow after the other.
    fn call(&mut self) {
        while self.seats.is_none_or(|seats| self.taken < seats) {
            let Some(flow) = self.turns.pop_front() else { return };
            let Some(queue) = self.flows.get_mut(&flow) else { continue };
            let next = queue.pop_front();
            if queue.is_empty() {
                self.flows.remove(&flow);
            } else {
                self.turns.push_back(flow);
            }
            self.waiting = self.waiting.saturating_sub(1);
            // Who has gone away meanwhile takes none.
            if next.is_some_and(|sender| sender.send(()).is_ok()) {
                self.taken += 1;
            }
        }
    }
}

/// A seat. Dropped, it is free again.
pub(crate) struct Seat {
    schema: Arc<Schema>,
    held: bool,
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
        if self.held {
            self.schema.level.leave();
        }
    }
}

/// A seat that somebody waits for. The seat may have been given when the waiting is given up.
struct Waiting<'s> {
    schema: &'s Arc<Schema>,
    turn: Option<oneshot::Receiver<()>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(mut turn) = self.turn.take() {
            turn.close();
            if turn.try_recv().is_ok() {
                self.schema.level.leave();
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
    /// cluster are made.
    ///
    /// # Errors
    /// When nobody more may wait, or the request has waited too long.
    pub async fn seat(&self, user: &User, asked: &Asked<'_>) -> Result<Option<Seat>, Refused> {
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
        if let Some(turn) = schema.level.enter(flow).map_err(|()| refused())? {
            let mut waiting = Waiting { schema, turn: Some(turn) };
            if let Some(turn) = waiting.turn.as_mut() {
                match tokio::time::timeout(PATIENCE, turn).await {
                    Ok(Ok(())) => waiting.turn = None,
                    _ => return Err(refused()),
                }
            }
        }
        schema.dispatched.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Seat { schema: schema.clone(), held: true }))
    }

    /// The rows of `/metrics`: name, kind, help, and values by their labels.
    pub fn rows(&self) -> Vec<(&'static str, &'static str, &'static str, Vec<(String, u64)>)> {
        let plan = self.plan();
        let mut levels: Vec<&Arc<Level>> = plan.levels.values().collect();
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        let by_level = |value: fn(&Room) -> Option<usize>| {
            let row = |level: &&Arc<Level>| {
                Some((format!("priority_level=\"{}\"", level.name), value(&level.room())? as u64))
            };
            levels.iter().filter_map(row).collect::<Vec<_>>()
        };
        let by_schema = |value: fn(&Schema) -> &AtomicU64, more: &str| {
            let row = |schema: &Arc<Schema>| {
                let labels = format!("flow_schema=\"{}\",priority_level=\"{}\"{more}", schema.name, schema.level.name);
                (labels, value(schema).load(Ordering::Relaxed))
            };
            plan.schemas.iter().map(row).collect::<Vec<_>>()
        };
        vec![
            (
                "apiserver_flowcontrol_nominal_limit_seats",
                "gauge",
                "Requests of a level that are served at a time.",
                by_level(|room| room.seats),
            ),
            (
                "apiserver_flowcontrol_current_executing_seats",
                "gauge",
                "Seats that are taken, by level.",
                by_level(|room| Some(room.taken)),
            ),
            (
                "apiserver_flowcontrol_current_executing_requests",
                "gauge",
                "Requests that are served, by level.",
                by_level(|room| Some(room.taken)),
            ),
            (
                "apiserver_flowcontrol_current_inqueue_requests",
                "gauge",
                "Requests that wait, by level.",
                by_level(|room| Some(room.waiting)),
            ),
            (
                "apiserver_flowcontrol_dispatched_requests_total",
                "counter",
                "Requests that found a seat, by schema and level.",
                by_schema(|schema| &schema.dispatched, ""),
            ),
            (
                "apiserver_flowcontrol_rejected_requests_total",
                "counter",
                "Requests that were refused, by schema and level.",
                by_schema(|schema| &schema.rejected, ",reason=\"queue-full\""),
            ),
        ]
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
        let levels: HashMap<String, Arc<Level>> = levels
            .into_iter()
            .map(|object| {
                let (name, uid) = (meta::name(object).to_owned(), header(meta::uid(object)));
                let known = plan.levels.get(&name).filter(|level| level.uid == uid).cloned();
                let level = known
                    .unwrap_or_else(|| Arc::new(Level { name: name.clone(), uid, room: Mutex::new(Room::default()) }));
                let limited = &object["spec"]["limited"];
                let mut room = level.room();
                room.seats = limited.is_object().then(|| (SEATS * shares(object) / all.max(1.0)).ceil() as usize);
                let queuing = &limited["limitResponse"]["queuing"];
                let number = |field: &str| queuing[field].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                let length = number("queueLengthLimit");
                room.waiting_max = (number("handSize").saturating_mul(length), number("queues").saturating_mul(length));
                room.call();
                drop(room);
                (name, level)
            })
            .collect();
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
                    uid,
                }))
            })
            .collect();
        *plan = Arc::new(Plan { schemas, levels });
    }
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

impl ApiServer {
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
            async move { fairness.seat(&user(name), &ASKED).await.ok().flatten().expect("a seat") }
        };
        let (eve, ann) = (seat("eve").await, seat("ann").await);
        assert_eq!((eve.schema.name.as_str(), ann.schema.name.as_str()), ("eve", "everybody"));
        let mut answer = Response::new(());
        eve.tell(&mut answer);
        assert_eq!(answer.headers()[LEVEL_HEADER], "closed");
        let elsewhere = Asked::Path("get", "/y");
        assert!(fairness.seat(&user("ann"), &elsewhere).await.ok().flatten().is_none());
        // One seat each, of 600 shares.
        let refused = fairness.seat(&user("eve"), &ASKED).await.err().expect("a refusal").error();
        assert_eq!((refused.code, refused.details["retryAfterSeconds"].as_u64()), (429, Some(1)));
        drop(eve);
        assert!(fairness.seat(&user("eve"), &ASKED).await.is_ok());
    }

    #[tokio::test]
    async fn flows_take_turns_and_nobody_waits_for_ever() {
        let fairness = Arc::new(fairness());
        let first = fairness.seat(&user("ann"), &ASKED).await.ok().flatten().expect("a seat");
        let wait = |name: &'static str| {
            let fairness = fairness.clone();
            async move { fairness.seat(&user(name), &ASKED).await.ok().flatten().expect("a seat") }
        };
        let (mut ann, mut ben) = (Box::pin(wait("ann")), Box::pin(wait("ben")));
        assert!(futures::poll!(&mut ann).is_pending() && futures::poll!(&mut ben).is_pending());
        // Each flow's queue is full, and so are all together.
        assert!(fairness.seat(&user("ann"), &ASKED).await.is_err());
        assert!(fairness.seat(&user("cid"), &ASKED).await.is_err());
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
        let first = fairness.seat(&user("ann"), &ASKED).await.ok().flatten().expect("a seat");
        for _ in 0..3 {
            // Whoever gave up leaves room for the next.
            let begin = tokio::time::Instant::now();
            assert!(fairness.seat(&user("ben"), &ASKED).await.is_err());
            assert_eq!(begin.elapsed(), PATIENCE);
        }
        drop(first);
        let level = fairness.plan().levels["narrow"].clone();
        let room = level.room();
        assert_eq!((room.taken, room.waiting), (0, 0));
    }
}
