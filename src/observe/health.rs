//! How the parts that a cache depends on are doing.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A snapshot of a cache's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// What loads from the origin have come to lately.
    pub origin: OriginHealth,
    /// The shared level; `None` if there is none.
    pub l2: Option<L2Health>,
    /// The bus; `None` if there is none.
    pub event_bus: Option<BusHealth>,
    /// Loads that are running.
    pub loads_in_flight: usize,
    /// Whether [`close`](crate::LazyLayersCache::close) was called.
    pub closed: bool,
}

/// What loads have come to lately, over all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginHealth {
    /// The last load to end succeeded, or none has ended yet.
    Answering,
    /// The last load to end failed, and so did every one before it for this long.
    Failing {
        /// Since the first of these failures.
        since: Duration,
    },
}

/// How the shared level is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum L2Health {
    /// It is asked.
    Answering,
    /// It failed several times in a row and is left alone, but for one call now and then.
    Skipped,
}

/// How the bus is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusHealth {
    /// The transport's name.
    pub transport: &'static str,
    /// Whether events of others are being listened to. (`false` too if they are not to be, see
    /// [`subscribe_to_events`](crate::CacheOptions::subscribe_to_events).)
    pub subscribed: bool,
    /// Whether memory is believed. If not, entries are looked up again after
    /// [`trust_timeout`](crate::EventBusOptions::trust_timeout).
    pub trusted: bool,
    /// Whether publishing failed several times in a row and waits for the bus to answer.
    pub publishing_skipped: bool,
    /// Changes that other instances are still to be told.
    pub waiting: usize,
}

/// Zero while answering, else one more than the clock at the first failure.
#[derive(Debug, Default)]
pub(crate) struct OriginState(AtomicU64);

impl OriginState {
    /// Whether this changed the state. Exactly one of several concurrent callers is told so.
    pub(crate) fn note(&self, failed: bool, now: u64) -> bool {
        if failed {
            let first = now.saturating_add(1);
            self.0.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        } else {
            // Read first: a cache that works does not write to a shared line at every load.
            self.0.load(Ordering::Relaxed) != 0 && self.0.swap(0, Ordering::Relaxed) != 0
        }
    }

    pub(crate) fn read(&self, now: u64) -> OriginHealth {
        match self.0.load(Ordering::Relaxed) {
            0 => OriginHealth::Answering,
            first => OriginHealth::Failing {
                since: Duration::from_millis(now.saturating_sub(first - 1)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_reported() {
        let origin = OriginState::default();
        assert!(!origin.note(false, 0));
        assert!(origin.note(true, 0));
        assert!(!origin.note(true, 5));
        assert_eq!(origin.read(7), OriginHealth::Failing { since: Duration::from_millis(7) });
        assert!(origin.note(false, 8));
        assert!(!origin.note(false, 9));
        assert_eq!(origin.read(9), OriginHealth::Answering);
    }
}
