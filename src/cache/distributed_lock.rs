//! One load in the whole fleet: the lock of a key, taken before its load and given back after it.
//!
//! Nothing rests on it but the number of loads: what makes a load safe is its lease. So it may be
//! lost, doubled or unreachable, and a load goes on all the same.

use std::sync::Arc;

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::{flight_context::Ticket, state::CacheState};
use crate::{
    l2::{LoadStart, LockAttempt},
    observe::Event,
    resilience::{has_timer, run_until},
};

/// What became of the wish for the lock, where there was an answer.
pub(super) enum Lock<V: Send + Sync + 'static> {
    Held(Held<V>),
    /// Another instance has had it for all the time that there was to wait.
    TimedOut,
}

/// A lock, given back wherever its load ends.
pub(super) struct Held<V: Send + Sync + 'static> {
    state: Arc<CacheState<V>>,
    key: Arc<str>,
    owner: String,
    /// Whether it has to be given back: it is held, or nobody said that it is not.
    may_be_held: bool,
    /// When it was last asked for.
    since: Instant,
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Takes the lock of a key that has to be loaded, or waits for the result of who has it.
    /// `start` is what the shared level said; what it says last is returned.
    pub(super) async fn lock(
        self: &Arc<Self>,
        ticket: &Ticket<V>,
        mut start: LoadStart<V>,
        hard: Option<std::time::Duration>,
    ) -> (LoadStart<V>, Option<Lock<V>>) {
        let (Some(l2), LoadStart::Load { .. }) = (&self.l2, &start) else { return (start, None) };
        let options = &self.options.distributed_lock;
        let key = ticket.key();
        let mut held = Held::new(self, key);
        let waiter = self.lock_waiters.register(key);
        let mut begun = None;
        loop {
            match held.take().await {
                // Taken or not: `held` gives it back.
                LockAttempt::Unknown | LockAttempt::Skipped => return (start, None),
                LockAttempt::Acquired => {
                    // Whoever had it before may have come to an end since the last look.
                    start = l2.begin(key, false, hard).await;
                    if matches!(start, LoadStart::Fresh(_)) {
                        held.give_back().await;
                        return (start, None);
                    }
                    return (start, Some(Lock::Held(held)));
                }
                LockAttempt::HeldElsewhere => {
                    if begun.is_none() {
                        self.observer.emit(|| Event::LockWait { key });
                    }
                    let waited = begun.get_or_insert_with(Instant::now).elapsed();
                    let left = options.wait_timeout.saturating_sub(waited);
                    if left.is_zero() || !has_timer() {
                        let limit = options.wait_timeout;
                        self.observer.emit(|| Event::LockTimeout { key, limit });
                        return (start, Some(Lock::TimedOut));
                    }
                    run_until(sleep(options.poll.min(left)), waiter.notified.notified()).await;
                    start = l2.begin(key, false, hard).await;
                    if matches!(start, LoadStart::Fresh(_)) {
                        return (start, None);
                    }
                }
            }
        }
    }
}

impl<V: Send + Sync + 'static> Held<V> {
    fn new(state: &Arc<CacheState<V>>, key: &Arc<str>) -> Self {
        let (state, key) = (Arc::clone(state), Arc::clone(key));
        let owner = format!("{:032x}", fastrand::u128(..));
        Self { state, key, owner, may_be_held: false, since: Instant::now() }
    }

    async fn take(&mut self) -> LockAttempt {
        let Some(l2) = &self.state.l2 else { return LockAttempt::Skipped };
        let ttl = self.state.options.distributed_lock.ttl;
        self.since = Instant::now();
        // Before the answer, which may never come, or find nobody.
        self.may_be_held = true;
        let locked = l2.lock(&self.key, &self.owner, ttl).await;
        self.may_be_held = matches!(locked, LockAttempt::Acquired | LockAttempt::Unknown);
        locked
    }

    /// Keeps the lock until it is lost: another's, or not known to be kept for as long as it lasts
    /// by itself. To be run beside the loader.
    pub(super) async fn renew(&self) {
        let Some(l2) = self.state.l2.as_ref().filter(|_| has_timer()) else { return };
        let ttl = self.state.options.distributed_lock.ttl;
        let key = &self.key;
        let mut since = self.since;
        let mut pause = ttl / 3;
        loop {
            sleep(pause).await;
            let asked = Instant::now();
            pause = match l2.extend(key, &self.owner, ttl).await {
                LockAttempt::Acquired => {
                    since = asked;
                    ttl / 3
                }
                LockAttempt::Unknown | LockAttempt::Skipped if since.elapsed() < ttl => ttl / 10,
                _ => return self.state.observer.emit(|| Event::LockLost { key }),
            };
        }
    }

    pub(super) async fn give_back(mut self) {
        if let Some(l2) = &self.state.l2 {
            l2.unlock(&self.key, &self.owner).await;
        }
        self.may_be_held = false;
    }
}

/// The load was dropped, with the cache say, or there was no answer. What cannot be given back ends with its time.
impl<V: Send + Sync + 'static> Drop for Held<V> {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.may_be_held {
            return;
        }
        let (state, key) = (Arc::clone(&self.state), Arc::clone(&self.key));
        let owner = std::mem::take(&mut self.owner);
        let token = state.running.token();
        runtime.spawn(async move {
            if let Some(l2) = &state.l2 {
                l2.unlock(&key, &owner).await;
            }
            drop(token);
        });
    }
}
