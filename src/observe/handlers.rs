//! Event handlers: the cache calls them in line, outside every lock, and contains their panics.
//!
//! Alternatives considered: a thread that calls the handlers. Refused because it needs an
//! allocation per event and a queue, which is unbounded or drops events; and because a reader of
//! the counters would then see events late.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::RwLock;

use super::{event::Event, trace};
use crate::contain::{QuietDrop, contain};

type Handler = dyn Fn(&Event<'_>) + Send + Sync;

#[derive(Default)]
pub(crate) struct Handlers(Arc<List>);

#[derive(Default)]
struct List {
    /// The number of handlers, so that the hit path needs one atomic load and no lock.
    count: AtomicUsize,
    /// Copied on change, so that `dispatch` calls the handlers without the lock.
    handlers: RwLock<Arc<[Arc<Handler>]>>,
}

/// The registration of an event handler. Dropping it removes the handler; a call of the handler
/// that is running at that moment may end later.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use lazy_layers_cache::LazyLayersCache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
/// let events = Arc::new(AtomicU64::new(0));
/// let counter = Arc::clone(&events);
/// let guard = names.on(move |_| { counter.fetch_add(1, Ordering::Relaxed); });
/// names.get(&7).await;
///
/// drop(guard);
/// names.get(&7).await;
/// assert_eq!(events.load(Ordering::Relaxed), 1);
/// # Ok(()) }
/// ```
#[must_use = "dropping the guard removes the handler at once"]
pub struct HandlerGuard {
    list: Weak<List>,
    handler: Arc<Handler>,
}

impl Handlers {
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn add(&self, handler: impl Fn(&Event<'_>) + Send + Sync + 'static) -> HandlerGuard {
        let handler = QuietDrop::new(handler);
        let handler: Arc<Handler> = Arc::new(move |event: &Event<'_>| (*handler)(event));
        self.0.change(|handlers| handlers.push(Arc::clone(&handler)));
        HandlerGuard { list: Arc::downgrade(&self.0), handler }
    }

    #[cold]
    pub(crate) fn dispatch(&self, cache: Option<&str>, event: &Event<'_>) {
        let handlers = Arc::clone(&self.0.handlers.read());
        for handler in handlers.iter() {
            if contain(|| handler(event)).is_err() {
                trace::log_handler_panicked(cache, event.name());
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
        // Dropping a handler runs code of the user, which must not happen under the lock.
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
