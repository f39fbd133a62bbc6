//! The cached time of the hit path: a ticking thread stores it in an atomic.
//!
//! Such a thread lags on a busy machine, stands still while the process is frozen, does not exist
//! after a fork, and wakes the processor in vain without load. So readers do not trust it: every
//! sixteenth hit compares its time with the clock of the system, corrects a time that lags, and
//! marks a thread that seems dead as stopped. The thread stops without readers; load starts it.

use std::{
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

static TICKS: Ticks = Ticks::new();

/// Returns the time in milliseconds. It is at most one tick old while the thread runs in time.
#[inline]
pub(crate) fn coarse_now() -> u64 {
    TICKS.read(coarse::millis)
}

/// Compares the cached time with the clock of the system, and starts the thread if it is stopped.
/// The hit path calls this on every sixteenth hit of a thread.
#[cold]
pub(crate) fn resync() {
    if !TICKS.check(coarse::millis())
        && let Some(thread) = thread()
    {
        thread.unpark();
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
            let was_read = TICKS.tick(coarse::millis());
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

/// The bit that says whether the time was read since the last tick.
const READ: u64 = 1;
const STOPPED: u64 = 0;

impl Ticks {
    const fn new() -> Self {
        Self(AtomicU64::new(STOPPED))
    }

    #[inline]
    fn read(&self, system: impl FnOnce() -> u64) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        if word & READ != 0 { word >> 1 } else { self.first_read(word, system()) }
    }

    /// The first reader of a tick marks it as read and updates it. A reader never replaces
    /// [`STOPPED`]: no thread would advance the time then.
    #[cold]
    fn first_read(&self, word: u64, now: u64) -> u64 {
        if word != STOPPED {
            self.replace(word, now << 1 | READ);
        }
        now
    }

    /// Corrects a time that lags; returns whether the thread ticks.
    fn check(&self, now: u64) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        if word == STOPPED {
            return false;
        }
        let lags_by = now.saturating_sub(word >> 1);
        if lags_by > MAX_LAG {
            self.replace(word, STOPPED);
            return false;
        }
        if lags_by > 0 {
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
        let word = self.0.load(Ordering::Relaxed);
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
    fn while_the_thread_is_stopped_all_reads_go_to_the_system() {
        let ticks = Ticks::new();
        for now in [7, 8, 1_000_000] {
            assert_eq!(ticks.read(|| now), now);
        }
    }

    #[test]
    fn the_first_reader_of_a_tick_asks_the_system_and_the_others_do_not() {
        let ticks = Ticks::new();
        assert!(!ticks.tick(100));
        assert_eq!(ticks.read(|| 103), 103);
        assert_eq!(ticks.read(|| unreachable!("the tick was read already")), 103);
        assert!(ticks.tick(104));
        assert!(!ticks.tick(108));
    }

    #[test]
    fn a_lagging_time_is_corrected_and_a_dead_thread_is_marked_stopped() {
        let ticks = Ticks::new();
        ticks.tick(100);
        ticks.read(|| 100);
        assert!(ticks.check(150));
        assert_eq!(ticks.read(|| unreachable!()), 150);
        assert!(!ticks.check(150 + MAX_LAG + 1));
        assert_eq!(ticks.read(|| 500), 500);
        assert_eq!(ticks.read(|| 900), 900, "a reader does not start the thread");
        ticks.tick(1_000);
        assert_eq!(ticks.read(|| 1_001), 1_001);
    }

    #[test]
    fn the_thread_stops_unless_a_tick_was_read() {
        let ticks = Ticks::new();
        ticks.tick(100);
        ticks.read(|| 100);
        assert!(!ticks.stop());
        ticks.tick(104);
        let word = ticks.0.load(Ordering::Relaxed);
        assert!(ticks.stop());
        assert_eq!(ticks.first_read(word, 105), 105);
        assert_eq!(ticks.read(|| 109), 109, "a late reader does not start the thread");
    }
}
