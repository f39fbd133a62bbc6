//! Whether the data under one prefix may be used on the current connection.
//!
//! The prefixes of one store share a connection. Each prefix that is in use is verified on each new
//! connection before its first call: a server that was restarted may hold values that had been
//! deleted. A prefix that fails, because the user has no rights to it say, does not keep the others
//! from their data.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;

use crate::error::BoxError;

/// Changed by the supervisor task alone, but for [`register`](Self::register).
#[derive(Debug, Default)]
pub(crate) struct PrefixState {
    is_registered: AtomicBool,
    is_verified: AtomicBool,
    /// The server has changed since the data was verified, and may have lost deletes.
    may_be_old: AtomicBool,
    /// The number of the last time that prefixes of this connection were cleared, because their
    /// data may have been old, and this one was among them. 0: never.
    emptied: AtomicU64,
    /// Why the last attempt to verify the data failed.
    failure: Mutex<Option<Arc<str>>>,
}

impl PrefixState {
    /// Returns true at the first call: the supervisor task does not know the prefix yet.
    pub(crate) fn register(&self) -> bool {
        !self.is_registered.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.is_verified.load(Ordering::Acquire)
    }

    pub(crate) fn may_be_old(&self) -> bool {
        self.may_be_old.load(Ordering::Relaxed)
    }

    pub(crate) fn emptied(&self) -> u64 {
        self.emptied.load(Ordering::Relaxed)
    }

    pub(crate) fn on_emptied(&self, number: u64) {
        self.emptied.store(number, Ordering::Relaxed);
    }

    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.failure.lock().clone()
    }

    /// There is a new connection, which no caller has yet. `may_be_old`: to another process of the
    /// server.
    pub(crate) fn on_connected(&self, may_be_old: bool) {
        self.is_verified.store(false, Ordering::Release);
        self.may_be_old.fetch_or(may_be_old, Ordering::Relaxed);
        *self.failure.lock() = None;
    }

    pub(crate) fn on_verified(&self) {
        self.may_be_old.store(false, Ordering::Relaxed);
        *self.failure.lock() = None;
        self.is_verified.store(true, Ordering::Release);
    }

    pub(crate) fn on_failed(&self, error: &BoxError) {
        *self.failure.lock() = Some(error.to_string().into());
    }
}
