//! Circuit breaker: after `threshold` consecutive failures it opens and refuses all calls for the
//! cooldown, then lets one probe at a time through.
//!
//! It does no I/O and reads no clock: the caller passes the time, and reports the transitions that
//! [`Permit`] returns.
//!
//! Alternatives considered: opening at a failure *rate*. A rate needs a window of samples, and the
//! dependencies guarded here either answer or do not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Times are milliseconds of the caller's clock.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// Consecutive failures that open it.
    threshold: u32,
    /// How long it stays open, in milliseconds.
    cooldown: u64,
    state: Mutex<State>,
    /// True while it is closed and the last call succeeded: then neither `permit` nor `succeeded`
    /// takes the lock. Written under the lock.
    is_fast: AtomicBool,
    probes: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: u64,
        /// The connection that failed.
        connection: u64,
    },
    /// Half open: one probe is in flight. If it does not end within one cooldown, the next caller
    /// becomes the probe.
    Probing {
        since: u64,
        probe: u64,
    },
}

/// Permission to make one call. Dropped without a result (the caller went away), it counts neither
/// as a success nor as a failure.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    /// The number of the probe, if this call is one.
    probe: Option<u64>,
    connection: u64,
}

impl Breaker {
    pub(crate) fn new(threshold: u32, cooldown: u64) -> Self {
        Self {
            threshold,
            cooldown,
            state: Mutex::new(State::Closed { failures: 0 }),
            is_fast: AtomicBool::new(true),
            probes: AtomicU64::new(0),
        }
    }

    /// Returns a permit, or `None` if the caller must not call. `connection` is the number of the
    /// connection that the call would use: failures on another connection do not block it.
    pub(crate) fn permit(&self, now: u64, connection: u64) -> Option<Permit<'_>> {
        if self.is_fast.load(Ordering::Relaxed) {
            return Some(Permit { breaker: self, probe: None, connection });
        }
        let mut state = self.state.lock();
        if matches!(*state, State::Closed { .. }) {
            return Some(Permit { breaker: self, probe: None, connection });
        }
        if now < self.next_permit(*state, connection) {
            return None;
        }
        let probe = self.probes.fetch_add(1, Ordering::Relaxed);
        self.put(&mut state, State::Probing { since: now, probe });
        Some(Permit { breaker: self, probe: Some(probe), connection })
    }

    /// Whether [`permit`](Self::permit) would return a permit. Takes none.
    pub(crate) fn would_permit(&self, now: u64, connection: u64) -> bool {
        now >= self.next_permit(*self.state.lock(), connection)
    }

    /// The time from which on a call is permitted.
    fn next_permit(&self, state: State, connection: u64) -> u64 {
        match state {
            State::Closed { .. } => 0,
            State::Open { connection: failed, .. } if failed != connection => 0,
            State::Open { until, .. } => until,
            State::Probing { since, .. } => since.saturating_add(self.cooldown),
        }
    }

    fn put(&self, state: &mut State, next: State) {
        *state = next;
        let is_fast = matches!(next, State::Closed { failures: 0 });
        self.is_fast.store(is_fast, Ordering::Relaxed);
    }

    /// A call that was made without a permit has succeeded: closes the breaker. Returns whether it
    /// was open.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.state.lock();
        let was_open = !matches!(*state, State::Closed { .. });
        self.put(&mut state, State::Closed { failures: 0 });
        was_open
    }

    pub(crate) fn is_open(&self) -> bool {
        !matches!(*self.state.lock(), State::Closed { .. })
    }
}

impl Permit<'_> {
    /// Records a success. Returns whether it closed the breaker.
    pub(crate) fn succeeded(mut self) -> bool {
        if self.probe.is_none() && self.breaker.is_fast.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.breaker.state.lock();
        let closes = self.decides(*state);
        if closes || matches!(*state, State::Closed { .. }) {
            self.breaker.put(&mut state, State::Closed { failures: 0 });
        }
        closes
    }

    /// Records a failure. Returns whether it opened a closed breaker.
    pub(crate) fn failed(mut self, now: u64) -> bool {
        let until = now.saturating_add(self.breaker.cooldown);
        let open = State::Open { until, connection: self.connection };
        let mut state = self.breaker.state.lock();
        let (next, opens) = match *state {
            State::Closed { failures } if failures + 1 < self.breaker.threshold => {
                (State::Closed { failures: failures + 1 }, false)
            }
            State::Closed { .. } => (open, true),
            _ if self.decides(*state) => (open, false),
            _ => return false,
        };
        self.breaker.put(&mut state, next);
        opens
    }

    /// Whether this call is the probe that a half-open breaker waits for. Only the probe decides:
    /// all other calls started before the breaker opened.
    fn decides(&mut self, state: State) -> bool {
        matches!(state, State::Probing { probe, .. } if self.probe.take() == Some(probe))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Some(own) = self.probe else { return };
        let mut state = self.breaker.state.lock();
        // The probe has no result: the next caller may probe at once.
        if let State::Probing { since, probe } = *state
            && probe == own
        {
            self.breaker.put(&mut state, State::Open { until: since, connection: self.connection });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Breaker {
        let breaker = Breaker::new(3, 100);
        for failure in 1..=3 {
            assert_eq!(breaker.permit(0, 7).unwrap().failed(0), failure == 3);
        }
        breaker
    }

    #[test]
    fn it_opens_at_the_threshold_and_only_for_consecutive_failures() {
        let breaker = Breaker::new(3, 100);
        for _ in 0..10 {
            assert!(!breaker.permit(0, 7).unwrap().failed(0));
            assert!(!breaker.permit(0, 7).unwrap().failed(0));
            assert!(!breaker.permit(0, 7).unwrap().succeeded());
        }
        assert!(!breaker.is_open());
        assert!(opened().permit(99, 7).is_none());
    }

    #[test]
    fn one_call_at_a_time_probes() {
        let breaker = opened();
        let probe = breaker.permit(100, 7).unwrap();
        assert!(breaker.permit(100, 7).is_none() && breaker.permit(199, 7).is_none());
        assert!(!probe.failed(150), "it was open before");
        assert!(breaker.permit(249, 7).is_none());
        assert!(breaker.permit(250, 7).unwrap().succeeded());
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_dropped_probe_lets_the_next_caller_probe() {
        let breaker = opened();
        drop(breaker.permit(100, 7).unwrap());
        assert!(breaker.permit(100, 7).unwrap().succeeded());
    }

    #[test]
    fn a_probe_without_a_result_does_not_block_the_next_probe() {
        let breaker = opened();
        let lost = breaker.permit(100, 7).unwrap();
        let next = breaker.permit(200, 7).unwrap();
        assert!(!lost.succeeded(), "its cooldown has passed, another probe decides");
        assert!(next.succeeded());
    }

    #[test]
    fn calls_from_before_it_opened_do_not_change_its_state() {
        let breaker = Breaker::new(1, 100);
        let (early, late) = (breaker.permit(0, 7).unwrap(), breaker.permit(0, 7).unwrap());
        assert!(breaker.permit(0, 7).unwrap().failed(0));
        assert!(!early.succeeded() && !late.failed(500));
        assert!(breaker.is_open() && breaker.permit(100, 7).is_some());
    }

    #[test]
    fn a_new_connection_is_tried_at_once() {
        let breaker = opened();
        assert!(breaker.permit(1, 7).is_none());
        assert!(!breaker.would_permit(99, 7));
        assert!(breaker.would_permit(100, 7) && breaker.would_permit(1, 8));
        assert!(breaker.permit(1, 8).unwrap().succeeded());
        assert!(!breaker.is_open());
    }
}
