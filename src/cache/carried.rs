//! The look at the shared level, in the hands of the caller who began it.
//!
//! A look is short, and mostly all there is of a load. As a task of its own it costs the way there
//! and back, and the waking of a thread that sleeps: more than the look itself. So the leader polls
//! it, for as long as that is nobody else's business. Nobody knows whether a caller is polled
//! again: so when another joins, when the leader goes away, or when there is something to load, it
//! goes on as a task.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering, fence},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::running::{Running, Token};

/// What is left of a load when the shared level does not have the value.
pub(super) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Gives what is left to do, if anything is.
pub(super) type Look = Pin<Box<dyn Future<Output = Option<Rest>> + Send>>;

/// The place of a look, while its leader has it.
#[derive(Default)]
pub(super) struct Carried {
    /// Held while the look is polled, which may run code of the user's: others only try it.
    look: Mutex<Option<Carry>>,
    is_wanted: AtomicBool,
}

struct Carry {
    look: Look,
    running: Token,
    runtime: Handle,
    /// To be told that it has nothing to carry any more.
    leader: Option<Waker>,
}

impl Carry {
    fn go_on(self) {
        let Self { look, running, runtime, leader } = self;
        runtime.spawn(running.run(whole(look)));
        if let Some(leader) = leader {
            leader.wake();
        }
    }
}

/// A look and whatever is left to do after it.
pub(super) async fn whole(look: Look) {
    if let Some(rest) = look.await {
        rest.await;
    }
}

impl Carried {
    pub(super) fn take_up(&self, look: Look, running: Token, runtime: Handle) {
        *self.look.lock() = Some(Carry { look, running, runtime, leader: None });
        self.heed();
    }

    /// To be called by who cannot rely on the leader: from now on it goes on by itself.
    pub(super) fn hand_over(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
        // Either the lock is free for us, or who has it sees that when it has let go.
        fence(Ordering::SeqCst);
        let carry = self.look.try_lock().and_then(|mut look| look.take());
        if let Some(carry) = carry {
            carry.go_on();
        }
    }

    /// To be called after the lock was let go.
    fn heed(&self) {
        fence(Ordering::SeqCst);
        if self.is_wanted.load(Ordering::Relaxed) {
            self.hand_over();
        }
    }

    /// Carries the look to its end, or until it is somebody else's. Dropped, it leaves it where it
    /// is: to be handed over.
    pub(super) async fn carry(&self, running: &Running) {
        running.unless_stopped(poll_fn(|context| self.poll(context))).await;
        let stopped = self.look.lock().take();
        drop(stopped);
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut place = self.look.lock();
        let Some(carry) = &mut *place else { return Poll::Ready(()) };
        // What panics ends a task, and not the caller.
        let polled = catch_unwind(AssertUnwindSafe(|| carry.look.as_mut().poll(context)));
        let rest = match polled {
            Ok(Poll::Pending) => {
                let leader = context.waker();
                if !carry.leader.as_ref().is_some_and(|it| it.will_wake(leader)) {
                    carry.leader = Some(leader.clone());
                }
                drop(place);
                self.heed();
                return Poll::Pending;
            }
            Ok(Poll::Ready(rest)) => rest,
            Err(_) => None,
        };
        let ended = place.take();
        drop(place);
        if let (Some(Carry { running, runtime, .. }), Some(mut rest)) = (ended, rest) {
            // As every load: one that is ready at once costs no task.
            let mut context = Context::from_waker(Waker::noop());
            if rest.as_mut().poll(&mut context).is_pending() {
                runtime.spawn(running.run(rest));
            }
        }
        Poll::Ready(())
    }
}

/// Held by the leader: when it goes away, the look goes on without it.
pub(super) struct Leading<'a>(pub(super) &'a Carried);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.hand_over();
    }
}
