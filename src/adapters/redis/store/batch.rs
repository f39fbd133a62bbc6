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

use std::{mem, sync::Arc};

use parking_lot::Mutex;
use redis::{RedisError, RedisResult, Value};
use tokio::{
    sync::{Notify, oneshot},
    task::yield_now,
};

use super::{context::StoreContext, send::RequestSender};
use crate::{
    adapters::redis::{connection::Request, refusal::may_concern_one_key},
    error::BoxError,
    resilience::run_until,
};

/// Maximum number of requests in a batch. All replies to a batch arrive together, so the first
/// caller of a batch waits for the last.
const MAX_BATCH: usize = 64;

/// A batch is full at this size, counting its values, or the values of its reply as estimated from
/// the previous reply. A script stops at this size too, but reads at least one value: Redis builds
/// the whole reply of a script before it serves another client.
pub(crate) const MAX_BATCH_BYTES: usize = 256 * 1024;

/// Maximum size of a small value.
const SMALL_VALUE: usize = 4 * 1024;

/// With this number of requests in flight, a batch that is not full waits for the next reply.
/// Replies arrive one after the other, so the wait is a fraction of a round trip.
const MAX_IN_FLIGHT: usize = 4;

/// Maximum number of times that a batch, or a part of it, is halved because of an error. Beyond it
/// all callers of a part that fails get the error of the part.
const MAX_HALVINGS: usize = 16;

const MISSING_REPLY: &str = "a reply of Redis is missing";

/// A request that can share a batch with others of its type.
pub(crate) trait BatchRequest: Sized + Send + Sync + 'static {
    /// The reply to one request. Any part of it may be an error of Redis.
    type Reply: Send;

    /// Encodes one request for the whole batch. `values_small`: all values in the reply to the
    /// previous batch were small.
    fn encode(batch: &[&Self], context: &StoreContext, values_small: bool) -> Request<'static>;

    /// Splits the reply to a batch of `count` requests. `is_retry`: the batch was sent twice, and
    /// Redis may have executed the first copy too.
    fn decode(replies: Vec<Value>, count: usize, is_retry: bool) -> RedisResult<Vec<Self::Reply>>;

    /// Returns true if Redis did not execute this request, because the reply to the batch was
    /// full: the caller then sends it alone.
    fn must_retry(_: &Self::Reply) -> bool {
        false
    }

    /// Returns the size of the value in a reply.
    fn reply_bytes(_: &Self::Reply) -> usize {
        0
    }

    /// Returns the size of the value in the request.
    fn request_bytes(&self) -> usize {
        0
    }
}

/// Sends requests of one type, in batches where callers are concurrent.
pub(crate) struct Batcher<R: BatchRequest> {
    sender: Arc<RequestSender>,
    queue: Mutex<Queue<R>>,
    /// Notified by a reply, and by a caller whose request fills the batch. The worker waits.
    changed: Notify,
}

struct Queue<R: BatchRequest> {
    /// Requests in flight, each direct or a batch.
    in_flight: usize,
    pending: Vec<Pending<R>>,
    /// Request bytes of `pending`, or more: some of its callers may have given up.
    bytes: usize,
    /// A worker exists that will send `pending`.
    has_worker: bool,
    /// Maximum number of requests in the next batch.
    max_batch: usize,
    /// All values in the previous reply were small.
    values_small: bool,
}

/// A request whose caller waits for a batch.
struct Pending<R: BatchRequest> {
    request: R,
    tx: oneshot::Sender<Reply<R>>,
}

/// Message to the caller of a queued request.
enum Reply<R: BatchRequest> {
    Done(Result<R::Reply, BoxError>),
    /// The caller must send the request itself. `true`: Redis may have executed it already.
    SendDirect(R, bool),
}

impl<R: BatchRequest> Queue<R> {
    fn count_bytes(&mut self) {
        self.bytes = self.pending.iter().map(|pending| pending.request.request_bytes()).sum();
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= self.max_batch || self.bytes >= MAX_BATCH_BYTES
    }
}

/// A request that its caller sends, and its place among the requests in flight, if it has one.
type Direct<R> = (R, Option<InFlight<R>>);

impl<R: BatchRequest> Batcher<R> {
    pub(crate) fn new(sender: &Arc<RequestSender>) -> Arc<Self> {
        let queue = Queue {
            in_flight: 0,
            pending: Vec::new(),
            bytes: 0,
            has_worker: false,
            max_batch: MAX_BATCH,
            values_small: false,
        };
        let (sender, queue) = (Arc::clone(sender), Mutex::new(queue));
        Arc::new(Self { sender, queue, changed: Notify::new() })
    }

    /// Returns true if requests of this type are in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.queue.lock().in_flight > 0
    }

    /// Sends a request and returns its reply.
    pub(crate) async fn send(self: &Arc<Self>, request: R) -> Result<R::Reply, BoxError> {
        let (request, may_have_executed, _in_flight) = match self.enqueue(request) {
            Err((request, in_flight)) => (request, false, in_flight),
            Ok(reply) => match reply.await {
                Ok(Reply::Done(reply)) => return reply,
                Ok(Reply::SendDirect(request, may_have_executed)) => {
                    (request, may_have_executed, None)
                }
                Err(_) => return Err("the request to Redis was cancelled".into()),
            },
        };
        // Boxed: the future of a queued request should be small, as there are many of them.
        Box::pin(self.send_direct(request, may_have_executed)).await
    }

    async fn send_direct(&self, request: R, may_have_executed: bool) -> Result<R::Reply, BoxError> {
        let encoded = R::encode(&[&request], &self.sender.context, false);
        let mut is_retry = false;
        let reply = self.sender.send_with_retry(encoded, &mut is_retry).await?;
        let mut replies = self.split(reply, 1, is_retry || may_have_executed)?;
        replies.pop().ok_or_else(|| MISSING_REPLY.into())
    }

    /// Queues a request for the worker, which passes on the reply. `Err`: the caller must send the
    /// request itself.
    fn enqueue(self: &Arc<Self>, request: R) -> Result<oneshot::Receiver<Reply<R>>, Direct<R>> {
        // The keys of a Cluster are on different servers.
        if self.sender.context.endpoint.is_cluster() {
            return Err((request, None));
        }
        let mut queue = self.queue.lock();
        // One direct request at a time: its caller may have stopped polling.
        if queue.in_flight == 0 && queue.pending.is_empty() {
            queue.in_flight = 1;
            return Err((request, Some(InFlight(Arc::clone(self)))));
        }
        // Before the first connection there is no runtime for a worker.
        let Some(runtime) = self.sender.handle.runtime() else {
            return Err((request, None));
        };
        let (tx, reply) = oneshot::channel();
        queue.bytes += request.request_bytes();
        queue.pending.push(Pending { request, tx });
        let is_full = queue.is_full();
        let had_worker = mem::replace(&mut queue.has_worker, true);
        // A runtime that has shut down drops the worker at once, which locks the queue.
        drop(queue);
        if !had_worker {
            runtime.spawn(BatchWorker { batcher: Arc::clone(self), is_done: false }.run());
        } else if is_full {
            self.changed.notify_one();
        }
        Ok(reply)
    }

    /// Sends a batch and passes each reply to its caller. Ends early once all callers gave up.
    ///
    /// If an error may concern one request only, each half of the batch is sent by itself, and so
    /// on: one such request among 64 costs 12 more round trips.
    async fn send_batch(self: Arc<Self>, batch: Batch<R>, in_flight: InFlight<R>) {
        let mut in_flight = Some(in_flight);
        let mut parts = vec![batch];
        let mut halvings = 0;
        while let Some(mut part) = parts.pop() {
            let Some((reply, is_retry)) = self.send_part(&mut part).await else { continue };
            // Before any caller gets its reply and sends the next request.
            drop(in_flight.take());
            let mut pending = mem::take(&mut part.pending);
            let error = match reply.and_then(|reply| self.split(reply, pending.len(), is_retry)) {
                Ok(replies) => {
                    self.adapt(&replies);
                    let mut replies = replies.into_iter();
                    for Pending { request, tx } in pending {
                        let _ = tx.send(match replies.next() {
                            Some(it) if R::must_retry(&it) => Reply::SendDirect(request, false),
                            reply => Reply::Done(reply.ok_or_else(|| MISSING_REPLY.into())),
                        });
                    }
                    continue;
                }
                Err(error) => error,
            };
            // A script that failed has used up no lease.
            if pending.len() > 1 && halvings < MAX_HALVINGS && may_concern_one_key(&error) {
                halvings += 1;
                let second = pending.split_off(pending.len() / 2);
                let half = |pending| Batch { pending, may_have_executed: is_retry };
                parts.extend([half(second), half(pending)]);
                continue;
            }
            for Pending { tx, .. } in pending {
                let _ = tx.send(Reply::Done(Err(duplicate(&error))));
            }
        }
    }

    /// Sends one batch. Returns the reply, and whether Redis may have executed the batch twice.
    /// `None`: all callers gave up.
    async fn send_part(&self, part: &mut Batch<R>) -> Option<(Result<Value, BoxError>, bool)> {
        part.pending.retain(|pending| !pending.tx.is_closed());
        if part.pending.is_empty() {
            return None;
        }
        let was_sent = mem::replace(&mut part.may_have_executed, true);
        let mut is_retry = false;
        let requests: Vec<&R> = part.pending.iter().map(|pending| &pending.request).collect();
        let values_small = self.queue.lock().values_small;
        let request = R::encode(&requests, &self.sender.context, values_small);
        let all_gave_up = async {
            for pending in &mut part.pending {
                pending.tx.closed().await;
            }
        };
        let sending = self.sender.send_with_retry(request, &mut is_retry);
        let reply = run_until(sending, all_gave_up).await?;
        Some((reply, is_retry || was_sent))
    }

    /// Splits the reply to a batch of `count` requests: one reply each, or fewer if some are
    /// missing.
    fn split(&self, reply: Value, count: usize, is_retry: bool) -> Result<Vec<R::Reply>, BoxError> {
        let replies = match reply {
            Value::Array(replies) => replies,
            // One reply for all.
            reply => vec![self.sender.decode(reply)?; count],
        };
        let replies = R::decode(replies, count, is_retry);
        let mut replies = replies.inspect_err(|error| self.sender.handle.report(error))?;
        replies.truncate(count);
        Ok(replies)
    }

    /// Adapts the size of the next batches to the values in a reply.
    fn adapt(&self, replies: &[R::Reply]) {
        let sizes = || replies.iter().map(R::reply_bytes);
        let average = (sizes().sum::<usize>() / replies.len().max(1)).max(1);
        let mut queue = self.queue.lock();
        queue.max_batch = (MAX_BATCH_BYTES / average).clamp(1, MAX_BATCH);
        queue.values_small = sizes().all(|bytes| bytes <= SMALL_VALUE);
    }
}

fn duplicate(error: &BoxError) -> BoxError {
    match error.downcast_ref::<RedisError>() {
        Some(error) => error.clone().into(),
        None => error.to_string().into(),
    }
}

/// Counts a request, direct or a batch, as in flight until it is dropped.
struct InFlight<R: BatchRequest>(Arc<Batcher<R>>);

impl<R: BatchRequest> Drop for InFlight<R> {
    fn drop(&mut self) {
        self.0.queue.lock().in_flight -= 1;
        self.0.changed.notify_one();
    }
}

/// Requests whose callers wait for one task. If it is dropped, as when the runtime of that task
/// shuts down, each caller sends its request itself.
struct Batch<R: BatchRequest> {
    pending: Vec<Pending<R>>,
    /// The batch was sent, so Redis may have executed it.
    may_have_executed: bool,
}

impl<R: BatchRequest> Drop for Batch<R> {
    fn drop(&mut self) {
        for Pending { request, tx } in self.pending.drain(..) {
            // A caller that has given up needs no reply.
            let _ = tx.send(Reply::SendDirect(request, self.may_have_executed));
        }
    }
}

/// The one task that sends the pending requests of a queue, batch by batch.
struct BatchWorker<R: BatchRequest> {
    batcher: Arc<Batcher<R>>,
    is_done: bool,
}

impl<R: BatchRequest> BatchWorker<R> {
    /// Sends the last batch in this task, and each other one in a task of its own.
    async fn run(mut self) {
        // One scheduler tick, in which other callers join.
        yield_now().await;
        let batcher = Arc::clone(&self.batcher);
        while !self.is_done {
            let (batch, in_flight) = loop {
                let changed = batcher.changed.notified();
                if let Some(next) = self.next_batch() {
                    break next;
                }
                changed.await;
            };
            let sending = Arc::clone(&batcher).send_batch(batch, in_flight);
            if self.is_done {
                sending.await;
            } else {
                tokio::spawn(sending);
            }
        }
    }

    /// Takes the next batch and counts it as in flight. `None`: the worker must wait, because the
    /// batch is not full and enough others are in flight.
    fn next_batch(&mut self) -> Option<(Batch<R>, InFlight<R>)> {
        let mut queue = self.batcher.queue.lock();
        // Callers that have given up meanwhile.
        queue.pending.retain(|pending| !pending.tx.is_closed());
        queue.count_bytes();
        let may_wait = !queue.is_full() && !queue.pending.is_empty();
        if may_wait && queue.in_flight >= MAX_IN_FLIGHT {
            return None;
        }
        queue.in_flight += 1;
        let mut bytes = 0;
        let fits = |(at, pending): &(usize, &Pending<R>)| {
            bytes += pending.request.request_bytes();
            *at == 0 || bytes <= MAX_BATCH_BYTES
        };
        let count = queue.pending.iter().enumerate().take(queue.max_batch).take_while(fits).count();
        let pending = queue.pending.drain(..count).collect();
        queue.count_bytes();
        self.is_done = queue.pending.is_empty();
        queue.has_worker = !self.is_done;
        Some((Batch { pending, may_have_executed: false }, InFlight(Arc::clone(&self.batcher))))
    }
}

/// If the runtime of the worker shuts down, the callers send their own requests.
impl<R: BatchRequest> Drop for BatchWorker<R> {
    fn drop(&mut self) {
        if !self.is_done {
            let mut queue = self.batcher.queue.lock();
            queue.has_worker = false;
            let left = Batch { pending: mem::take(&mut queue.pending), may_have_executed: false };
            drop(queue);
            drop(left);
        }
    }
}
