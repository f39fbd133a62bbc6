//! Counters that a hit can afford.
//!
//! One shared counter would make every hit of every thread fight for one cache line. So threads
//! count on stripes of their own and a reader adds the stripes up. And as nobody else writes to a
//! thread's own stripe, it needs no locked instruction there, which is a tenth of a hit.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

/// Totals since the cache was built.
///
/// Taken without stopping anyone: counts that belong together may differ by what happened while
/// they were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Fresh values found in memory.
    pub l1_hits: u64,
    /// Reads answered by "this key does not exist".
    pub negative_hits: u64,
    /// Stale copies served, for whatever reason.
    pub stale_hits: u64,
    /// Reads that no level could answer.
    pub misses: u64,
    /// Callers that joined the load of another.
    pub joined: u64,
    /// Callers that loaded for themselves because coalescing was off or full.
    pub bypassed: u64,
    /// Loads begun.
    pub loads: u64,
    /// Loads that failed, panicked or ran into the hard timeout.
    pub load_failures: u64,
    /// Loads that ended but were cached nowhere, because a delete came before their end.
    pub superseded: u64,
    /// Entries pushed out of memory by the bound on entries or weight.
    pub l1_evictions: u64,
    /// Fresh values found in the shared level.
    pub l2_hits: u64,
    /// Calls of the shared level that failed, were late, or brought what is no value.
    pub l2_errors: u64,
    /// Calls of the shared level that were not made because it failed just now.
    pub l2_skipped: u64,
    /// Events of other instances that were applied: deletes, patterns and values.
    pub events_received: u64,
    /// Events that were here before.
    pub events_duplicate: u64,
    /// Bytes on the bus that are no events.
    pub events_refused: u64,
    /// Values handed over to be told to other instances.
    pub values_sent: u64,
    /// Values of other instances put into memory.
    pub values_received: u64,
    /// Attempts to publish or to subscribe that failed.
    pub bus_errors: u64,
    /// Times at which events were lost, or may have been, and memory became suspect.
    pub bus_gaps: u64,
    /// Entries in memory now, stale copies included.
    pub l1_entries: u64,
    /// What these weigh: the sum of the weigher's answers, or their number.
    pub l1_weight: u64,
    /// Loads running now.
    pub loads_in_flight: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    L1Hits,
    NegativeHits,
    StaleHits,
    Misses,
    Joined,
    Bypassed,
    Loads,
    LoadFailures,
    Superseded,
    L1Evictions,
    L2Hits,
    L2Errors,
    L2Skipped,
    EventsReceived,
    EventsDuplicate,
    EventsRefused,
    ValuesSent,
    ValuesReceived,
    BusErrors,
    BusGaps,
}

const COUNTERS: usize = 20;
/// Threads get a stripe each; those for whom there is none share the last.
const STRIPES: usize = 32;
const SHARED: usize = STRIPES - 1;

/// Two cache lines, as processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; COUNTERS]);

#[derive(Debug)]
pub(crate) struct Counters(Box<[Stripe; STRIPES]>);

impl Default for Counters {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| Stripe::default())))
    }
}

thread_local! {
    /// This thread's stripe. Apart from [`LEASE`], as only what is dropped with the thread costs
    /// a check at every access.
    static STRIPE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static LEASE: Lease = Lease::take();
}

const UNKNOWN: usize = usize::MAX;

/// Stripes that nobody has. Under the lock a stripe passes from one thread to the next, so that
/// the next sees all that was counted on it.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static NEVER_USED: AtomicUsize = AtomicUsize::new(0);

/// A stripe of one's own, for all caches, for as long as the thread lives.
struct Lease(usize);

impl Lease {
    fn take() -> Self {
        let freed = FREE.lock().pop();
        let stripe =
            freed.unwrap_or_else(|| NEVER_USED.fetch_add(1, Ordering::Relaxed).min(SHARED));
        Self(stripe)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What this thread may still count, in the drops of other locals, goes to the shared one.
        let _ = STRIPE.try_with(|stripe| stripe.set(SHARED));
        if self.0 != SHARED {
            FREE.lock().push(self.0);
        }
    }
}

#[inline]
fn stripe() -> usize {
    match STRIPE.try_with(Cell::get) {
        Ok(UNKNOWN) => take_stripe(),
        Ok(stripe) => stripe,
        Err(_) => SHARED,
    }
}

#[cold]
fn take_stripe() -> usize {
    let stripe = LEASE.try_with(|lease| lease.0).unwrap_or(SHARED);
    let _ = STRIPE.try_with(|own| own.set(stripe));
    stripe
}

impl Counters {
    /// Gives what this thread had counted before.
    #[inline]
    pub(crate) fn add(&self, counter: Counter, by: u64) -> u64 {
        let stripe = stripe();
        let Some(count) = self.0.get(stripe).and_then(|stripe| stripe.0.get(counter as usize))
        else {
            return 0;
        };
        if stripe == SHARED {
            return count.fetch_add(by, Ordering::Relaxed);
        }
        let before = count.load(Ordering::Relaxed);
        count.store(before.wrapping_add(by), Ordering::Relaxed);
        before
    }

    pub(crate) fn read(&self) -> Stats {
        let mut sums = [0u64; COUNTERS];
        for stripe in self.0.iter() {
            for (sum, count) in sums.iter_mut().zip(&stripe.0) {
                *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
            }
        }
        let [
            l1_hits,
            negative_hits,
            stale_hits,
            misses,
            joined,
            bypassed,
            loads,
            load_failures,
            superseded,
            l1_evictions,
            l2_hits,
            l2_errors,
            l2_skipped,
            events_received,
            events_duplicate,
            events_refused,
            values_sent,
            values_received,
            bus_errors,
            bus_gaps,
        ] = sums;
        Stats {
            l1_hits,
            negative_hits,
            stale_hits,
            misses,
            joined,
            bypassed,
            loads,
            load_failures,
            superseded,
            l1_evictions,
            l2_hits,
            l2_errors,
            l2_skipped,
            events_received,
            events_duplicate,
            events_refused,
            values_sent,
            values_received,
            bus_errors,
            bus_gaps,
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_with_more_threads_than_stripes() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..3 * STRIPES {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        counters.add(Counter::L1Hits, 1);
                    }
                    counters.add(Counter::Loads, 7);
                });
            }
        });
        // And the stripes of the threads that are gone go to those that come.
        for _ in 0..10 * STRIPES {
            std::thread::scope(|scope| {
                scope.spawn(|| assert_ne!(stripe(), SHARED));
            });
        }
        let stats = counters.read();
        let threads = 3 * STRIPES as u64;
        assert_eq!((stats.l1_hits, stats.loads), (threads * 10_000, threads * 7));
    }
}
