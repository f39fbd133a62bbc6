//! Counters that a hit can afford.
//!
//! One shared counter would make every hit of every thread fight for one cache line. So threads
//! count on stripes of their own and a reader adds the stripes up.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

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
}

const COUNTERS: usize = 10;
/// More threads than this share stripes, which costs speed and not counts.
const STRIPES: usize = 32;

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

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[inline]
fn stripe() -> usize {
    // A thread that is being torn down has lost its number and counts on the first stripe.
    STRIPE
        .try_with(|stripe| {
            if stripe.get() == usize::MAX {
                stripe.set(NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES);
            }
            stripe.get()
        })
        .unwrap_or(0)
}

impl Counters {
    #[inline]
    pub(crate) fn add(&self, counter: Counter, by: u64) {
        if let Some(stripe) = self.0.get(stripe())
            && let Some(count) = stripe.0.get(counter as usize)
        {
            count.fetch_add(by, Ordering::Relaxed);
        }
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
            ..Stats::default()
        }
    }
}
