//! Writes and deletes: memory, then the shared level, then memory again.
//!
//! Memory first, so that whoever reads here while the shared level is told does not get the old
//! value; again afterwards, because such a reader may have fetched it from the shared level just
//! before it was told. Again also where the caller goes away meanwhile. In memory each takes the right to publish from the key's running loads in
//! the same step in which it changes the entry, so no reader finds the one without the other.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use tokio::runtime::Handle;

use super::{flight_context::About, state::CacheState};
use crate::{
    entry::Entry, error::Error, glob::Pattern, l1::Displaced, l2, observe::Event,
    options::CallOptions,
};

/// Keys looked at between two chances for other tasks of the thread: some tens of microseconds.
const SWEEP_BATCH: usize = 512;

impl<V: Send + Sync + 'static> CacheState<V> {
    pub(super) async fn set(
        self: &Arc<Self>,
        key: &str,
        value: &Arc<V>,
        own: &CallOptions,
    ) -> Result<(), Error> {
        let lifetime = self.options.l1_lifetime(own, None, fastrand::f64);
        let text: Arc<str> = Arc::from(key);
        let ttl = self.options.l2_ttl(own, None);
        let mut announcement = self.announce(key);
        let given = self.given(&text, value, ttl);
        if let Some(l2) = &self.l2 {
            if let Err(closed) = self.remove_l1_if_open(key) {
                announcement.withdraw();
                return Err(closed);
            }
            let mut ticket = self.flights.ticket(&text, About::of_a_write());
            let on_its_way = OnItsWay { state: self, key };
            let told = l2.set(key, value, ttl).await;
            let published = told.map_err(|failure| unreachable(key, failure))?;
            on_its_way.has_arrived();
            let entry = self.entry(key, value, lifetime);
            let store = || {
                let displaced = self.put_l1(&text, entry)?;
                announcement.tell(given);
                Ok::<_, Error>(displaced)
            };
            let is_refused = published == l2::PublishOutcome::Refused;
            let displaced = if is_refused { None } else { ticket.overwrite(store) };
            match displaced {
                Some(displaced) => self.drop_displaced(displaced?),
                // Another write or delete came in between, here or elsewhere, and was the later.
                None => {
                    self.invalidate_l1(key);
                    announcement.tell(None);
                }
            }
        } else {
            let entry = self.entry(key, value, lifetime);
            let stored = self.flights.invalidate(key, || {
                let displaced = self.put_l1(&text, entry)?;
                announcement.tell(given);
                Ok(displaced)
            });
            match stored {
                Ok(displaced) => self.drop_displaced(displaced),
                Err(closed) => {
                    announcement.withdraw();
                    return Err(closed);
                }
            }
        }
        self.observer.emit(|| Event::Set { key, ttl: lifetime.ttl });
        announcement.confirmed().await
    }

    pub(super) async fn delete(self: &Arc<Self>, key: &str) -> Result<(), Error> {
        let mut announcement = self.announce(key);
        if let Err(closed) = self.remove_l1_if_open(key) {
            announcement.withdraw();
            return Err(closed);
        }
        if let Some(l2) = &self.l2 {
            let on_its_way = OnItsWay { state: self, key };
            let told = l2.delete(key).await;
            drop(on_its_way);
            told.map_err(|failure| unreachable(key, failure))?;
        }
        announcement.tell(None);
        self.observer.emit(|| Event::Delete { key });
        announcement.confirmed().await
    }

    pub(super) async fn delete_by_pattern(self: &Arc<Self>, glob: &str) -> Result<(), Error> {
        self.check_open()?;
        let pattern = Arc::new(Pattern::new(glob));
        let mut announcement = self.announce_pattern(glob);
        self.invalidate_l1_matching(&pattern).await;
        if let Some(l2) = &self.l2 {
            let on_its_way = SweepOnItsWay { state: self, pattern: &pattern };
            let told = l2.delete_matching(glob).await;
            // mutant second-sweep: remove
            self.invalidate_l1_matching(&pattern).await;
            on_its_way.has_arrived();
            told.map_err(|failure| unreachable(glob, failure))?;
        }
        announcement.tell(None);
        self.observer.emit(|| Event::DeletePattern { pattern: glob });
        announcement.confirmed().await
    }

    pub(super) async fn size(&self) -> u64 {
        let in_l2 = match &self.l2 {
            Some(l2) => l2.size().await,
            None => None,
        };
        in_l2.unwrap_or_else(|| self.l1.len() as u64)
    }

    /// To be called under the lock, so that a write either sees the end or is swept by `close`.
    fn put_l1(&self, key: &Arc<str>, entry: Option<Entry<V>>) -> Result<Displaced<V>, Error> {
        self.check_open()?;
        Ok(match entry {
            Some(entry) => self.l1.insert(key, entry),
            None => self.l1.remove(key),
        })
    }

    /// Removes a key from memory, with the right of its running loads.
    fn remove_l1_if_open(&self, key: &str) -> Result<(), Error> {
        let displaced = self.flights.invalidate(key, || {
            self.check_open()?;
            Ok::<_, Error>(self.l1.remove(key))
        })?;
        self.drop_displaced(displaced);
        Ok(())
    }

    /// The same, whether the cache is open or not.
    pub(super) fn invalidate_l1(&self, key: &str) {
        self.drop_displaced(self.flights.invalidate(key, || self.l1.remove(key)));
    }

    pub(super) async fn invalidate_l1_matching(&self, pattern: &Arc<Pattern>) {
        let sweep = self.active_patterns.begin(Arc::clone(pattern));
        self.flights.invalidate_matching(|key| pattern.matches(key));
        for (looked_at, ()) in self.l1.sweep(pattern).enumerate() {
            if looked_at % SWEEP_BATCH == SWEEP_BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
        drop(sweep);
    }
}

/// A write that the shared level is being told of. Where it fails, or its caller does not wait for
/// its end, memory forgets the key again all the same, and what is owed is paid.
struct OnItsWay<'a, V: Send + Sync + 'static> {
    state: &'a Arc<CacheState<V>>,
    key: &'a str,
}

impl<V: Send + Sync + 'static> OnItsWay<'_, V> {
    fn has_arrived(self) {
        std::mem::forget(self);
    }
}

impl<V: Send + Sync + 'static> Drop for OnItsWay<'_, V> {
    fn drop(&mut self) {
        // mutant second-removal: remove
        self.state.invalidate_l1(self.key);
    }
}

/// The same for a pattern.
struct SweepOnItsWay<'a, V: Send + Sync + 'static> {
    state: &'a Arc<CacheState<V>>,
    pattern: &'a Arc<Pattern>,
}

impl<V: Send + Sync + 'static> SweepOnItsWay<'_, V> {
    fn has_arrived(self) {
        std::mem::forget(self);
    }
}

impl<V: Send + Sync + 'static> Drop for SweepOnItsWay<'_, V> {
    fn drop(&mut self) {
        let (state, pattern) = (Arc::clone(self.state), Arc::clone(self.pattern));
        let token = state.running.token();
        let sweep = token.run(async move { state.invalidate_l1_matching(&pattern).await });
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(sweep)),
            // To yield is all that it would wait for, and there is nobody to yield to.
            Err(_) => while_it_is_pending(sweep),
        }
    }
}

fn while_it_is_pending(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    while future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
}

fn unreachable(key: &str, failure: l2::Failure) -> Error {
    match failure {
        l2::Failure::Skipped => Error::unreachable(key, None),
        l2::Failure::Failed(cause) => Error::unreachable(key, Some(cause)),
    }
}
