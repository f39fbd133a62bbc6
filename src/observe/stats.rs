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

/// Declares [`Stats`] and its counters, [`Counter`]: each row is a field and its counter.
macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident: $counter:ident,)*) => {
        /// Totals since the cache was built, and the current size of L1.
        ///
        /// Reading does not stop the cache: counts that belong together may differ by the events
        /// that happen during the read.
        ///
        /// With the feature `serde`, `Stats` serializes as a map of numbers.
        ///
        /// ```
        /// use lazy_layers_cache::LazyLayersCache;
        ///
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// let names = LazyLayersCache::<u64, String>::builder().build()?;
        /// let load = || async { Ok::<_, std::io::Error>("Ada".to_owned()) };
        /// for _ in 0..4 {
        ///     names.get_or_set(&7, load).await?;
        /// }
        /// let stats = names.stats();
        /// let hits = stats.l1_hits as f64 / (stats.l1_hits + stats.misses) as f64;
        /// assert_eq!((stats.loads, hits), (1, 0.75));
        /// # Ok(()) }
        /// ```
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $field: u64,)*
            /// Entries in L1 now, stale copies included.
            pub l1_entries: u64,
            /// Total weight of these entries by the weigher; their number if there is no weigher.
            pub l1_weight: u64,
            /// Loads that are running now.
            pub loads_in_flight: u64,
        }

        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Counter {
            $($counter,)*
        }

        const COUNTERS: usize = [$(Counter::$counter),*].len();

        impl Stats {
            fn of([$($field),*]: [u64; COUNTERS]) -> Self {
                Self { $($field,)* ..Self::default() }
            }

            /// Returns the name and the value of each field, in the order of the declaration.
            ///
            /// ```
            /// # use lazy_layers_cache::LazyLayersCache;
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let cache = LazyLayersCache::<str, u32>::builder().build()?;
            /// for (name, value) in cache.stats().iter() {
            ///     println!("cache_{name} {value}");
            /// }
            /// # Ok(()) }
            /// ```
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                let now = [
                    ("l1_entries", self.l1_entries),
                    ("l1_weight", self.l1_weight),
                    ("loads_in_flight", self.loads_in_flight),
                ];
                [$((stringify!($field), self.$field)),*].into_iter().chain(now)
            }
        }
    };
}

counters! {
    /// Reads answered by a fresh value in L1.
    l1_hits: L1Hits,
    /// Reads answered by a negative entry.
    negative_hits: NegativeHits,
    /// Reads answered by a stale copy, for any reason.
    stale_hits: StaleHits,
    /// Reads that neither L1 nor L2 could answer.
    misses: Misses,
    /// Callers that joined a load another caller had started.
    joined: Joined,
    /// Callers that loaded outside the single flight because coalescing was off or full.
    bypassed: Bypassed,
    /// Loads that began.
    loads: Loads,
    /// Loads that returned an error, panicked or exceeded the hard timeout.
    load_failures: LoadFailures,
    /// Loads whose result was not cached, because their key was deleted or set while they ran.
    superseded: Superseded,
    /// Entries evicted from L1 by its limit on entries or weight.
    l1_evictions: L1Evictions,
    /// Reads answered by a fresh value in L2.
    l2_hits: L2Hits,
    /// Calls of L2 that failed or timed out, or whose value could not be decoded.
    l2_errors: L2Errors,
    /// Keys and values that L2 was not asked to hold, because a limit or the codec refused them.
    l2_refused: L2Refused,
    /// Calls of L2 that were skipped because its circuit was open.
    l2_skipped: L2Skipped,
    /// How often the store had removed all keys of the cache, because its server may have lost
    /// deletes.
    l2_emptied: L2Emptied,
    /// How often more invalidations waited for L2 than are kept apart, so that one of all keys
    /// replaced them.
    l2_pending_overflows: L2PendingOverflows,
    /// Messages of peers that were applied: deletes, patterns and values.
    events_received: EventsReceived,
    /// Messages of peers that arrived again and were ignored.
    events_duplicate: EventsDuplicate,
    /// Messages on the bus that could not be decoded.
    events_refused: EventsRefused,
    /// Values queued to be published to peers.
    values_sent: ValuesSent,
    /// Values of peers that were written to L1.
    values_received: ValuesReceived,
    /// Values that were loaded or `set` and not published to peers, or queued and then dropped.
    values_not_sent: ValuesNotSent,
    /// Attempts to publish or to subscribe that failed.
    bus_errors: BusErrors,
    /// Messages that the broker refused because of their size, a permission or a policy.
    bus_refused: BusRefused,
    /// Messages that were queued while the circuit for publishing was open, or while the broker
    /// refused all messages.
    bus_skipped: BusSkipped,
    /// Invalidations that were replaced by one that covers more keys: the outbox was full, a name
    /// was too long, or the broker refused the message.
    bus_widened: BusWidened,
    /// Invalidations that had not reached L2, or were not published on the bus, when the cache was
    /// closed or its last handle dropped, or when a write that outlasted that ended. One that
    /// reached neither counts twice; several of one key, or those that an overflow has replaced by
    /// a wider one, count once. A message whose publish the close of the last cache of a manager
    /// interrupts counts for that cache, although it may have arrived.
    invalidations_lost: InvalidationsLost,
    /// How often messages were lost, or may have been, and L1 was marked untrusted.
    bus_gaps: BusGaps,
    /// How often two live processes with one instance id were noticed: once for each of them but
    /// one.
    bus_shared_instance_ids: BusSharedInstanceIds,
}

/// Each thread gets a stripe; threads beyond this number share the last one.
const STRIPES: usize = 32;
const SHARED: usize = STRIPES - 1;

/// Aligned to two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; COUNTERS]);

#[derive(Debug, Default)]
pub(crate) struct Counters(Box<[Stripe; STRIPES]>);

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
        Self(freed.unwrap_or_else(|| NEVER_USED.fetch_add(1, Ordering::Relaxed).min(SHARED)))
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
        Stats::of(sums)
    }
}

#[cfg(test)]
impl Stats {
    /// The numbers 1, 2, 3, ...: each field has another one.
    pub(crate) fn distinct() -> Self {
        let number = |field: usize| field as u64 + 1;
        Self {
            l1_entries: number(COUNTERS),
            l1_weight: number(COUNTERS + 1),
            loads_in_flight: number(COUNTERS + 2),
            ..Self::of(std::array::from_fn(number))
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
