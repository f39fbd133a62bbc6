//! A bus in memory that fails on demand: exactly, per link, or at random.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use super::bus_state::{BusFaults, Lag, State};
use crate::error::BoxError;

/// A bus in memory that fails on demand. It uses tokio's clock, which a test can pause. The random
/// faults follow from the seed. Clones share one bus.
///
/// Each instance gets a [`BusLink`] of its own.
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, WireCodec, testing::SharedBus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let bus = SharedBus::new(42);
/// let link = bus.link();
/// let names = LazyLayersCache::<u64, String>::builder()
///     .name("users")
///     .event_bus(link.clone(), WireCodec::new())
///     .build()?;
/// names.ready().await?;
///
/// link.cut();
/// names.delete(&7).await?;
/// assert!(names.get(&7).await.is_none(), "it is deleted here, whatever the bus does");
/// # link.restore();
/// # names.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SharedBus(pub(super) Arc<Mutex<State>>);

/// The number that stands for the sender of injected messages.
const NO_LINK: usize = 0;

/// The transport of one instance. Clones share one link.
///
/// ```
/// use lazy_layers_cache::{Delivery, Transport, testing::SharedBus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let bus = SharedBus::new(42);
/// let (one, other) = (bus.link(), bus.link());
/// let mut subscription = other.subscribe().await?;
/// one.publish(b"hello").await?;
/// assert_eq!(subscription.messages.next().await, Delivery::Message(b"hello".to_vec()));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct BusLink {
    pub(super) bus: SharedBus,
    pub(super) number: usize,
    state: Arc<Mutex<LinkState>>,
}

#[derive(Clone, Copy, Default)]
struct LinkState {
    is_cut: bool,
    is_stuck: bool,
}

impl SharedBus {
    /// Creates a bus without faults.
    ///
    /// ```
    /// use lazy_layers_cache::{Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = SharedBus::new(42);
    /// bus.link().ping().await?;
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// use lazy_layers_cache::{Transport, testing::{BusFaults, SharedBus}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = SharedBus::new(42);
    /// let link = bus.link();
    /// bus.set_faults(BusFaults { fails: 1.0, ..BusFaults::default() });
    /// assert!(link.publish(b"hello").await.is_err());
    /// bus.set_faults(BusFaults::default());
    /// assert!(link.publish(b"hello").await.is_ok());
    /// # Ok(()) }
    /// ```
    pub fn set_faults(&self, faults: BusFaults) {
        self.0.lock().faults = faults;
    }

    /// Delays the next message to all its receivers. Further calls delay the messages after it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{Delivery, Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = SharedBus::new(42);
    /// let link = bus.link();
    /// let mut subscription = link.subscribe().await?;
    /// bus.delay_next(Duration::from_secs(1));
    /// link.publish(b"first").await?;
    /// link.publish(b"second").await?;
    /// assert_eq!(subscription.messages.next().await, Delivery::Message(b"second".to_vec()));
    /// # Ok(()) }
    /// ```
    pub fn delay_next(&self, delay: Duration) {
        self.0.lock().delays.push_back(delay);
    }

    /// Splits the bus in two: a message reaches only the links on the side of its sender. These
    /// links are on one side, all others on the other one; none ends the split.
    ///
    /// ```
    /// use lazy_layers_cache::{Delivery, Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = SharedBus::new(42);
    /// let (one, other) = (bus.link(), bus.link());
    /// let mut subscription = other.subscribe().await?;
    /// bus.split(&[&one]);
    /// one.publish(b"lost").await?;
    /// bus.split(&[]);
    /// one.publish(b"hello").await?;
    /// assert_eq!(subscription.messages.next().await, Delivery::Message(b"hello".to_vec()));
    /// # Ok(()) }
    /// ```
    pub fn split(&self, links: &[&BusLink]) {
        self.0.lock().apart = links.iter().map(|link| link.number).collect();
    }

    /// Creates a link for one more instance.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, WireCodec, testing::SharedBus};
    ///
    /// let bus = SharedBus::new(42);
    /// let instance = || {
    ///     LazyLayersCache::<u64, String>::builder()
    ///         .name("users")
    ///         .event_bus(bus.link(), WireCodec::new())
    ///         .build()
    /// };
    /// let (one, other) = (instance()?, instance()?);
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[must_use]
    pub fn link(&self) -> BusLink {
        let mut state = self.0.lock();
        state.links += 1;
        BusLink { bus: self.clone(), number: state.links, state: Arc::default() }
    }

    /// Returns how many messages were published so far, beacons and probes included.
    ///
    /// ```
    /// use lazy_layers_cache::{Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = SharedBus::new(42);
    /// bus.link().publish(b"hello").await?;
    /// assert_eq!(bus.published(), 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn published(&self) -> u64 {
        self.0.lock().published
    }

    /// Publishes a message that comes from no link.
    ///
    /// ```
    /// use lazy_layers_cache::{Delivery, Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = SharedBus::new(42);
    /// let mut subscription = bus.link().subscribe().await?;
    /// bus.inject(b"not a message of a cache");
    /// let received = Delivery::Message(b"not a message of a cache".to_vec());
    /// assert_eq!(subscription.messages.next().await, received);
    /// # Ok(()) }
    /// ```
    pub fn inject(&self, message: &[u8]) {
        self.0.lock().publish(NO_LINK, message, false);
    }
}

impl BusLink {
    /// Ends the subscription, and fails all calls until the link is [restored](Self::restore).
    ///
    /// ```
    /// use lazy_layers_cache::{Delivery, Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let link = SharedBus::new(42).link();
    /// let mut subscription = link.subscribe().await?;
    /// link.cut();
    /// assert_eq!(subscription.messages.next().await, Delivery::Closed);
    /// assert!(link.publish(b"hello").await.is_err());
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// use lazy_layers_cache::{Delivery, Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = SharedBus::new(42);
    /// let (one, other) = (bus.link(), bus.link());
    /// let mut subscription = other.subscribe().await?;
    /// other.drop_incoming();
    /// one.publish(b"lost").await?;
    /// other.restore();
    /// one.publish(b"hello").await?;
    /// assert_eq!(subscription.messages.next().await, Delivery::Message(b"hello".to_vec()));
    /// # Ok(()) }
    /// ```
    pub fn drop_incoming(&self) {
        self.bus.0.lock().deaf.insert(self.number);
    }

    /// Delivers all messages and probes to this link later by this time, as if it were behind a
    /// backlog. Beacons are not delayed, as on a broker that has another queue for them; those of
    /// [`lag_all`](Self::lag_all) are.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{Transport, testing::SharedBus};
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let link = SharedBus::new(42).link();
    /// let mut subscription = link.subscribe().await?;
    /// link.lag(Duration::from_secs(2));
    /// let sent = Instant::now();
    /// link.publish(b"hello").await?;
    /// subscription.messages.next().await;
    /// assert!(sent.elapsed() >= Duration::from_secs(2));
    /// # Ok(()) }
    /// ```
    pub fn lag(&self, by: Duration) {
        self.bus.0.lock().lags.insert(self.number, Lag { by, delays_beacons: false });
    }

    /// As [`lag`](Self::lag), and delays beacons as well, as one connection for all does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{Transport, testing::SharedBus};
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let link = SharedBus::new(42).link();
    /// let mut subscription = link.subscribe().await?;
    /// link.lag_all(Duration::from_secs(2));
    /// let sent = Instant::now();
    /// link.announce(b"a beacon").await?;
    /// subscription.messages.next().await;
    /// assert!(sent.elapsed() >= Duration::from_secs(2));
    /// # Ok(()) }
    /// ```
    pub fn lag_all(&self, by: Duration) {
        self.bus.0.lock().lags.insert(self.number, Lag { by, delays_beacons: true });
    }

    /// Lets all calls wait for ever, and drops all messages to this link.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let link = SharedBus::new(42).link();
    /// link.freeze();
    /// let limit = Duration::from_secs(60);
    /// assert!(tokio::time::timeout(limit, link.publish(b"hello")).await.is_err());
    /// # Ok(()) }
    /// ```
    pub fn freeze(&self) {
        self.drop_incoming();
        self.state.lock().is_stuck = true;
    }

    /// Ends the faults of this link. A subscription that was cut stays ended.
    ///
    /// ```
    /// use lazy_layers_cache::{Transport, testing::SharedBus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let link = SharedBus::new(42).link();
    /// link.cut();
    /// assert!(link.ping().await.is_err());
    /// link.restore();
    /// assert!(link.ping().await.is_ok());
    /// # Ok(()) }
    /// ```
    pub fn restore(&self) {
        let bus = &mut *self.bus.0.lock();
        bus.deaf.remove(&self.number);
        bus.lags.remove(&self.number);
        *self.state.lock() = LinkState::default();
    }

    /// Fails while the link is cut, and never returns while it is frozen.
    pub(super) async fn ready(&self) -> Result<(), BoxError> {
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
