//! Subscribes, on a connection of its own.
//!
//! # Alternatives considered
//!
//! The client's connections that subscribe again on their own: they reconnect and give up without a
//! sign, so lost messages go unnoticed. This subscription ends when its connection breaks.

use std::{pin::Pin, sync::Arc};

use futures_util::StreamExt;
use redis::{Client, Value};
use tokio::sync::watch;

use super::options::RedisTransportOptions;
use crate::{
    adapters::{
        probe::probe_every,
        redis::endpoint::Endpoint,
        task::{AbortOnDrop, runtime},
    },
    bus::{
        inbox::Inbox,
        transport::{Delivery, MessageStream},
    },
    error::BoxError,
    resilience::DropGuard,
};

pub(crate) struct RedisMessageStream {
    inbox: Arc<Inbox>,
    _reader: AbortOnDrop,
}

impl RedisMessageStream {
    /// Returns once the server has confirmed the subscription.
    ///
    /// The subscription ends when a ping is not answered in time, when the sentinels name another
    /// master, when the transport signals `ends`, or when the server closes the connection.
    pub(crate) async fn subscribe(
        endpoint: Arc<Endpoint>,
        options: &RedisTransportOptions,
        mut ends: watch::Receiver<()>,
    ) -> Result<Self, BoxError> {
        let runtime = runtime()?;
        let subscribe = |client: Client| async move {
            let (mut sink, stream) = client.get_async_pubsub().await?.split();
            sink.subscribe(&options.channel).await?;
            Ok((sink, stream))
        };
        let ((sink, mut stream), master) =
            endpoint.connect_with(options.connect_timeout, subscribe).await?;
        let inbox = Inbox::bounded(options.queue_capacity, 32 << 20);
        let heartbeat = options.heartbeat;
        // An error is a reply too: the user may not be allowed to ping.
        let ping = move || {
            let mut sink = sink.clone();
            async move { sink.ping::<Value>().await }
        };
        let (reader, closing) = (Arc::clone(&inbox), Arc::clone(&inbox));
        // Messages move to the inbox whether the subscriber polls or not: the client's own queue
        // has no bound.
        let read = async move {
            while let Some(message) = stream.next().await {
                reader.push(Delivery::Message(message.get_payload_bytes().to_vec()));
            }
        };
        // Made outside of the task: it also runs if the runtime shuts down before the task starts.
        let close = DropGuard::new(move || closing.push(Delivery::Closed));
        let reading = async move {
            let _close = close;
            tokio::select! {
                biased;
                () = probe_every(heartbeat, ping) => {}
                () = endpoint.moved(master.as_ref(), heartbeat) => {}
                // A dropped transport only disables this branch: the subscription outlives it.
                Ok(()) = ends.changed() => {}
                () = read => {}
            }
        };
        Ok(Self { inbox, _reader: AbortOnDrop::spawn(&runtime, reading) })
    }
}

impl MessageStream for RedisMessageStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        self.inbox.next()
    }
}
