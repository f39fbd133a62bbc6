//! Empties queues of the client in the task that fills them.
//!
//! The client queues the messages of a subscription. The queue is bounded in their number but not
//! in bytes, and the client drops further messages without a word to the subscription. A task of
//! ours that empties the queue would run only when the client's task has read all that the socket
//! holds, or has read 128 times: by then, tens of megabytes wait. So here the work is done in the
//! call of `wake`: the client wakes us when it has queued a message, and finds its queue empty
//! again.
//!
//! Alternatives considered: a small `subscription_capacity`, which turns each burst of small
//! messages into a gap; a thread, which delays each message by a switch of threads.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::unconstrained};

/// Work that never blocks and returns at once when it is pending. `P` polls it.
pub(crate) struct Inline<P> {
    poll: Mutex<P>,
    waker: Waker,
    /// The wakes that are not yet served. The caller that raises it from zero serves them all.
    wakes: AtomicUsize,
    is_ready: Notify,
}

/// Wakes the work, if it still exists: the queues that keep the waker belong to the work.
struct Alarm<P>(Weak<Inline<P>>);

impl<P: FnMut(&mut Context<'_>) -> Poll<()> + Send + 'static> Inline<P> {
    /// Does the work until it is ready, or the returned future is dropped.
    pub(crate) async fn run(poll: P) {
        let inline = Arc::new_cyclic(|weak| Self {
            poll: Mutex::new(poll),
            waker: Waker::from(Arc::new(Alarm(Weak::clone(weak)))),
            wakes: AtomicUsize::new(0),
            is_ready: Notify::new(),
        });
        inline.work();
        inline.is_ready.notified().await;
    }

    fn work(&self) {
        let mut serving = 1;
        if self.wakes.fetch_add(serving, Ordering::AcqRel) > 0 {
            return;
        }
        loop {
            let mut poll = self.poll.lock();
            // The budget of tokio is that of the task that wakes us.
            let work = pin!(unconstrained(poll_fn(|context| poll(context))));
            if work.poll(&mut Context::from_waker(&self.waker)).is_ready() {
                // No wake is served any more.
                return self.is_ready.notify_one();
            }
            let wakes = self.wakes.fetch_sub(serving, Ordering::AcqRel);
            if wakes == serving {
                return;
            }
            serving = wakes - serving;
        }
    }
}

impl<P: FnMut(&mut Context<'_>) -> Poll<()> + Send + 'static> Wake for Alarm<P> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(inline) = self.0.upgrade() {
            inline.work();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_sender_finds_its_queue_empty_again() {
        let (sender, mut receiver) = mpsc::channel::<u64>(1);
        let sum = Arc::new(AtomicU64::new(0));
        let added = Arc::clone(&sum);
        let running = tokio::spawn(Inline::run(move |context| {
            while let Poll::Ready(number) = receiver.poll_recv(context) {
                let Some(number) = number else { return Poll::Ready(()) };
                added.fetch_add(number, Ordering::Relaxed);
            }
            Poll::Pending
        }));
        sender.send(0).await.unwrap();
        sender.reserve().await.unwrap();
        // More than the budget of a task, without a pause.
        for number in 1..=1_000 {
            sender.try_send(number).unwrap();
        }
        assert_eq!(sum.load(Ordering::Relaxed), 500_500);
        drop(sender);
        running.await.unwrap();
    }
}
