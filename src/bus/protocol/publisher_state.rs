//! What the gap detector knows of one publisher.

use std::collections::HashSet;

use hashbrown::{HashMap, hash_map::EntryRef};

use super::received_numbers::ReceivedNumbers;
use crate::bus::wire::namespace::CacheId;

/// A promise for later counts as one for this many times `trust_timeout`, but at least for
/// [`LONGEST_PROMISE_MS`] milliseconds: more than 4,096 instances promise. So publishers that a
/// flood has invented are forgotten.
const LONGEST_PROMISE: u64 = 3_600;
const LONGEST_PROMISE_MS: u64 = 600_000;

/// By incarnation.
pub(super) type Publishers = HashMap<Box<str>, PublisherState, foldhash::quality::RandomState>;

/// All times are milliseconds.
#[derive(Default)]
pub(super) struct PublisherState {
    /// Deletes below this number are not known key by key, see [`causality`](super::causality).
    pub(super) forgotten_below: u64,
    pub(super) numbers: ReceivedNumbers,
    /// The subscription on which a message of this publisher was last received; they count from 1.
    pub(super) subscription: u64,
    pub(super) forget_at: u64,
    /// Within how many milliseconds the publisher promised to send again. `None` if it did not, or
    /// has left.
    pub(super) promised: Option<u64>,
    /// When the publisher has broken its promise. `None` if the promise is not watched.
    pub(super) overdue: Option<u64>,
    /// Whether the gap that its silence is was acknowledged.
    pub(super) is_silent: bool,
    /// Whether the publisher has sent its last beacon.
    pub(super) has_left: bool,
    /// The hash of its instance id, once a beacon has carried it.
    pub(super) instance: Option<u64>,
    /// When the last beacon was received that carried it.
    pub(super) last_beacon: u64,
    pub(super) successor: Successor,
    /// The caches of this instance of which messages were received, or that a beacon has named.
    pub(super) caches: HashSet<CacheId, foldhash::fast::RandomState>,
}

/// Finds a publisher, or adds it; `None` if there are `max` others.
pub(super) fn known_or_new<'a>(
    publishers: &'a mut Publishers,
    incarnation: &str,
    max: usize,
) -> Option<&'a mut PublisherState> {
    let is_full = publishers.len() >= max;
    match publishers.entry_ref(incarnation) {
        EntryRef::Occupied(known) => Some(known.into_mut()),
        EntryRef::Vacant(_) if is_full => None,
        EntryRef::Vacant(free) => {
            Some(free.insert_with_key(Box::from(incarnation), PublisherState::default()))
        }
    }
}

/// Whether a newer incarnation has the instance id of a publisher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Successor {
    #[default]
    None,
    /// This incarnation, whose first beacon was received at this time.
    Since(u64, Box<str>),
    /// Both are alive, which was noticed.
    Reported,
}

impl PublisherState {
    /// Whether the publisher has none of the caches of this instance. Then the loss of its messages
    /// is no gap here, and neither is its silence.
    pub(super) fn is_foreign(&self) -> bool {
        self.caches.is_empty()
    }

    pub(super) fn forget_below(&mut self, seq: u64) {
        self.forgotten_below = self.forgotten_below.max(seq);
    }

    /// The publisher sent a message that promises the next one. A beacon without a promise is its
    /// last message, whatever arrives later.
    pub(super) fn on_promise(
        &mut self,
        now: u64,
        due: Option<u64>,
        is_beacon: bool,
        trust_timeout: u64,
    ) {
        let longest = trust_timeout.saturating_mul(LONGEST_PROMISE).max(LONGEST_PROMISE_MS);
        self.has_left |= is_beacon && due.is_none();
        // mutant promise-bound: s/.map(|due| due.min(longest))//
        self.promised = due.filter(|_| !self.has_left).map(|due| due.min(longest));
        let due = self.promised.unwrap_or_default();
        self.forget_at = self.forget_at.max(now.saturating_add(due.saturating_mul(3) / 2));
        self.expect_again(now, trust_timeout);
    }

    /// Begins to wait for the next message, if the publisher promised to send one soon. A promise
    /// for later is not watched: it is made only while there are many publishers.
    pub(super) fn expect_again(&mut self, now: u64, trust_timeout: u64) {
        self.is_silent = false;
        let soon = self.promised.filter(|due| *due <= trust_timeout);
        let wait = |due: u64| trust_timeout.max(due.saturating_mul(3));
        self.overdue = soon.map(|due| now.saturating_add(wait(due)));
    }

    /// Whether the publisher has broken its promise, and no gap was acknowledged since.
    pub(super) fn is_overdue(&self, now: u64) -> bool {
        !self.is_foreign() && !self.is_silent && self.overdue.is_some_and(|at| at <= now)
    }
}
