//! Adaptive choice between a plain read and the script that reads and takes a lease.
//!
//! | read | server time of a hit | round trips of a miss and its write |
//! | --- | --- | --- |
//! | plain read, then the script on a miss | 1 | 3 |
//! | script at once | nearly 2 | 2 |
//!
//! With concurrent callers and a low miss rate, values are read plainly. A caller without
//! concurrent ones always uses the script: nobody else waits for Redis then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::Value;

use super::{
    batch::Batcher,
    copy_head::{CopyHead, MAX_EXPIRY_DIFFERENCE, window_of},
    requests::{GetOrLeaseRequest, GetReply, GetRequest, flag, to_stored_value},
    send::{RequestSender, error_code},
};
use crate::{
    error::BoxError,
    l2::store_types::{Lease, LeaseRequest, LeaseResponse, StaleValue, StoredValue},
};

/// A miss rate of 100 %.
const ALWAYS: u32 = 1 << 16;

/// Plain reads are used below this miss rate. (A miss wastes about as much as three hits save, so
/// plain reads break even at 1/4.)
const LOW: u32 = ALWAYS / 8;

/// Number of reads that use the script after the server has taken no transaction.
const SCRIPT_READS: u32 = 1_000;

/// Reads values, with and without a lease.
pub(crate) struct AdaptiveRead {
    sender: Arc<RequestSender>,
    gets: Arc<Batcher<GetRequest>>,
    /// Reads of values with their windows.
    window_gets: Arc<Batcher<GetRequest>>,
    lease_gets: Arc<Batcher<GetOrLeaseRequest>>,
    /// Exponentially weighted moving average of the share of reads that found no fresh value, with
    /// a weight of 1/32 for the latest read. Concurrent updates may be lost: an estimate is enough.
    miss_rate: AtomicU32,
    /// How many of the next reads use the script at once, because the server has taken no
    /// transaction: it is full, or does not offer them to this user.
    script_reads: AtomicU32,
}

/// The answer to a plain read.
enum PlainRead {
    Found(StoredValue),
    Missing,
    /// The script decides, in one step: the value was replaced during the read, the copy is of
    /// another value, or the server took no transaction.
    Undecided,
}

impl AdaptiveRead {
    pub(crate) fn new(sender: &Arc<RequestSender>) -> Self {
        Self {
            sender: Arc::clone(sender),
            gets: Batcher::new(sender),
            window_gets: Batcher::new(sender),
            lease_gets: Batcher::new(sender),
            // So that the script is used until hits are observed.
            miss_rate: AtomicU32::new(ALWAYS),
            script_reads: AtomicU32::new(0),
        }
    }

    /// Reads a value without a lease.
    pub(crate) async fn get(
        &self,
        key: &str,
        with_window: bool,
    ) -> Result<Option<StoredValue>, BoxError> {
        match self.read_plainly(key, with_window).await? {
            PlainRead::Found(found) => Ok(Some(found)),
            PlainRead::Missing => Ok(None),
            PlainRead::Undecided => {
                let flags = flag::NO_LEASE + flag::WITH_WINDOW;
                match self.run_script(key, Duration::ZERO, flags).await? {
                    LeaseResponse::Fresh(found) => Ok(Some(found)),
                    _ => Ok(None),
                }
            }
        }
    }

    async fn read_plainly(&self, key: &str, with_window: bool) -> Result<PlainRead, BoxError> {
        let script_reads = self.script_reads.load(Ordering::Relaxed);
        if script_reads > 0 {
            // Concurrent updates may be lost.
            self.script_reads.store(script_reads - 1, Ordering::Relaxed);
            return Ok(PlainRead::Undecided);
        }
        let context = &self.sender.context;
        let value = context.keys.value(key);
        let copy = with_window.then(|| context.keys.copy(key));
        let gets = if with_window { &self.window_gets } else { &self.gets };
        let Some(reply) = gets.send(GetRequest { value, copy }).await? else {
            self.script_reads.store(SCRIPT_READS, Ordering::Relaxed);
            return Ok(PlainRead::Undecided);
        };
        let GetReply { value, ttl, later_ttl, head, time, .. } = reply;
        let value: Vec<u8> = match self.sender.decode(value) {
            // The key holds a list, a hash or another type, so it is no value of ours.
            Err(error) if error_code(&error) == Some("WRONGTYPE") => return Ok(PlainRead::Missing),
            value => value?,
        };
        let ttl: i64 = self.sender.decode(ttl)?;
        let later: i64 = later_ttl.map_or(Ok(ttl), |later| self.sender.decode(later))?;
        let head = head.zip(time).and_then(|(head, time)| CopyHead::decode(&head, &time));
        if value.is_empty() || value.len() > context.options.max_payload_bytes {
            // The copy of a value that expired may stay.
            let is_of_expired = |head: &CopyHead| value.is_empty() && head.has_expired();
            let may_stay = head.as_ref().is_none_or(is_of_expired);
            return Ok(if may_stay { PlainRead::Missing } else { PlainRead::Undecided });
        }
        // mutant replaced-during-read: if false
        if later > ttl || ttl.abs_diff(later) > MAX_EXPIRY_DIFFERENCE {
            return Ok(PlainRead::Undecided);
        }
        let window = match head {
            None => Duration::ZERO,
            Some(head) if head.is_of(value.len(), ttl) => head.window,
            Some(_) => return Ok(PlainRead::Undecided),
        };
        Ok(to_stored_value(value, later, window).map_or(PlainRead::Missing, PlainRead::Found))
    }

    /// Returns a fresh value, or takes a lease.
    pub(crate) async fn get_or_lease(
        &self,
        key: &str,
        options: LeaseRequest,
    ) -> Result<LeaseResponse, BoxError> {
        let is_low = self.miss_rate.load(Ordering::Relaxed) < LOW;
        if !options.refresh
            && is_low
            && self.is_concurrent()
            && let PlainRead::Found(fresh) = self.read_plainly(key, options.with_window).await?
        {
            self.record(false);
            return Ok(LeaseResponse::Fresh(fresh));
        }
        let LeaseRequest { lease_for, refresh, with_window, with_missing } = options;
        let flags = if refresh { flag::REFRESH } else { 0 }
            + if with_window { flag::WITH_WINDOW } else { 0 }
            + if with_missing { flag::WITH_MISSING } else { 0 };
        let response = self.run_script(key, lease_for, flags).await?;
        // A refresh loads whether there is a value or not, so it says nothing about misses.
        if !options.refresh {
            self.record(!matches!(response, LeaseResponse::Fresh(_)));
        }
        Ok(response)
    }

    async fn run_script(
        &self,
        key: &str,
        lease_for: Duration,
        flags: u8,
    ) -> Result<LeaseResponse, BoxError> {
        let request = |flags| {
            let request = GetOrLeaseRequest::new(&self.sender.context, key, lease_for, flags);
            self.lease_gets.send(request)
        };
        let mut reply = request(flags).await?;
        if let [Value::BulkString(value), Value::Int(ttl), Value::Int(copy_ttl), head] = &reply {
            match window_of(head, value.len(), *ttl, *copy_ttl) {
                Some(window) => (reply[2], reply[3]) = (Value::Nil, Value::Int(window)),
                None => reply = request(flags | flag::CHECK_COPY).await?,
            }
        }
        let [value, ttl, token, window] = reply;
        let value: Option<Vec<u8>> = self.sender.decode(value)?;
        let ttl: i64 = self.sender.decode(ttl)?;
        let token: Option<String> = self.sender.decode(token)?;
        let rest = Duration::from_millis(u64::try_from(ttl).unwrap_or(0));
        let (window, copy) = match window {
            Value::Int(window) => (u64::try_from(window).unwrap_or(0), None),
            Value::BulkString(value) => (0, Some(StaleValue { value, usable_for: rest })),
            _ => (0, None),
        };
        let found = value.and_then(|it| to_stored_value(it, ttl, Duration::from_millis(window)));
        Ok(match (token, found) {
            (None, Some(fresh)) => LeaseResponse::Fresh(fresh),
            (None, None) if ttl >= 0 => LeaseResponse::Missing(rest),
            (token, found) => {
                let lease = token.filter(|token| !token.is_empty()).map(Lease::new);
                let ignored = found.map(StoredValue::into_stale);
                LeaseResponse::Load { lease, stale: ignored.or(copy) }
            }
        })
    }

    /// Returns true if other reads are in flight, so that a batch can form.
    fn is_concurrent(&self) -> bool {
        !self.sender.context.endpoint.is_cluster()
            && (self.gets.is_busy() || self.window_gets.is_busy() || self.lease_gets.is_busy())
    }

    /// Records a read in the miss rate.
    fn record(&self, is_miss: bool) {
        let rate = self.miss_rate.load(Ordering::Relaxed);
        let next = rate - rate / 32 + if is_miss { ALWAYS / 32 } else { 0 };
        self.miss_rate.store(next, Ordering::Relaxed);
    }
}
