//! Applies the messages of peers to one cache. The subscriber knows caches only as [`Receiver`]s,
//! whatever the types of their values.

use std::{pin::Pin, sync::Arc};

use parking_lot::Mutex;

use super::sink::Sink;
use crate::{
    bus::{
        protocol::{
            rebroadcasts::Name,
            session::{Classified, Disposition, Session},
        },
        wire::{
            envelope::add_prefix,
            message::{InL2, Message, MessageKind},
            namespace::{CacheId, Namespaces},
        },
    },
    observe::{Counter, Event},
};

pub(crate) type ReceiverFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A message that was received for a cache.
pub(crate) struct Receipt<'a> {
    pub(super) session: &'a Mutex<Session>,
    pub(super) cache: CacheId,
    pub(super) message: &'a Message<'a>,
    /// By which the message was decoded.
    pub(super) namespaces: &'a Arc<Namespaces>,
}

/// Whether a message was received. `false`: it must be decoded again, see [`Session::classify`].
pub(crate) enum Receiving<'a> {
    Done(bool),
    /// To be polled: something of the message is decoded, or applied in steps.
    Running(ReceiverFuture<'a, bool>),
}

/// A [`Sink`] without its types. One allocation is what this costs, for messages other than
/// deletes.
pub(crate) trait Receiver: Send + Sync {
    /// Applies a message, unless it was received before, and records it.
    fn receive<'a>(&'a self, receipt: Receipt<'a>) -> Receiving<'a>;

    /// See [`Sink::unpack`].
    fn unpack(&self, message: Vec<u8>, limit: usize) -> ReceiverFuture<'_, Option<Vec<u8>>>;

    /// See [`Sink::codec_form`].
    fn codec_form(&self) -> Option<(&'static str, usize)>;

    /// See [`Sink::revoke_loads`].
    fn revoke_loads(&self);

    /// See [`Sink::generation`].
    fn generation(&self, key: &str) -> Option<u64>;
}

impl<S: Sink> Receiver for S {
    fn receive<'a>(&'a self, receipt: Receipt<'a>) -> Receiving<'a> {
        match &receipt.message.kind {
            MessageKind::Delete { keys } => Receiving::Done(receipt.receive_delete(self, keys)),
            _ => Receiving::Running(Box::pin(receipt.receive(self))),
        }
    }

    fn unpack(&self, message: Vec<u8>, limit: usize) -> ReceiverFuture<'_, Option<Vec<u8>>> {
        Box::pin(Sink::unpack(self, message, limit))
    }

    fn codec_form(&self) -> Option<(&'static str, usize)> {
        Sink::codec_form(self)
    }

    fn revoke_loads(&self) {
        Sink::revoke_loads(self);
    }

    fn generation(&self, key: &str) -> Option<u64> {
        Sink::generation(self, key)
    }
}

impl Receipt<'_> {
    /// Nothing of a delete is waited for.
    fn receive_delete<S: Sink>(self, sink: &S, keys: &[&str]) -> bool {
        let now = sink.now();
        let Some(classified) = self.classify(now) else { return false };
        if self.begins(sink, &classified) {
            for key in keys {
                if !self.is_settled(sink, key, false) {
                    sink.invalidate(key);
                }
                sink.on_applied(key);
            }
        }
        self.record(now, classified);
        true
    }

    async fn receive<S: Sink>(self, sink: &S) -> bool {
        // The tickets are issued before the message is classified: a delete of this instance that
        // comes after the classification revokes the tickets.
        let tickets: Vec<S::Ticket> = match &self.message.kind {
            MessageKind::Set { keys, .. } => keys.iter().map(|key| sink.ticket(key)).collect(),
            _ => Vec::new(),
        };
        let Some(classified) = self.classify(sink.now()) else { return false };
        if self.begins(sink, &classified) {
            self.apply(sink, tickets, &classified).await;
        }
        self.record(sink.now(), classified);
        true
    }

    fn classify(&self, now: u64) -> Option<Classified<'_>> {
        self.session.lock().classify(now, self.namespaces, self.cache, self.message)
    }

    fn record(&self, now: u64, classified: Classified<'_>) {
        // Only the answer to a beacon is sent at random.
        self.session.lock().on_applied(now, classified, 0.0);
    }

    /// Reports the message, and makes what L2 may have pending. Returns whether the message is to
    /// be applied.
    fn begins<S: Sink>(&self, sink: &S, classified: &Classified<'_>) -> bool {
        let (message, observer) = (self.message, sink.observer());
        let source = message.source;
        match classified.disposition {
            Disposition::Apply { .. } => {}
            Disposition::Duplicate => {
                observer.count(Counter::EventsDuplicate);
                observer.emit(|| Event::InvalidationDuplicate { source });
                return false;
            }
            Disposition::Own => return false,
        }
        let pattern = match message.kind {
            MessageKind::Beacon { .. } => return false,
            MessageKind::Pattern { pattern } => Some(pattern),
            _ => None,
        };
        let keys = message.kind.deleted_keys();
        observer.count(Counter::EventsReceived);
        if !keys.is_empty() || pattern.is_some() {
            observer.emit(|| Event::InvalidationReceived { source, keys, pattern });
        }
        let generation = message.generation.filter(|_| keys.len() == 1);
        // Before L1 forgets the key: else the next read may find the old value in L2.
        if message.in_l2 == InL2::No {
            // mutant peer-pending: remove
            keys.iter().for_each(|key| sink.record_pending(key, false, generation));
            // mutant peer-pending: remove
            pattern.iter().for_each(|pattern| sink.record_pending(pattern, true, None));
        }
        // Before L1 forgets the key: else the next read may find an old sidecar in L2.
        if message.stamp.is_none() {
            // mutant foreign-sidecar: remove
            keys.iter().for_each(|key| sink.on_foreign_change(key, false));
            pattern.iter().for_each(|pattern| sink.on_foreign_change(pattern, true));
        }
        // Before L1 forgets the key: the next read looks in L2 under the name of this generation.
        if let ([key], Some(generation)) = (keys, generation) {
            // mutant counts: remove
            sink.adopt_generation(key, generation);
        }
        true
    }

    /// Applies a message that is no delete.
    async fn apply<S: Sink>(&self, sink: &S, tickets: Vec<S::Ticket>, classified: &Classified<'_>) {
        let (source, observer) = (self.message.source, sink.observer());
        match &self.message.kind {
            MessageKind::Beacon { .. } | MessageKind::Delete { .. } => {}
            MessageKind::Pattern { pattern } => {
                if !self.is_settled(sink, pattern, true) {
                    sink.invalidate_matching(pattern).await;
                }
            }
            MessageKind::Set { keys, value, by_codec, ttl_ms, stale_ms, prime, .. } => {
                let value_as_of = classified.value_as_of();
                let payload = || if *by_codec { Some(value.to_vec()) } else { add_prefix(value) };
                let payload = value_as_of.and_then(|_| payload());
                let value = match payload {
                    Some(payload) => sink.decode(payload).await,
                    None => None,
                };
                for (key, ticket) in keys.iter().zip(tickets) {
                    let kept = value.as_ref().zip(value_as_of).is_some_and(|(value, as_of)| {
                        sink.offer(ticket, value, (*ttl_ms, *stale_ms), as_of, *prime)
                    });
                    if kept {
                        observer.count(Counter::ValuesReceived);
                        observer.emit(|| Event::SetReceived { key, source });
                    } else if !prime {
                        sink.invalidate(key);
                    }
                    if value_as_of.is_none() {
                        observer.emit(|| Event::InvalidationStale { key, source });
                    }
                    sink.on_applied(key);
                }
            }
        }
    }

    /// Whether the message says only that L2 has got an invalidation which this instance received
    /// before: L1 has no value of L2 that is older than it. This instance then need not broadcast
    /// it again.
    fn is_settled<S: Sink>(&self, sink: &S, name: &str, is_pattern: bool) -> bool {
        if self.message.in_l2 != InL2::Retried {
            return false;
        }
        let is_pending = sink.on_peer_retried(name, is_pattern);
        let name = Name { cache: self.cache, text: Arc::from(name), is_pattern };
        let now = sink.now();
        self.session.lock().on_rebroadcast(now, &name) || is_pending
    }
}
