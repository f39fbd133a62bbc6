//! Request coalescing: requests of one type that are sent at the same time share a round trip.
//!
//! The Redis client has one task per connection, which writes each request to the socket by
//! itself. With many concurrent callers those writes are most of the cost of a hit, for the client
//! and for the server. So a [`Batcher`] decides per request:
//!
//! | requests of this type in flight | the new request |
//! | --- | --- |
//! | none | is sent immediately by its caller |
//! | at least one | is queued for one scheduler tick, so that others can join its batch |
//!
//! Batches are sent by a task on the runtime of the connection, whatever runtimes the callers are
//! on. The task ends when the queue is empty. A batch is cancelled once all its callers have
//! given up.
//!
//! Alternatives considered:
//!
//! - Leave `TCP_NODELAY` off, so that the kernel collects requests. Refused: it collects for a
//!   whole round trip, which is long on a network.
//! - Let one of the callers send for the others. Refused: it may never be polled again.

mod queue;
pub(crate) mod request;
mod worker;

use std::sync::Arc;

use tokio::sync::oneshot;

use self::{
    queue::{InFlight, Pending, Queue, Reply},
    request::{BatchRequest, MISSING_REPLY, decode_batch},
    worker::BatchWorker,
};
use super::send::RequestSender;
use crate::error::BoxError;

/// Sends requests of one type, in batches where callers are concurrent.
pub(crate) struct Batcher<R: BatchRequest> {
    queue: Arc<Queue<R>>,
    sender: Arc<RequestSender>,
}

/// How a request gets to Redis.
enum Dispatch<R: BatchRequest> {
    /// Its caller sends it.
    Direct(R, Option<InFlight<R>>),
    /// The worker sends it and passes on the reply.
    Queued(oneshot::Receiver<Reply<R>>),
}

impl<R: BatchRequest> Batcher<R> {
    pub(crate) fn new(sender: &Arc<RequestSender>) -> Self {
        Self { queue: Arc::default(), sender: Arc::clone(sender) }
    }

    /// Returns true if requests of this type are in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.queue.state.lock().in_flight > 0
    }

    /// Sends a request and returns its reply.
    pub(crate) async fn send(&self, request: R) -> Result<R::Reply, BoxError> {
        // The keys of a Cluster are on different servers. (Boxed: the future of a queued request
        // should be small, as there are many of them.)
        if self.sender.context.endpoint.is_cluster() {
            return Box::pin(self.send_direct(request, false)).await;
        }
        match self.dispatch(request) {
            Dispatch::Direct(request, _in_flight) => {
                Box::pin(self.send_direct(request, false)).await
            }
            Dispatch::Queued(reply) => match reply.await {
                Ok(Reply::Done(reply)) => Ok(reply),
                Ok(Reply::Failed(error)) => Err(error),
                Ok(Reply::SendDirect(request, may_have_executed)) => {
                    Box::pin(self.send_direct(request, may_have_executed)).await
                }
                Err(_) => Err("the request to Redis was cancelled".into()),
            },
        }
    }

    async fn send_direct(&self, request: R, may_have_executed: bool) -> Result<R::Reply, BoxError> {
        let encoded = R::encode(&[&request], &self.sender.context, false);
        let (reply, is_retry) = self.sender.send_with_retry(encoded).await;
        let is_retry = is_retry || may_have_executed;
        let mut replies = decode_batch::<R>(&self.sender, reply?, 1, is_retry)?;
        replies.pop().ok_or_else(|| MISSING_REPLY.into())
    }

    fn dispatch(&self, request: R) -> Dispatch<R> {
        let mut state = self.queue.state.lock();
        // One direct request at a time: its caller may have stopped polling.
        if state.in_flight == 0 && state.pending.is_empty() {
            state.in_flight = 1;
            drop(state);
            return Dispatch::Direct(request, Some(InFlight::counted(&self.queue)));
        }
        // Before the first connection there is no runtime for a worker.
        let Some(runtime) = self.sender.runtime() else {
            return Dispatch::Direct(request, None);
        };
        let (tx, reply) = oneshot::channel();
        state.push(Pending { request, tx });
        let is_full = state.is_full();
        let had_worker = std::mem::replace(&mut state.has_worker, true);
        drop(state);
        if !had_worker {
            let worker = BatchWorker::new(Arc::clone(&self.queue), Arc::clone(&self.sender));
            runtime.spawn(worker.run());
        } else if is_full {
            self.queue.changed.notify_one();
        }
        Dispatch::Queued(reply)
    }
}
