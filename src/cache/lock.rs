//! One load in the whole fleet: the lock of a key, taken before its load and given back after it.
//!
//! Nothing rests on it but the number of loads: what makes a load safe is its lease. So it may be
//! lost, doubled or unreachable, and a load goes on all the same.

use std::sync::Arc;

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::{flights::Ticket, shared::Shared};
use crate::{
    l2::{Locked, Start},
    observe::Event,
    resilience::there_is_a_timer,
};

/// What became of the wish for the lock, where there was an answer.
pub(super) enum Lock<V: Send + Sync + 'static> {
    Held(Held<V>),
    /// Another instance has had it for all the time that there was to wait.
    TimedOut,
}

/// A lock, given back wherever its load ends.
pub(super) struct Held<V: Send + Sync + 'static> {
    shared: Arc<Shared<V>>,
    key: Arc<str>,
    owner: String,
    is_given_back: bool,
}

impl<V: Send + Sync + 'static> Shared<V> {
    /// Takes the lock of a key that has to be loaded, or waits for the result of who has it.
    /// `start` is what the shared level said; what it says last is returned.
    pub(super) async fn lock(
        self: &Arc<Self>,
        ticket: &Ticket<V>,
        mut start: Start<V>,
        hard: Option<std::time::Duration>,
    ) -> (Start<V>, Option<Lock<V>>) {
        let (Some(l2), Start::Load { .. }) = (&self.l2, &start) else { return (start, None) };
        let options = &self.options.distributed_lock;
        let key = ticket.key();
        let owner = format!("{:032x}", fastrand::u128(..));
        let mut until = None;
        loop {
            match l2.lock(self.asker(key), &owner, options.ttl).await {
                Locked::NoAnswer => return (start, None),
                Locked::Yes => {
                    let held = Held::new(self, key, owner);
                    // Whoever had it before may have come to an end since the last look.
                    start = l2.begin(self.asker(key), false, hard).await;
                    if matches!(start, Start::Fresh(_)) {
                        held.give_back().await;
                        return (start, None);
                    }
                    return (start, Some(Lock::Held(held)));
                }
                Locked::ByAnother => {
                    if until.is_none() {
                        self.observer.emit(|| Event::LockWait { key });
                    }
                    let until = *until.get_or_insert_with(|| Instant::now() + options.wait_timeout);
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() || !there_is_a_timer() {
                        let limit = options.wait_timeout;
                        self.observer.emit(|| Event::LockTimeout { key, limit });
                        return (start, Some(Lock::TimedOut));
                    }
                    sleep(options.poll.min(left)).await;
                    start = l2.begin(self.asker(key), false, hard).await;
                    if matches!(start, Start::Fresh(_)) {
                        return (start, None);
                    }
                }
            }
        }
    }
}

impl<V: Send + Sync + 'static> Held<V> {
    fn new(shared: &Arc<Shared<V>>, key: &Arc<str>, owner: String) -> Self {
        let (shared, key) = (Arc::clone(shared), Arc::clone(key));
        Self { shared, key, owner, is_given_back: false }
    }

    /// Keeps the lock until it is lost. To be run beside the loader.
    pub(super) async fn renew(&self) {
        let Some(l2) = self.shared.l2.as_ref().filter(|_| there_is_a_timer()) else { return };
        let ttl = self.shared.options.distributed_lock.ttl;
        let key = &self.key;
        loop {
            sleep(ttl / 3).await;
            if !l2.extend(self.shared.asker(key), &self.owner, ttl).await {
                return self.shared.observer.emit(|| Event::LockLost { key });
            }
        }
    }

    pub(super) async fn give_back(mut self) {
        if let Some(l2) = &self.shared.l2 {
            l2.unlock(self.shared.asker(&self.key), &self.owner).await;
        }
        self.is_given_back = true;
    }
}

/// The load was dropped, with the cache say. What cannot be given back ends with its time.
impl<V: Send + Sync + 'static> Drop for Held<V> {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.is_given_back {
            return;
        }
        let (shared, key) = (Arc::clone(&self.shared), Arc::clone(&self.key));
        let owner = std::mem::take(&mut self.owner);
        let token = shared.running.token();
        runtime.spawn(async move {
            if let Some(l2) = &shared.l2 {
                l2.unlock(shared.asker(&key), &owner).await;
            }
            drop(token);
        });
    }
}
