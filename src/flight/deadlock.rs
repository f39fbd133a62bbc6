//! Deadlock detection: finds loaders that would wait for each other for ever.
//!
//! A loader may ask the cache for other keys. If it asks for its own key, or for a key whose loader
//! waits for it, neither load would end. Two structures detect this:
//!
//! | structure | holds | detects |
//! | --- | --- | --- |
//! | [`LoadChain`] | a load and the loads whose loaders started it | a key asked for inside its own load, joinable or not |
//! | the wait-for graph | one edge per loader that waits for a flight | loaders that run side by side and join each other |
//!
//! Callers outside of loaders, nearly all, touch neither. A loader that asks from a spawned task is
//! not detected, because nothing tells for which load that task works.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::resilience::DropGuard;

/// Identifies a flight in the wait-for graph. Unique in the process, because a loader may ask
/// several caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FlightId(u64);

/// A load, and the loads whose loaders started it.
#[derive(Debug)]
pub(crate) struct LoadChain {
    pub(crate) id: FlightId,
    /// The number of loads above this one.
    pub(crate) depth: usize,
    /// The cache, and the key in it.
    cache: usize,
    key: Arc<str>,
    parent: Option<Arc<Self>>,
    /// The loader has returned or was dropped, so it waits for nothing any more.
    ended: AtomicBool,
}

static NEXT: AtomicU64 = AtomicU64::new(1);
static WAITS: LazyLock<Mutex<Graph>> = LazyLock::new(Mutex::default);

thread_local! {
    /// The load whose loader this thread is polling.
    static CURRENT: RefCell<Option<Arc<LoadChain>>> = const { RefCell::new(None) };
}

fn current() -> Option<Arc<LoadChain>> {
    // The access fails only while the thread is torn down, when it polls no loaders.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

fn replace_current(chain: Option<Arc<LoadChain>>) -> Option<Arc<LoadChain>> {
    CURRENT.try_with(|current| current.replace(chain)).ok().flatten()
}

impl LoadChain {
    /// Extends the current chain by a load of `key`. `None` if the chain already loads that key.
    pub(crate) fn extend(cache: usize, key: &Arc<str>) -> Option<Arc<Self>> {
        let parent = current();
        let mut above = parent.as_ref();
        while let Some(load) = above.filter(|load| !load.ended.load(Ordering::Relaxed)) {
            if load.cache == cache && load.key == *key {
                return None;
            }
            above = load.parent.as_ref();
        }
        let id = FlightId(NEXT.fetch_add(1, Ordering::Relaxed));
        let depth = parent.as_ref().map_or(0, |parent| parent.depth + 1);
        let (key, ended) = (Arc::clone(key), AtomicBool::new(false));
        Some(Arc::new(Self { id, depth, cache, key, parent, ended }))
    }
}

impl Drop for LoadChain {
    /// Drops the parents in a loop, because a chain can be longer than the stack is deep.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some(mut load) = above.and_then(Arc::into_inner) {
            above = load.parent.take();
        }
    }
}

/// Runs the loader of `chain`: loads that the loader starts extend `chain`.
pub(crate) async fn scope<F: Future>(chain: Arc<LoadChain>, loader: F) -> F::Output {
    let _end = DropGuard::new(|| chain.ended.store(true, Ordering::Relaxed));
    let mut loader = pin!(loader);
    std::future::poll_fn(|context| {
        let above = replace_current(Some(Arc::clone(&chain)));
        let _restore = DropGuard::new(|| drop(replace_current(above)));
        loader.as_mut().poll(context)
    })
    .await
}

/// For each waiting load, the number of its waits for each flight.
#[derive(Debug, Default)]
struct Graph(HashMap<FlightId, HashMap<FlightId, usize>>);

/// An edge of the wait-for graph, removed on drop.
#[derive(Debug)]
pub(crate) struct WaitEdge(Option<(FlightId, FlightId)>);

impl WaitEdge {
    /// Records that the current loader, if any, waits for `target`. `None` if that wait would close
    /// a cycle, and so never end.
    pub(crate) fn add(target: FlightId) -> Option<Self> {
        let Some(waiter) = current().map(|load| load.id) else { return Some(Self(None)) };
        let mut waits = WAITS.lock();
        if waits.reaches(target, waiter) {
            return None;
        }
        *waits.0.entry(waiter).or_default().entry(target).or_default() += 1;
        Some(Self(Some((waiter, target))))
    }
}

impl Drop for WaitEdge {
    fn drop(&mut self) {
        let Some((waiter, target)) = self.0 else { return };
        let mut waits = WAITS.lock();
        if let Some(targets) = waits.0.get_mut(&waiter) {
            if let Some(count) = targets.get_mut(&target) {
                *count -= 1;
                if *count == 0 {
                    targets.remove(&target);
                }
            }
            if targets.is_empty() {
                waits.0.remove(&waiter);
            }
        }
    }
}

impl Graph {
    fn reaches(&self, from: FlightId, to: FlightId) -> bool {
        let mut visited = HashSet::from([from]);
        let mut ahead = vec![from];
        while let Some(id) = ahead.pop() {
            if id == to {
                return true;
            }
            let next = self.0.get(&id).into_iter().flat_map(HashMap::keys);
            ahead.extend(next.filter(|next| visited.insert(**next)));
        }
        false
    }
}
