//! Broadcasts of callers and loaders: invalidations, and values that were `set` or loaded.
//!
//! They only enqueue; the publisher sends. A caller waits for it if
//! [`confirm_deletes`](crate::EventBusOptions::confirm_deletes) is set, a reader never.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use super::bus_client::BusClient;
use crate::{
    bus::{
        protocol::{causality::CausalContext, outbox::Change, rebroadcasts::Name},
        wire::{envelope::strip_prefix, limits::MAX_PAYLOAD, message::InL2},
    },
    entry::Lifetime,
    observe::{Counter, Event},
    resilience::{has_timer, run_until, timeout},
    time::millis,
};

/// Bytes of a value, so that its message with key and causal context is not too long.
const MAX_VALUE: usize = MAX_PAYLOAD - (1 << 20);

/// An invalidation of this instance that its peers will receive.
///
/// It is [committed](Self::commit) or [cancelled](Self::cancel) once. Dropped, because the caller
/// of a delete or `set` dropped its future, it is committed as a delete that L2 has not got.
#[must_use]
pub(crate) struct PendingBroadcast<'a>(Option<Invalidation<'a>>);

/// An invalidation that is in the outbox, with its position there.
#[must_use]
pub(crate) struct CommittedBroadcast<'a>(Option<(Invalidation<'a>, u64)>);

/// How far a message has got when its caller stops waiting.
pub(crate) struct PublishProgress {
    /// Whether the bus has accepted the message; `None` if the options do not ask for that.
    pub(crate) is_confirmed: Option<bool>,
    /// Whether messages wait because the circuit is open, or the broker refuses all of them; or are
    /// lost because the cache was closed.
    pub(crate) is_skipped: bool,
    pub(crate) watch: PublishWatch,
}

/// A message in the outbox, for the caller that waits until the bus has accepted it.
#[derive(Clone)]
pub(crate) struct PublishWatch {
    client: Weak<BusClient>,
    position: u64,
}

/// The bytes of a value that is sent to the peers, or why it is not.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct ValueReport(Result<usize, &'static str>);

struct Invalidation<'a> {
    client: &'a Arc<BusClient>,
    name: &'a str,
    is_pattern: bool,
}

impl<'a> PendingBroadcast<'a> {
    /// Of a cache without a bus: committing it does nothing.
    pub(crate) fn without_bus() -> Self {
        Self(None)
    }

    /// Nothing was changed: peers receive nothing.
    pub(crate) fn cancel(mut self) {
        if let Some(invalidation) = self.0.take() {
            invalidation.end(None);
        }
    }

    /// Enqueues the message of a `set`, or without one a delete. `in_l2`: L2 has got the change. If
    /// not, the change is pending at each peer too, and no peer reads the old value from L2.
    ///
    /// A `set` commits in the step that writes L1, so that the message of no later change is
    /// enqueued before. So this runs under a lock: it neither waits nor calls user code.
    pub(crate) fn commit(mut self, set: Option<Change>, in_l2: bool) -> CommittedBroadcast<'a> {
        CommittedBroadcast(self.0.take().map(|invalidation| invalidation.commit(set, in_l2)))
    }
}

impl Drop for PendingBroadcast<'_> {
    fn drop(&mut self) {
        // mutant dropped-broadcast: remove
        if let Some(invalidation) = self.0.take() {
            let (invalidation, _) = invalidation.commit(None, false);
            invalidation.client.flush(invalidation.name);
            if invalidation.client.has_ended() {
                invalidation.client.report_lost(0);
            }
        }
    }
}

impl CommittedBroadcast<'_> {
    /// Has the message sent; waits until the bus accepted it, if the options ask for that. `None`
    /// without a bus.
    pub(crate) async fn send(self) -> Option<PublishProgress> {
        let (Invalidation { client, name, .. }, position) = self.0?;
        // After a close nothing is published any more.
        let is_skipped = client.flush(name) || client.has_ended() && !client.is_published(position);
        let mut is_confirmed = None;
        if client.options.event_bus.confirm_deletes {
            // Without a timer the publisher does not run either.
            if !is_skipped && has_timer() {
                let id = client.member.id;
                let published = client.wait_published(|session| session.is_published(id, position));
                let limit = client.session.options.publish_timeout;
                let _ = timeout(Some(limit), published).await;
            }
            is_confirmed = Some(client.is_published(position));
        }
        let watch = PublishWatch { client: Arc::downgrade(client), position };
        Some(PublishProgress { is_confirmed, is_skipped, watch })
    }
}

impl PublishWatch {
    /// Waits until the bus has accepted the message; `with_later`: also all messages that are in
    /// the outbox now. Returns `false` if the cache was closed or dropped before.
    pub(crate) async fn wait_accepted(&self, with_later: bool) -> bool {
        let Some(client) = self.client.upgrade() else { return false };
        let id = client.member.id;
        let last = client.session.protocol.lock().last_position(id);
        let position = if with_later { last.max(self.position) } else { self.position };
        let published = client.wait_published(|session| session.is_published(id, position));
        run_until(published, client.ended.wait_stopped()).await;
        client.is_published(position)
    }

    /// Whether the bus has accepted the message.
    pub(crate) fn is_accepted(&self) -> bool {
        let client = self.client.upgrade();
        client.is_some_and(|client| client.is_published(self.position))
    }
}

impl Invalidation<'_> {
    /// Enqueues the invalidation, and returns it with its outbox position.
    fn commit(self, set: Option<Change>, in_l2: bool) -> (Self, u64) {
        let delete = || Change::invalidation(Arc::from(self.name), self.is_pattern);
        let in_l2 = if in_l2 { InL2::Yes } else { InL2::No };
        let position = self.end(Some((set.unwrap_or_else(delete), in_l2)));
        (self, position)
    }

    fn end(&self, change: Option<(Change, InL2)>) -> u64 {
        let BusClient { session, member, lost, .. } = &**self.client;
        let has_changed = change.is_some();
        let (now, mut protocol) = (session.now(), session.protocol.lock());
        let position =
            protocol.commit_invalidation(member.id, now, self.name, self.is_pattern, change);
        drop(protocol);
        if has_changed && position.is_none() {
            // The cache has left the session: nothing of it is published any more.
            lost.fetch_add(1, Ordering::SeqCst);
        }
        position.unwrap_or(u64::MAX)
    }
}

impl BusClient {
    /// Begins to delete or `set` a key, or to delete the keys that match a Redis glob. To be called
    /// before L1 is changed.
    pub(crate) fn begin_invalidation<'a>(
        self: &'a Arc<Self>,
        name: &'a str,
        is_pattern: bool,
    ) -> PendingBroadcast<'a> {
        let (now, id) = (self.session.now(), self.member.id);
        // mutant order-own: remove
        self.session.protocol.lock().begin_invalidation(id, now, name, is_pattern);
        self.ensure_tasks();
        PendingBroadcast(Some(Invalidation { client: self, name, is_pattern }))
    }

    /// Returns the version vector that a loaded value carries when it is broadcast; `None` if the
    /// options turn that off. To be called before the right to write the value is checked.
    pub(crate) fn causal_context(&self) -> Option<CausalContext> {
        let is_on = self.options.broadcast_set;
        is_on.then(|| self.read_causal_context(true))
    }

    fn read_causal_context(&self, prime: bool) -> CausalContext {
        let now = self.session.now();
        self.session.protocol.lock().causal_context(self.member.id, now, prime)
    }

    /// Whether the message of a value with this time to live that is `set` carries the value.
    pub(crate) fn sends_values(&self, ttl: Duration) -> bool {
        self.options.broadcast_set && !ttl.is_zero()
    }

    /// Returns the message of a value that is `set`, to be [reported](Self::report_value) once the
    /// value stands. No message: peers get a delete instead. `payload` is the value as the codec
    /// encodes it for the bus; `None` if the codec cannot.
    pub(crate) fn set_message(
        &self,
        key: &Arc<str>,
        lifetime: Lifetime,
        payload: Option<&[u8]>,
    ) -> (Option<Change>, Option<ValueReport>) {
        if !self.sends_values(lifetime.ttl) {
            return (None, None);
        }
        let context = self.read_causal_context(false);
        let (message, report) = self.value_message(key, lifetime, false, context, payload);
        (message, Some(report))
    }

    /// Enqueues a loaded value for the peers. `context` is the
    /// [causal context](Self::causal_context) from before the value was written to L1; `payload`
    /// is as for [`set_message`](Self::set_message).
    pub(crate) fn broadcast_value(
        &self,
        key: &Arc<str>,
        lifetime: Lifetime,
        context: CausalContext,
        payload: Option<&[u8]>,
    ) {
        let (message, report) = self.value_message(key, lifetime, true, context, payload);
        self.report_value(key, report);
        if let Some(message) = message {
            self.enqueue(message, InL2::Yes);
        }
    }

    /// Reports that a value is sent to the peers, or why it is not.
    pub(crate) fn report_value(&self, key: &str, report: ValueReport) {
        let observer = &self.member.observer;
        match report.0 {
            Ok(bytes) => {
                observer.count(Counter::ValuesSent);
                observer.emit(|| Event::SetBroadcast { key, bytes });
            }
            Err(reason) => {
                self.member.report.value_skipped(observer, self.session.now(), key, reason);
            }
        }
    }

    /// Returns the message of a value; none if it is not sent.
    fn value_message(
        &self,
        key: &Arc<str>,
        lifetime: Lifetime,
        prime: bool,
        context: CausalContext,
        payload: Option<&[u8]>,
    ) -> (Option<Change>, ValueReport) {
        let limit = self.options.broadcast_set_max_bytes.unwrap_or(usize::MAX).min(MAX_VALUE);
        let value = || -> Result<(Arc<[u8]>, bool), _> {
            let payload = payload.ok_or("the codec cannot encode it, or not decode it again")?;
            let (bytes, by_codec) = match strip_prefix(payload) {
                Some(value) => (value, false),
                None => (payload, true),
            };
            let value = || (Arc::from(bytes), by_codec);
            let is_short = bytes.len() <= limit;
            is_short.then(value).ok_or("it is longer than broadcast_set_max_bytes")
        };
        let (context, (value, by_codec)) = match context.and_then(|context| Ok((context, value()?)))
        {
            Ok(encoded) => encoded,
            Err(reason) => return (None, ValueReport(Err(reason))),
        };
        let (report, key) = (ValueReport(Ok(value.len())), Arc::clone(key));
        let Lifetime { ttl, stale_for } = lifetime;
        let ttl_ms = Some(millis(ttl));
        let stale_ms = Some(millis(stale_for)).filter(|window| *window > 0);
        let context = Some(context);
        (Some(Change::Value { key, value, by_codec, ttl_ms, stale_ms, prime, context }), report)
    }

    /// Broadcasts an invalidation of this instance again that has reached L2 only now.
    pub(crate) fn broadcast_again(&self, name: Arc<str>, is_pattern: bool) {
        self.enqueue(Change::invalidation(name, is_pattern), InL2::Retried);
    }

    /// Broadcasts an invalidation of a peer that a retry of this instance has brought to L2, soon,
    /// unless a peer does.
    pub(crate) fn broadcast_for_peer(&self, name: &Arc<str>, is_pattern: bool) {
        self.ensure_tasks();
        let (now, cache) = (self.session.now(), self.member.id);
        let later = Name { cache, text: Arc::clone(name), is_pattern };
        self.session.protocol.lock().rebroadcast_later(now, later, fastrand::f64());
        self.flush(name);
    }

    fn enqueue(&self, change: Change, in_l2: InL2) {
        self.ensure_tasks();
        let now = self.session.now();
        let name = Arc::clone(change.name());
        self.session.protocol.lock().push(self.member.id, now, change, in_l2);
        self.flush(&name);
    }
}
