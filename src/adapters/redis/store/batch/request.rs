//! The contract of requests that can be sent together: how a batch is encoded and decoded.

use redis::{RedisResult, Value};

use crate::{
    adapters::redis::{
        connection::Request,
        store::{context::StoreContext, send::RequestSender},
    },
    error::BoxError,
};

/// A batch is full at this size, counting its values, or the values of its reply as estimated from
/// the previous reply. A script stops at this size too, but reads at least one value: Redis builds
/// the whole reply of a script before it serves another client.
pub(crate) const MAX_BATCH_BYTES: usize = 256 * 1024;

pub(super) const MISSING_REPLY: &str = "a reply of Redis is missing";

/// A request that can share a batch with others of its type.
pub(crate) trait BatchRequest: Sized + Send + Sync + 'static {
    /// The reply to one request. Any part of it may be an error of Redis.
    type Reply: Send;

    /// Encodes one request for the whole batch. `values_small`: all values in the reply to the
    /// previous batch were small.
    fn encode<'a>(batch: &[&Self], context: &'a StoreContext, values_small: bool) -> Request<'a>;

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

/// Decodes the reply to a batch of `count` requests: one reply each, or fewer if some are missing.
pub(super) fn decode_batch<R: BatchRequest>(
    sender: &RequestSender,
    reply: Value,
    count: usize,
    is_retry: bool,
) -> Result<Vec<R::Reply>, BoxError> {
    let replies = match reply {
        Value::Array(replies) => replies,
        // One reply for all.
        reply => vec![sender.decode(reply)?; count],
    };
    let mut replies =
        R::decode(replies, count, is_retry).inspect_err(|error| sender.report(error))?;
    replies.truncate(count);
    Ok(replies)
}
