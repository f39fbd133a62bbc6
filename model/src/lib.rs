//! Model checks of the single flight: compiles the files of `src/flight` themselves against loom,
//! which runs a small program once for every interleaving of its threads.
//!
//! The library needs neither a copy nor a `cfg` for this: its files use a module `crate::sync`,
//! which is loom's here.

#![cfg(test)]

/// The same items as the `sync` of the library.
mod sync {
    pub(crate) use loom::sync::{
        MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };
    // Not loom's `Arc`: it has no `Arc<str>`, and the models do not check reference counts.
    pub(crate) use std::sync::Arc;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        #[expect(clippy::expect_used, reason = "a panic in a model is the model's failure")]
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no panic under a lock")
        }
    }
}

#[expect(dead_code, reason = "the models do not use all of it")]
mod flight;

mod models;
