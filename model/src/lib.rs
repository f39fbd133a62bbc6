//! Checks the very files of `src/flight` under loom, which runs a small program once for every
//! order in which its threads can meet. No copy, and no switch in the library: the files use a
//! module `crate::sync`, and here that is loom's.

#![cfg(test)]

/// The same surface as the library's `sync`.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
    // Not loom's `Arc`: keys are `Arc<str>`, and counting references is not what is checked.
    pub(crate) use std::sync::Arc;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        #[expect(clippy::expect_used, reason = "a panic in a model is the model's failure")]
        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no panic under a lock")
        }
    }
}

#[expect(dead_code, reason = "the models do not use all of it")]
mod flight;

mod models;
