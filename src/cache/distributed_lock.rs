//! The distributed lock: at most one load of a key across all instances. The leader acquires it
//! before its load and releases it afterwards.
//!
//! Only the number of loads depends on the lock: the lease makes a load safe. So the lock may be
//! lost, held twice or unreachable, and the load still runs.
//!
//! The second of two loads of an instance does not wait for the lock that the first one holds: that
//! load began before an invalidation, so its result is of no use to the callers of the second one.

use std::sync::Arc;

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep},
};

use super::{flight_context::Lead, registry::LockWaiter, state::CacheState};
use crate::{
    l2::{Lease, LoadEnd, LoadRequest, LoadStart, LockAttempt},
    observe::Event,
    resilience::{has_timer, run_until},
};

/// The answer of L2 to the attempts to acquire a lock.
pub(super) enum LockOutcome<V: Send + Sync + 'static> {
    Acquired(LockGuard<V>),
    /// A peer has held the lock for the whole wait timeout.
    TimedOut,
    /// The peer for which the caller waited found that the key does not exist.
    PeerFoundNone,
    /// The load of the peer for which the caller waited failed.
    PeerFailed,
}

/// A lock that may be held. Its drop releases it in a task; if that fails, it ends with its ttl.
pub(super) struct LockGuard<V: Send + Sync + 'static> {
    state: Arc<CacheState<V>>,
    key: Arc<str>,
    owner: String,
    /// L2 has granted the lock, or has not answered whether it did.
    may_be_held: bool,
    /// The time of the last request to acquire the lock.
    since: Instant,
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Acquires the lock of a key that has to be loaded, or waits for the value that a peer loads.
    /// `start` is the last answer of L2 about the key, to `request`; the call returns a newer one.
    pub(super) async fn acquire_lock(
        self: &Arc<Self>,
        lead: &Lead<V>,
        mut start: LoadStart<V>,
        request: LoadRequest,
    ) -> (LoadStart<V>, Option<LockOutcome<V>>) {
        let (Some(l2), LoadStart::Load { .. }) = (&self.l2, &start) else { return (start, None) };
        let (key, options) = (lead.ticket.key(), &self.options.distributed_lock);
        let mut guard = LockGuard {
            state: Arc::clone(self),
            key: Arc::clone(key),
            owner: format!("{:016x}{:016x}", self.lock_id, fastrand::u64(..)),
            may_be_held: false,
            since: Instant::now(),
        };
        let waiter = LockWaiter { key: Arc::clone(key), notified: Notify::new() };
        let waiter = self.lock_waiters.insert(Arc::new(waiter));
        let mut begun = None;
        // The owner for which the caller waits, and the lease that the caller had then.
        let mut waited_for: Option<(String, Option<Lease>)> = None;
        loop {
            let owner = waited_for.as_ref().map(|(owner, _)| &**owner);
            match guard.try_acquire(owner).await {
                // Acquired or not: the drop of `guard` releases the lock.
                LockAttempt::Unknown | LockAttempt::Skipped => return (start, None),
                LockAttempt::Acquired => {
                    // The last holder may have stored a value since L2 was read.
                    start = l2.begin(key, request).await;
                    if !matches!(start, LoadStart::Load { .. }) {
                        guard.release(None).await;
                        return (start, None);
                    }
                    return (start, Some(LockOutcome::Acquired(guard)));
                }
                LockAttempt::Ended(LoadEnd::Failed) => {
                    return (start, Some(LockOutcome::PeerFailed));
                }
                LockAttempt::Ended(LoadEnd::Missing(lease)) => {
                    // Otherwise an invalidation came after the peer's load had begun.
                    // mutant lock-end: s/held == Some(lease)/true/
                    if waited_for.take().is_some_and(|(_, held)| held == Some(lease)) {
                        return (start, Some(LockOutcome::PeerFoundNone));
                    }
                }
                // mutant own-lock: remove
                LockAttempt::HeldBy(owner) if self.is_own_lock(&owner, lead) => {
                    return (start, None);
                }
                LockAttempt::HeldBy(owner) => {
                    if waited_for.as_ref().is_none_or(|(it, _)| *it != owner) {
                        waited_for = Some((owner, start.lease()));
                    }
                    if begun.is_none() {
                        self.observer.emit(|| Event::LockWait { key });
                    }
                    let waited = begun.get_or_insert_with(Instant::now).elapsed();
                    let left = options.wait_timeout.saturating_sub(waited);
                    if left.is_zero() || !has_timer() {
                        let limit = options.wait_timeout;
                        self.observer.emit(|| Event::LockTimeout { key, limit });
                        return (start, Some(LockOutcome::TimedOut));
                    }
                    run_until(sleep(options.poll.min(left)), waiter.item.notified.notified()).await;
                    start = l2.begin(key, request).await;
                    if !matches!(start, LoadStart::Load { .. }) {
                        return (start, None);
                    }
                }
            }
        }
    }

    /// Whether the other load of the key in this instance has the lock.
    fn is_own_lock(&self, owner: &str, lead: &Lead<V>) -> bool {
        self.owns_lock(owner) && self.flights.is_one_of_two(lead.ticket.key(), lead.flight())
    }

    /// Whether the owner of a lock is a load of this cache in this instance.
    pub(super) fn owns_lock(&self, owner: &str) -> bool {
        let id = owner.get(..16).and_then(|id| u64::from_str_radix(id, 16).ok());
        id == Some(self.lock_id)
    }
}

impl<V: Send + Sync + 'static> LockGuard<V> {
    async fn try_acquire(&mut self, waited_for: Option<&str>) -> LockAttempt {
        let Some(l2) = &self.state.l2 else { return LockAttempt::Skipped };
        let ttl = self.state.options.distributed_lock.ttl;
        self.since = Instant::now();
        // Set before the answer, which may never come, or come after this future was dropped.
        self.may_be_held = true;
        let attempt = l2.lock(&self.key, &self.owner, ttl, waited_for).await;
        self.may_be_held = matches!(attempt, LockAttempt::Acquired | LockAttempt::Unknown);
        attempt
    }

    /// Renews the lock, beside the loader, until the lock is lost: a peer holds it, or no renewal
    /// was answered for the lock's ttl.
    pub(super) async fn renew(&self) {
        let Some(l2) = self.state.l2.as_ref().filter(|_| has_timer()) else { return };
        let ttl = self.state.options.distributed_lock.ttl;
        let mut since = self.since;
        let mut pause = ttl / 3;
        loop {
            sleep(pause).await;
            let requested = Instant::now();
            pause = match l2.extend(&self.key, &self.owner, ttl).await {
                Some(true) => {
                    since = requested;
                    ttl / 3
                }
                None if since.elapsed() < ttl => ttl / 10,
                _ => return self.state.observer.emit(|| Event::LockLost { key: &self.key }),
            };
        }
    }

    /// Releases the lock. The callers that wait for it learn how the load ended, if it left no
    /// value in L2.
    pub(super) async fn release(mut self, end: Option<LoadEnd>) {
        if let Some(l2) = &self.state.l2 {
            l2.unlock(&self.key, &self.owner, end).await;
        }
        self.may_be_held = false;
    }
}

impl<V: Send + Sync + 'static> Drop for LockGuard<V> {
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.may_be_held, Handle::try_current()) else { return };
        let (state, key) = (Arc::clone(&self.state), Arc::clone(&self.key));
        let owner = std::mem::take(&mut self.owner);
        let token = state.running.token();
        runtime.spawn(async move {
            if let Some(l2) = &state.l2 {
                l2.unlock(&key, &owner, None).await;
            }
            drop(token);
        });
    }
}
