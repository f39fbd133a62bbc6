//! What a bus in memory keeps: its faults, and the messages on their way.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    bus::{Delivery, MessageStream},
    resilience::run_until,
};

/// Faults of a [`SharedBus`](super::SharedBus), each with its probability from 0 (never) to 1
/// (always).
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::testing::{BusFaults, SharedBus};
///
/// let bus = SharedBus::new(42);
/// let longest_delay = Duration::from_millis(20);
/// bus.set_faults(BusFaults { loses: 0.1, longest_delay, ..BusFaults::default() });
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BusFaults {
    /// A message is silently lost on its way to one receiver.
    pub loses: f64,
    /// How many consecutive messages from one sender to one receiver may be lost. `None`: no bound.
    pub max_lost_in_a_row: Option<u32>,
    /// A message arrives twice at one receiver.
    pub duplicates: f64,
    /// A publish fails without having sent the message.
    pub fails: f64,
    /// A publish fails after having sent the message.
    pub fails_afterwards: f64,
    /// A message or beacon of more bytes is refused, for the sender to publish less.
    pub max_message_bytes: Option<usize>,
    /// Every message and beacon is refused, as if the instances had no permission.
    pub refuses_all: bool,
    /// The longest delay of a message. The delays are random, so messages overtake each other.
    pub longest_delay: Duration,
}

pub(super) struct State {
    pub(super) random: fastrand::Rng,
    pub(super) faults: BusFaults,
    /// The delays of the next messages, each for all receivers.
    pub(super) delays: VecDeque<Duration>,
    /// The subscriptions, each with the number of its link.
    pub(super) subscriptions: Vec<(usize, Weak<Subscription>)>,
    /// The links to which no message is delivered.
    pub(super) deaf: HashSet<usize>,
    /// The links that are behind.
    pub(super) lags: HashMap<usize, Lag>,
    /// The links on one side of a bus that is split; the others are on the other side.
    pub(super) apart: HashSet<usize>,
    /// Per sender and receiver, the number of messages lost since one arrived.
    pub(super) lost: HashMap<(usize, usize), u32>,
    pub(super) links: usize,
    pub(super) published: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Lag {
    pub(super) by: Duration,
    pub(super) delays_beacons: bool,
}

#[derive(Default)]
pub(super) struct Subscription {
    pub(super) state: Mutex<Arriving>,
    /// Notified after each change of `state`; `next` waits.
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct Arriving {
    /// Messages and probes by the time of their arrival, then in the order of sending.
    pub(super) queue: BTreeMap<(Instant, u64), Delivery>,
    pub(super) is_cut: bool,
}

impl State {
    pub(super) fn publish(&mut self, sender: usize, message: &[u8], is_beacon: bool) {
        let Self {
            random, faults, delays, subscriptions, deaf, lags, apart, lost, published, ..
        } = self;
        let delay = delays.pop_front();
        subscriptions.retain(|(_, subscription)| subscription.strong_count() > 0);
        *published += 1;
        for (link, subscription) in subscriptions {
            let is_cut_off = deaf.contains(link) || apart.contains(link) != apart.contains(&sender);
            let Some(subscription) = subscription.upgrade().filter(|_| !is_cut_off) else {
                continue;
            };
            let lag = lags.get(link).filter(|lag| !is_beacon || lag.delays_beacons);
            let lag = lag.map_or(Duration::ZERO, |lag| lag.by);
            let lost = lost.entry((sender, *link)).or_default();
            let may_lose = faults.max_lost_in_a_row.is_none_or(|max| *lost < max);
            if random.f64() < faults.loses && may_lose {
                *lost += 1;
                continue;
            }
            *lost = 0;
            let copies = if random.f64() < faults.duplicates { 2 } else { 1 };
            for copy in 0..copies {
                let delay = delay.unwrap_or_else(|| faults.longest_delay.mul_f64(random.f64()));
                let arrival = (Instant::now() + delay + lag, *published * 2 + copy);
                let message = Delivery::Message(message.to_vec());
                subscription.state.lock().queue.insert(arrival, message);
            }
            subscription.changed.notify_waiters();
        }
    }
}

impl Subscription {
    async fn take_next(&self) -> Delivery {
        loop {
            // Created before the state is read, so that it is notified of every later change.
            let changed = self.changed.notified();
            let due = {
                let mut state = self.state.lock();
                if state.is_cut {
                    return Delivery::Closed;
                }
                let now = Instant::now();
                match state.queue.first_entry() {
                    Some(first) if first.key().0 <= now => return first.remove(),
                    first => first.map(|first| first.key().0),
                }
            };
            match due {
                Some(due) => drop(run_until(sleep_until(due), changed).await),
                None => changed.await,
            }
        }
    }
}

impl MessageStream for Arc<Subscription> {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(self.take_next())
    }
}
