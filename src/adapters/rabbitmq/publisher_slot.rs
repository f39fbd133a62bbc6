//! The publisher, connected when a call needs it, and replaced when a call has failed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{connection::Origin, publisher::Publisher, topology::Topology};
use crate::{
    adapters::{connection_slot::ConnectionSlot, task::timeout_named},
    bus::transport::MessageRefused,
    error::BoxError,
    resilience::DropGuard,
};

pub(crate) struct PublisherSlot {
    pub(crate) origin: Origin,
    pub(crate) topology: Topology,
    pub(crate) connect_timeout: Duration,
    pub(crate) confirm_timeout: Duration,
    slot: ConnectionSlot<Publisher>,
}

impl PublisherSlot {
    pub(crate) fn new(
        origin: Origin,
        topology: Topology,
        (connect_timeout, confirm_timeout): (Duration, Duration),
    ) -> Self {
        let slot = ConnectionSlot::new();
        Self { origin, topology, connect_timeout, confirm_timeout, slot }
    }

    /// Runs a call on the publisher's connection, and replaces the connection if the call fails.
    pub(crate) async fn call<F, T>(
        &self,
        act: &str,
        call: impl FnOnce(Arc<Publisher>) -> F,
    ) -> Result<T, BoxError>
    where
        F: Future<Output = Result<T, BoxError>>,
    {
        let connect = || Publisher::open(&self.origin, &self.topology);
        let slot = &self.slot;
        let connected = slot.get_or_connect(self.connect_timeout, Publisher::is_usable, connect);
        let publisher = connected.await?;
        // The client would queue a message for a blocked connection in memory.
        if publisher.connection.is_blocked() {
            return Err("the broker accepts no messages: it is out of memory or disk".into());
        }
        let in_doubt = DropGuard::new(|| publisher.in_doubt.store(true, Ordering::Relaxed));
        let result = timeout_named(self.confirm_timeout, act, call(publisher.clone())).await;
        in_doubt.disarm();
        // A blocked connection may stay: the broker reports the end of the block on it. So may one
        // on which the broker has refused a message and nothing else.
        let may_stay = |error: &BoxError| {
            publisher.is_usable()
                && (publisher.connection.is_blocked() || error.is::<MessageRefused>())
        };
        if result.as_ref().is_err_and(|error| !may_stay(error)) {
            slot.take_if(|it| Arc::ptr_eq(it, &publisher)).await;
        }
        result
    }

    pub(crate) async fn disconnect(&self) {
        self.slot.take_if(|_| true).await;
    }
}
