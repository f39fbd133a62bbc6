//! Loaders that wait for each other, found before they wait for ever.
//!
//! A loader may ask the cache for other keys. If it asks, directly or through the loaders it
//! waits for, for the key it is loading itself, nobody would ever land. So each wait made from
//! inside a loader is an edge in a graph of flights, and a wait that would close a circle is an
//! error instead. Waits made outside of loaders, nearly all, never come here.
//!
//! A loader that spawns a task and lets that ask is not seen: which load a task works for is not
//! known to anyone.

use std::{
    cell::Cell,
    collections::HashMap,
    pin::pin,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// A flight as the graph knows it. Unique in the process: loaders may ask several caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node(u64);

static NEXT: AtomicU64 = AtomicU64::new(1);
static WAITS: LazyLock<Mutex<HashMap<Node, Vec<Node>>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// The flight whose loader is being polled on this thread.
    static CURRENT: Cell<Option<Node>> = const { Cell::new(None) };
}

impl Node {
    pub(crate) fn new() -> Self {
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Runs the loader of `node`: what it asks for, it asks as `node`.
pub(crate) async fn within<F: Future>(node: Node, loader: F) -> F::Output {
    struct Restore(Option<Node>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let mut loader = pin!(loader);
    std::future::poll_fn(|context| {
        let _restore = Restore(CURRENT.replace(Some(node)));
        loader.as_mut().poll(context)
    })
    .await
}

/// A wait by a loader, while it lasts.
#[derive(Debug)]
pub(crate) struct Waiting(Option<(Node, Node)>);

impl Waiting {
    /// Notes that the loader being polled, if any, waits for `target`. `None` if that would never
    /// end.
    pub(crate) fn on(target: Node) -> Option<Self> {
        let Some(waiter) = CURRENT.get() else { return Some(Self(None)) };
        let mut waits = WAITS.lock();
        if reaches(&waits, target, waiter) {
            return None;
        }
        waits.entry(waiter).or_default().push(target);
        Some(Self(Some((waiter, target))))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some((waiter, target)) = self.0 else { return };
        let mut waits = WAITS.lock();
        if let Some(targets) = waits.get_mut(&waiter) {
            if let Some(at) = targets.iter().position(|&node| node == target) {
                targets.swap_remove(at);
            }
            if targets.is_empty() {
                waits.remove(&waiter);
            }
        }
    }
}

fn reaches(waits: &HashMap<Node, Vec<Node>>, from: Node, to: Node) -> bool {
    let mut seen = vec![from];
    let mut at = 0;
    while let Some(&node) = seen.get(at) {
        if node == to {
            return true;
        }
        for &next in waits.get(&node).into_iter().flatten() {
            if !seen.contains(&next) {
                seen.push(next);
            }
        }
        at += 1;
    }
    false
}
