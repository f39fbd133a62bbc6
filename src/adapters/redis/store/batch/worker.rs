//! Task that sends the pending requests of one queue, batch by batch.

use std::sync::Arc;

use redis::RedisError;
use tokio::task::yield_now;

use super::{
    queue::{Batch, InFlight, Pending, Queue, Reply},
    request::{BatchRequest, MISSING_REPLY, decode_batch},
};
use crate::{adapters::redis::store::send::RequestSender, error::BoxError, resilience::run_until};

/// The one worker of a queue. If its runtime shuts down, the callers send their own requests.
pub(super) struct BatchWorker<R: BatchRequest> {
    queue: Arc<Queue<R>>,
    sender: Arc<RequestSender>,
    is_done: bool,
}

impl<R: BatchRequest> BatchWorker<R> {
    pub(super) fn new(queue: Arc<Queue<R>>, sender: Arc<RequestSender>) -> Self {
        Self { queue, sender, is_done: false }
    }

    /// Runs until the queue is empty. The last batch is sent by this task, each other one by a
    /// task of its own.
    pub(super) async fn run(mut self) {
        // One scheduler tick, in which other callers join.
        yield_now().await;
        while !self.is_done {
            let (batch, in_flight) = self.next_batch().await;
            self.is_done = batch.is_last;
            let sending =
                send_batch(Arc::clone(&self.queue), Arc::clone(&self.sender), batch, in_flight);
            if self.is_done {
                sending.await;
            } else {
                tokio::spawn(sending);
            }
        }
    }

    async fn next_batch(&self) -> (Batch<R>, InFlight<R>) {
        loop {
            let changed = self.queue.changed.notified();
            if let Some(next) = self.queue.next_batch() {
                return next;
            }
            changed.await;
        }
    }
}

impl<R: BatchRequest> Drop for BatchWorker<R> {
    fn drop(&mut self) {
        if !self.is_done {
            drop(self.queue.abandon());
        }
    }
}

/// Sends a batch and passes each reply to its caller. Ends early once all callers have given up.
async fn send_batch<R: BatchRequest>(
    queue: Arc<Queue<R>>,
    sender: Arc<RequestSender>,
    mut batch: Batch<R>,
    in_flight: InFlight<R>,
) {
    if batch.pending.is_empty() {
        return;
    }
    batch.may_have_executed = true;
    let requests: Vec<&R> = batch.pending.iter().map(|pending| &pending.request).collect();
    let request = R::encode(&requests, &sender.context, queue.values_small());
    let all_gave_up = async {
        for pending in &mut batch.pending {
            pending.tx.closed().await;
        }
    };
    let sending = run_until(sender.send_with_retry(request), all_gave_up);
    let Some((reply, is_retry)) = sending.await else { return };
    drop(in_flight);
    let pending = std::mem::take(&mut batch.pending);
    let count = pending.len();
    match reply.and_then(|reply| decode_batch::<R>(&sender, reply, count, is_retry)) {
        Ok(replies) => {
            // Before any caller gets its reply and sends the next request.
            queue.adapt(&replies);
            let mut replies = replies.into_iter();
            for Pending { request, tx } in pending {
                let _ = tx.send(match replies.next() {
                    Some(reply) if R::must_retry(&reply) => Reply::SendDirect(request, false),
                    Some(reply) => Reply::Done(reply),
                    None => Reply::Failed(MISSING_REPLY.into()),
                });
            }
        }
        // Each request alone: a script that failed has used up no lease.
        Err(error) if count > 1 && may_concern_one(&error) => {
            drop(Batch { pending, may_have_executed: is_retry, is_last: batch.is_last });
        }
        Err(error) => {
            for Pending { tx, .. } in pending {
                let _ = tx.send(Reply::Failed(duplicate(&error)));
            }
        }
    }
}

/// Returns true if an error of a batch may concern only one of its requests: a key that the user
/// may not access, or a key of another type. (Redis before version 7 reports any error in a
/// script as `ERR`.) Other errors are those of the server, so they concern the whole batch.
fn may_concern_one(error: &BoxError) -> bool {
    let code = error.downcast_ref::<RedisError>().and_then(RedisError::code);
    matches!(code, Some("NOPERM" | "WRONGTYPE" | "ERR"))
}

fn duplicate(error: &BoxError) -> BoxError {
    match error.downcast_ref::<RedisError>() {
        Some(error) => error.clone().into(),
        None => error.to_string().into(),
    }
}
