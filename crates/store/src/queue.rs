//! The events that wait for one watcher: so many, and then the watch ends and they are let go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::Event;

/// How many events a watcher may lag behind before its watch is ended, and how many bytes of values in them.
const EVENTS_MAX: usize = 8_192;
const BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that panics is called while the lock is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store's end. Dropped, it ends the queue behind the events that wait.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Shared>);

/// The watcher's end.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Shared>);

/// A queue and its two ends.
pub(crate) fn queue() -> (Sender, Receiver) {
    let shared = Arc::new(Shared::default());
    (Sender(shared.clone()), Receiver(shared))
}

fn weight(event: &Event) -> usize {
    [&event.previous, &event.current].into_iter().flatten().map(|entry| entry.value.len()).sum()
}

impl Sender {
    /// Whether somebody still reads.
    pub fn is_read(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Adds an event; false when nobody reads it any more, or too slowly.
    pub fn send(&self, event: &Arc<Event>) -> bool {
        if !self.is_read() {
            return false;
        }
        let mut waiting = self.0.lock();
        let weight = weight(event);
        // One event alone may be as large as it likes.
        let full = waiting.events.len() >= EVENTS_MAX || waiting.bytes > 0 && waiting.bytes + weight > BYTES_MAX;
        if full {
            // A reader that is stuck never comes to see the end, so what waits for it must not wait for that.
            *waiting = Waiting { ended: true, ..Waiting::default() };
        } else {
            waiting.bytes += weight;
            waiting.events.push_back(event.clone());
        }
        drop(waiting);
        self.0.more.notify_one();
        !full
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.more.notify_one();
    }
}

impl Receiver {
    /// The next event, or `None` when the queue has ended.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.is_ended() {
                // What came between the two looks.
                return self.try_next();
            }
            self.0.more.notified().await;
        }
    }

    /// The next event if one is there already.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        let mut waiting = self.0.lock();
        let event = waiting.events.pop_front()?;
        waiting.bytes -= weight(&event);
        Some(event)
    }

    /// Whether no more events will be added to those that wait.
    pub fn is_ended(&self) -> bool {
        self.0.lock().ended
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Entry;

    fn event(bytes: usize) -> Arc<Event> {
        let (key, value) = (Arc::from("k"), Bytes::from(vec![0; bytes]));
        let entry = Entry { key, value, create_revision: 1, mod_revision: 1 };
        Arc::new(Event { revision: 1, key: entry.key.clone(), previous: None, current: Some(Arc::new(entry)) })
    }

    #[test]
    fn what_waits_for_a_reader_that_is_too_slow_is_let_go_at_once() {
        for (size, fits) in [(1, EVENTS_MAX), (BYTES_MAX / 4, 4)] {
            let (sender, mut receiver) = queue();
            let first = event(size);
            assert!(sender.send(&first));
            assert!((1..fits).all(|_| sender.send(&event(size))), "{fits} events of {size} bytes");
            assert!(Arc::strong_count(&first) == 2 && !receiver.is_ended());
            assert!(!sender.send(&event(size)));
            assert!(Arc::strong_count(&first) == 1 && receiver.is_ended() && receiver.try_next().is_none());
        }
    }

    #[test]
    fn a_queue_whose_reader_is_gone_takes_nothing_and_one_whose_sender_is_gone_ends_behind_its_events() {
        let (sender, receiver) = queue();
        drop(receiver);
        assert!(!sender.send(&event(1)));
        let (sender, mut receiver) = queue();
        assert!(sender.send(&event(BYTES_MAX + 1)), "one alone may be large");
        drop(sender);
        assert!(receiver.is_ended() && receiver.try_next().is_some() && receiver.try_next().is_none());
    }
}
