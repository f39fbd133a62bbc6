//! What peers are to hear of: as it comes, as it waits, and as it goes out.

use std::sync::Arc;

use crate::bus::wire::message::MessageKind;

/// What an entry costs beside its text, about.
const OVERHEAD: usize = 96;
/// Milliseconds that a value may wait.
const VALUE_WAITS: u64 = 1_000;

/// A change that peers are to hear of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Delete(Arc<str>),
    Pattern(Arc<str>),
    /// A value in MessagePack. A prime comes of a load, else of a set: that one peers must know.
    Value {
        key: Arc<str>,
        value: Arc<[u8]>,
        ttl_ms: Option<u64>,
        prime: bool,
        /// What had been heard of when it was taken, see [`order`](crate::bus::order).
        context: Option<Arc<[u8]>>,
    },
}

/// A message to be published under this number, and published again until it is confirmed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutgoingBatch {
    pub(crate) seq: u64,
    pub(crate) what: What,
    /// The turn that it was.
    pub(crate) turn: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Delete(Vec<Arc<str>>),
    Pattern(Arc<str>),
    Set(Value),
}

#[derive(Debug)]
pub(crate) enum Entry {
    Delete(Arc<str>),
    Pattern(Arc<str>),
    Value(Value),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    pub(crate) key: Arc<str>,
    pub(crate) value: Arc<[u8]>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) prime: bool,
    pub(crate) context: Option<Arc<[u8]>>,
    pub(crate) since: u64,
}

impl OutgoingBatch {
    pub(crate) fn kind(&self) -> MessageKind<'_> {
        match &self.what {
            What::Delete(keys) => {
                MessageKind::Delete { keys: keys.iter().map(|key| &**key).collect() }
            }
            What::Pattern(pattern) => MessageKind::Pattern { pattern },
            What::Set(Value { key, value, ttl_ms, prime, context, .. }) => MessageKind::Set {
                keys: vec![key],
                value,
                ttl_ms: *ttl_ms,
                prime: *prime,
                context: context.as_deref(),
            },
        }
    }
}

impl Entry {
    pub(crate) fn cost(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Delete(text) | Self::Pattern(text) => text.len(),
                Self::Value(value) => {
                    value.key.len()
                        + value.value.len()
                        + value.context.as_ref().map_or(0, |it| it.len())
                }
            }
    }
}

impl Value {
    fn waited(&self, now: u64) -> u64 {
        now.saturating_sub(self.since)
    }

    pub(crate) fn is_too_old(&self, now: u64) -> bool {
        let waited = self.waited(now);
        waited >= VALUE_WAITS || self.ttl_ms.is_some_and(|ttl| ttl <= waited)
    }

    pub(crate) fn at(self, now: u64) -> What {
        let waited = self.waited(now);
        let ttl_ms = self.ttl_ms.map(|ttl| ttl.saturating_sub(waited));
        What::Set(Self { ttl_ms, ..self })
    }
}
