//! One flight: callers wait on it, its ticket lands it once.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::sync::{AtomicUsize, Mutex, Ordering};

pub(crate) struct Flight<C, T> {
    /// What the leader knew when it began. Written once, read by all who wait.
    pub(crate) about: C,
    /// The number of its ticket.
    pub(crate) ticket: u64,
    state: Mutex<State<T>>,
    /// Callers other than the leader. Raised by the table when one joins, lowered when a
    /// [`Follower`](super::Follower) is dropped.
    pub(crate) followers: AtomicUsize,
}

enum State<T> {
    Flying(Wakers),
    /// `None`: the load was dropped before it ended.
    Landed(Option<T>),
}

/// A slot per waiting caller, so that a caller that goes away leaves at once and for nothing.
#[derive(Default)]
struct Wakers {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl<C, T> Flight<C, T> {
    pub(crate) fn new(about: C, ticket: u64) -> Self {
        Self {
            about,
            ticket,
            state: Mutex::new(State::Flying(Wakers::default())),
            followers: AtomicUsize::new(0),
        }
    }

    /// Ends the flight and wakes everyone. Only the first call counts.
    pub(crate) fn land(&self, result: Option<T>) {
        let mut state = self.state.lock();
        let wakers = match &mut *state {
            State::Flying(wakers) => std::mem::take(wakers),
            // The result of a second call is dropped after the lock, being the user's.
            State::Landed(_) => return drop(state),
        };
        *state = State::Landed(result);
        drop(state);
        wakers.slots.into_iter().flatten().for_each(Waker::wake);
    }

    /// Lets everyone who waits look up, though there is no landing yet.
    pub(crate) fn nudge(&self) {
        let mut wakers = Vec::new();
        if let State::Flying(waiting) = &mut *self.state.lock() {
            wakers.extend(waiting.slots.iter_mut().filter_map(Option::take));
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn follower_count(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }
}

impl<C, T: Clone> Flight<C, T> {
    /// Waits for the landing; `None` if the load was dropped before it ended.
    ///
    /// Cancel safe: a caller that stops waiting leaves nothing behind.
    pub(crate) fn wait(&self) -> Wait<'_, C, T> {
        Wait { flight: self, slot: None }
    }

    /// The result, if it is there already. Outer `None`: still flying.
    pub(crate) fn landed(&self) -> Option<Option<T>> {
        match &*self.state.lock() {
            State::Landed(result) => Some(result.clone()),
            State::Flying(_) => None,
        }
    }
}

pub(crate) struct Wait<'a, C, T> {
    flight: &'a Flight<C, T>,
    slot: Option<usize>,
}

impl<C, T: Clone> Future for Wait<'_, C, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // Wakers are foreign code: cloned before the lock, dropped after it.
        let waker = context.waker().clone();
        let mut state = self.flight.state.lock();
        let wakers = match &mut *state {
            State::Landed(result) => return Poll::Ready(result.clone()),
            State::Flying(wakers) => wakers,
        };
        let slot = self.slot.unwrap_or_else(|| wakers.take_slot());
        let old = wakers.slots.get_mut(slot).and_then(|slot| slot.replace(waker));
        drop(state);
        drop(old);
        self.slot = Some(slot);
        Poll::Pending
    }
}

impl<C, T> Drop for Wait<'_, C, T> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut state = self.flight.state.lock();
        if let State::Flying(wakers) = &mut *state {
            let waker = wakers.slots.get_mut(slot).and_then(Option::take);
            wakers.free.push(slot);
            drop(state);
            drop(waker);
        }
    }
}

impl Wakers {
    fn take_slot(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        })
    }
}
