//! A two-level cache: L1 in the memory of the instance, L2 in a store that instances share, kept
//! consistent by invalidations over an event bus. Concurrent loads of a key are coalesced into one,
//! and stale copies are served while the origin fails.
//!
//! ```
//! use std::time::Duration;
//! use lazy_layers_cache::{FailSafe, LazyLayersCache};
//!
//! # #[derive(Clone)] struct Db;
//! # impl Db { async fn price(&self, _: u64) -> Result<f64, std::io::Error> { Ok(9.99) } }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let db = Db;
//! let prices = LazyLayersCache::<u64, f64>::builder()
//!     .ttl(Duration::from_secs(60))
//!     .fail_safe(FailSafe::enabled())
//!     .build()?;
//!
//! // Returns the value from L1, joins a running load of the key, or else loads.
//! let price = prices.get_or_set(&7, move || async move { db.price(7).await }).await?;
//! assert_eq!(*price, 9.99);
//!
//! // After a change of the origin: commit there first, then delete here.
//! prices.delete(&7).await?;
//! # Ok(()) }
//! ```
//!
//! # Terms
//!
//! - A **key** is a value of any type that implements [`CacheKey`]. The cache converts it to text.
//!   A **value** is of any type; callers get it as `Arc<V>`.
//! - A value is **fresh** until its time to live ends. With [`FailSafe`] it is then **stale** for
//!   some time. [`get`](LazyLayersCache::get) returns only fresh values; a stale copy is served
//!   when a load fails or takes too long.
//! - A **load** is one run of a [`Loader`]. Other callers of the same key **join** it (single
//!   flight). The load belongs to the cache, so it continues if its caller is dropped.
//! - A **delete** (or set, pattern delete, clear) **fences**: a load that began before it does not
//!   write its result to the cache, and a call that begins after it does not get an older copy. A
//!   call that was waiting already may get one.
//!
//! # Consistency
//!
//! Within one instance nothing is eventual: when a call returns, its effect is visible to every
//! later call. Times are coarse: freshness is measured by a clock that advances every few
//! milliseconds ([`SystemClock`]). Expired entries stay in L1 until they are evicted, and
//! [`size`](LazyLayersCache::size) counts them. [`Guarantees`] says how stale the L1 of a peer may
//! be under the options of a cache.
//!
//! # Trust boundary
//!
//! A program that can write to the Redis of a cache, or publish on its bus, belongs to it: it can
//! delete and set values, prime L1, and keep L1 untrusted. The limits hold against it, and so does
//! the promise that no bytes abort the process. Neither messages nor payloads carry a checksum or a
//! signature, so bytes that change on their way can become other values: use TLS and credentials on
//! networks that are not your own. `docs/guarantees.md` has the details.
//!
//! # Layout
//!
//! | task | types |
//! | --- | --- |
//! | build a cache | [`LazyLayersCache`], [`CacheBuilder`], [`CacheOptions`] |
//! | build many caches over one Redis and one bus | [`CacheManager`], [`ManagerOptions`] |
//! | read and write | [`GetOrSet`], [`SetRequest`], [`WriteReport`], [`Error`], [`ErrorKind`] |
//! | load from the origin | [`Loader`], [`IntoLoaded`], [`Loaded`] |
//! | share values in L2 | [`Store`], [`Codec`] |
//! | publish invalidations | [`EventBus`], [`Transport`], [`LocalTransport`] |
//! | observe | [`Event`], [`Stats`], [`Outcome`], [`Health`], [`Explanation`] |
//! | control time | [`Clock`] |
//!
//! ARCHITECTURE.md in the repository describes the internals.
//!
//! # Features
//!
//! No feature is on by default, and a feature only adds items. A cache in memory needs none. A
//! service of several instances needs `redis` (which brings `wire`), `tracing` for its log, `serde`
//! for options from a configuration file, and one of `metrics` and `opentelemetry`:
//!
//! ```sh
//! cargo add lazy-layers-cache --features redis,serde,tracing,metrics
//! cargo add lazy-layers-cache --dev --features testing
//! ```
//!
//! | feature | adds |
//! | --- | --- |
//! | `redis` | `RedisStore`, L2 in Redis, and `RedisTransport`, a bus over its Pub/Sub; turns on `wire`, though a codec of your own works too |
//! | `redis-tls` | `rediss://` addresses; turns on `redis` |
//! | `nats` | `NatsTransport`, a bus over NATS core, and `JetStreamTransport`, which also delivers the messages that were published while an instance was disconnected; needs `wire` or a codec of your own |
//! | `rabbitmq` | `RabbitMqTransport`, a bus over RabbitMQ; needs `wire` or a codec of your own |
//! | `wire` | `WireCodec`, the codec of values in L2 and on a bus, in the format of the TypeScript package; values must implement `Serialize` and `DeserializeOwned` of serde |
//! | `lz4`, `zstd` | these compressions for `WireCodec`, beside gzip; turn on `wire`; `zstd` compiles C |
//! | `anyhow` | [`Error::loader_error`] finds the error inside an `anyhow::Error` that a loader returned |
//! | `serde` | [`CacheOptions`] and [`ManagerOptions`] can be read from a configuration file |
//! | `tracing` | spans around loads, calls of L2 and publications, and log lines when the origin, L2 or the bus fails and recovers |
//! | `metrics` | `LazyLayersCache::export_metrics`: counters, gauges and durations for the recorder of the `metrics` crate |
//! | `opentelemetry` | `LazyLayersCache::register_metrics`: the same as instruments of OpenTelemetry |
//! | `testing` | clocks that a test can move; a store and a bus in memory with injected faults; checks for your own store or transport |

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod adapters;
mod bus;
mod cache;
mod codec;
mod contain;
mod entry;
mod error;
mod flight;
mod glob;
mod key;
mod l1;
mod l2;
mod load;
mod manager;
// Its pages use every feature, and only the documentation needs them.
#[cfg(all(
    any(doc, doctest),
    feature = "anyhow",
    feature = "metrics",
    feature = "nats",
    feature = "opentelemetry",
    feature = "rabbitmq",
    feature = "redis",
    feature = "serde",
    feature = "testing",
    feature = "tracing",
    feature = "wire"
))]
pub mod manual;
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
#[cfg(feature = "metrics")]
pub use crate::cache::MetricsExport;
#[cfg(feature = "wire")]
pub use crate::codec::{Serialized, WireCodec, WireEncoding, WireLimits};
pub use crate::{
    bus::{
        BusProbe, Delivery, EventBus, LocalTransport, MessageRefused, MessageStream, Prober,
        Subscribed, Transport, TransportFuture,
    },
    cache::{
        BusEffect, CacheBuilder, DeleteAck, Explanation, GetOrSet, GetOrSetFuture, Guarantees,
        KeyInL1, L1Effect, L2Effect, LazyLayersCache, NextStep, Outcome, OutcomeFuture,
        RunningLoad, SetRequest, Source, WriteReport,
    },
    codec::Codec,
    error::{BoxError, BuildError, Error, ErrorKind},
    key::{CacheKey, KeyText},
    l2::{
        HeldLock, Inspection, KeyInL2, Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse,
        OutstandingLease, PatternCursor, Publication, StaleValue, Store, StoreFuture, StoredValue,
    },
    load::{IntoLoaded, Loaded, Loader},
    manager::{CacheManager, CacheManagerBuilder, ManagerHealth, ManagerOptions, SharedHealth},
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
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
