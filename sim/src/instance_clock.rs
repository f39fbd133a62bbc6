//! The clock of an instance: it may run ahead of the time, and stands still with the instance,
//! ticks included.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use lazy_layers_cache::{
    Clock,
    testing::{TickReader, TokioClock},
};

/// Clones are the same clock.
#[derive(Clone)]
pub(crate) struct InstanceClock {
    time: TokioClock,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How far the clock is ahead, in milliseconds.
    ahead: AtomicU64,
    /// The time at which the instance was frozen, plus one; 0 if it is not.
    frozen_at: AtomicU64,
    /// The last tick before a freeze, plus one, and the time at which the next one comes.
    last_tick: AtomicU64,
    next_tick: AtomicU64,
    reader: TickReader,
}

/// Milliseconds between two ticks.
const PERIOD: u64 = 4;
/// From the end of a freeze to the next tick, in milliseconds: other threads run before.
const LATE_TICK: u64 = 20;

impl InstanceClock {
    pub(crate) fn new() -> Self {
        Self { time: TokioClock::new(), state: Arc::default() }
    }

    pub(crate) fn jump(&self, by: u64) {
        self.state.ahead.fetch_add(by, Relaxed);
    }

    pub(crate) fn freeze(&self) {
        let now = self.now();
        self.state.last_tick.store(now / PERIOD * PERIOD + 1, Relaxed);
        self.state.frozen_at.store(now + 1, Relaxed);
    }

    pub(crate) fn thaw(&self) {
        if self.state.frozen_at.swap(0, Relaxed) > 0 {
            self.state.next_tick.store(self.now() + LATE_TICK, Relaxed);
        }
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.state.frozen_at.load(Relaxed) > 0
    }

    fn tick(&self) -> u64 {
        let now = self.now();
        let last = self.state.last_tick.load(Relaxed);
        if last > 0
            && (self.state.frozen_at.load(Relaxed) > 0 || now < self.state.next_tick.load(Relaxed))
        {
            return last - 1;
        }
        now / PERIOD * PERIOD
    }
}

impl Clock for InstanceClock {
    fn now(&self) -> u64 {
        match self.state.frozen_at.load(Relaxed) {
            0 => self.time.now() + self.state.ahead.load(Relaxed),
            frozen_at => frozen_at - 1,
        }
    }

    fn now_for_hits(&self) -> u64 {
        self.state.reader.read(self.tick(), || self.now())
    }
}
