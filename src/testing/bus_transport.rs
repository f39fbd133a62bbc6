//! The transport over a bus in memory.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{bus::BusLink, bus_state::Subscription};
use crate::bus::{Delivery, MessageRefused, Prober, Subscribed, Transport, TransportFuture};

impl Transport for BusLink {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        self.send(message, false)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.send(beacon, true)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            self.ready().await?;
            let subscription = Arc::new(Subscription::default());
            let weak = Arc::downgrade(&subscription);
            self.bus.0.lock().subscriptions.push((self.number, weak));
            let prober = LinkProber { link: self.clone(), subscription: Arc::clone(&subscription) };
            let (messages, prober) = (Box::new(subscription), Box::new(prober));
            Ok(Subscribed { messages, prober, resumed: false })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(self.ready())
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl BusLink {
    fn send<'a>(&'a self, message: &'a [u8], is_beacon: bool) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            self.ready().await?;
            let mut state = self.bus.0.lock();
            let faults = state.faults;
            if faults.refuses_all {
                return Err(MessageRefused::new("no permission, by a fault").into());
            }
            if faults.max_message_bytes.is_some_and(|max| message.len() > max) {
                return Err(MessageRefused::new("too large, by a fault").into());
            }
            if state.random.f64() < faults.fails {
                return Err("the publish failed by a fault".into());
            }
            state.publish(self.number, message, is_beacon);
            if state.random.f64() < faults.fails_afterwards {
                return Err("the publish failed by a fault, after it was sent".into());
            }
            Ok(())
        })
    }
}

/// Probes suffer the faults of messages from the link to itself, but overtake no message.
struct LinkProber {
    link: BusLink,
    subscription: Arc<Subscription>,
}

impl Prober for LinkProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            self.link.ready().await?;
            let bus = &mut *self.link.bus.0.lock();
            if bus.random.f64() < bus.faults.fails {
                return Err("the probe failed by a fault".into());
            }
            let is_lost = bus.random.f64() < bus.faults.loses;
            if is_lost || bus.deaf.contains(&self.link.number) {
                return Ok(());
            }
            bus.published += 1;
            let mut state = self.subscription.state.lock();
            let lag = bus.lags.get(&self.link.number).map_or(Duration::ZERO, |lag| lag.by);
            let delay = lag + bus.faults.longest_delay.mul_f64(bus.random.f64());
            let last = state.queue.last_key_value().map(|((arrival, _), _)| *arrival);
            let arrival = last.into_iter().fold(Instant::now() + delay, Instant::max);
            state.queue.insert((arrival, bus.published * 2), Delivery::Probe(number));
            drop(state);
            self.subscription.changed.notify_waiters();
            Ok(())
        })
    }
}
