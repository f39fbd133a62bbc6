//! A store and a transport that run a function of the test at every call: to call the cache, say.

use std::sync::Arc;

use lazy_layers_cache::{
    Store, StoreFuture, Subscribed, Transport, TransportFuture,
    testing::{BusLink, ForwardStore, SharedStore},
};

type Call = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct CallingStore(pub(crate) SharedStore, pub(crate) Call);

impl ForwardStore for CallingStore {
    fn inner(&self) -> Arc<dyn Store> {
        (self.1)();
        Arc::new(self.0.clone())
    }

    fn forward<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<dyn Store>) -> StoreFuture<'static, T> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let (call, before_and_after) = (call(self.inner()), Arc::clone(&self.1));
        Box::pin(async move {
            before_and_after();
            let answer = call.await;
            before_and_after();
            answer
        })
    }
}

pub(crate) struct CallingTransport(pub(crate) BusLink, pub(crate) Call);

impl Transport for CallingTransport {
    fn name(&self) -> &'static str {
        "calling"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        (self.1)();
        self.0.publish(message)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        (self.1)();
        self.0.announce(beacon)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        (self.1)();
        self.0.subscribe()
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        (self.1)();
        self.0.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        (self.1)();
        self.0.disconnect()
    }
}
