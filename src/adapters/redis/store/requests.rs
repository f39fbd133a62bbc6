//! The four requests that many callers send at once: how each is encoded and decoded.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use super::{
    batch::{BatchRequest, MAX_BATCH_BYTES},
    context::StoreContext,
    keyspace::Keys,
    scripts::{
        COPY_HEAD, TOO_LONG,
        values::{DELETE, GET_OR_LEASE, PUBLISH},
    },
};
use crate::{
    adapters::redis::connection::Request,
    l2::store_types::{Publication, StoredValue},
    time::millis,
};

/// Number of values that a script reads with one `MGET` if recent values were small. If that guess
/// is wrong, Redis holds up to this number of full values in memory at once.
const VALUES_PER_MGET: usize = 8;

/// Reads a value plainly.
pub(crate) struct GetRequest {
    pub(crate) value: String,
    /// The name of the copy, if the caller uses the window of the value.
    pub(crate) copy: Option<String>,
}

/// The reply to a [`GetRequest`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GetReply {
    pub(crate) value: Value,
    /// The remaining milliseconds of the value.
    pub(crate) ttl: Value,
    /// The same, read after the value, if the commands were not one transaction.
    pub(crate) later_ttl: Option<Value>,
    /// The head of the copy, if the request named one.
    pub(crate) head: Option<Value>,
    /// The time of the server, if the request named a copy.
    pub(crate) time: Option<Value>,
    /// The value is longer than a value in a batch may be.
    is_cut: bool,
}

impl BatchRequest for GetRequest {
    /// `None`: the server took no transaction, and the script must be used.
    type Reply = Option<GetReply>;

    /// Value and remaining time must be of one moment: else a value that is replaced between the
    /// two commands gets the time of another one.
    ///
    /// | requests | commands |
    /// | --- | --- |
    /// | one | `TIME` if it names a copy, then for the value `PTTL`, `GETRANGE`, `PTTL` |
    /// | several | `MULTI`, the same without the second `PTTL` for each value, `EXEC` |
    ///
    /// A head is read before its value. No command reads a value whole, whatever its length.
    ///
    /// Measured (Redis 7.0, values of 200 bytes, CPU time of the server, medians): for 64 values
    /// the transaction takes 1.1 times the time of its commands, a second `PTTL` for each value
    /// would take 1.4 times, and so would a script. For one value the second `PTTL` takes 1.03
    /// times, a transaction 1.13 times.
    ///
    /// Alternatives considered: one `MGET` for all values, which with their `PTTL`s takes 0.7 times
    /// the time. Refused: it fetches values of any length.
    fn encode(batch: &[&Self], context: &StoreContext, _: bool) -> Request<'static> {
        let is_single = batch.len() == 1;
        let mut reads = redis::Pipeline::with_capacity(4 * batch.len() + 3);
        if !is_single {
            reads.add_command(redis::cmd("MULTI"));
        }
        if batch.iter().any(|it| it.copy.is_some()) {
            reads.add_command(redis::cmd("TIME"));
        }
        // One byte more than the maximum shows that a value is too long.
        let max = context.options.max_payload_bytes;
        let max = if is_single { max } else { max.min(MAX_BATCH_BYTES) };
        for Self { value, copy } in batch {
            // With capacity for the arguments: growing a command is most of the cost of making it.
            let remaining = || {
                let mut ttl = Cmd::with_capacity(2, value.len() + 8);
                ttl.arg("PTTL").arg(value);
                ttl
            };
            let range = |name: &str, to: usize| {
                let mut range = Cmd::with_capacity(4, name.len() + 32);
                range.arg("GETRANGE").arg(name).arg(0).arg(to);
                range
            };
            reads.add_command(remaining());
            if let Some(copy) = copy {
                reads.add_command(range(copy, COPY_HEAD - 1));
            }
            reads.add_command(range(value, max));
            if is_single {
                reads.add_command(remaining());
            }
        }
        if !is_single {
            reads.add_command(redis::cmd("EXEC"));
        }
        Request::Pipeline(reads)
    }

    /// Takes the replies in the order of [`encode`](Self::encode). In a batch either all requests
    /// name a copy or none does: the requests of one store come from caches with their own options,
    /// so [`AdaptiveRead`](super::adaptive_read::AdaptiveRead) has a batcher for each of the two.
    fn decode(mut replies: Vec<Value>, count: usize, _: bool) -> RedisResult<Vec<Self::Reply>> {
        let is_single = count == 1;
        if !is_single {
            // The reply to `EXEC`; the others only say that the commands are queued.
            match replies.pop() {
                Some(Value::Array(all)) => replies = all,
                _ => return Ok(vec![None; count]),
            }
        }
        let mut replies = replies.into_iter().peekable();
        let time = replies.next_if(|reply| matches!(reply, Value::Array(_)));
        let next = || {
            let ttl = replies.next()?;
            let head = if time.is_some() { Some(replies.next()?) } else { None };
            let value = replies.next()?;
            let later_ttl = if is_single { Some(replies.next()?) } else { None };
            let is_cut = !is_single && value_len(&value) > MAX_BATCH_BYTES;
            Some(Some(GetReply { value, ttl, later_ttl, head, time: time.clone(), is_cut }))
        };
        Ok(std::iter::from_fn(next).collect())
    }

    fn must_retry(reply: &Self::Reply) -> bool {
        reply.as_ref().is_some_and(|reply| reply.is_cut)
    }

    fn reply_bytes(reply: &Self::Reply) -> usize {
        reply.as_ref().map_or(0, |reply| value_len(&reply.value))
    }
}

/// Reads a value and takes a lease if the key has to be loaded.
pub(crate) struct GetOrLeaseRequest {
    pub(crate) keys: Keys,
    pub(crate) lease_for: Duration,
    /// The sum of the flags of [`GET_OR_LEASE`].
    pub(crate) flags: u8,
}

/// The flags of [`GET_OR_LEASE`].
pub(crate) mod flag {
    pub(crate) const REFRESH: u8 = 1;
    pub(crate) const WITH_WINDOW: u8 = 2;
    pub(crate) const WITH_MISSING: u8 = 4;
    pub(crate) const NO_LEASE: u8 = 8;
    pub(crate) const CHECK_COPY: u8 = 16;
}

impl GetOrLeaseRequest {
    pub(crate) fn new(context: &StoreContext, key: &str, lease_for: Duration, flags: u8) -> Self {
        let keys = &context.keys;
        let with_window = flags & flag::WITH_WINDOW != 0;
        let keys = if with_window { keys.of(key) } else { keys.without_copy(key) };
        Self { keys, lease_for, flags }
    }
}

impl BatchRequest for GetOrLeaseRequest {
    /// The items of the reply of [`GET_OR_LEASE`] about one value.
    type Reply = [Value; 4];

    fn encode(batch: &[&Self], context: &StoreContext, values_small: bool) -> Request<'static> {
        let has_copies = batch.iter().any(|it| !it.keys.copy.is_empty());
        let keys = batch.iter().map(|it| &it.keys);
        let mut call = GET_OR_LEASE.call(keys, context.index_keys(), 128);
        // All keys of the batch differ, so their leases may have one token.
        call.arg(token_start()).arg(context.options.max_payload_bytes);
        call.arg(MAX_BATCH_BYTES).arg(batch.len());
        call.arg(if values_small { VALUES_PER_MGET } else { 1 });
        call.arg(context.keys.prefix_len()).arg(if has_copies { 3 } else { 2 });
        let options = |it: &&Self| (it.lease_for, it.flags);
        let first = batch.first().map(options);
        let differ = batch.iter().any(|it| Some(options(it)) != first);
        for Self { lease_for, flags, .. } in batch.iter().take(if differ { batch.len() } else { 1 })
        {
            call.arg(ttl_millis(*lease_for)).arg(*flags);
        }
        Request::Script(&GET_OR_LEASE, call)
    }

    fn decode(replies: Vec<Value>, _: usize, _: bool) -> RedisResult<Vec<Self::Reply>> {
        let mut replies = replies.into_iter();
        let next = || Some([replies.next()?, replies.next()?, replies.next()?, replies.next()?]);
        Ok(std::iter::from_fn(next).collect())
    }

    fn must_retry([_, ttl, ..]: &Self::Reply) -> bool {
        *ttl == Value::Nil
    }

    fn reply_bytes([value, ttl, _, window]: &Self::Reply) -> usize {
        if *ttl == Value::Int(TOO_LONG) {
            return MAX_BATCH_BYTES;
        }
        value_len(value) + value_len(window)
    }
}

/// Writes the result of a load under its lease.
pub(crate) struct PublishRequest {
    pub(crate) keys: Keys,
    pub(crate) token: String,
    pub(crate) result: Publication,
}

impl BatchRequest for PublishRequest {
    /// Whether the result was written, and whether the request was sent twice: then the first copy
    /// may have used up the lease.
    type Reply = (Value, bool);

    fn encode(batch: &[&Self], context: &StoreContext, _: bool) -> Request<'static> {
        let keys = batch.iter().map(|it| &it.keys);
        let bytes = batch.iter().map(|it| it.request_bytes() + it.token.len() + 48).sum();
        let mut call = PUBLISH.call(keys, context.index_keys(), bytes);
        call.arg(batch.len()).arg(context.options.max_entries.unwrap_or(0));
        call.arg(&context.keys.copy_start).arg(context.keys.prefix_len());
        for Self { token, result, .. } in batch {
            call.arg(token);
            match result {
                Publication::Value { value, ttl, stale_for } => {
                    let window = if stale_for.is_zero() { 0 } else { ttl_millis(*stale_for) };
                    call.arg(&**value).arg(ttl_millis(*ttl)).arg(window);
                }
                Publication::Missing { ttl } => {
                    let ttl = if ttl.is_zero() { 0 } else { ttl_millis(*ttl) };
                    call.arg("").arg(ttl).arg(-1);
                }
            }
        }
        Request::Script(&PUBLISH, call)
    }

    fn decode(replies: Vec<Value>, _: usize, is_retry: bool) -> RedisResult<Vec<Self::Reply>> {
        Ok(replies.into_iter().map(|it| (it, is_retry)).collect())
    }

    fn request_bytes(&self) -> usize {
        match &self.result {
            Publication::Value { value, .. } => value.len(),
            Publication::Missing { .. } => 0,
        }
    }
}

/// Deletes a value with its sidecar.
pub(crate) struct DeleteRequest(pub(crate) Keys);

impl BatchRequest for DeleteRequest {
    type Reply = Value;

    fn encode(batch: &[&Self], context: &StoreContext, _: bool) -> Request<'static> {
        let keys = batch.iter().map(|it| &it.0);
        let command = context.options.delete_strategy.command();
        if let Some(index_keys) = context.index_keys() {
            let mut call = DELETE.call(keys, Some(index_keys), 16);
            call.arg(batch.len()).arg(command);
            return Request::Script(&DELETE, call);
        }
        let mut delete = redis::cmd(command);
        for Keys { value, lease, copy } in keys {
            delete.arg(value).arg(lease).arg(copy);
        }
        Request::Command(delete)
    }

    fn decode(replies: Vec<Value>, _: usize, _: bool) -> RedisResult<Vec<Self::Reply>> {
        Ok(replies)
    }
}

/// Combines a value with its remaining milliseconds as Redis reported them. Returns `None` if the
/// key was missing when Redis was asked for its remaining time.
pub(crate) fn to_stored_value(
    value: Vec<u8>,
    ttl: i64,
    stale_for: Duration,
) -> Option<StoredValue> {
    let ttl = match u64::try_from(ttl) {
        Ok(millis) => Some(Duration::from_millis(millis)),
        // The value never expires.
        Err(_) if ttl == -1 => None,
        Err(_) => return None,
    };
    Some(StoredValue { value, ttl, stale_for })
}

/// Returns a random number, the start of a token: Redis appends 12 digits of its time, so that the
/// token fits 64 bits.
pub(crate) fn token_start() -> u32 {
    fastrand::u32(100_000..1_000_000)
}

/// Returns a time to live in milliseconds, between one millisecond and ten years: Redis rejects 0,
/// and overflows far beyond.
pub(crate) fn ttl_millis(ttl: Duration) -> u64 {
    millis(ttl).clamp(1, 10 * 365 * 24 * 3_600 * 1_000)
}

fn value_len(value: &Value) -> usize {
    if let Value::BulkString(bytes) = value { bytes.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_was_written_after_its_ttl_was_read_is_missing() {
        for (ttl, expected) in [
            (1_000, Some(Some(Duration::from_secs(1)))),
            (0, Some(Some(Duration::ZERO))),
            (-1, Some(None)),
            (-2, None),
        ] {
            let stored = to_stored_value(vec![1], ttl, Duration::ZERO);
            assert_eq!(stored.map(|it| it.ttl), expected, "{ttl}");
        }
    }

    #[test]
    fn a_short_reply_never_gives_a_caller_the_value_of_another() {
        let (one, x) = (Value::Int(1), Value::BulkString(b"x".to_vec()));
        let queued = Value::SimpleString("QUEUED".into());
        for short in [vec![], vec![one.clone()]] {
            assert_eq!(GetRequest::decode(short.clone(), 1, false).unwrap(), []);
            let reply = vec![queued.clone(), Value::Array(short)];
            assert_eq!(GetRequest::decode(reply, 2, false).unwrap(), []);
        }
        let all = Value::Array(vec![one.clone(), x.clone(), one.clone()]);
        let single = vec![one.clone(), x.clone(), one.clone()];
        let (head, time, is_cut) = (None, None, false);
        let expected = GetReply { value: x, ttl: one.clone(), later_ttl: None, head, time, is_cut };
        let replies = GetRequest::decode(vec![queued.clone(), all], 2, false).unwrap();
        assert_eq!(replies, [Some(expected.clone())]);
        let replies = GetRequest::decode(single, 1, false).unwrap();
        assert_eq!(replies, [Some(GetReply { later_ttl: Some(one), ..expected })]);
        for refused in [vec![], vec![queued.clone(), queued], vec![Value::Nil]] {
            assert_eq!(GetRequest::decode(refused, 2, false).unwrap(), [None, None]);
        }
    }
}
