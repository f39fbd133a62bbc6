//! The subscription of a child process whose memory is measured: the subscriber takes one delivery
//! at a time, and only when its parent asks for it.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    Delivery, RabbitMqOptions, RabbitMqTransport, RedisTransport, Subscribed, Transport,
};
use tokio::{runtime::Runtime, time::timeout};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct SlowSubscriber {
    runtime: Runtime,
    transport: Box<dyn Transport>,
    subscribed: Subscribed,
}

impl SlowSubscriber {
    pub(crate) fn at(url: &str) -> Self {
        // A reply to a heartbeat comes after the flood that came before it.
        let transport: Box<dyn Transport> = if url.starts_with("amqp") {
            let options = RabbitMqOptions::new(url).heartbeat(PATIENCE).confirm_timeout(PATIENCE);
            Box::new(RabbitMqTransport::new(options).unwrap())
        } else {
            let redis = RedisTransport::at(url).heartbeat(PATIENCE).confirm_timeout(PATIENCE);
            Box::new(redis.build().unwrap())
        };
        let runtime = Runtime::new().unwrap();
        let subscribed = runtime.block_on(transport.subscribe()).unwrap();
        Self { runtime, transport, subscribed }
    }

    /// Returns how long another call takes, in milliseconds.
    pub(crate) fn call(&self) -> String {
        let since = Instant::now();
        self.runtime.block_on(self.transport.ping()).unwrap();
        since.elapsed().as_millis().to_string()
    }

    /// Sends a probe, and returns what arrives before it: the number of messages and of gaps.
    pub(crate) fn take_all(&mut self) -> String {
        let Self { runtime, subscribed, .. } = self;
        let (mut messages, mut gaps) = (0, 0);
        let taking = async {
            subscribed.prober.send(1).await.unwrap();
            loop {
                match subscribed.messages.next().await {
                    Delivery::Message(_) => messages += 1,
                    Delivery::Gap => gaps += 1,
                    Delivery::Probe(1) => return,
                    other => panic!("{other:?} after {messages} messages and {gaps} gaps"),
                }
            }
        };
        runtime.block_on(async { timeout(PATIENCE, taking).await }).expect("the probe arrives");
        format!("{messages} {gaps}")
    }
}
