//! Writes and deletes.
//!
//! Each takes the right to publish from the key's running loads in the same step in which it
//! changes memory, so no reader finds the one without the other.

use std::sync::Arc;

use super::shared::Shared;
use crate::{error::Error, observe::Event, options::CallOptions, pattern::Pattern};

/// Keys looked at between two chances for other tasks of the thread: some tens of microseconds.
const SWEEP_BATCH: usize = 512;

impl<V: Send + Sync + 'static> Shared<V> {
    pub(super) fn set(&self, key: &str, value: &Arc<V>, own: &CallOptions) -> Result<(), Error> {
        let lifetime = self.options.l1_lifetime(own, None, fastrand::f64);
        let entry = self.entry(key, value, lifetime);
        let text = Arc::from(key);
        let displaced = self.flights.invalidate(key, || {
            // Asked under the lock, so that a write either sees this or is swept by `close`.
            self.check_open()?;
            let keep = entry.is_worth_keeping();
            Ok(if keep { self.l1.insert(&text, entry) } else { self.l1.remove(key) })
        })?;
        self.let_go(displaced);
        self.observer.emit(|| Event::Set { key, ttl: lifetime.ttl });
        Ok(())
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), Error> {
        self.check_open()?;
        let displaced = self.flights.invalidate(key, || self.l1.remove(key));
        self.let_go(displaced);
        self.observer.emit(|| Event::Delete { key });
        Ok(())
    }

    pub(super) async fn delete_by_pattern(&self, glob: &str) -> Result<(), Error> {
        self.check_open()?;
        let sweep = self.sweeps.begin(Pattern::new(glob));
        self.flights.invalidate_matching(|key| sweep.pattern.matches(key));
        for (looked_at, ()) in self.l1.sweep(&sweep.pattern).enumerate() {
            if looked_at % SWEEP_BATCH == SWEEP_BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
        drop(sweep);
        self.observer.emit(|| Event::DeletePattern { pattern: glob });
        Ok(())
    }
}
