//! Events over RabbitMQ: to every instance's own queue, which can be one that stays.

mod connection;
mod message_stream;
mod options;
mod publisher;
mod subscribe;
mod topology;

use std::sync::{Arc, Weak, atomic::Ordering};

use lapin::Connection;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::options::{RabbitMqExchangeType, RabbitMqOptions};
use self::{
    connection::{Link, Origin},
    message_stream::{End, RabbitMqEvents},
    publisher::{Published, Publisher},
    subscribe::begin,
    topology::Topology,
};
use super::task::{runtime, within};
use crate::{
    bus::transport::{Subscribed, Transport, TransportFuture},
    error::{BoxError, BuildError},
    resilience::DropGuard,
};

/// A [`Transport`] over RabbitMQ.
///
/// A publish that has returned was confirmed by the broker: every queue that is bound has it, on
/// disk where queue and event are durable. Per publisher events arrive in order, but for those
/// that come again.
///
/// In [`durable_invalidation_mode`](RabbitMqOptions::durable_invalidation_mode) the queue stays
/// while the instance is away, and a subscription resumes if it is still the same queue. For that
/// it is bound to one more exchange, named as the queue with `.kept` behind. What such a queue
/// loses by a limit on its length (a policy of the broker) nobody tells this transport. Without
/// the mode a queue lasts as long as its subscription.
///
/// Publishing has a connection of its own, and so has each subscription: a broker that runs out of
/// memory stops reading from connections that publish. They are made when needed, and not saved
/// when they break.
pub struct RabbitMqTransport {
    origin: Origin,
    options: RabbitMqOptions,
    topology: Topology,
    publisher: tokio::sync::Mutex<Option<Arc<Publisher>>>,
    subscription: Mutex<Subscription>,
}

#[derive(Default)]
struct Subscription {
    /// Of the last one.
    end: Weak<watch::Sender<bool>>,
    /// Whether there was one already.
    before: bool,
}

impl RabbitMqTransport {
    /// With connections of its own.
    ///
    /// # Errors
    ///
    /// Wrong options, by name. Nothing is connected yet.
    pub fn new(options: RabbitMqOptions) -> Result<Self, BuildError> {
        let uri = Box::new(options.check_url()?);
        let (tls, limit) = (options.tls.clone(), options.connect_timeout);
        Self::over(Origin::Connect { uri, tls, limit }, options)
    }

    /// With a connection of the user's, which is never closed; the address is not looked at.
    ///
    /// Its automatic recovery must be off, as it is by default: what it misses it does not tell.
    /// Once it has broken, every call fails.
    ///
    /// # Errors
    ///
    /// Wrong options, by name.
    pub fn with_connection(
        connection: Arc<Connection>,
        options: RabbitMqOptions,
    ) -> Result<Self, BuildError> {
        Self::over(Origin::Connection(connection), options)
    }

    fn over(origin: Origin, options: RabbitMqOptions) -> Result<Self, BuildError> {
        let topology = options.check()?;
        Ok(Self {
            origin,
            options,
            topology,
            publisher: tokio::sync::Mutex::default(),
            subscription: Mutex::default(),
        })
    }

    /// The publisher that there is, else a new one: waiting for another caller who makes it
    /// counts.
    async fn publisher(&self) -> Result<Arc<Publisher>, BoxError> {
        runtime()?;
        within(self.options.connect_timeout, "connect", async {
            let mut current = self.publisher.lock().await;
            if let Some(publisher) = current.as_ref().filter(|it| it.works()) {
                return Ok(Arc::clone(publisher));
            }
            *current = None;
            let publisher = Arc::new(Publisher::open(&self.origin, &self.topology).await?);
            *current = Some(Arc::clone(&publisher));
            Ok(publisher)
        })
        .await
    }

    /// One that failed is not trusted with another event. One that is blocked may stay: it tells
    /// when it is not any more.
    async fn give_up(&self, publisher: &Arc<Publisher>) {
        if publisher.is_blocked() && publisher.works() {
            return;
        }
        let mut current = self.publisher.lock().await;
        if current.as_ref().is_some_and(|it| Arc::ptr_eq(it, publisher)) {
            *current = None;
        }
    }

    fn live_subscription(&self) -> Option<End> {
        self.subscription.lock().end.upgrade().filter(|end| !*end.borrow())
    }
}

impl std::fmt::Debug for RabbitMqTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RabbitMqTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Transport for RabbitMqTransport {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let publisher = self.publisher().await?;
            let subscription = self.live_subscription();
            let publishing = publisher.publish(&self.topology, event, subscription.is_some());
            let call = DropGuard::new(|| publisher.in_doubt.store(true, Ordering::Relaxed));
            let published =
                within(self.options.confirm_timeout, "confirm an event", publishing).await;
            call.disarm();
            match published {
                Ok(Published::Taken) => Ok(()),
                Ok(Published::Unroutable) => {
                    // Ours at least should have been bound.
                    if let Some(end) = subscription {
                        end.send_replace(true);
                    }
                    Err("no queue is bound to the exchange any more".into())
                }
                Err(error) => {
                    self.give_up(&publisher).await;
                    Err(error)
                }
            }
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let link = Link::open(&self.origin).await?;
            let limits = (self.options.heartbeat, self.options.confirm_timeout);
            within(self.options.confirm_timeout, "subscribe", async {
                let begun = begin(&link, &self.topology).await?;
                let end = Arc::new(watch::channel(false).0);
                let events = RabbitMqEvents::of(
                    link,
                    begun.consumer,
                    &self.topology,
                    Arc::clone(&end),
                    limits,
                )
                .await?;
                let mut subscription = self.subscription.lock();
                subscription.end = Arc::downgrade(&end);
                let before = std::mem::replace(&mut subscription.before, true);
                Ok(Subscribed { messages: Box::new(events), resumed: before && begun.same_queue })
            })
            .await
        })
    }

    fn check(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            let publisher = self.publisher().await?;
            let checking = publisher.check(&self.topology);
            let call = DropGuard::new(|| publisher.in_doubt.store(true, Ordering::Relaxed));
            let checked = within(self.options.confirm_timeout, "answer", checking).await;
            call.disarm();
            if checked.is_err() {
                self.give_up(&publisher).await;
            }
            checked
        })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            if let Some(end) = self.live_subscription() {
                end.send_replace(true);
            }
            *self.publisher.lock().await = None;
            Ok(())
        })
    }
}
