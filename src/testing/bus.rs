//! A bus in memory that fails on demand: exactly, per link, or at random.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    future::pending,
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
    bus::{
        Delivery, MessageRefused, MessageStream, Prober, Subscribed, Transport, TransportFuture,
    },
    error::BoxError,
    resilience::run_until,
};

/// Faults of a [`SharedBus`], each with its probability from 0 (never) to 1 (always).
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

/// A bus in memory that fails on demand. It uses tokio's clock, which a test can pause. The random
/// faults follow from the seed. Clones share one bus.
///
/// Each instance gets a [`BusLink`] of its own.
#[derive(Clone)]
pub struct SharedBus(Arc<Mutex<State>>);

struct State {
    random: fastrand::Rng,
    faults: BusFaults,
    /// The delays of the next messages, each for all receivers.
    delays: VecDeque<Duration>,
    /// The subscriptions, each with the number of its link.
    subscriptions: Vec<(usize, Weak<Subscription>)>,
    /// The links to which no message is delivered.
    deaf: HashSet<usize>,
    /// The links that are behind.
    lags: HashMap<usize, Lag>,
    /// The links on one side of a bus that is split; the others are on the other side.
    apart: HashSet<usize>,
    /// Per sender and receiver, the number of messages lost since one arrived.
    lost: HashMap<(usize, usize), u32>,
    links: usize,
    published: u64,
}

#[derive(Clone, Copy)]
struct Lag {
    by: Duration,
    delays_beacons: bool,
}

/// The number that stands for the sender of injected messages.
const NO_LINK: usize = 0;

#[derive(Default)]
struct Subscription {
    state: Mutex<Arriving>,
    /// Notified after each change of `state`; `next` waits.
    changed: Notify,
}

#[derive(Default)]
struct Arriving {
    /// Messages and probes by the time of their arrival, then in the order of sending.
    queue: BTreeMap<(Instant, u64), Delivery>,
    is_cut: bool,
}

/// The transport of one instance. Clones share one link.
#[derive(Clone)]
pub struct BusLink {
    bus: SharedBus,
    number: usize,
    state: Arc<Mutex<LinkState>>,
}

#[derive(Clone, Copy, Default)]
struct LinkState {
    is_cut: bool,
    is_stuck: bool,
}

impl SharedBus {
    /// Creates a bus without faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: fastrand::Rng::with_seed(seed),
            faults: BusFaults::default(),
            delays: VecDeque::new(),
            subscriptions: Vec::new(),
            deaf: HashSet::new(),
            lags: HashMap::new(),
            apart: HashSet::new(),
            lost: HashMap::new(),
            links: 0,
            published: 0,
        })))
    }

    /// Replaces the faults of all links.
    pub fn set_faults(&self, faults: BusFaults) {
        self.0.lock().faults = faults;
    }

    /// Delays the next message to all its receivers. Further calls delay the messages after it.
    pub fn delay_next(&self, delay: Duration) {
        self.0.lock().delays.push_back(delay);
    }

    /// Splits the bus in two: a message reaches only the links on the side of its sender. These
    /// links are on one side, all others on the other one; none ends the split.
    pub fn split(&self, links: &[&BusLink]) {
        self.0.lock().apart = links.iter().map(|link| link.number).collect();
    }

    /// Creates a link for one more instance.
    #[must_use]
    pub fn link(&self) -> BusLink {
        let mut state = self.0.lock();
        state.links += 1;
        BusLink { bus: self.clone(), number: state.links, state: Arc::default() }
    }

    /// Returns how many messages were published so far, beacons and probes included.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.0.lock().published
    }

    /// Publishes a message that comes from no link.
    pub fn inject(&self, message: &[u8]) {
        self.0.lock().publish(NO_LINK, message, false);
    }
}

impl BusLink {
    /// Ends the subscription, and fails all calls until the link is [restored](Self::restore).
    pub fn cut(&self) {
        self.state.lock().is_cut = true;
        let bus = self.bus.0.lock();
        for (_, weak) in bus.subscriptions.iter().filter(|(link, _)| *link == self.number) {
            let Some(subscription) = weak.upgrade() else { continue };
            subscription.state.lock().is_cut = true;
            subscription.changed.notify_waiters();
        }
    }

    /// Silently drops all messages to this link. Publishing still works.
    pub fn drop_incoming(&self) {
        self.bus.0.lock().deaf.insert(self.number);
    }

    /// Delivers all messages and probes to this link later by this time, as if it were behind a
    /// backlog. Beacons are not delayed, as on a broker that has another queue for them; those of
    /// [`lag_all`](Self::lag_all) are.
    pub fn lag(&self, by: Duration) {
        self.bus.0.lock().lags.insert(self.number, Lag { by, delays_beacons: false });
    }

    /// As [`lag`](Self::lag), and delays beacons as well, as one connection for all does.
    pub fn lag_all(&self, by: Duration) {
        self.bus.0.lock().lags.insert(self.number, Lag { by, delays_beacons: true });
    }

    /// Lets all calls wait for ever, and drops all messages to this link.
    pub fn freeze(&self) {
        self.drop_incoming();
        self.state.lock().is_stuck = true;
    }

    /// Ends the faults of this link. A subscription that was cut stays ended.
    pub fn restore(&self) {
        let bus = &mut *self.bus.0.lock();
        bus.deaf.remove(&self.number);
        bus.lags.remove(&self.number);
        *self.state.lock() = LinkState::default();
    }

    /// Fails while the link is cut, and never returns while it is frozen.
    async fn ready(&self) -> Result<(), BoxError> {
        let LinkState { is_cut, is_stuck } = *self.state.lock();
        if is_cut {
            return Err("the link is cut".into());
        }
        if is_stuck {
            return pending().await;
        }
        Ok(())
    }
}

impl State {
    fn publish(&mut self, sender: usize, message: &[u8], is_beacon: bool) {
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
