//! Adaptive choice between a plain read and the script that reads and takes a lease.
//!
//! | read | server time of a hit | round trips of a miss and its write |
//! | --- | --- | --- |
//! | plain read, then the script on a miss | 1 | 3 |
//! | script at once | nearly 2 | 2 |
//!
//! With concurrent callers and a low miss rate, values are read plainly. A caller without
//! concurrent ones always uses the script: nobody else waits for Redis then.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use redis::RedisError;

use super::{
    batch::Batcher,
    requests::{GetOrLeaseRequest, GetRequest, Keys, to_stored_value, ttl_millis},
    send::RequestSender,
};
use crate::{
    error::BoxError,
    l2::store::{Lease, LeaseRequest, LeaseResponse, StoredValue},
};

/// Reads values, with and without a lease.
pub(crate) struct AdaptiveRead {
    sender: Arc<RequestSender>,
    gets: Batcher<GetRequest>,
    lease_gets: Batcher<GetOrLeaseRequest>,
    miss_rate: MissRate,
}

impl AdaptiveRead {
    pub(crate) fn new(sender: &Arc<RequestSender>) -> Self {
        Self {
            sender: Arc::clone(sender),
            gets: Batcher::new(sender),
            lease_gets: Batcher::new(sender),
            miss_rate: MissRate::default(),
        }
    }

    /// Reads a value plainly.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<StoredValue>, BoxError> {
        let context = &self.sender.context;
        let (value, ttl) =
            self.gets.send(GetRequest { value_key: context.keys.value(key) }).await?;
        let value: Vec<u8> = match self.sender.decode(value) {
            Err(error) if is_wrong_type(&error) => return Ok(None),
            value => value?,
        };
        let ttl = self.sender.decode(ttl)?;
        if value.is_empty() || value.len() > context.options.max_payload_bytes {
            return Ok(None);
        }
        Ok(to_stored_value(value, ttl))
    }

    /// Returns a fresh value, or takes a lease.
    pub(crate) async fn get_or_lease(
        &self,
        key: &str,
        options: LeaseRequest,
    ) -> Result<LeaseResponse, BoxError> {
        if !options.refresh && self.miss_rate.is_low() && self.is_concurrent() {
            let found = self.get(key).await?;
            if let Some(fresh) = found.filter(|it| is_fresh(it, options)) {
                self.miss_rate.record(false);
                return Ok(LeaseResponse::Fresh(fresh));
            }
        }
        let response = self.run_script(key, options).await?;
        // A refresh loads whether there is a value or not, so it says nothing about misses.
        if !options.refresh {
            self.miss_rate.record(matches!(response, LeaseResponse::Load { .. }));
        }
        Ok(response)
    }

    /// Returns true if other reads are in flight, so that a batch can form.
    fn is_concurrent(&self) -> bool {
        !self.sender.context.endpoint.is_cluster()
            && (self.gets.is_busy() || self.lease_gets.is_busy())
    }

    async fn run_script(
        &self,
        key: &str,
        options: LeaseRequest,
    ) -> Result<LeaseResponse, BoxError> {
        let keys = Keys::of(&self.sender.context, key);
        let reply = self.lease_gets.send(GetOrLeaseRequest { keys, options }).await?;
        let value: Option<Vec<u8>> = self.sender.decode(reply.0)?;
        let ttl = self.sender.decode(reply.1)?;
        let token: Option<String> = self.sender.decode(reply.2)?;
        let found = value.and_then(|value| to_stored_value(value, ttl));
        Ok(match (token, found) {
            (None, Some(fresh)) => LeaseResponse::Fresh(fresh),
            (token, stale) => {
                let lease = token.filter(|token| !token.is_empty()).map(Lease::new);
                LeaseResponse::Load { lease, stale }
            }
        })
    }
}

/// Decides as the script does.
fn is_fresh(found: &StoredValue, options: LeaseRequest) -> bool {
    found.ttl.is_none_or(|it| it.as_millis() > u128::from(ttl_millis(options.stale_for)))
}

/// The key holds a list, a hash or another type, so it is no value of ours.
fn is_wrong_type(error: &BoxError) -> bool {
    error.downcast_ref::<RedisError>().is_some_and(|error| error.code() == Some("WRONGTYPE"))
}

/// Exponentially weighted moving average of the share of reads that found no fresh value, with a
/// weight of 1/32 for the latest read. Concurrent updates may be lost: an estimate is enough.
struct MissRate(AtomicU32);

/// A miss rate of 100 %.
const ALWAYS: u32 = 1 << 16;

/// Plain reads are used below this rate. (A miss wastes about as much as three hits save, so plain
/// reads break even at 1/4.)
const LOW: u32 = ALWAYS / 8;

impl Default for MissRate {
    /// Starts at 100 %, so that the script is used until hits are observed.
    fn default() -> Self {
        Self(AtomicU32::new(ALWAYS))
    }
}

impl MissRate {
    fn is_low(&self) -> bool {
        self.0.load(Ordering::Relaxed) < LOW
    }

    fn record(&self, is_miss: bool) {
        let rate = self.0.load(Ordering::Relaxed);
        let next = rate - rate / 32 + if is_miss { ALWAYS / 32 } else { 0 };
        self.0.store(next, Ordering::Relaxed);
    }
}
