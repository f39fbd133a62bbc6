//! Writes and deletes: L1, then L2, then L1 again.
//!
//! L1 is invalidated before L2, so that concurrent readers of this instance cannot hit the old
//! value; and again after L2, because a reader may have copied the old value from L2 in between.
//! The second step also runs if the caller drops its future. `close` waits for writes that run, as
//! it does for loads, before it publishes the last messages. Each step revokes the tickets of the
//! key's running loads under the same lock under which it changes the entry, so no reader finds
//! one without the other.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use tokio::runtime::Handle;

use super::{
    state::CacheState,
    write_report::{L1Effect, WriteReport},
};
use crate::{
    bus::CommittedBroadcast,
    entry::Lifetime,
    error::Error,
    flight::Origin,
    glob::Pattern,
    l2::WriteOutcome,
    observe::Event,
    options::{CallOptions, Lifetimes},
    resilience::DropGuard,
};

/// After this number of keys, some tens of microseconds, a walk over L1 lets other tasks run.
const WALK_BATCH: usize = 512;

impl<V: Send + Sync + 'static> CacheState<V> {
    pub(super) async fn set(
        self: &Arc<Self>,
        key: &str,
        value: &Arc<V>,
        call: &CallOptions,
    ) -> Result<WriteReport, Error> {
        // mutant close-writes: => let running = self.running.clone();
        let running = self.running.token();
        let Lifetimes { l1: lifetime, l2: in_l2 } =
            self.options.lifetimes(call, None, fastrand::f64);
        // Peers bound the ttl as they bound that of a value of L2.
        let on_bus = Lifetime { ttl: in_l2.ttl, ..lifetime };
        let text: Arc<str> = Arc::from(key);
        let bus = self.bus.as_ref();
        // Before anything is changed or recorded: a heavy value is encoded on another thread.
        let plain = match bus.filter(|bus| bus.client.sends_values(on_bus.ttl)) {
            Some(bus) => {
                let delete = self.delete_on_drop(key);
                let plain = bus.codec.encode_plain(value).await.ok();
                delete.disarm();
                plain
            }
            None => None,
        };
        let broadcast = self.begin_broadcast(key, false);
        let payload = plain.as_ref().map(|plain| plain.bytes.as_slice());
        let (message, sent) =
            bus.map(|bus| bus.client.set_message(&text, on_bus, payload)).unwrap_or_default();
        let (mut ticket, mut l2_outcome) = (None, None);
        if let Some(l2) = &self.l2 {
            if let Err(closed) = self.remove_l1_if_open(key) {
                broadcast.cancel();
                return Err(closed);
            }
            ticket = Some(self.flights.ticket(&text));
            let invalidate = self.invalidate_l1_on_drop(key);
            // If L2 is unreachable, L1 gets the value all the same: the key is not read from L2
            // before the pending invalidation has reached it.
            l2_outcome = Some(l2.set(&text, value, plain.as_ref(), in_l2).await);
            invalidate.disarm();
        }
        let entry = self.entry(key, value, lifetime);
        let stored = if entry.is_some() { L1Effect::Stored } else { L1Effect::Removed };
        let in_l2 = is_in_l2(l2_outcome.as_ref());
        let mut broadcast = Some(broadcast);
        // Runs under the lock of the key's flights. So the write either finds the cache closed, or
        // is removed by `close`.
        let write = || {
            self.check_open()?;
            let displaced = self.store_l1(&text, entry);
            Ok::<_, Error>((displaced, broadcast.take().map(|it| it.commit(message, in_l2))))
        };
        let written = match (&mut ticket, &l2_outcome) {
            (None, _) => Some(self.flights.invalidate(key, Origin::Local, write)),
            (_, Some(WriteOutcome::Superseded)) => None,
            (Some(ticket), _) => ticket.overwrite(Origin::Local, write),
        };
        let (l1, committed) = match written {
            Some(Ok((displaced, committed))) => {
                self.drop_displaced(displaced);
                self.observer.emit(|| Event::Set { key, ttl: lifetime.ttl });
                if let (Some(bus), Some(sent)) = (bus, sent) {
                    bus.client.report_value(key, sent);
                }
                (stored, committed)
            }
            Some(Err(closed)) => {
                // If L2 has the value, the dropped broadcast becomes a delete.
                if let Some(broadcast) = broadcast.filter(|_| self.l2.is_none()) {
                    broadcast.cancel();
                }
                return Err(closed);
            }
            // A later delete or `set`, of this instance or of a peer, took the right to write.
            None => {
                self.invalidate_l1(key, Origin::Peer);
                (L1Effect::Superseded, broadcast.map(|it| it.commit(None, in_l2)))
            }
        };
        drop((ticket, running));
        Ok(self.report(l1, l2_outcome, committed).await)
    }

    pub(super) async fn delete(self: &Arc<Self>, key: &str) -> Result<WriteReport, Error> {
        // mutant close-writes: => let running = self.running.clone();
        let running = self.running.token();
        let broadcast = self.begin_broadcast(key, false);
        if let Err(closed) = self.remove_l1_if_open(key) {
            broadcast.cancel();
            return Err(closed);
        }
        let mut outcome = None;
        if let Some(l2) = &self.l2 {
            let invalidate = self.invalidate_l1_on_drop(key);
            outcome = Some(l2.delete(key).await);
            drop(invalidate);
        }
        let committed = broadcast.commit(None, is_in_l2(outcome.as_ref()));
        drop(running);
        self.observer.emit(|| Event::Delete { key });
        Ok(self.report(L1Effect::Removed, outcome, Some(committed)).await)
    }

    pub(super) async fn delete_by_pattern(
        self: &Arc<Self>,
        glob: &str,
    ) -> Result<WriteReport, Error> {
        // mutant close-writes: => let running = self.running.clone();
        let running = self.running.token();
        self.check_open()?;
        let pattern = Arc::new(Pattern::new(glob));
        let broadcast = self.begin_broadcast(glob, true);
        self.invalidate_l1_matching(&pattern, Origin::Local).await;
        let mut outcome = None;
        if let Some(l2) = &self.l2 {
            let invalidate = self.invalidate_l1_matching_on_drop(&pattern);
            outcome = Some(l2.delete_matching(glob).await);
            // mutant second-sweep: remove
            self.invalidate_l1_matching(&pattern, Origin::Local).await;
            invalidate.disarm();
        }
        let committed = broadcast.commit(None, is_in_l2(outcome.as_ref()));
        drop(running);
        self.observer.emit(|| Event::DeletePattern { pattern: glob });
        Ok(self.report(L1Effect::Removed, outcome, Some(committed)).await)
    }

    /// Has the message sent, and reports the change to its caller.
    async fn report(
        &self,
        l1: L1Effect,
        l2: Option<WriteOutcome>,
        broadcast: Option<CommittedBroadcast<'_>>,
    ) -> WriteReport {
        let l1 = if self.options.l1.enabled { l1 } else { L1Effect::None };
        let progress = match broadcast {
            Some(broadcast) => broadcast.send().await,
            None => None,
        };
        self.report_lost_after_close();
        WriteReport::new(l1, l2, progress)
    }

    /// Removes a key from L1 and revokes the tickets of its running loads.
    fn remove_l1_if_open(&self, key: &str) -> Result<(), Error> {
        let displaced = self.flights.invalidate(key, Origin::Local, || {
            self.check_open()?;
            Ok::<_, Error>(self.l1.remove(key))
        })?;
        self.drop_displaced(displaced);
        Ok(())
    }

    /// Removes a key from L1 and revokes the tickets of its running loads, also of a closed cache.
    pub(super) fn invalidate_l1(&self, key: &str, by: Origin) {
        self.drop_displaced(self.flights.invalidate(key, by, || self.l1.remove(key)));
    }

    /// Does so after a delete of L2, and when the caller of a delete or `set` drops its future.
    fn invalidate_l1_on_drop(&self, key: &str) -> DropGuard<impl FnOnce()> {
        DropGuard::new(move || {
            // mutant second-removal: remove
            self.invalidate_l1(key, Origin::Local);
        })
    }

    /// Deletes a key when the caller of a `set` drops its future before anything was changed.
    fn delete_on_drop(self: &Arc<Self>, key: &str) -> DropGuard<impl FnOnce()> {
        DropGuard::new(move || {
            let broadcast = self.begin_broadcast(key, false);
            // Before L1 forgets the key: else the next read may find the old value in L2.
            if let Some(l2) = &self.l2 {
                l2.delete_later(key);
            }
            if self.remove_l1_if_open(key).is_err() {
                broadcast.cancel();
            }
        })
    }

    pub(super) async fn invalidate_l1_matching(&self, pattern: &Arc<Pattern>, by: Origin) {
        let active = self.active_patterns.insert(Arc::clone(pattern));
        self.flights.invalidate_matching(by, |key| pattern.matches(key));
        for (walked, ()) in self.l1.sweep(pattern).enumerate() {
            if walked % WALK_BATCH == WALK_BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
        drop(active);
    }

    /// Walks L1 in a task of its own when the caller drops its future while L2 deletes a pattern.
    fn invalidate_l1_matching_on_drop(
        self: &Arc<Self>,
        pattern: &Arc<Pattern>,
    ) -> DropGuard<impl FnOnce()> {
        DropGuard::new(move || {
            let (state, pattern) = (Arc::clone(self), Arc::clone(pattern));
            let token = state.running.token();
            let walk = token
                .run(async move { state.invalidate_l1_matching(&pattern, Origin::Local).await });
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(walk)),
                // The walk waits for nothing: it only yields, and here there is no other task.
                Err(_) => {
                    let mut walk = pin!(walk);
                    let context = &mut Context::from_waker(Waker::noop());
                    while walk.as_mut().poll(context).is_pending() {}
                }
            }
        })
    }
}

/// Whether L2 has got a change. An instance without L2 leaves it to its peers.
fn is_in_l2(outcome: Option<&WriteOutcome>) -> bool {
    outcome.is_some_and(|outcome| !matches!(outcome, WriteOutcome::Pending(_)))
}
