//! Counters that are cheap enough for the hit path.
//!
//! With one shared counter, the hits of all threads would contend for one cache line. So each
//! thread counts on a stripe of its own, and a reader adds up the stripes. No other thread writes
//! to that stripe, so the thread needs no locked instruction, which would cost a tenth of a hit.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

/// Totals since the cache was built, and the current size of L1.
///
/// Reading does not stop the cache: counts that belong together may differ by the events that
/// happen during the read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads answered by a fresh value in L1.
    pub l1_hits: u64,
    /// Reads answered by a negative entry.
    pub negative_hits: u64,
    /// Reads answered by a stale copy, for any reason.
    pub stale_hits: u64,
    /// Reads that neither L1 nor L2 could answer.
    pub misses: u64,
    /// Callers that joined a load another caller had started.
    pub joined: u64,
    /// Callers that loaded outside the single flight because coalescing was off or full.
    pub bypassed: u64,
    /// Loads that began.
    pub loads: u64,
    /// Loads that returned an error, panicked or exceeded the hard timeout.
    pub load_failures: u64,
    /// Loads whose result was not cached, because their key was deleted or set while they ran.
    pub superseded: u64,
    /// Entries evicted from L1 by its limit on entries or weight.
    pub l1_evictions: u64,
    /// Reads answered by a fresh value in L2.
    pub l2_hits: u64,
    /// Calls of L2 that failed or timed out, or whose value could not be decoded.
    pub l2_errors: u64,
    /// Calls of L2 that were skipped because its circuit was open.
    pub l2_skipped: u64,
    /// Messages of peers that were applied: deletes, patterns and values.
    pub events_received: u64,
    /// Messages of peers that arrived again and were ignored.
    pub events_duplicate: u64,
    /// Messages on the bus that could not be decoded.
    pub events_refused: u64,
    /// Values queued to be published to peers.
    pub values_sent: u64,
    /// Values of peers that were written to L1.
    pub values_received: u64,
    /// Attempts to publish or to subscribe that failed.
    pub bus_errors: u64,
    /// How often messages were lost, or may have been, and L1 was marked untrusted.
    pub bus_gaps: u64,
    /// Entries in L1 now, stale copies included.
    pub l1_entries: u64,
    /// Total weight of these entries by the weigher; their number if there is no weigher.
    pub l1_weight: u64,
    /// Loads that are running now.
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
/// Each thread gets a stripe; threads beyond this number share the last one.
const STRIPES: usize = 32;
const SHARED: usize = STRIPES - 1;

/// Aligned to two cache lines, because processors fetch them in pairs.
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
    /// The stripe of this thread. Separate from [`GUARD`], because a thread-local with a
    /// destructor costs a check at every access.
    static STRIPE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static GUARD: StripeGuard = StripeGuard::acquire();
}

const UNKNOWN: usize = usize::MAX;

/// Stripes of threads that have ended. The lock orders the writes of the old owner of a stripe
/// before those of the next.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static NEVER_USED: AtomicUsize = AtomicUsize::new(0);

/// The ownership of a stripe, in all caches, until the thread ends.
struct StripeGuard(usize);

impl StripeGuard {
    fn acquire() -> Self {
        let freed = FREE.lock().pop();
        let stripe =
            freed.unwrap_or_else(|| NEVER_USED.fetch_add(1, Ordering::Relaxed).min(SHARED));
        Self(stripe)
    }
}

impl Drop for StripeGuard {
    fn drop(&mut self) {
        // Destructors of other thread-locals may still count: on the shared stripe from now on.
        let _ = STRIPE.try_with(|stripe| stripe.set(SHARED));
        if self.0 != SHARED {
            FREE.lock().push(self.0);
        }
    }
}

#[inline]
fn stripe() -> usize {
    match STRIPE.try_with(Cell::get) {
        Ok(UNKNOWN) => acquire_stripe(),
        Ok(stripe) => stripe,
        Err(_) => SHARED,
    }
}

#[cold]
fn acquire_stripe() -> usize {
    let stripe = GUARD.try_with(|guard| guard.0).unwrap_or(SHARED);
    let _ = STRIPE.try_with(|cell| cell.set(stripe));
    stripe
}

impl Counters {
    /// Returns how many this thread had counted before.
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
    fn no_count_is_lost_with_more_threads_than_stripes() {
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
        // New threads get the stripes of the threads that have ended.
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
