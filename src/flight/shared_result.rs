//! A result that one writer sets once and many callers wait for.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::sync::{Arc, Mutex};

pub(crate) struct SharedResult<T>(Mutex<State<T>>);

enum State<T> {
    Pending(Wakers),
    /// `None`: the writer was dropped before it had a result.
    Done(Option<T>),
}

/// One slot per waiting caller, so that a caller that stops waiting leaves in constant time.
#[derive(Default)]
struct Wakers {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl<T> SharedResult<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Pending(Wakers::default())))
    }

    /// Sets the result and wakes all waiting callers. Only the first call counts.
    pub(crate) fn complete(&self, result: Option<T>) {
        let mut state = self.0.lock();
        let wakers = match &mut *state {
            State::Pending(wakers) => std::mem::take(wakers),
            // The second result may hold user values: unlock before it is dropped.
            State::Done(_) => return drop(state),
        };
        *state = State::Done(result);
        drop(state);
        if !wakers.slots.is_empty() {
            wakers.slots.into_iter().flatten().for_each(Waker::wake);
        }
    }

    /// Wakes all waiting callers without a result.
    pub(crate) fn wake_waiters(&self) {
        let mut wakers = Vec::new();
        if let State::Pending(waiting) = &mut *self.0.lock() {
            wakers.extend(waiting.slots.iter_mut().filter_map(Option::take));
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T: Clone> SharedResult<T> {
    /// The result, if there is one. The outer `None` means that it is still pending.
    pub(crate) fn try_result(&self) -> Option<Option<T>> {
        match &*self.0.lock() {
            State::Done(result) => Some(result.clone()),
            State::Pending(_) => None,
        }
    }
}

/// A caller's wait for the result that `O` owns. `None`: the writer was dropped before it had one.
///
/// Cancel safe: a caller that stops waiting leaves nothing behind.
pub(crate) struct Wait<O: AsRef<SharedResult<T>>, T> {
    owner: Arc<O>,
    slot: Option<usize>,
    result: std::marker::PhantomData<fn() -> T>,
}

impl<O: AsRef<SharedResult<T>>, T> Wait<O, T> {
    pub(crate) fn new(owner: Arc<O>) -> Self {
        Self { owner, slot: None, result: std::marker::PhantomData }
    }
}

impl<O: AsRef<SharedResult<T>>, T: Clone> Future for Wait<O, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // A waker runs foreign code: clone it before the lock is taken, drop it after the unlock.
        let waker = context.waker().clone();
        let owner = Arc::clone(&self.owner);
        let mut state = (*owner).as_ref().0.lock();
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

impl<O: AsRef<SharedResult<T>>, T> Drop for Wait<O, T> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut state = (*self.owner).as_ref().0.lock();
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
