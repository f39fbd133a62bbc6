//! Loaders that wait for each other, found before they wait for ever.
//!
//! A loader may ask the cache for other keys. If it asks for the key it is loading itself, or a
//! loader that it waits for does, nobody would ever land. Two things are known, and used:
//!
//! - the *chain* of loads that this one was begun by, each from inside the one before: a key that
//!   is among them is not loaded again, whether it could be joined or not;
//! - the *graph* of flights that loaders wait for: a wait that would close a circle is an error.
//!   It finds loaders begun side by side that join each other.
//!
//! Waits made outside of loaders, nearly all, touch neither. A loader that spawns a task and lets
//! that ask is not seen: which load a task works for is not known to anyone.

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

/// A flight as the graph knows it. Unique in the process: loaders may ask several caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node(u64);

/// A load, and the loads it was begun by.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) node: Node,
    /// How many loads are above this one.
    pub(crate) depth: usize,
    /// Which cache, and which key of it.
    cache: usize,
    key: Arc<str>,
    parent: Option<Arc<Self>>,
    /// Its loader has returned or was dropped: it waits for nothing any more.
    ended: AtomicBool,
}

static NEXT: AtomicU64 = AtomicU64::new(1);
static WAITS: LazyLock<Mutex<Graph>> = LazyLock::new(Mutex::default);

thread_local! {
    /// The load whose loader is being polled on this thread.
    static CURRENT: RefCell<Option<Arc<Link>>> = const { RefCell::new(None) };
}

fn current() -> Option<Arc<Link>> {
    // A thread that is being torn down polls no loaders.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

impl Node {
    pub(crate) fn new() -> Self {
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Link {
    /// A load of this key, begun here. `None` if a load that it is begun by is of the same key.
    pub(crate) fn to(cache: usize, key: &Arc<str>) -> Option<Arc<Self>> {
        let parent = current();
        let mut above = parent.as_ref();
        while let Some(link) = above.filter(|link| !link.ended.load(Ordering::Relaxed)) {
            if link.cache == cache && link.key == *key {
                return None;
            }
            above = link.parent.as_ref();
        }
        let depth = parent.as_ref().map_or(0, |parent| parent.depth + 1);
        let (node, key, ended) = (Node::new(), Arc::clone(key), AtomicBool::new(false));
        Some(Arc::new(Self { node, depth, cache, key, parent, ended }))
    }
}

impl Drop for Link {
    /// One after the other: chains can be longer than the stack is deep.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some(mut link) = above.and_then(Arc::into_inner) {
            above = link.parent.take();
        }
    }
}

/// Runs the loader of `link`: what it asks for, it asks as that load.
pub(crate) async fn within<F: Future>(link: Arc<Link>, loader: F) -> F::Output {
    struct Restore(Option<Arc<Link>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let above = self.0.take();
            let _ = CURRENT.try_with(|current| current.replace(above));
        }
    }
    struct End(Arc<Link>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.ended.store(true, Ordering::Relaxed);
        }
    }
    let end = End(link);
    let link = &end.0;
    let mut loader = pin!(loader);
    std::future::poll_fn(|context| {
        let mine = Some(Arc::clone(link));
        let above = CURRENT.try_with(|current| current.replace(mine)).ok().flatten();
        let _restore = Restore(above);
        loader.as_mut().poll(context)
    })
    .await
}

/// Who waits for whom, and how often at a time.
#[derive(Debug, Default)]
struct Graph(HashMap<Node, HashMap<Node, usize>>);

/// A wait by a loader, while it lasts.
#[derive(Debug)]
pub(crate) struct Waiting(Option<(Node, Node)>);

impl Waiting {
    /// Notes that the loader being polled, if any, waits for `target`. `None` if that would never
    /// end.
    pub(crate) fn on(target: Node) -> Option<Self> {
        let Some(waiter) = current().map(|link| link.node) else { return Some(Self(None)) };
        let mut waits = WAITS.lock();
        if waits.reaches(target, waiter) {
            return None;
        }
        *waits.0.entry(waiter).or_default().entry(target).or_default() += 1;
        Some(Self(Some((waiter, target))))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some((waiter, target)) = self.0 else { return };
        let mut waits = WAITS.lock();
        if let Some(targets) = waits.0.get_mut(&waiter) {
            if let Some(times) = targets.get_mut(&target) {
                *times -= 1;
                if *times == 0 {
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
    fn reaches(&self, from: Node, to: Node) -> bool {
        let mut seen = HashSet::from([from]);
        let mut ahead = vec![from];
        while let Some(node) = ahead.pop() {
            if node == to {
                return true;
            }
            let next = self.0.get(&node).into_iter().flat_map(HashMap::keys);
            ahead.extend(next.filter(|next| seen.insert(**next)));
        }
        false
    }
}
