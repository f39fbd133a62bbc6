//! The prober: sends the probes of a subscription, beside the subscriber, which receives them.

use std::time::Duration;

use tokio::time::sleep;

use super::{bus_client::BusClient, sink::Sink};
use crate::{
    bus::transport::Prober,
    error::BoxError,
    observe::{Counter, Event},
    resilience::{Elapsed, run_until, timeout},
};

impl BusClient {
    /// Sends probes while the subscription lasts. A probe that hangs delays only the next one.
    pub(super) async fn run_prober<S: Sink>(&self, sink: &S, prober: &dyn Prober) {
        let limit = self.options.event_bus.publish_timeout;
        loop {
            let now = sink.now();
            let (number, next_at) = {
                let probes = &mut self.session.lock().gaps.probes;
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
                sink.observer().count(Counter::BusErrors);
                sink.observer().emit(|| Event::BusProbeError { error: &*error });
            }
        }
    }
}
