//! Queue of the requests that wait for a batch, and the rules by which a batch is full.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::request::{BatchRequest, MAX_BATCH_BYTES};
use crate::error::BoxError;

/// Maximum number of requests in a batch. All replies to a batch arrive together, so the first
/// caller of a batch waits for the last.
const MAX_BATCH: usize = 64;

/// Maximum size of a small value.
const SMALL_VALUE: usize = 4 * 1024;

/// With this number of batches in flight, a batch that is not full waits for the next reply.
/// Replies arrive one after the other, so the wait is a fraction of a round trip.
const MAX_IN_FLIGHT: usize = 4;

/// A request whose caller waits for a batch.
pub(super) struct Pending<R: BatchRequest> {
    pub(super) request: R,
    pub(super) tx: oneshot::Sender<Reply<R>>,
}

/// Message from the batch worker to a caller.
pub(super) enum Reply<R: BatchRequest> {
    Done(R::Reply),
    Failed(BoxError),
    /// The caller must send the request itself. `true`: Redis may have executed it already.
    SendDirect(R, bool),
}

/// The pending requests of one type.
pub(super) struct Queue<R: BatchRequest> {
    pub(super) state: Mutex<State<R>>,
    /// Notified by a reply, and by a caller whose request fills the batch. The worker waits.
    pub(super) changed: Notify,
}

pub(super) struct State<R: BatchRequest> {
    /// Requests in flight, each direct or a batch.
    pub(super) in_flight: usize,
    pub(super) pending: Vec<Pending<R>>,
    /// Request bytes of `pending`, or more: some of its callers may have given up.
    bytes: usize,
    /// A worker exists that will send `pending`.
    pub(super) has_worker: bool,
    /// Maximum number of requests in the next batch.
    max_batch: usize,
    /// All values in the previous reply were small.
    values_small: bool,
}

impl<R: BatchRequest> State<R> {
    fn count_bytes(&mut self) {
        self.bytes = self.pending.iter().map(|pending| pending.request.request_bytes()).sum();
    }

    pub(super) fn push(&mut self, pending: Pending<R>) {
        self.bytes += pending.request.request_bytes();
        self.pending.push(pending);
    }

    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= self.max_batch || self.bytes >= MAX_BATCH_BYTES
    }
}

impl<R: BatchRequest> Default for Queue<R> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                in_flight: 0,
                pending: Vec::new(),
                bytes: 0,
                has_worker: false,
                max_batch: MAX_BATCH,
                values_small: false,
            }),
            changed: Notify::new(),
        }
    }
}

impl<R: BatchRequest> Queue<R> {
    pub(super) fn values_small(&self) -> bool {
        self.state.lock().values_small
    }

    /// Takes the next batch and counts it as in flight. `None`: the worker must wait, because the
    /// batch is not full and enough others are in flight.
    pub(super) fn next_batch(self: &Arc<Self>) -> Option<(Batch<R>, InFlight<R>)> {
        let mut state = self.state.lock();
        // Callers that have given up meanwhile.
        state.pending.retain(|pending| !pending.tx.is_closed());
        state.count_bytes();
        let may_wait = !state.is_full() && !state.pending.is_empty();
        if may_wait && state.in_flight >= MAX_IN_FLIGHT {
            return None;
        }
        state.in_flight += 1;
        let mut bytes = 0;
        let fits = |(at, pending): &(usize, &Pending<R>)| {
            bytes += pending.request.request_bytes();
            *at == 0 || bytes <= MAX_BATCH_BYTES
        };
        let count = state.pending.iter().enumerate().take(state.max_batch).take_while(fits).count();
        let pending: Vec<_> = state.pending.drain(..count).collect();
        state.count_bytes();
        state.has_worker = !state.pending.is_empty();
        let batch = Batch { pending, may_have_executed: false, is_last: !state.has_worker };
        drop(state);
        Some((batch, InFlight(Arc::clone(self))))
    }

    /// Adapts the size of the next batches to the values in a reply.
    pub(super) fn adapt(&self, replies: &[R::Reply]) {
        let (mut sum, mut largest) = (0, 0);
        for bytes in replies.iter().map(R::reply_bytes) {
            (sum, largest) = (sum + bytes, largest.max(bytes));
        }
        let average = (sum / replies.len().max(1)).max(1);
        let mut state = self.state.lock();
        state.max_batch = (MAX_BATCH_BYTES / average).clamp(1, MAX_BATCH);
        state.values_small = largest <= SMALL_VALUE;
    }

    /// Ends the worker early, and returns the requests that it leaves.
    pub(super) fn abandon(&self) -> Batch<R> {
        let mut state = self.state.lock();
        state.has_worker = false;
        let pending = std::mem::take(&mut state.pending);
        Batch { pending, may_have_executed: false, is_last: true }
    }
}

/// Counts a request, direct or a batch, as in flight until it is dropped.
pub(super) struct InFlight<R: BatchRequest>(Arc<Queue<R>>);

impl<R: BatchRequest> InFlight<R> {
    /// For a caller that holds the lock of the queue and has counted the request.
    pub(super) fn counted(queue: &Arc<Queue<R>>) -> Self {
        Self(Arc::clone(queue))
    }
}

impl<R: BatchRequest> Drop for InFlight<R> {
    fn drop(&mut self) {
        self.0.state.lock().in_flight -= 1;
        self.0.changed.notify_one();
    }
}

/// Requests whose callers wait for one task. Dropped without a reply, as when the runtime of that
/// task shuts down, it tells each caller to send its request itself.
pub(super) struct Batch<R: BatchRequest> {
    pub(super) pending: Vec<Pending<R>>,
    /// The batch was sent, so Redis may have executed it.
    pub(super) may_have_executed: bool,
    /// No requests are left in the queue.
    pub(super) is_last: bool,
}

impl<R: BatchRequest> Drop for Batch<R> {
    fn drop(&mut self) {
        for Pending { request, tx } in self.pending.drain(..) {
            // A caller that has given up needs no reply.
            let _ = tx.send(Reply::SendDirect(request, self.may_have_executed));
        }
    }
}
