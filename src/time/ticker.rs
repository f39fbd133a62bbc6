//! The cached time of the hit path: a ticking thread stores it in an atomic.
//!
//! Such a thread lags on a busy machine, stands still while the process is frozen, does not exist
//! after a fork, and wakes the processor in vain without load. So no reader trusts a tick that it
//! has not paid for: a thread reads the clock of the system at every hit, unless it made many
//! within the last milliseconds. Then each reading vouches for the fifteen hits that follow it, a
//! microsecond or two. So after a freeze the first hits of a thread read the clock, but for those
//! of a loop that was stopped between two readings.
//!
//! A reading also corrects a time that lags, and marks a thread that seems dead as stopped. The
//! thread stops without readers; load starts it.
//!
//! Alternatives considered: a reading of the clock at every hit, which costs half a hit. Or to
//! check a tick at every sixteenth hit of a thread however long that takes: after a freeze, a
//! thread that makes few hits then serves old values for as long as it makes fifteen of them.

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use super::coarse;

const PERIOD: Duration = Duration::from_millis(4);
/// The thread stops after this number of ticks without a reader.
const UNREAD_TICKS: u32 = 25;
/// A time that lags by more than this number of milliseconds counts as that of a dead thread.
const MAX_LAG: u64 = 250;
/// A thread that reads the clock more often than this at one time of it makes many hits.
const MANY: u32 = 16;
/// The number of hits that one reading of the clock vouches for, beside its own.
const CREDIT: u32 = 15;

static TICKS: Ticks = Ticks::new();

thread_local! {
    /// The hits of this thread that may still use a tick, and its last readings of the clock.
    static LEFT: Cell<u32> = const { Cell::new(0) };
    static PACE: Cell<Pace> = const { Cell::new(Pace { at: 0, readings: 0 }) };
}

/// Returns the time in milliseconds: a reading of the clock, or a tick that was read by the thread
/// at most fifteen hits ago.
#[inline]
pub(crate) fn coarse_now() -> u64 {
    let left = LEFT.get();
    let tick = TICKS.get();
    if left > 0 && tick != STOPPED {
        LEFT.set(left - 1);
        return tick >> 1;
    }
    read_clock()
}

/// Returns the time in milliseconds, always a reading of the clock.
#[inline]
pub(crate) fn clock_now() -> u64 {
    let now = coarse::millis();
    if now == PACE.get().at { now } else { read_new_step() }
}

/// Compares the two clocks, once for each step of the cheap one: that costs more than a reading.
#[cold]
fn read_new_step() -> u64 {
    let now = coarse::millis_noticing_suspension();
    PACE.set(Pace { at: now, readings: 0 });
    now
}

#[cold]
fn read_clock() -> u64 {
    let mut pace = PACE.get();
    let mut now = coarse::millis();
    if now != pace.at {
        now = coarse::millis_noticing_suspension();
    }
    let credit = pace.credit(now);
    PACE.set(pace);
    LEFT.set(credit);
    if !TICKS.check(now)
        && credit > 0
        && let Some(thread) = thread()
    {
        thread.unpark();
    }
    now
}

/// How many readings of the clock a thread has made lately.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    at: u64,
    /// The readings that gave this same time.
    readings: u32,
}

impl Pace {
    /// After a reading of the clock, returns the number of hits that may use a tick.
    pub(crate) fn credit(&mut self, now: u64) -> u32 {
        let is_same = self.at == now;
        self.readings = if is_same { self.readings.saturating_add(1) } else { 1 };
        self.at = now;
        // mutant stale-tick: => CREDIT
        if self.readings > MANY { CREDIT } else { 0 }
    }
}

/// Returns the ticking thread; `None` if the system refused one, so that all reads go to its clock.
fn thread() -> Option<&'static Thread> {
    static THREAD: OnceLock<Option<Thread>> = OnceLock::new();
    let start = || {
        let named = thread::Builder::new().name("lazy-layers-tick".into());
        named.spawn(run_ticks).ok().map(|handle| handle.thread().clone())
    };
    THREAD.get_or_init(start).as_ref()
}

fn run_ticks() {
    loop {
        let mut unread = 0;
        while unread < UNREAD_TICKS {
            let was_read = TICKS.tick(coarse::millis_noticing_suspension());
            unread = if was_read { 0 } else { unread + 1 };
            thread::sleep(PERIOD);
        }
        if TICKS.stop() {
            thread::park();
        }
    }
}

/// Milliseconds, shifted left by one for the bit [`READ`]; [`STOPPED`] while the thread is stopped.
struct Ticks(AtomicU64);

/// The bit that says whether a thread has read the clock since the last tick: it uses the ticks.
const READ: u64 = 1;
const STOPPED: u64 = 0;

impl Ticks {
    const fn new() -> Self {
        Self(AtomicU64::new(STOPPED))
    }

    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Corrects a time that lags and marks it as read; returns whether the thread ticks. A reader
    /// never replaces [`STOPPED`]: no thread would advance the time then.
    fn check(&self, now: u64) -> bool {
        let word = self.get();
        if word == STOPPED {
            return false;
        }
        let lags_by = now.saturating_sub(word >> 1);
        if lags_by > MAX_LAG {
            self.replace(word, STOPPED);
            return false;
        }
        if lags_by > 0 || word & READ == 0 {
            self.replace(word, now << 1 | READ);
        }
        true
    }

    /// Stores a new tick; returns whether the last one was read.
    fn tick(&self, now: u64) -> bool {
        self.0.swap(now << 1, Ordering::Relaxed) & READ != 0
    }

    /// Stops, unless the last tick was read; returns whether it stopped.
    fn stop(&self) -> bool {
        let word = self.get();
        word & READ == 0 && self.replace(word, STOPPED)
    }

    fn replace(&self, word: u64, by: u64) -> bool {
        self.0.compare_exchange(word, by, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_makes_few_hits_reads_the_clock_at_each() {
        let mut pace = Pace::default();
        for now in 0..100 {
            assert_eq!([pace.credit(now), pace.credit(now)], [0, 0]);
        }
    }

    #[test]
    fn a_thread_in_a_loop_reads_the_clock_at_every_sixteenth_hit_until_time_moves() {
        let mut pace = Pace::default();
        let credits: Vec<u32> = (0..20).map(|_| pace.credit(7)).collect();
        assert_eq!((&credits[..16], &credits[16..]), (&[0; 16][..], &[CREDIT; 4][..]));
        assert_eq!(pace.credit(5_000), 0, "as after a freeze");
    }

    #[test]
    fn a_lagging_time_is_corrected_and_a_dead_thread_is_marked_stopped() {
        let ticks = Ticks::new();
        assert!(!ticks.check(90), "a reader does not start the thread");
        ticks.tick(100);
        assert!(ticks.check(150));
        assert_eq!(ticks.get() >> 1, 150);
        assert!(!ticks.check(150 + MAX_LAG + 1));
        assert_eq!(ticks.get(), STOPPED);
        assert!(!ticks.check(900));
        ticks.tick(1_000);
        assert!(ticks.check(1_000));
    }

    #[test]
    fn the_thread_stops_unless_a_thread_read_the_clock_since_the_last_tick() {
        let ticks = Ticks::new();
        ticks.tick(100);
        ticks.check(100);
        assert!(!ticks.stop());
        assert!(ticks.tick(104));
        assert!(!ticks.tick(108));
        assert!(ticks.stop());
        assert!(!ticks.check(105), "a late reader does not start the thread");
    }
}
