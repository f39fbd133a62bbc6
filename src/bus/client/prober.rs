//! The prober: sends the probes of a subscription, beside the subscriber, which receives them.

use std::time::Duration;

use tokio::time::sleep;

use super::bus_session::BusSession;
use crate::{
    bus::transport::Prober,
    error::BoxError,
    observe::{Counter, Event},
    resilience::{Elapsed, run_until, timeout},
};

impl BusSession {
    /// Sends probes while the subscription lasts. A probe that hangs delays only the next one.
    pub(super) async fn run_prober(&self, prober: &dyn Prober) {
        let limit = self.options.publish_timeout;
        loop {
            let now = self.now();
            let (number, next_at) = {
                let probes = &mut self.protocol.lock().gaps.probes;
                (probes.take_due(now), probes.next_at())
            };
            let Some(number) = number else {
                let wait = Duration::from_millis(next_at.saturating_sub(now));
                run_until(self.probe_due.notified(), sleep(wait)).await;
                continue;
            };
            let sent = timeout(Some(limit), prober.send(number)).await;
            let late = |Elapsed| Err(BoxError::from(format!("not within {limit:?}")));
            if let Err(error) = sent.unwrap_or_else(late) {
                let event = || Event::BusProbeError { error: &*error };
                Self::report_to(&self.receivers(), Some(Counter::BusErrors), event);
            }
        }
    }
}
