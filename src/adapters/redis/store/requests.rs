//! The four requests that many callers send at once: how each is encoded and decoded.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use super::{
    batch::{BatchRequest, MAX_BATCH_BYTES},
    context::StoreContext,
    keyspace::Keys,
    scripts::{DELETE, GET_OR_LEASE, PUBLISH, TOO_LONG},
};
use crate::{
    adapters::redis::connection::Request,
    l2::store::{LeaseRequest, StoredValue},
    time::millis,
};

/// Number of values that a script reads with one `MGET` if recent values were small. If that guess
/// is wrong, Redis holds up to this number of full values in memory at once.
const VALUES_PER_MGET: usize = 8;

/// Reads the value with this name.
pub(crate) struct GetRequest(pub(crate) String);

impl BatchRequest for GetRequest {
    /// The value and its remaining milliseconds.
    type Reply = (Value, Value);

    /// Every `PTTL` is sent before the values. If a value is replaced between the two commands, we
    /// then underestimate its remaining time; the other order could treat an old value as fresh.
    fn encode(batch: &[&Self], context: &StoreContext, values_small: bool) -> Request<'static> {
        let mut reads = redis::Pipeline::with_capacity(2 * batch.len());
        // With capacity for the arguments: growing a command is most of the cost of making it.
        for Self(name) in batch {
            let mut ttl = Cmd::with_capacity(2, name.len() + 8);
            ttl.arg("PTTL").arg(name);
            reads.add_command(ttl);
        }
        // MGET reads a value whole, whatever its length.
        if values_small && batch.len() > 1 {
            let bytes: usize = batch.iter().map(|it| it.0.len()).sum();
            let mut values = Cmd::with_capacity(1 + batch.len(), bytes + 4);
            values.arg("MGET");
            for Self(name) in batch {
                values.arg(name);
            }
            reads.add_command(values);
        } else {
            // One byte more than the maximum shows that a value is too long.
            let max = context.options.max_payload_bytes;
            for Self(name) in batch {
                let mut value = Cmd::with_capacity(4, name.len() + 32);
                value.arg("GETRANGE").arg(name).arg(0).arg(max);
                reads.add_command(value);
            }
        }
        Request::Pipeline(reads)
    }

    fn decode(mut ttls: Vec<Value>, count: usize, _: bool) -> RedisResult<Vec<Self::Reply>> {
        let mut values = ttls.split_off(count.min(ttls.len()));
        // The one reply to MGET.
        if values.len() < count {
            match values.pop() {
                Some(Value::Array(reply)) => values = reply,
                other => drop(other.map(Value::extract_error).transpose()?),
            }
        }
        Ok(values.into_iter().zip(ttls).collect())
    }

    fn reply_bytes((value, _): &Self::Reply) -> usize {
        value_len(value)
    }
}

/// Reads a value and takes a lease if the value is not fresh.
pub(crate) struct GetOrLeaseRequest {
    pub(crate) keys: Keys,
    pub(crate) options: LeaseRequest,
}

impl BatchRequest for GetOrLeaseRequest {
    /// The value, its remaining milliseconds, and the lease; no lease if the value is fresh.
    type Reply = (Value, Value, Value);

    fn encode(batch: &[&Self], context: &StoreContext, values_small: bool) -> Request<'static> {
        let keys = batch.iter().map(|it| &it.keys);
        let mut call = GET_OR_LEASE.call(keys, context.index_keys(), 128);
        // All keys of the batch differ, so their leases may have one token.
        call.arg(random_token()).arg(context.options.max_payload_bytes);
        call.arg(MAX_BATCH_BYTES).arg(batch.len());
        call.arg(if values_small { VALUES_PER_MGET } else { 1 });
        let first = batch.first().map(|it| it.options);
        let differ = batch.iter().any(|it| Some(it.options) != first);
        for Self { options, .. } in batch.iter().take(if differ { batch.len() } else { 1 }) {
            call.arg(ttl_millis(options.lease_for)).arg(ttl_millis(options.stale_for));
            call.arg(u8::from(options.refresh));
        }
        Request::Script(&GET_OR_LEASE, call)
    }

    fn decode(replies: Vec<Value>, _: usize, _: bool) -> RedisResult<Vec<Self::Reply>> {
        let mut replies = replies.into_iter();
        let next = || Some((replies.next()?, replies.next()?, replies.next()?));
        Ok(std::iter::from_fn(next).collect())
    }

    fn must_retry((_, ttl, _): &Self::Reply) -> bool {
        *ttl == Value::Nil
    }

    fn reply_bytes((value, ttl, _): &Self::Reply) -> usize {
        if *ttl == Value::Int(TOO_LONG) { MAX_BATCH_BYTES } else { value_len(value) }
    }
}

/// Writes a value under its lease.
pub(crate) struct PublishRequest {
    pub(crate) keys: Keys,
    pub(crate) token: String,
    pub(crate) value: Vec<u8>,
    pub(crate) ttl: Duration,
}

impl BatchRequest for PublishRequest {
    /// Whether the value was written, and whether the request was sent twice: then the first copy
    /// may have used up the lease.
    type Reply = (Value, bool);

    fn encode(batch: &[&Self], context: &StoreContext, _: bool) -> Request<'static> {
        let keys = batch.iter().map(|it| &it.keys);
        let bytes = batch.iter().map(|it| it.value.len() + it.token.len() + 24).sum();
        let mut call = PUBLISH.call(keys, context.index_keys(), bytes);
        call.arg(batch.len()).arg(context.options.max_entries.unwrap_or(0));
        for Self { token, value, ttl, .. } in batch {
            call.arg(token).arg(&**value).arg(ttl_millis(*ttl));
        }
        Request::Script(&PUBLISH, call)
    }

    fn decode(replies: Vec<Value>, _: usize, is_retry: bool) -> RedisResult<Vec<Self::Reply>> {
        Ok(replies.into_iter().map(|it| (it, is_retry)).collect())
    }

    fn request_bytes(&self) -> usize {
        self.value.len()
    }
}

/// Deletes a value and its lease.
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
        for Keys { value, lease } in keys {
            delete.arg(value).arg(lease);
        }
        Request::Command(delete)
    }

    fn decode(replies: Vec<Value>, _: usize, _: bool) -> RedisResult<Vec<Self::Reply>> {
        Ok(replies)
    }
}

/// Combines a value with its remaining milliseconds as Redis reported them. Returns `None` if the
/// key was missing when Redis was asked for its remaining time.
pub(crate) fn to_stored_value(value: Vec<u8>, ttl: i64) -> Option<StoredValue> {
    let ttl = match u64::try_from(ttl) {
        Ok(millis) => Some(Duration::from_millis(millis)),
        // The value never expires.
        Err(_) if ttl == -1 => None,
        Err(_) => return None,
    };
    Some(StoredValue { value, ttl })
}

/// Returns 128 random bits.
pub(crate) fn random_token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Returns a time to live in milliseconds, between one millisecond and 100 years: Redis rejects 0,
/// and overflows far beyond.
pub(crate) fn ttl_millis(ttl: Duration) -> u64 {
    millis(ttl).clamp(1, 100 * 365 * 24 * 3_600 * 1_000)
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
            let stored = to_stored_value(vec![1], ttl);
            assert_eq!(stored.map(|it| it.ttl), expected, "{ttl}");
        }
    }

    #[test]
    fn a_short_reply_never_gives_a_caller_the_value_of_another() {
        let (one, x) = (Value::Int(1), Value::BulkString(b"x".to_vec()));
        for reply in [vec![], vec![one.clone()], vec![one.clone(), one.clone()]] {
            assert_eq!(GetRequest::decode(reply, 2, false).unwrap(), []);
        }
        let reply = vec![one.clone(), one.clone(), Value::Array(vec![x.clone()])];
        assert_eq!(GetRequest::decode(reply, 2, false).unwrap(), [(x, one)]);
    }
}
