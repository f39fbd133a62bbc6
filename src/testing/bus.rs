//! A bus in memory, with bad days on demand: per link for what a test wants to say exactly, and at
//! random for what it does not.

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
    bus::{Delivery, MessageStream, Subscribed, Transport, TransportFuture},
    error::BoxError,
    resilience::run_until,
};

/// How often what goes wrong, from 0 (never) to 1 (always).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BusFaults {
    /// An event does not arrive at one of its receivers, and nobody says so.
    pub loses: f64,
    /// How many events of one sender do not arrive at one receiver in a row, at most. `None`: any
    /// number.
    pub most_lost_in_a_row: Option<u32>,
    /// It arrives there twice.
    pub duplicates: f64,
    /// A publish fails, and has not happened.
    pub fails: f64,
    /// A publish fails, but has happened.
    pub fails_afterwards: f64,
    /// How late an event may arrive. Each is late by a random part of it, so they pass each other.
    pub longest_delay: Duration,
}

/// A bus that lives in memory and fails on demand. Time is tokio's, which a test can pause; what is
/// random follows from the seed. Clones are the same one.
///
/// Each instance gets a [`BusLink`] of its own.
#[derive(Clone)]
pub struct SharedBus(Arc<Mutex<State>>);

struct State {
    random: fastrand::Rng,
    weather: BusFaults,
    /// Lates of the next events, for all of their receivers.
    delays: VecDeque<Duration>,
    queues: Vec<(usize, Weak<Queue>)>,
    /// Links to which nothing gets.
    deaf: HashSet<usize>,
    /// How many of a sender's events were lost to a receiver since one arrived.
    lost: HashMap<(usize, usize), u32>,
    links: usize,
    published: u64,
}

/// The sender of bytes that come of no link.
const NO_LINK: usize = 0;

/// The subscription of a link.
#[derive(Default)]
struct Queue {
    state: Mutex<Arriving>,
    changed: Notify,
}

#[derive(Default)]
struct Arriving {
    /// By when they arrive, and in which order they were sent.
    events: BTreeMap<(Instant, u64), Vec<u8>>,
    is_cut: bool,
}

/// One instance's way to the bus. Clones are the same one.
#[derive(Clone)]
pub struct BusLink {
    bus: SharedBus,
    name: usize,
    state: Arc<Mutex<LinkState>>,
}

#[derive(Default)]
struct LinkState {
    is_cut: bool,
    is_stuck: bool,
}

impl SharedBus {
    /// In fair weather.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: fastrand::Rng::with_seed(seed),
            weather: BusFaults::default(),
            delays: VecDeque::new(),
            queues: Vec::new(),
            deaf: HashSet::new(),
            lost: HashMap::new(),
            links: 0,
            published: 0,
        })))
    }

    /// From now on it is like this.
    pub fn set(&self, weather: BusFaults) {
        self.0.lock().weather = weather;
    }

    /// The next event arrives so late, at all of its receivers; the one after it by the delay
    /// that is said after this, if there is any.
    pub fn delay_next(&self, delay: Duration) {
        self.0.lock().delays.push_back(delay);
    }

    /// A way to it for one more instance.
    #[must_use]
    pub fn link(&self) -> BusLink {
        let mut state = self.0.lock();
        state.links += 1;
        BusLink { bus: self.clone(), name: state.links, state: Arc::default() }
    }

    /// How many events were published so far, beacons included.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.0.lock().published
    }

    /// Publishes bytes that come of no link.
    pub fn inject(&self, event: &[u8]) {
        self.0.lock().publish(NO_LINK, event);
    }
}

impl BusLink {
    /// It breaks: its subscription ends and nothing can be done until it is
    /// [restored](Self::restore).
    pub fn cut(&self) {
        self.state.lock().is_cut = true;
        let state = self.bus.0.lock();
        for queue in state.queues_of(self.name) {
            queue.state.lock().is_cut = true;
            queue.changed.notify_waiters();
        }
    }

    /// Nothing arrives any more, and nobody says so. Publishing works.
    pub fn drop_incoming(&self) {
        self.bus.0.lock().deaf.insert(self.name);
    }

    /// Publishing never ends. Nothing arrives.
    pub fn freeze(&self) {
        self.drop_incoming();
        self.state.lock().is_stuck = true;
    }

    /// All is well again. A subscription that was cut has to be begun anew.
    pub fn restore(&self) {
        self.bus.0.lock().deaf.remove(&self.name);
        *self.state.lock() = LinkState::default();
    }

    fn is_up(&self) -> Result<(), BoxError> {
        if self.state.lock().is_cut { Err("the link is cut".into()) } else { Ok(()) }
    }

    fn is_stuck(&self) -> bool {
        self.state.lock().is_stuck
    }
}

impl State {
    fn queues_of(&self, name: usize) -> impl Iterator<Item = Arc<Queue>> {
        self.queues.iter().filter(move |(of, _)| *of == name).filter_map(|(_, it)| it.upgrade())
    }

    fn publish(&mut self, from: usize, event: &[u8]) {
        let Self { random, weather, delays, queues, deaf, lost, published, .. } = self;
        let delay = delays.pop_front();
        queues.retain(|(_, queue)| queue.strong_count() > 0);
        *published += 1;
        for (name, queue) in queues {
            let Some(queue) = queue.upgrade().filter(|_| !deaf.contains(name)) else { continue };
            let lost = lost.entry((from, *name)).or_default();
            let may_lose = weather.most_lost_in_a_row.is_none_or(|most| *lost < most);
            if random.f64() < weather.loses && may_lose {
                *lost += 1;
                continue;
            }
            *lost = 0;
            let copies = if random.f64() < weather.duplicates { 2 } else { 1 };
            for copy in 0..copies {
                let late = delay.unwrap_or_else(|| weather.longest_delay.mul_f64(random.f64()));
                let order = *published * 2 + copy;
                queue.state.lock().events.insert((Instant::now() + late, order), event.to_vec());
            }
            queue.changed.notify_waiters();
        }
    }
}

impl Transport for BusLink {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            self.is_up()?;
            if self.is_stuck() {
                return pending().await;
            }
            let mut state = self.bus.0.lock();
            let weather = state.weather;
            if state.random.f64() < weather.fails {
                return Err("bad weather".into());
            }
            state.publish(self.name, event);
            if state.random.f64() < weather.fails_afterwards {
                return Err("bad weather afterwards".into());
            }
            Ok(())
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            self.is_up()?;
            if self.is_stuck() {
                return pending().await;
            }
            let queue = Arc::new(Queue::default());
            self.bus.0.lock().queues.push((self.name, Arc::downgrade(&queue)));
            Ok(Subscribed { messages: Box::new(LinkEvents(queue)), resumed: false })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            if self.is_stuck() {
                return pending().await;
            }
            self.is_up()
        })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

struct LinkEvents(Arc<Queue>);

impl LinkEvents {
    async fn take(&self) -> Delivery {
        loop {
            // Made before the question, it hears of every change that comes after it.
            let changed = self.0.changed.notified();
            let due = {
                let mut state = self.0.state.lock();
                if state.is_cut {
                    return Delivery::Closed;
                }
                let now = Instant::now();
                match state.events.first_entry() {
                    Some(first) if first.key().0 <= now => {
                        return Delivery::Message(first.remove());
                    }
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

impl MessageStream for LinkEvents {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(self.take())
    }
}
