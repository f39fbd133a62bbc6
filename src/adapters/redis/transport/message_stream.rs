//! A subscription, on a connection of its own.
//!
//! The client's connections that subscribe again by themselves were refused: they do it in
//! silence, and give up in silence. This one is not saved when it breaks.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use redis::{
    Client, Value,
    aio::{PubSubSink, PubSubStream},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    options::RedisTransportOptions,
    place::{Place, Reached},
};
use crate::{
    adapters::task::{AbortOnDrop, runtime},
    bus::{
        inbox::Inbox,
        transport::{Delivery, MessageStream},
    },
    error::BoxError,
};

pub(crate) struct RedisEvents {
    inbox: Arc<Inbox>,
    _reader: AbortOnDrop,
}

impl RedisEvents {
    /// Returns when the server has confirmed that it is subscribed.
    pub(crate) async fn of(
        place: Arc<Place>,
        options: &RedisTransportOptions,
        ends: watch::Receiver<u64>,
    ) -> Result<Self, BoxError> {
        let runtime = runtime()?;
        let subscribe = |client: Client| async move {
            let (mut sink, stream) = client.get_async_pubsub().await?.split();
            sink.subscribe(&options.channel).await?;
            Ok((sink, stream))
        };
        let Reached { connection: (sink, stream), address } =
            place.reach(options.connect_timeout, subscribe).await?;
        let inbox = Inbox::with_capacity(options.queue_capacity);
        let (heartbeat, feed) = (options.heartbeat, Feed(Arc::clone(&inbox)));
        let reading = async move {
            tokio::select! {
                biased;
                () = beat(sink, heartbeat) => {}
                () = place.moved(address.as_ref(), heartbeat) => {}
                () = ended(ends) => {}
                () = feed.fill(stream) => {}
            }
        };
        Ok(Self { inbox, _reader: AbortOnDrop::spawn(&runtime, reading) })
    }
}

/// Returns when the server does not answer in time.
async fn beat(mut sink: PubSubSink, every: Duration) {
    loop {
        sleep(every).await;
        // A refusal is a sign of life too, for users who may not ask for one.
        let answer = timeout(every.mul_f32(1.5), sink.ping::<Value>()).await;
        if !matches!(answer, Ok(Ok(_))) {
            return;
        }
    }
}

/// Returns when all subscriptions of the transport are to end: not because it is gone.
async fn ended(mut ends: watch::Receiver<u64>) {
    if ends.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// Reads all the time, not only when asked: the client's own queue has no bound. Closes the queue
/// when dropped, whoever ends the reading, be it a runtime that shuts down.
struct Feed(Arc<Inbox>);

impl Feed {
    async fn fill(&self, mut stream: PubSubStream) {
        while let Some(message) = stream.next().await {
            self.0.push(Delivery::Message(message.get_payload_bytes().to_vec()));
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.push(Delivery::Closed);
    }
}

impl MessageStream for RedisEvents {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        self.inbox.next()
    }
}
