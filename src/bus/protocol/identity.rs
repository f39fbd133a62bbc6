//! The identity of a publisher, which encodes its messages with their place among all of them.

use std::sync::Arc;

use crate::bus::wire::message::{InL2, Message, MessageKind, SequenceStamp};

pub(super) struct Identity {
    pub(super) source: String,
    pub(super) incarnation: Arc<str>,
}

/// The number of a message, and what it says about the messages before and after it: see
/// [`SequenceStamp`].
#[derive(Default)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) next_within_ms: Option<u64>,
    pub(super) idle_ms: Option<u64>,
}

impl Identity {
    /// Encodes a message of the cache with this namespace; `None` if it is larger than subscribers
    /// accept.
    pub(super) fn encode(
        &self,
        namespace: Option<&str>,
        ts: u64,
        place: &Place,
        generation: Option<u64>,
        in_l2: InL2,
        kind: MessageKind<'_>,
    ) -> Option<Vec<u8>> {
        let Self { source, incarnation } = self;
        let Place { seq, next_within_ms, idle_ms } = *place;
        let id = match kind {
            MessageKind::Beacon { .. } => format!("{incarnation}:beacon"),
            _ => format!("{incarnation}:{seq}"),
        };
        let id = &*id;
        let stamp = Some(SequenceStamp { incarnation, seq, next_within_ms, idle_ms });
        Message { id, source, ts, generation, namespace, stamp, in_l2, kind }.encode().ok()
    }
}
