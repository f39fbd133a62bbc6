//! Broadcasts of callers and loaders: invalidations, and values that were `set` or loaded.
//!
//! They only enqueue; the publisher sends. A caller waits for it if
//! [`confirm_deletes`](crate::EventBusOptions::confirm_deletes) is set, a reader never.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{bus_client::BusClient, sink::Sink};
use crate::{
    bus::{
        protocol::{causality::CausalContext, outbox::Change, session::Session},
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
pub(crate) struct PendingBroadcast<'a, S: Sink>(Option<Invalidation<'a, S>>);

/// An invalidation that is in the outbox, with its position there.
#[must_use]
pub(crate) struct CommittedBroadcast<'a, S: Sink>(Option<(Invalidation<'a, S>, u64)>);

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

struct Invalidation<'a, S: Sink> {
    client: &'a Arc<BusClient>,
    sink: &'a S,
    name: &'a str,
    is_pattern: bool,
}

impl<'a, S: Sink> PendingBroadcast<'a, S> {
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
    pub(crate) fn commit(mut self, set: Option<Change>, in_l2: bool) -> CommittedBroadcast<'a, S> {
        CommittedBroadcast(self.0.take().map(|invalidation| invalidation.commit(set, in_l2)))
    }
}

impl<S: Sink> Drop for PendingBroadcast<'_, S> {
    fn drop(&mut self) {
        // mutant dropped-broadcast: remove
        if let Some(invalidation) = self.0.take() {
            let (invalidation, _) = invalidation.commit(None, false);
            invalidation.client.flush(invalidation.sink, invalidation.name);
        }
    }
}

impl<S: Sink> CommittedBroadcast<'_, S> {
    /// Has the message sent; waits until the bus accepted it, if the options ask for that. `None`
    /// without a bus.
    pub(crate) async fn send(self) -> Option<PublishProgress> {
        let (Invalidation { client, sink, name, .. }, position) = self.0?;
        let is_published = |session: &Session| session.outbox.is_published(position);
        // After a close nothing is published any more.
        let is_skipped = client.flush(sink, name)
            || client.tasks.is_stopped() && !is_published(&client.session.lock());
        let options = &client.options.event_bus;
        let mut is_confirmed = None;
        if options.confirm_deletes {
            // Without a timer the publisher does not run either.
            if !is_skipped && has_timer() {
                let published = client.wait_published(is_published);
                let _ = timeout(Some(options.publish_timeout), published).await;
            }
            is_confirmed = Some(is_published(&client.session.lock()));
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
        let last = client.session.lock().outbox.next_position().saturating_sub(1);
        let position = if with_later { last } else { self.position };
        let published = client.wait_published(|session| session.outbox.is_published(position));
        run_until(published, client.tasks.wait_stopped()).await;
        client.session.lock().outbox.is_published(position)
    }

    /// Whether the bus has accepted the message.
    pub(crate) fn is_accepted(&self) -> bool {
        let client = self.client.upgrade();
        client.is_some_and(|client| client.session.lock().outbox.is_published(self.position))
    }
}

impl<S: Sink> Invalidation<'_, S> {
    /// Enqueues the invalidation, and returns it with its outbox position.
    fn commit(self, set: Option<Change>, in_l2: bool) -> (Self, u64) {
        let delete = || Change::invalidation(Arc::from(self.name), self.is_pattern);
        let in_l2 = if in_l2 { InL2::Yes } else { InL2::No };
        let position = self.end(Some((set.unwrap_or_else(delete), in_l2)));
        (self, position)
    }

    fn end(&self, change: Option<(Change, InL2)>) -> u64 {
        let now = self.sink.now();
        let mut session = self.client.session.lock();
        session.commit_invalidation(now, self.name, self.is_pattern, change)
    }
}

impl BusClient {
    /// Begins to delete or `set` a key, or to delete the keys that match a Redis glob. To be called
    /// before L1 is changed.
    pub(crate) fn begin_invalidation<'a, S: Sink>(
        self: &'a Arc<Self>,
        sink: &'a Arc<S>,
        name: &'a str,
        is_pattern: bool,
    ) -> PendingBroadcast<'a, S> {
        let now = sink.now();
        // mutant order-own: remove
        self.session.lock().begin_invalidation(now, name, is_pattern);
        self.ensure_tasks(sink);
        PendingBroadcast(Some(Invalidation { client: self, sink, name, is_pattern }))
    }

    /// Returns the version vector that a loaded value carries when it is broadcast; `None` if the
    /// options turn that off. To be called before the right to write the value is checked.
    pub(crate) fn causal_context(&self, now: u64) -> Option<CausalContext> {
        let is_on = self.options.broadcast_set;
        is_on.then(|| self.session.lock().causal_context(now, true))
    }

    /// Whether the message of a value with this time to live that is `set` carries the value.
    pub(crate) fn sends_values(&self, ttl: Duration) -> bool {
        self.options.broadcast_set && !ttl.is_zero()
    }

    /// Returns the message of a value that is `set`, to be [reported](Self::report_value) once the
    /// value stands. No message: peers get a delete instead. `payload` is the value as the codec
    /// encodes it for the bus; `None` if the codec cannot.
    pub(crate) fn set_message<S: Sink>(
        &self,
        sink: &S,
        key: &Arc<str>,
        lifetime: Lifetime,
        payload: Option<&[u8]>,
    ) -> (Option<Change>, Option<ValueReport>) {
        if !self.sends_values(lifetime.ttl) {
            return (None, None);
        }
        let now = sink.now();
        let context = self.session.lock().causal_context(now, false);
        let (message, report) = self.value_message(key, lifetime, false, context, payload);
        (message, Some(report))
    }

    /// Enqueues a loaded value for the peers. `context` is the
    /// [causal context](Self::causal_context) from before the value was written to L1; `payload`
    /// is as for [`set_message`](Self::set_message).
    pub(crate) fn broadcast_value<S: Sink>(
        self: &Arc<Self>,
        sink: &Arc<S>,
        key: &Arc<str>,
        lifetime: Lifetime,
        context: CausalContext,
        payload: Option<&[u8]>,
    ) {
        let (message, report) = self.value_message(key, lifetime, true, context, payload);
        self.report_value(&**sink, key, report);
        if let Some(message) = message {
            self.enqueue(sink, message, InL2::Yes);
        }
    }

    /// Reports that a value is sent to the peers, or why it is not.
    pub(crate) fn report_value<S: Sink>(&self, sink: &S, key: &str, report: ValueReport) {
        match report.0 {
            Ok(bytes) => {
                sink.observer().count(Counter::ValuesSent);
                sink.observer().emit(|| Event::SetBroadcast { key, bytes });
            }
            Err(reason) => self.report.value_skipped(sink, key, reason),
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
        let value = || -> Result<Arc<[u8]>, _> {
            let payload = payload.ok_or("the codec cannot encode it, or not decode it again")?;
            let bytes = strip_prefix(payload).ok_or("the codec does not write MessagePack")?;
            let is_short = bytes.len() <= limit;
            is_short.then(|| Arc::from(bytes)).ok_or("it is longer than broadcast_set_max_bytes")
        };
        let (context, value) = match context.and_then(|context| Ok((context, value()?))) {
            Ok(encoded) => encoded,
            Err(reason) => return (None, ValueReport(Err(reason))),
        };
        let (report, key) = (ValueReport(Ok(value.len())), Arc::clone(key));
        let Lifetime { ttl, stale_for } = lifetime;
        let ttl_ms = Some(millis(ttl));
        let stale_ms = Some(millis(stale_for)).filter(|window| *window > 0);
        let context = Some(context);
        (Some(Change::Value { key, value, ttl_ms, stale_ms, prime, context }), report)
    }

    /// Broadcasts an invalidation of this instance again that has reached L2 only now.
    pub(crate) fn broadcast_again<S: Sink>(
        self: &Arc<Self>,
        sink: &Arc<S>,
        name: Arc<str>,
        is_pattern: bool,
    ) {
        self.enqueue(sink, Change::invalidation(name, is_pattern), InL2::Retried);
    }

    /// Broadcasts an invalidation of a peer that a retry of this instance has brought to L2, soon,
    /// unless a peer does.
    pub(crate) fn broadcast_for_peer<S: Sink>(
        self: &Arc<Self>,
        sink: &Arc<S>,
        name: &Arc<str>,
        is_pattern: bool,
    ) {
        self.ensure_tasks(sink);
        let now = sink.now();
        let mut session = self.session.lock();
        session.rebroadcast_later(now, (Arc::clone(name), is_pattern), fastrand::f64());
        drop(session);
        self.flush(&**sink, name);
    }

    fn enqueue<S: Sink>(self: &Arc<Self>, sink: &Arc<S>, change: Change, in_l2: InL2) {
        self.ensure_tasks(sink);
        let now = sink.now();
        let name = Arc::clone(change.name());
        self.session.lock().outbox.push(now, change, in_l2);
        self.flush(&**sink, &name);
    }
}
