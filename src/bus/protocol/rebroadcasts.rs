//! Rebroadcasts of invalidations of peers: the publisher could not bring the invalidation to L2, a
//! retry of this instance has, and the other instances must learn that.
//!
//! An instance that received the invalidation has not read the old value from L2 since. An instance
//! that subscribed later may have read it, and must forget it. The publisher broadcasts the
//! invalidation again after its own retry. If it was killed, another instance must: each instance
//! whose retry has succeeded waits for a random time of at most [`MAX_DELAY`], and then broadcasts,
//! unless it has received such a rebroadcast meanwhile. So one or two instances broadcast, whatever
//! the number of instances, and each at most once per invalidation that it received. No
//! rebroadcast leads to another, because it says that L2 has got the invalidation.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::bus::wire::namespace::CacheId;

/// Milliseconds until this instance broadcasts, at most.
const MAX_DELAY: f64 = 500.0;
/// Milliseconds for which a rebroadcast, sent or received, is remembered: others may have sent it
/// at the same time.
const REMEMBERED: u64 = 1_000;
const MAX_NAMES: usize = 10_000;
const MAX_BYTES: usize = 8 << 20;

/// A key of a cache, or a Redis glob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) cache: CacheId,
    pub(crate) text: Arc<str>,
    pub(crate) is_pattern: bool,
}

/// The rebroadcasts that wait, and the recent ones. All times are milliseconds.
#[derive(Default)]
pub(crate) struct Rebroadcasts {
    states: HashMap<Name, State>,
    /// The names by the time of [`State`].
    by_time: BTreeSet<(u64, Name)>,
    /// The sum of the lengths of the names.
    bytes: usize,
}

#[derive(Clone, Copy)]
enum State {
    WaitsUntil(u64),
    /// It was sent, or received from a peer.
    RememberedUntil(u64),
}

impl Rebroadcasts {
    /// Schedules a rebroadcast. `random` is from 0 to 1. Returns `false` if too many wait already:
    /// the caller then broadcasts at once.
    pub(super) fn schedule(&mut self, now: u64, name: &Name, random: f64) -> bool {
        if let Some(State::WaitsUntil(_)) = self.states.get(name) {
            return true;
        }
        let is_full = self.states.len() >= MAX_NAMES || self.bytes + name.text.len() > MAX_BYTES;
        let may_wait = !is_full || self.states.contains_key(name);
        if may_wait {
            let delay = (random * MAX_DELAY) as u64;
            self.put(name, State::WaitsUntil(now.saturating_add(delay)));
        }
        may_wait
    }

    /// A peer has broadcast this. Returns whether this instance was about to, or one of both has
    /// done so just before: it has then not read the old value since it received the invalidation.
    pub(crate) fn on_received(&mut self, now: u64, name: &Name) -> bool {
        let is_known = self.states.contains_key(name);
        if is_known {
            self.put(name, State::RememberedUntil(now.saturating_add(REMEMBERED)));
        }
        is_known
    }

    /// The time at which [`take_due`](Self::take_due) has something to do.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Returns a rebroadcast to send now.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Name> {
        loop {
            let (_, name) = self.by_time.first().filter(|(at, _)| *at <= now)?.clone();
            match self.remove(&name)? {
                State::WaitsUntil(_) => {
                    self.put(&name, State::RememberedUntil(now.saturating_add(REMEMBERED)));
                    return Some(name);
                }
                State::RememberedUntil(_) => {}
            }
        }
    }

    /// Forgets the names of a cache. Returns those that wait.
    pub(super) fn remove_cache(&mut self, cache: CacheId) -> Vec<Name> {
        let of_cache = self.by_time.iter().filter(|(_, name)| name.cache == cache);
        let mut names: Vec<Name> = of_cache.map(|(_, name)| name.clone()).collect();
        names.retain(|name| matches!(self.remove(name), Some(State::WaitsUntil(_))));
        names
    }

    fn put(&mut self, name: &Name, state: State) {
        self.remove(name);
        self.states.insert(name.clone(), state);
        self.by_time.insert((state.until(), name.clone()));
        self.bytes += name.text.len();
    }

    fn remove(&mut self, name: &Name) -> Option<State> {
        let state = self.states.remove(name)?;
        self.by_time.remove(&(state.until(), name.clone()));
        self.bytes -= name.text.len();
        Some(state)
    }
}

impl State {
    fn until(self) -> u64 {
        match self {
            Self::WaitsUntil(at) | Self::RememberedUntil(at) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Name {
        Name { cache: CacheId(0), text: Arc::from(name), is_pattern: false }
    }

    fn glob(name: &str) -> Name {
        Name { is_pattern: true, ..key(name) }
    }

    fn take_all(waiting: &mut Rebroadcasts, now: u64) -> Vec<Name> {
        std::iter::from_fn(|| waiting.take_due(now)).collect()
    }

    #[test]
    fn a_rebroadcast_waits_for_its_time_unless_a_peer_sends_it_first() {
        let mut waiting = Rebroadcasts::default();
        for (name, random) in [("a", 0.5), ("b", 0.1), ("c", 0.9), ("b", 0.0)] {
            assert!(waiting.schedule(1_000, &key(name), random));
        }
        assert!(waiting.schedule(1_000, &glob("a"), 0.2), "a pattern is no key");
        assert!(waiting.on_received(1_020, &key("a")) && !waiting.on_received(1_020, &key("d")));
        assert_eq!((waiting.next_due(), take_all(&mut waiting, 1_049)), (Some(1_050), vec![]));
        assert_eq!(take_all(&mut waiting, 1_400), [key("b"), glob("a")]);
        assert_eq!(take_all(&mut waiting, 1_450), [key("c")]);
    }

    #[test]
    fn a_rebroadcast_is_remembered_for_a_second() {
        let mut waiting = Rebroadcasts::default();
        for (name, random) in [("sent", 0.0), ("received", 0.1), ("again", 0.2)] {
            waiting.schedule(0, &key(name), random);
        }
        assert_eq!(take_all(&mut waiting, 0), [key("sent")]);
        assert!(waiting.on_received(0, &key("received")) && waiting.on_received(0, &key("again")));
        assert!(waiting.schedule(10, &key("again"), 0.0), "it was deleted again");
        assert_eq!(take_all(&mut waiting, 10), [key("again")]);
        for name in ["sent", "received", "again"] {
            assert!(waiting.on_received(900, &key(name)));
        }
        assert_eq!((take_all(&mut waiting, 1_900), waiting.next_due()), (vec![], None));
        assert!(!waiting.on_received(1_900, &key("sent")));
        assert_eq!((waiting.states.len(), waiting.bytes), (0, 0));
    }

    #[test]
    fn a_cache_that_leaves_leaves_no_name_behind() {
        let mut waiting = Rebroadcasts::default();
        let other = Name { cache: CacheId(1), ..key("a") };
        for (name, random) in [(key("a"), 0.5), (key("b"), 0.1), (other.clone(), 0.2)] {
            assert!(waiting.schedule(0, &name, random));
        }
        assert!(waiting.on_received(10, &key("b")), "it is remembered");
        assert_eq!(waiting.remove_cache(CacheId(0)), [key("a")]);
        assert!(!waiting.on_received(10, &key("a")) && waiting.states.len() == 1);
        assert_eq!(take_all(&mut waiting, 500), [other]);
    }

    #[test]
    fn the_number_of_rebroadcasts_is_bounded() {
        let mut waiting = Rebroadcasts::default();
        for number in 0..MAX_NAMES {
            assert!(waiting.schedule(0, &key(&number.to_string()), 0.5));
        }
        assert!(waiting.schedule(0, &key("7"), 0.5) && !waiting.schedule(0, &key("more"), 0.5));
        let mut waiting = Rebroadcasts::default();
        assert!(waiting.schedule(0, &key(&"x".repeat(MAX_BYTES)), 0.5));
        assert!(!waiting.schedule(0, &key("y"), 0.5));
    }
}
