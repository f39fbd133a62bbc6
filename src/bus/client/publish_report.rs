//! Reports what peers do not get as it was meant for them: messages that the broker refuses,
//! invalidations that cover more keys, and values that are not sent.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{log_timer::LogTimer, sink::Sink};
use crate::{
    bus::{
        protocol::outbox::{AfterRefusal, Reduction},
        transport::MessageRefused,
    },
    error::BoxError,
    observe::{
        Counter, Event, log_bus_accepting, log_bus_refusing, log_bus_value_skipped, log_bus_widened,
    },
};

#[derive(Default)]
pub(super) struct PublishReport {
    refusing: LogTimer,
    widened: LogTimer,
    values_skipped: LogTimer,
    /// Whether the log says that the broker refuses all messages.
    is_stuck: AtomicBool,
}

impl PublishReport {
    /// The broker refused a message.
    pub(super) fn refused<S: Sink>(&self, sink: &S, error: &BoxError, after: AfterRefusal) {
        sink.observer().count(Counter::BusRefused);
        sink.observer().emit(|| Event::BusPublishRefused { error: &**error });
        let is_stuck = after == AfterRefusal::Stuck;
        let is_new = match is_stuck {
            true => !self.is_stuck.swap(true, Ordering::Relaxed),
            false => self.refusing.is_due(sink.now()),
        };
        if is_new {
            log_bus_refusing(sink.observer().cache(), error, is_stuck);
        }
    }

    /// The broker accepted a message.
    pub(super) fn accepted<S: Sink>(&self, sink: &S) {
        let was_stuck = self.is_stuck.load(Ordering::Relaxed);
        if was_stuck && self.is_stuck.swap(false, Ordering::Relaxed) {
            log_bus_accepting(sink.observer().cache());
        }
    }

    pub(super) fn reduced<S: Sink>(&self, sink: &S, reductions: &[Reduction]) {
        for reduction in reductions {
            match reduction {
                Reduction::Widened { pattern, reason } => {
                    sink.observer().count(Counter::BusWidened);
                    sink.observer().emit(|| Event::BusWidened { pattern, reason });
                    if self.widened.is_due(sink.now()) {
                        log_bus_widened(sink.observer().cache(), reason);
                    }
                }
                Reduction::ValueDropped { key, reason } => self.value_skipped(sink, key, reason),
            }
        }
    }

    /// A value is not sent to the peers.
    pub(super) fn value_skipped<S: Sink>(&self, sink: &S, key: &str, reason: &str) {
        sink.observer().count(Counter::ValuesNotSent);
        sink.observer().emit(|| Event::SetBroadcastSkipped { key, reason });
        if self.values_skipped.is_due(sink.now()) {
            log_bus_value_skipped(sink.observer().cache(), key, reason);
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
