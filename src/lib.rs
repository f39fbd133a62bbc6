//! A hybrid cache: hot values in memory, one load per key however many callers wait, and answers
//! when the origin has none.
//!
//! ```
//! use std::time::Duration;
//! use lazy_layers_cache::{FailSafe, LazyLayersCache};
//!
//! # #[derive(Clone)] struct Db;
//! # impl Db { async fn price(&self, _: u64) -> Result<f64, std::io::Error> { Ok(9.99) } }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let db = Db;
//! let prices = LazyLayersCache::<u64, f64>::builder()
//!     .ttl(Duration::from_secs(60))
//!     .fail_safe(FailSafe::enabled())
//!     .build()?;
//!
//! // Looks in memory, joins a load that is running, else loads.
//! let price = prices.get_or_set(&7, move || async move { db.price(7).await }).await?;
//! assert_eq!(*price, 9.99);
//!
//! // The origin has changed: commit there first, then delete here.
//! prices.delete(&7).await?;
//! # Ok(()) }
//! ```
//!
//! # The model
//!
//! - A **key** is whatever your application calls a key ([`CacheKey`]); it becomes text at the
//!   door. A **value** is any type; it is handed out as `Arc<V>`.
//! - A value is **fresh** for its time to live, and with [`FailSafe`] **stale** for a while
//!   longer. Only fresh values answer [`get`](LazyLayersCache::get); a stale copy answers where a
//!   load fails or takes too long.
//! - A **load** is one call of a [`Loader`]. Callers of the same key **join** it. It belongs to the
//!   cache and not to its caller, so a caller that goes away changes nothing.
//! - A **delete** (or set, pattern, clear) **fences**: no load that began before it fills
//!   anything, and no call that begins after it is given a copy from before. (A call that was
//!   waiting already may be.)
//!
//! # What is eventual
//!
//! Nothing in one instance: a verb that has returned has happened. Times are coarse: freshness is
//! measured with a clock that moves every few milliseconds ([`SystemClock`]). Expired entries keep
//! their place until they are displaced, and count in [`size`](LazyLayersCache::size).
//!
//! # Layout
//!
//! [`LazyLayersCache`] is the cache and [`CacheBuilder`] makes one; [`CacheOptions`] is what can be
//! set, [`GetOrSet`] what one call can say. [`Loader`], [`IntoLoaded`] and [`Loaded`] are the
//! contract with the origin, [`Store`] and [`Codec`] that with a level that instances share,
//! [`Clock`] that with time. [`Error`] and [`ErrorKind`] say what can go wrong. [`Event`], [`Stats`],
//! [`Outcome`] and [`Health`] tell what happens. ARCHITECTURE.md in the repository shows the
//! inside.
//!
//! # Features
//!
//! None is on by default, and none changes what is there without it.
//!
//! - `nats`: `NatsTransport`, events over NATS core, and `JetStreamTransport`, which keeps them for
//!   who is away.
//! - `rabbitmq`: `RabbitMqTransport`, events over RabbitMQ.
//! - `serde`: [`CacheOptions`] can be read from a config file, see [there](CacheOptions).
//! - `tracing`: a span around each load; a warning when loads begin to fail and a line when they
//!   succeed again.
//! - `wire`: `WireCodec`, the bytes that the TypeScript package writes and reads; with it a
//!   shared level asks of `V` that it can be serialized.
//! - `zstd`, `lz4`: these compressions for `WireCodec`, beside gzip. `zstd` compiles C.
//! - `redis`: `RedisStore`, a shared level in Redis, and `RedisTransport`, events over its Pub/Sub;
//!   `redis-tls` for `rediss://` too.
//! - `testing`: clocks that a test can move; a shared level and a bus in memory that fail on
//!   demand; checks for a store or a transport of your own.

#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod adapters;
mod bus;
mod cache;
mod codec;
mod entry;
mod error;
mod flight;
mod glob;
mod key;
mod l1;
mod l2;
mod load;
mod msgpack;
mod observe;
mod options;
mod resilience;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

#[cfg(feature = "nats")]
pub use crate::adapters::nats::{
    NatsConnection, NatsOptions, NatsTransport,
    jetstream::{JetStreamOptions, JetStreamStorage, JetStreamTransport},
};
#[cfg(feature = "rabbitmq")]
pub use crate::adapters::rabbitmq::{RabbitMqExchangeType, RabbitMqOptions, RabbitMqTransport};
#[cfg(feature = "redis")]
pub use crate::adapters::redis::{
    store::{DeleteStrategy, RedisOptions, RedisStore, RedisStoreBuilder, RestartPolicy},
    transport::{RedisTransport, RedisTransportBuilder, RedisTransportOptions},
};
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
pub use crate::adapters::tls::TlsOptions;
#[cfg(feature = "wire")]
pub use crate::codec::{Serialized, WireCodec, WireEncoding, WireLimits};
pub use crate::{
    bus::{
        BusProbe, Delivery, EventBus, LocalTransport, MessageStream, Subscribed, Transport,
        TransportFuture,
    },
    cache::{
        CacheBuilder, DeleteAck, GetOrSet, GetOrSetFuture, Guarantees, LazyLayersCache, Outcome,
        SetRequest, Source,
    },
    codec::Codec,
    error::{BoxError, BuildError, Error, ErrorKind},
    key::{CacheKey, KeyText},
    l2::{Lease, LeaseRequest, LeaseResponse, Store, StoreFuture, StoredValue},
    load::{IntoLoaded, Loaded, Loader},
    observe::{
        BusHealth, Event, HandlerGuard, Health, L2Health, Level, OriginHealth, StaleReason, Stats,
    },
    options::{
        CacheOptions, CircuitBreaker, Coalescing, DistributedLock, EventBusOptions, EventDedupe,
        FailSafe, L1Options, L2Options, L2Timeouts, NegativeCache, Timeouts,
    },
    time::{Clock, SystemClock},
};

/// The README's code must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
