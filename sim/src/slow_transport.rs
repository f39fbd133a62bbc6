//! An instance's connection to the simulated bus: subscribing takes time before and after the
//! subscription begins.

use std::time::Duration;

use lazy_layers_cache::{Subscribed, Transport, TransportFuture, testing::BusLink};
use tokio::time::{sleep, timeout};

pub(crate) struct SlowTransport {
    pub(crate) link: BusLink,
    pub(crate) seed: u64,
}

/// The longest of the two delays, in milliseconds.
const SLOWEST: u64 = 100;
/// Real transports have such a limit of their own.
const LIMIT: Duration = Duration::from_secs(1);

impl Transport for SlowTransport {
    fn name(&self) -> &'static str {
        self.link.name()
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        self.link.publish(event)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.link.announce(beacon)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let random = &mut fastrand::Rng::with_seed(self.seed);
            let mut span = || Duration::from_millis(random.u64(0..SLOWEST));
            let (before, after) = (span(), span());
            sleep(before).await;
            let subscribed = timeout(LIMIT, self.link.subscribe()).await??;
            sleep(after).await;
            Ok(subscribed)
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async { timeout(LIMIT, self.link.ping()).await? })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.link.disconnect()
    }
}
