//! Subscribes, on a connection of its own.
//!
//! # Alternatives considered
//!
//! The client's connections that subscribe again on their own: they reconnect without a sign, so
//! lost messages go unnoticed, and they give up without a sign. This subscription ends when its
//! connection breaks.

use std::{future::pending, pin::Pin, sync::Arc};

use futures_util::StreamExt;
use redis::{Client, Value, aio::PubSubStream};
use tokio::sync::watch;

use super::options::RedisTransportOptions;
use crate::{
    adapters::{
        redis::endpoint::Endpoint,
        task::{AbortOnDrop, probe_every, runtime},
    },
    bus::{
        inbox::Inbox,
        transport::{Delivery, MessageStream},
    },
    error::BoxError,
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
        let ((sink, stream), master) =
            endpoint.connect_with(options.connect_timeout, subscribe).await?;
        let inbox = Inbox::with_capacity(options.queue_capacity);
        let (heartbeat, reader) = (options.heartbeat, Reader(Arc::clone(&inbox)));
        // An error is a reply too: the user may not be allowed to ping.
        let ping = move || {
            let mut sink = sink.clone();
            async move { sink.ping::<Value>().await }
        };
        let ended = async move {
            // A subscription outlives its transport.
            if ends.changed().await.is_err() {
                pending().await
            }
        };
        let reading = async move {
            tokio::select! {
                biased;
                () = probe_every(heartbeat, ping) => {}
                () = endpoint.master_moved(master.as_ref(), heartbeat) => {}
                () = ended => {}
                () = reader.read(stream) => {}
            }
        };
        Ok(Self { inbox, _reader: AbortOnDrop::spawn(&runtime, reading) })
    }
}

/// Moves messages from the connection to the inbox, whether the subscriber polls or not: the
/// client's own queue has no bound. When dropped it closes the inbox, even if the runtime shuts
/// down.
struct Reader(Arc<Inbox>);

impl Reader {
    async fn read(&self, mut stream: PubSubStream) {
        while let Some(message) = stream.next().await {
            self.0.push(Delivery::Message(message.get_payload_bytes().to_vec()));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.push(Delivery::Closed);
    }
}

impl MessageStream for RedisMessageStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        self.inbox.next()
    }
}
