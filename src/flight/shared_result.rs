//! The shared result of one flight: the leader completes it once, all callers wait for it.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::sync::{AtomicUsize, Mutex};

pub(crate) struct Flight<C, T> {
    /// What the leader knew at the start.
    pub(crate) context: C,
    /// The number of the leader's ticket.
    pub(crate) ticket: u64,
    /// The time of the start, in milliseconds.
    pub(crate) began: u64,
    state: Mutex<State<T>>,
    /// Callers other than the leader. The table increments it when a caller joins;
    /// [`Follower`](super::Follower) decrements it on drop.
    pub(crate) followers: AtomicUsize,
}

enum State<T> {
    Pending(Wakers),
    /// `None`: the load was dropped before it ended.
    Done(Option<T>),
}

/// One slot per waiting caller, so that a caller that stops waiting leaves in constant time.
#[derive(Default)]
struct Wakers {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl<C, T> Flight<C, T> {
    pub(crate) fn new(context: C, ticket: u64, began: u64) -> Self {
        Self {
            context,
            ticket,
            began,
            state: Mutex::new(State::Pending(Wakers::default())),
            followers: AtomicUsize::new(0),
        }
    }

    /// Sets the result and wakes all waiting callers. Only the first call counts.
    pub(crate) fn complete(&self, result: Option<T>) {
        let mut state = self.state.lock();
        let wakers = match &mut *state {
            State::Pending(wakers) => std::mem::take(wakers),
            // The second result may hold user values: unlock before it is dropped.
            State::Done(_) => return drop(state),
        };
        *state = State::Done(result);
        drop(state);
        wakers.slots.into_iter().flatten().for_each(Waker::wake);
    }

    /// Wakes all waiting callers without a result, because the flight's context has changed.
    pub(crate) fn wake_waiters(&self) {
        let mut wakers = Vec::new();
        if let State::Pending(waiting) = &mut *self.state.lock() {
            wakers.extend(waiting.slots.iter_mut().filter_map(Option::take));
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<C, T: Clone> Flight<C, T> {
    /// Waits for the result; `None` if the load was dropped before it ended.
    ///
    /// Cancel safe: a caller that stops waiting leaves nothing behind.
    pub(crate) fn wait(&self) -> Wait<'_, C, T> {
        Wait { flight: self, slot: None }
    }

    /// The result, if the flight is done. The outer `None` means that it is still pending.
    pub(crate) fn try_result(&self) -> Option<Option<T>> {
        match &*self.state.lock() {
            State::Done(result) => Some(result.clone()),
            State::Pending(_) => None,
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
        // A waker runs foreign code: clone it before the lock is taken, drop it after the unlock.
        let waker = context.waker().clone();
        let mut state = self.flight.state.lock();
        let wakers = match &mut *state {
            State::Done(result) => return Poll::Ready(result.clone()),
            State::Pending(wakers) => wakers,
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
        if let State::Pending(wakers) = &mut *state {
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
