//! Event handlers: called in line, outside every lock, each on its own.
//!
//! Handing events to a thread instead was refused: it needs a queue, which is unbounded or drops,
//! an allocation per event, and it puts a counter's reader behind the events it counts.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;

use super::{event::Event, trace};

type Handler = dyn Fn(&Event<'_>) + Send + Sync;

#[derive(Default)]
pub(crate) struct Handlers(Arc<List>);

#[derive(Default)]
struct List {
    /// How many there are, so that the hit path asks with one load and takes no lock.
    count: AtomicUsize,
    /// Copied on change; callers run over the copy they took, without the lock.
    handlers: RwLock<Arc<[Arc<Handler>]>>,
}

/// An event handler's registration. Dropping it unsubscribes; a call that is running then may
/// still end afterwards.
#[must_use = "dropping it unsubscribes the handler at once"]
pub struct HandlerGuard {
    list: Weak<List>,
    handler: Arc<Handler>,
}

impl Handlers {
    #[inline]
    pub(crate) fn are_any(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn add(&self, handler: impl Fn(&Event<'_>) + Send + Sync + 'static) -> HandlerGuard {
        let handler: Arc<Handler> = Arc::new(handler);
        self.0.change(|handlers| handlers.push(Arc::clone(&handler)));
        HandlerGuard { list: Arc::downgrade(&self.0), handler }
    }

    #[cold]
    pub(crate) fn call(&self, event: &Event<'_>) {
        let handlers = Arc::clone(&self.0.handlers.read());
        for handler in handlers.iter() {
            if catch_unwind(AssertUnwindSafe(|| handler(event))).is_err() {
                trace::handler_panicked(event.name());
            }
        }
    }
}

impl List {
    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Handler>>)) {
        let mut handlers = self.handlers.write();
        let mut list = handlers.to_vec();
        change(&mut list);
        self.count.store(list.len(), Ordering::Relaxed);
        let old = std::mem::replace(&mut *handlers, list.into());
        drop(handlers);
        // Handlers are the user's: theirs is not dropped under our lock.
        drop(old);
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        if let Some(list) = self.list.upgrade() {
            list.change(|handlers| handlers.retain(|other| !Arc::ptr_eq(other, &self.handler)));
        }
    }
}

impl std::fmt::Debug for HandlerGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandlerGuard").finish_non_exhaustive()
    }
}
