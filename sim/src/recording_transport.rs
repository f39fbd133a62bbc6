//! A transport that records the beginning of each subscription, which revokes the running loads of
//! its instance.

use lazy_layers_cache::{Subscribed, Transport, TransportFuture};

use crate::recorder::Recorder;

pub(crate) struct RecordingTransport<T> {
    pub(crate) inner: T,
    pub(crate) recorder: Recorder,
    /// The number of the instance.
    pub(crate) by: usize,
}

impl<T: Transport> Transport for RecordingTransport<T> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        self.inner.publish(message)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.inner.announce(beacon)
    }

    fn on_used_by(&self, cache: &str) {
        self.inner.on_used_by(cache);
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async {
            let subscribed = self.inner.subscribe().await?;
            self.recorder.revoke_all_loads(self.by);
            Ok(subscribed)
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.inner.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.inner.disconnect()
    }
}
