//! A circuit breaker: after so many failures in a row nothing is tried for a while, then one call
//! at a time is let through to see.
//!
//! Pure: it is told the time and tells what changed; whoever asks reports. Opening at a failure
//! *rate* instead was refused: it needs a window to keep, and what is guarded here either answers
//! or does not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Times are milliseconds of the caller's clock.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// Failures in a row that open it.
    threshold: u32,
    /// How long it stays open.
    cooldown: u64,
    state: Mutex<State>,
    /// Whether it is closed and the last call succeeded: then neither leave nor success takes the
    /// lock. Written under it.
    is_quiet: AtomicBool,
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
    /// One call is out to see. If nothing is heard of it for as long as a cooldown, another goes.
    Probing {
        since: u64,
        probe: u64,
    },
}

/// Leave to make one call. Dropped without a result (the caller went away) it counts as neither.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    /// The number of the probe that it is.
    probe: Option<u64>,
    connection: u64,
}

impl Breaker {
    pub(crate) fn new(threshold: u32, cooldown: u64) -> Self {
        Self {
            threshold,
            cooldown,
            state: Mutex::new(State::Closed { failures: 0 }),
            is_quiet: AtomicBool::new(true),
            probes: AtomicU64::new(0),
        }
    }

    /// `None`: do not call. `connection` is the number of the connection that the call would use:
    /// what failed on another says nothing about it.
    pub(crate) fn permit(&self, now: u64, connection: u64) -> Option<Permit<'_>> {
        if self.is_quiet.load(Ordering::Relaxed) {
            return Some(Permit { breaker: self, probe: None, connection });
        }
        let mut state = self.state.lock();
        let due = match *state {
            State::Closed { .. } => return Some(Permit { breaker: self, probe: None, connection }),
            State::Open { connection: failed, .. } if failed != connection => now,
            State::Open { until, .. } => until,
            State::Probing { since, .. } => since.saturating_add(self.cooldown),
        };
        if now < due {
            return None;
        }
        let probe = self.probes.fetch_add(1, Ordering::Relaxed);
        self.put(&mut state, State::Probing { since: now, probe });
        Some(Permit { breaker: self, probe: Some(probe), connection })
    }

    fn put(&self, state: &mut State, next: State) {
        *state = next;
        let is_quiet = matches!(next, State::Closed { failures: 0 });
        self.is_quiet.store(is_quiet, Ordering::Relaxed);
    }

    pub(crate) fn is_open(&self) -> bool {
        !matches!(*self.state.lock(), State::Closed { .. })
    }
}

impl Permit<'_> {
    /// Whether this closed the breaker.
    pub(crate) fn succeeded(mut self) -> bool {
        if self.probe.is_none() && self.breaker.is_quiet.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.breaker.state.lock();
        match *state {
            State::Closed { failures: 0 } => false,
            State::Closed { .. } => {
                self.breaker.put(&mut state, State::Closed { failures: 0 });
                false
            }
            // Only the probe's word counts: others set out before it opened.
            State::Probing { probe, .. } if self.probe.take() == Some(probe) => {
                self.breaker.put(&mut state, State::Closed { failures: 0 });
                true
            }
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// Whether this opened the breaker that was closed.
    pub(crate) fn failed(mut self, now: u64) -> bool {
        let mut state = self.breaker.state.lock();
        let until = now.saturating_add(self.breaker.cooldown);
        let connection = self.connection;
        match *state {
            State::Closed { failures } if failures + 1 < self.breaker.threshold => {
                self.breaker.put(&mut state, State::Closed { failures: failures + 1 });
                false
            }
            State::Closed { .. } => {
                self.breaker.put(&mut state, State::Open { until, connection });
                true
            }
            State::Probing { probe, .. } if self.probe.take() == Some(probe) => {
                self.breaker.put(&mut state, State::Open { until, connection });
                false
            }
            State::Open { .. } | State::Probing { .. } => false,
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Some(own) = self.probe else { return };
        let mut state = self.breaker.state.lock();
        match *state {
            // Nothing was learned: the next caller may probe at once.
            State::Probing { since, probe } if probe == own => {
                self.breaker
                    .put(&mut state, State::Open { until: since, connection: self.connection });
            }
            _ => {}
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
    fn it_opens_at_the_threshold_and_only_for_failures_in_a_row() {
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
    fn a_probe_that_goes_away_lets_the_next_caller_probe() {
        let breaker = opened();
        drop(breaker.permit(100, 7).unwrap());
        assert!(breaker.permit(100, 7).unwrap().succeeded());
    }

    #[test]
    fn a_probe_that_nothing_is_heard_of_does_not_keep_the_next_from_going() {
        let breaker = opened();
        let lost = breaker.permit(100, 7).unwrap();
        let next = breaker.permit(200, 7).unwrap();
        assert!(!lost.succeeded(), "too late to have a say");
        assert!(next.succeeded());
    }

    #[test]
    fn calls_from_before_it_opened_have_no_say() {
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
        assert!(breaker.permit(1, 8).unwrap().succeeded());
        assert!(!breaker.is_open());
    }
}
