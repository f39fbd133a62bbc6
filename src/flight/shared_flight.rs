//! A flight, its followers, and the next flight, which callers wait for.

use std::{future::poll_fn, pin::pin, task::Poll};

use super::shared_result::{SharedResult, Wait};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};

/// One load of a key: the leader completes it once, all callers of the flight wait for it.
pub(crate) struct Flight<C, T> {
    /// What the leader knew at the start.
    pub(crate) context: C,
    /// The number of the leader's ticket.
    pub(crate) ticket: u64,
    /// The time of the start, in milliseconds.
    pub(crate) began: u64,
    pub(super) result: SharedResult<T>,
    /// Callers other than the leader.
    followers: AtomicUsize,
    /// The followers whose call began after the flight.
    late_followers: AtomicUsize,
    /// Whether a watch has found the flight too old to be joined.
    is_too_old: AtomicBool,
}

/// A caller's place on the flight of another caller.
pub(crate) struct Follower<C, T> {
    pub(crate) flight: Arc<Flight<C, T>>,
    /// The call began after the flight. So an invalidation that ended before the call may have
    /// come after the load had begun.
    pub(crate) is_late: bool,
}

/// The flight that begins when one of the two running loads of the key ends: callers wait for it
/// that can join neither of them.
pub(crate) struct NextFlight<C, T> {
    begun: SharedResult<Arc<Flight<C, T>>>,
    /// How often a load has ended since: each time, the first waiter that asks again may lead.
    turns: AtomicUsize,
    pub(super) waiters: AtomicUsize,
}

impl<C, T> Flight<C, T> {
    pub(super) fn new(context: C, ticket: u64, began: u64) -> Self {
        Self {
            context,
            ticket,
            began,
            result: SharedResult::new(),
            followers: AtomicUsize::new(0),
            late_followers: AtomicUsize::new(0),
            is_too_old: AtomicBool::new(false),
        }
    }

    /// Tells the callers that wait for this flight alone to look for a later one as well.
    pub(crate) fn set_too_old(&self) {
        // The callers see it once `wake_waiters` has had the lock under which they register.
        self.is_too_old.store(true, Ordering::Relaxed);
        self.wake_waiters();
    }

    /// Wakes all waiting callers without a result, because the flight's context has changed.
    pub(crate) fn wake_waiters(&self) {
        self.result.wake_waiters();
    }

    /// Whether an invalidation may concern a follower that joined after it: then the leader has to
    /// find out whether the load was superseded. Final once the flight is closed to joiners.
    pub(crate) fn has_late_followers(&self) -> bool {
        self.late_followers.load(Ordering::Relaxed) > 0
    }

    /// The number of callers that wait, other than the leader.
    pub(crate) fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    pub(crate) fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.began)
    }
}

impl<C, T: Clone> Flight<C, T> {
    /// Waits for the result; `None` if the load was dropped before it ended.
    pub(crate) fn wait(self: Arc<Self>) -> Wait<Self, T> {
        Wait::new(self)
    }

    /// Waits for the result, and for no later flight. `None`: the flight is too old.
    pub(crate) async fn wait_alone(self: Arc<Self>) -> Option<Option<T>> {
        let mut result = pin!(Arc::clone(&self).wait());
        poll_fn(|context| match result.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if self.is_too_old.load(Ordering::Relaxed) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The result, if the flight is done. The outer `None` means that it is still pending.
    pub(crate) fn try_result(&self) -> Option<Option<T>> {
        self.result.try_result()
    }
}

impl<C, T> AsRef<SharedResult<T>> for Flight<C, T> {
    fn as_ref(&self) -> &SharedResult<T> {
        &self.result
    }
}

impl<C, T> Follower<C, T> {
    /// `None`: the flight has `max_followers` already.
    pub(super) fn join(
        flight: &Arc<Flight<C, T>>,
        is_late: bool,
        max_followers: usize,
    ) -> Option<Self> {
        if flight.followers.load(Ordering::Relaxed) >= max_followers {
            return None;
        }
        Some(Self::new(Arc::clone(flight), is_late))
    }

    fn new(flight: Arc<Flight<C, T>>, is_late: bool) -> Self {
        flight.followers.fetch_add(1, Ordering::Relaxed);
        flight.late_followers.fetch_add(usize::from(is_late), Ordering::Relaxed);
        Self { flight, is_late }
    }
}

impl<C, T> Drop for Follower<C, T> {
    fn drop(&mut self) {
        self.flight.followers.fetch_sub(1, Ordering::Relaxed);
        self.flight.late_followers.fetch_sub(usize::from(self.is_late), Ordering::Relaxed);
    }
}

impl<C, T> NextFlight<C, T> {
    pub(super) fn new() -> Self {
        Self {
            begun: SharedResult::new(),
            turns: AtomicUsize::new(0),
            waiters: AtomicUsize::new(0),
        }
    }

    pub(super) fn turns(&self) -> usize {
        self.turns.load(Ordering::Relaxed)
    }

    /// Wakes all waiters, which ask again; the first of them leads. The table wakes them all,
    /// because a waiter whose task does not poll it must not keep the others waiting.
    pub(super) fn take_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.begun.wake_waiters();
    }

    /// Hands the flight to all waiters.
    pub(super) fn begin(&self, flight: Arc<Flight<C, T>>) {
        self.begun.complete(Some(flight));
    }

    /// Waits for the flight. `None`: it is time to ask again, because a load has ended since
    /// `turns` was read.
    pub(super) async fn wait(self: &Arc<Self>, turns: usize) -> Option<Follower<C, T>> {
        let mut begun = pin!(Wait::new(Arc::clone(self)));
        poll_fn(|context| match begun.as_mut().poll(context) {
            Poll::Pending if self.turns() == turns => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(flight) => Poll::Ready(flight.map(|flight| Follower::new(flight, false))),
        })
        .await
    }
}

impl<C, T> AsRef<SharedResult<Arc<Flight<C, T>>>> for NextFlight<C, T> {
    fn as_ref(&self) -> &SharedResult<Arc<Flight<C, T>>> {
        &self.begun
    }
}
