//! The changes that an instance publishes to its peers, and the batches in which they are sent.

use std::sync::Arc;

use crate::bus::wire::message::{InL2, MessageKind};

/// Bytes that a queued change costs beside its text, about.
const OVERHEAD: usize = 96;
/// Milliseconds that a value may wait in the outbox.
const MAX_VALUE_AGE: u64 = 1_000;

/// A change that peers must apply.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Delete(Arc<str>),
    Pattern(Arc<str>),
    Value {
        key: Arc<str>,
        /// In MessagePack, or the payload of a codec other than the wire's.
        value: Arc<[u8]>,
        by_codec: bool,
        ttl_ms: Option<u64>,
        /// The stale window of the value.
        stale_ms: Option<u64>,
        /// Whether the value was loaded. A value that was set must at least delete the old one.
        prime: bool,
        /// See [`causality`](crate::bus::protocol::causality).
        context: Option<Arc<[u8]>>,
    },
}

/// A change in the outbox. `since` is when a value was pushed, in milliseconds.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) change: Change,
    pub(super) in_l2: InL2,
    pub(super) since: u64,
}

/// The content of a message, published again under the same number until it is confirmed: any
/// number of deletes, or one pattern, or one value. `in_l2` holds for each of its changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batch {
    /// Each with its position in the outbox, in the order of the positions.
    pub(super) changes: Vec<(u64, Change)>,
    pub(crate) in_l2: InL2,
    /// The position of the first change, also after that change was dropped.
    pub(super) position: u64,
}

/// A step of the outbox that gives a peer less than the caller asked for, to be reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// An invalidation that covers more keys than were invalidated was queued.
    Widened { pattern: Arc<str>, reason: &'static str },
    /// A value that was queued is not sent; if it was `set`, a delete is.
    ValueDropped { key: Arc<str>, reason: &'static str },
}

impl Batch {
    pub(super) fn invalidations(&self) -> usize {
        self.changes.iter().filter(|(_, change)| change.is_invalidation()).count()
    }

    pub(crate) fn kind(&self) -> MessageKind<'_> {
        match &self.changes[..] {
            [(_, Change::Pattern(pattern))] => MessageKind::Pattern { pattern },
            [(_, Change::Value { key, value, by_codec, ttl_ms, stale_ms, prime, context })] => {
                MessageKind::Set {
                    keys: vec![key],
                    value,
                    by_codec: *by_codec,
                    ttl_ms: *ttl_ms,
                    stale_ms: *stale_ms,
                    prime: *prime,
                    context: context.as_deref(),
                }
            }
            deletes => {
                let keys = deletes.iter().map(|(_, delete)| delete.text());
                MessageKind::Delete { keys: keys.collect() }
            }
        }
    }

    /// Turns a value into a delete, or drops it if it is a prime. Returns the key of the value.
    pub(super) fn drop_value(&mut self) -> Option<Arc<str>> {
        let [(_, Change::Value { key, .. })] = &self.changes[..] else { return None };
        let key = Arc::clone(key);
        let changes = std::mem::take(&mut self.changes).into_iter();
        let deletes = changes.filter_map(|(at, change)| Some((at, change.without_value()?)));
        self.changes = deletes.collect();
        Some(key)
    }
}

impl Change {
    /// Whether peers must delete something, unlike for a value that was loaded.
    pub(super) fn is_invalidation(&self) -> bool {
        !matches!(self, Self::Value { prime: true, .. })
    }

    /// The delete of a key, or of the keys that match a glob.
    pub(crate) fn invalidation(name: Arc<str>, is_pattern: bool) -> Self {
        if is_pattern { Self::Pattern(name) } else { Self::Delete(name) }
    }

    /// The key or pattern.
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Self::Delete(name) | Self::Pattern(name) | Self::Value { key: name, .. } => name,
        }
    }

    pub(super) fn text(&self) -> &str {
        self.name()
    }

    /// Turns a value, which may not be sent later or twice, into a delete, and a prime into `None`.
    pub(super) fn without_value(self) -> Option<Self> {
        match self {
            Self::Value { prime: true, .. } => None,
            Self::Value { key, .. } => Some(Self::Delete(key)),
            other => Some(other),
        }
    }

    pub(super) fn cost(&self) -> usize {
        let (value, context) = match self {
            Self::Value { value, context, .. } => (value.len(), context.as_deref()),
            _ => (0, None),
        };
        OVERHEAD + self.text().len() + value + context.map_or(0, <[u8]>::len)
    }
}

impl Queued {
    /// Whether a value waited too long to be stored by peers.
    pub(super) fn is_expired(&self, now: u64) -> bool {
        let age = now.saturating_sub(self.since);
        matches!(self.change, Change::Value { ttl_ms, .. }
            if age >= MAX_VALUE_AGE || ttl_ms.is_some_and(|ttl| ttl <= age))
    }

    /// Returns the change, with the ttl that is left of a value.
    pub(super) fn into_change(mut self, now: u64) -> Change {
        if let Change::Value { ttl_ms: Some(ttl), .. } = &mut self.change {
            *ttl = ttl.saturating_sub(now.saturating_sub(self.since));
        }
        self.change
    }
}
