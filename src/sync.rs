//! The lock that the flight table is built on, in one place so that the model checker can put its
//! own in (`model/` compiles `flight/` against a `sync` module of loom's).

pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A mutex without poisoning: of the user's code only a clock is read under it, so nothing under it
/// panics half-way. Never held across an await.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, T> {
        self.0.lock()
    }
}
