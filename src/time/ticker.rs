//! The time as a ticking thread wrote it down: what a hit can afford.
//!
//! A thread that keeps an atomic up to date lags when the machine is busy, stands still while the
//! process is frozen, is not there after a fork, and wakes the processor for nothing where there is
//! no load. So it is not trusted and not kept: readers check it against the system's clock at
//! every sixteenth hit, set it right where it lags, and do without it where it seems dead; it stops
//! when nobody reads, and is started by load only.

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
/// Ticks that nobody reads before it stops.
const UNREAD_TICKS: u32 = 25;
/// Lagging by so many milliseconds, it counts as dead.
const DEAD: u64 = 250;

static TICKS: Ticks = Ticks::new();

/// The time, no older than a tick as far as that can be helped.
#[inline]
pub(crate) fn coarse_now() -> u64 {
    TICKS.read(coarse::millis)
}

/// To be called once in a while by whoever reads often.
#[cold]
pub(crate) fn resync() {
    if TICKS.check(coarse::millis()) == Checked::Stopped
        && let Some(thread) = the_thread()
    {
        thread.unpark();
    }
}

/// `None`: the system has no thread for us, so all read its clock.
fn the_thread() -> Option<&'static Thread> {
    static THREAD: OnceLock<Option<Thread>> = OnceLock::new();
    let start = || {
        let named = thread::Builder::new().name("lazy-layers-tick".into());
        named.spawn(keep_ticking).ok().map(|handle| handle.thread().clone())
    };
    THREAD.get_or_init(start).as_ref()
}

fn keep_ticking() {
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

/// Milliseconds, shifted by the bit [`READ`]; zero while nobody ticks.
struct Ticks(AtomicU64);

/// Somebody has read it since the last tick.
const READ: u64 = 1;
const STOPPED: u64 = 0;

#[derive(Debug, PartialEq, Eq)]
enum Checked {
    Ticking,
    Stopped,
}

impl Ticks {
    const fn new() -> Self {
        Self(AtomicU64::new(STOPPED))
    }

    #[inline]
    fn read(&self, ask: impl FnOnce() -> u64) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        if word & READ != 0 { word >> 1 } else { self.first_read(word, ask()) }
    }

    /// The first to read a tick marks it as read, and brings it up to date. Nobody but the ticking
    /// thread ends [`STOPPED`]: a time that nobody moves on would be the result.
    #[cold]
    fn first_read(&self, word: u64, now: u64) -> u64 {
        if word != STOPPED {
            self.replace(word, now << 1 | READ);
        }
        now
    }

    fn check(&self, now: u64) -> Checked {
        let word = self.0.load(Ordering::Relaxed);
        if word == STOPPED {
            return Checked::Stopped;
        }
        let lags_by = now.saturating_sub(word >> 1);
        if lags_by > DEAD {
            self.replace(word, STOPPED);
            return Checked::Stopped;
        }
        if lags_by > 0 {
            self.replace(word, now << 1 | READ);
        }
        Checked::Ticking
    }

    /// Says whether the last tick was read by anyone.
    fn tick(&self, now: u64) -> bool {
        self.0.swap(now << 1, Ordering::Relaxed) & READ != 0
    }

    /// Whether nobody has read meanwhile.
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
    fn what_is_not_ticking_is_not_read() {
        let ticks = Ticks::new();
        for now in [7, 8, 1_000_000] {
            assert_eq!(ticks.read(|| now), now);
        }
    }

    #[test]
    fn one_reader_a_tick_asks_the_system_and_the_others_follow() {
        let ticks = Ticks::new();
        assert!(!ticks.tick(100));
        assert_eq!(ticks.read(|| 103), 103);
        assert_eq!(ticks.read(|| unreachable!("it was read just now")), 103);
        assert!(ticks.tick(104));
        assert!(!ticks.tick(108));
    }

    #[test]
    fn a_tick_that_lags_is_set_right_and_a_dead_one_given_up() {
        let ticks = Ticks::new();
        ticks.tick(100);
        ticks.read(|| 100);
        assert_eq!(ticks.check(150), Checked::Ticking);
        assert_eq!(ticks.read(|| unreachable!()), 150);
        assert_eq!(ticks.check(150 + DEAD + 1), Checked::Stopped);
        assert_eq!(ticks.read(|| 500), 500);
        assert_eq!(ticks.read(|| 900), 900, "nobody but the thread starts it");
        ticks.tick(1_000);
        assert_eq!(ticks.read(|| 1_001), 1_001);
    }

    #[test]
    fn it_stops_unless_somebody_reads() {
        let ticks = Ticks::new();
        ticks.tick(100);
        ticks.read(|| 100);
        assert!(!ticks.stop());
        ticks.tick(104);
        let word = ticks.0.load(Ordering::Relaxed);
        assert!(ticks.stop());
        assert_eq!(ticks.first_read(word, 105), 105);
        assert_eq!(ticks.read(|| 109), 109, "a late reader does not start it");
    }
}
