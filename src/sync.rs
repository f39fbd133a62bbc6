//! The mutex of the flight table. It is in one place so that the model checker can replace it:
//! `model/` compiles `flight/` against a `sync` module with the types of loom.

pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

pub(crate) use parking_lot::MutexGuard;

/// A mutex without poisoning: the only code of the user that runs under it is a clock, so no change
/// under it panics half-way. Never held across an await.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}
