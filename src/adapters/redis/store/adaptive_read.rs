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

use super::{
    batch::Batcher,
    requests::{GetOrLeaseRequest, GetRequest, to_stored_value, ttl_millis},
    send::{RequestSender, error_code},
};
use crate::{
    error::BoxError,
    l2::store::{Lease, LeaseRequest, LeaseResponse, StoredValue},
};

/// A miss rate of 100 %.
const ALWAYS: u32 = 1 << 16;

/// Plain reads are used below this miss rate. (A miss wastes about as much as three hits save, so
/// plain reads break even at 1/4.)
const LOW: u32 = ALWAYS / 8;

/// Reads values, with and without a lease.
pub(crate) struct AdaptiveRead {
    sender: Arc<RequestSender>,
    gets: Arc<Batcher<GetRequest>>,
    lease_gets: Arc<Batcher<GetOrLeaseRequest>>,
    /// Exponentially weighted moving average of the share of reads that found no fresh value, with
    /// a weight of 1/32 for the latest read. Concurrent updates may be lost: an estimate is enough.
    miss_rate: AtomicU32,
}

impl AdaptiveRead {
    pub(crate) fn new(sender: &Arc<RequestSender>) -> Self {
        Self {
            sender: Arc::clone(sender),
            gets: Batcher::new(sender),
            lease_gets: Batcher::new(sender),
            // So that the script is used until hits are observed.
            miss_rate: AtomicU32::new(ALWAYS),
        }
    }

    /// Reads a value plainly.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<StoredValue>, BoxError> {
        let context = &self.sender.context;
        let (value, ttl) = self.gets.send(GetRequest(context.keys.value(key))).await?;
        let value: Vec<u8> = match self.sender.decode(value) {
            // The key holds a list, a hash or another type, so it is no value of ours.
            Err(error) if error_code(&error) == Some("WRONGTYPE") => return Ok(None),
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
        let is_low = self.miss_rate.load(Ordering::Relaxed) < LOW;
        if !options.refresh && is_low && self.is_concurrent() {
            let found = self.get(key).await?;
            // Decides as the script does.
            let stale_for = u128::from(ttl_millis(options.stale_for));
            let is_fresh = |it: &StoredValue| it.ttl.is_none_or(|ttl| ttl.as_millis() > stale_for);
            if let Some(fresh) = found.filter(is_fresh) {
                self.record(false);
                return Ok(LeaseResponse::Fresh(fresh));
            }
        }
        let keys = self.sender.context.keys.of(key);
        let reply = self.lease_gets.send(GetOrLeaseRequest { keys, options }).await?;
        let value: Option<Vec<u8>> = self.sender.decode(reply.0)?;
        let ttl = self.sender.decode(reply.1)?;
        let token: Option<String> = self.sender.decode(reply.2)?;
        let found = value.and_then(|value| to_stored_value(value, ttl));
        let response = match (token, found) {
            (None, Some(fresh)) => LeaseResponse::Fresh(fresh),
            (token, stale) => {
                let lease = token.filter(|token| !token.is_empty()).map(Lease::new);
                LeaseResponse::Load { lease, stale }
            }
        };
        // A refresh loads whether there is a value or not, so it says nothing about misses.
        if !options.refresh {
            self.record(matches!(response, LeaseResponse::Load { .. }));
        }
        Ok(response)
    }

    /// Returns true if other reads are in flight, so that a batch can form.
    fn is_concurrent(&self) -> bool {
        !self.sender.context.endpoint.is_cluster()
            && (self.gets.is_busy() || self.lease_gets.is_busy())
    }

    /// Records a read in the miss rate.
    fn record(&self, is_miss: bool) {
        let rate = self.miss_rate.load(Ordering::Relaxed);
        let next = rate - rate / 32 + if is_miss { ALWAYS / 32 } else { 0 };
        self.miss_rate.store(next, Ordering::Relaxed);
    }
}
