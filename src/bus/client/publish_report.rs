//! Reports what peers do not get as it was meant for them: messages that the broker refuses,
//! invalidations that cover more keys, and values that are not sent.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use super::log_timer::LogTimer;
use crate::{
    bus::{
        protocol::outbox::{AfterRefusal, Reduction},
        transport::MessageRefused,
    },
    error::BoxError,
    observe::{
        Counter, Event, Observer, log_bus_accepting, log_bus_refusing, log_bus_value_skipped,
        log_bus_widened,
    },
};

/// The log lines of a session about messages that the broker refuses.
#[derive(Default)]
pub(super) struct RefusalReport {
    refusing: LogTimer,
    /// Whether the log says that the broker refuses all messages.
    is_stuck: AtomicBool,
}

/// What the peers of one cache do not get as it was meant for them.
#[derive(Default)]
pub(super) struct ReductionReport {
    widened: LogTimer,
    values_skipped: LogTimer,
}

impl RefusalReport {
    /// The broker refused a message of this cache.
    pub(super) fn refused(
        &self,
        observer: &Observer,
        now: u64,
        error: &BoxError,
        after: AfterRefusal,
    ) {
        observer.count(Counter::BusRefused);
        observer.emit(|| Event::BusPublishRefused { error: &**error });
        let is_stuck = after == AfterRefusal::Stuck;
        let is_new = match is_stuck {
            true => !self.is_stuck.swap(true, Ordering::Relaxed),
            false => self.refusing.is_due(now),
        };
        if is_new {
            log_bus_refusing(observer.cache(), error, is_stuck);
        }
    }

    /// The broker accepted a message of this cache.
    pub(super) fn accepted(&self, observer: &Observer) {
        let was_stuck = self.is_stuck.load(Ordering::Relaxed);
        if was_stuck && self.is_stuck.swap(false, Ordering::Relaxed) {
            log_bus_accepting(observer.cache());
        }
    }
}

impl ReductionReport {
    pub(super) fn reduced(&self, observer: &Observer, now: u64, reductions: &[Reduction]) {
        for reduction in reductions {
            match reduction {
                Reduction::Widened { pattern, reason } => {
                    observer.count(Counter::BusWidened);
                    observer.emit(|| Event::BusWidened { pattern, reason });
                    if self.widened.is_due(now) {
                        log_bus_widened(observer.cache(), reason);
                    }
                }
                Reduction::ValueDropped { key, reason } => {
                    self.value_skipped(observer, now, key, reason);
                }
            }
        }
    }

    /// A value is not sent to the peers.
    pub(super) fn value_skipped(&self, observer: &Observer, now: u64, key: &str, reason: &str) {
        observer.count(Counter::ValuesNotSent);
        observer.emit(|| Event::SetBroadcastSkipped { key, reason });
        if self.values_skipped.is_due(now) {
            log_bus_value_skipped(observer.cache(), key, reason);
        }
    }
}

/// Whether the broker would refuse the message again: the error, or a cause of it, says so.
pub(super) fn is_refusal(error: &BoxError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = cause {
        if error.is::<MessageRefused>() {
            return true;
        }
        // An `io::Error` names the cause of the error within it, not that error.
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = within.map(|it| it as _).or_else(|| error.source());
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_found_among_the_causes() {
        let refused = || MessageRefused::new("too large");
        assert!(is_refusal(&refused().into()));
        assert!(is_refusal(&io::Error::other(io::Error::other(refused())).into()));
        assert!(!is_refusal(&"the broker refuses the message".into()));
    }
}
