//! Levels: their seats, who waits for them, and what levels lend to each other.
//!
//! A level keeps for itself what it does not lend. What it lends others may take while they need more than their own, up to
//! their limit; and it has it back as they leave. Upstream moves limits to and fro every ten seconds by what was needed;
//! here a seat is lent when somebody sits down.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use tokio::sync::oneshot;

use super::{WIDEST, WIDEST_PERCENT};

/// A priority level.
pub(super) struct Level {
    pub name: String,
    pub uid: HeaderValue,
    pub room: Mutex<Room>,
    pool: Arc<Pool>,
}

/// The seats of all levels that are limited.
#[derive(Default)]
pub(super) struct Pool {
    /// How many there are.
    total: AtomicUsize,
    /// Those that are taken, or that a level keeps for itself.
    used: AtomicUsize,
    /// How many levels have somebody waiting.
    waiting: AtomicUsize,
}

impl Pool {
    /// Takes seats that nobody keeps for himself, if there are so many.
    fn take(&self, seats: usize) -> bool {
        if seats == 0 {
            return true;
        }
        let total = self.total.load(Ordering::Relaxed);
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| Some(used + seats).filter(|used| *used <= total));
        taken.is_ok()
    }

    fn give_back(&self, seats: usize) {
        // What a change of the levels has counted anew may be less than what was taken before.
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| Some(used.saturating_sub(seats)));
    }

    /// Begins anew with what there is and what is kept.
    pub fn renew(&self, total: usize, used: usize) {
        self.total.store(total, Ordering::Relaxed);
        self.used.store(used, Ordering::Release);
    }

    /// Whether some level has somebody waiting.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}

/// How many seats a level has: its share, what it keeps of that for itself, and what it may come to by borrowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub nominal: usize,
    pub kept: usize,
    pub most: usize,
}

/// The seats of a level, and who waits for them.
#[derive(Default)]
pub(super) struct Room {
    /// `None`: as many as there are requests.
    pub limits: Option<Limits>,
    /// How many may wait, in one flow and in all.
    pub waiting_max: (usize, usize),
    /// Requests that are served, and the seats that they take.
    pub served: usize,
    pub taken: usize,
    pub waiting: usize,
    flows: HashMap<String, VecDeque<(usize, oneshot::Sender<()>)>>,
    /// Flows that have somebody waiting, in the order of their turns.
    turns: VecDeque<String>,
}

impl Level {
    pub fn new(name: String, uid: HeaderValue, pool: Arc<Pool>) -> Self {
        Self { name, uid, room: Mutex::default(), pool }
    }

    pub fn room(&self) -> MutexGuard<'_, Room> {
        // Counts and queues are changed in single steps: a panic leaves none half changed.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many seats a request takes that is so wide: a part of the level at most.
    pub fn as_wide_as(&self, width: impl FnOnce() -> usize) -> usize {
        let width = width();
        if width <= 1 {
            return 1;
        }
        let nominal = self.room().limits.map_or(usize::MAX, |limits| limits.nominal);
        width.min((nominal / 100 * WIDEST_PERCENT + nominal % 100 * WIDEST_PERCENT / 100).clamp(1, WIDEST))
    }

    /// Takes seats, or a place in the queue of a flow; `Err` when there is none.
    pub fn enter(&self, seats: usize, flow: impl FnOnce() -> String) -> Result<Option<oneshot::Receiver<()>>, ()> {
        let mut room = self.room();
        // Who comes later does not sit down before those who wait, though it may be narrower.
        if room.waiting == 0 && room.sit(seats, &self.pool) {
            return Ok(None);
        }
        let flow = flow();
        if room.is_full(&flow) {
            room.sweep(&self.pool);
            if room.is_full(&flow) {
                return Err(());
            }
        }
        let (sender, turn) = oneshot::channel();
        room.wait(flow, seats, sender, &self.pool);
        // Those who waited may all have gone away.
        room.call(&self.pool);
        Ok(Some(turn))
    }

    /// Gives seats back, or on to who has waited. Whether there are some now that another level could borrow.
    pub fn leave(&self, seats: usize) -> bool {
        let mut room = self.room();
        let before = room.beyond_kept();
        room.served = room.served.saturating_sub(1);
        room.taken = room.taken.saturating_sub(seats);
        let freed = before.saturating_sub(room.beyond_kept());
        self.pool.give_back(freed);
        room.call(&self.pool);
        freed > 0 && self.pool.is_waited_for()
    }

    /// Serves those who wait, if there are seats now.
    pub fn call(&self) {
        self.room().call(&self.pool);
    }
}

impl Room {
    /// The seats that count as taken among those of all levels: those that are, or that the level keeps.
    pub fn used(&self) -> usize {
        self.limits.map_or(0, |limits| limits.kept.max(self.taken))
    }

    /// The seats that are taken beyond those that the level keeps for itself.
    fn beyond_kept(&self) -> usize {
        self.limits.map_or(0, |limits| self.taken.saturating_sub(limits.kept))
    }

    /// Takes seats, if there are so many.
    fn sit(&mut self, seats: usize, pool: &Pool) -> bool {
        let Some(limits) = self.limits else {
            self.served += 1;
            self.taken += seats;
            return true;
        };
        // One that is wider than the level is served alone.
        let alone = self.served == 0 && seats > limits.nominal;
        if !alone && self.taken + seats > limits.most {
            return false;
        }
        let before = self.beyond_kept();
        let after = (self.taken + seats).saturating_sub(limits.kept);
        if !alone && !pool.take(after - before) {
            return false;
        }
        if alone {
            pool.used.fetch_add(after - before, Ordering::AcqRel);
        }
        self.served += 1;
        self.taken += seats;
        true
    }

    fn is_full(&self, flow: &str) -> bool {
        let (one, all) = self.waiting_max;
        self.waiting >= all || self.flows.get(flow).map_or(0, VecDeque::len) >= one
    }

    fn wait(&mut self, flow: String, seats: usize, sender: oneshot::Sender<()>, pool: &Pool) {
        if self.waiting == 0 {
            pool.waiting.fetch_add(1, Ordering::AcqRel);
        }
        self.waiting += 1;
        let queue = self.flows.entry(flow.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(flow);
        }
        queue.push_back((seats, sender));
    }

    fn set_waiting(&mut self, waiting: usize, pool: &Pool) {
        if self.waiting > 0 && waiting == 0 {
            pool.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        self.waiting = waiting;
    }

    /// Forgets those who have gone away while they waited.
    fn sweep(&mut self, pool: &Pool) {
        self.flows.retain(|_, queue| {
            queue.retain(|(_, sender)| !sender.is_closed());
            !queue.is_empty()
        });
        self.turns.retain(|flow| self.flows.contains_key(flow));
        self.set_waiting(self.flows.values().map(VecDeque::len).sum(), pool);
    }

    /// Gives seats that are free to those who wait, a flow after the other. The first in turn waits until there are enough
    /// for it: else the wide would wait for ever.
    fn call(&mut self, pool: &Pool) {
        while let Some(flow) = self.turns.front() {
            let Some(queue) = self.flows.get_mut(flow) else {
                self.turns.pop_front();
                continue;
            };
            let gone = queue.front().is_none_or(|(_, sender)| sender.is_closed());
            let seats = queue.front().map_or(0, |(seats, _)| *seats);
            if !gone && !self.sit(seats, pool) {
                return;
            }
            let Some(flow) = self.turns.pop_front() else { return };
            let Some(queue) = self.flows.get_mut(&flow) else { continue };
            let next = queue.pop_front();
            if queue.is_empty() {
                self.flows.remove(&flow);
            } else {
                self.turns.push_back(flow);
            }
            self.set_waiting(self.waiting.saturating_sub(1), pool);
            // Who has gone away meanwhile leaves what it was given.
            if !gone && next.is_some_and(|(_, sender)| sender.send(()).is_err()) {
                let before = self.beyond_kept();
                self.served -= 1;
                self.taken -= seats;
                pool.give_back(before - self.beyond_kept());
            }
        }
    }
}
