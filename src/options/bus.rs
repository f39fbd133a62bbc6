//! The groups of options about the event bus.

use std::time::Duration;

use super::option_group::option_group;

option_group! {
    /// Detection of duplicates: a durable bus delivers a message again if it was not
    /// acknowledged, and a publisher repeats a message whose outcome is unknown.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{EventDedupe, LazyLayersCache};
    ///
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .event_dedupe(EventDedupe::default().max_entries(50_000).ttl(Duration::from_secs(600)))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EventDedupe {
        /// How many message ids the subscriber remembers; 0 for none. A duplicate whose id is
        /// forgotten is applied again. Default: 10,000.
        pub max_entries: usize = 10_000,
        /// How long the subscriber remembers an id. It should be longer than the redelivery time
        /// of the bus. Default: 300 s.
        pub ttl: Duration as "humantime_serde" = Duration::from_secs(300),
    }
}

option_group! {
    /// Publishing, and the detection of lost messages.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{EventBusOptions, LazyLayersCache};
    ///
    /// let options = EventBusOptions::default()
    ///     .trust_timeout(Duration::from_secs(1))
    ///     .confirm_deletes(true)
    ///     .publish_timeout(Duration::from_millis(500))
    ///     .outbox_max_entries(50_000)
    ///     .outbox_max_bytes(32 << 20)
    ///     .accept_unnamed(false);
    /// let names = LazyLayersCache::<u64, String>::builder().event_bus_options(options).build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EventBusOptions {
        /// Interop only: whether the cache accepts messages without a namespace, as older releases
        /// of the TypeScript package send them, beside those with its own name. Its own messages
        /// then carry no namespace either. Instances of the cache without this option would ignore
        /// them, so all of them must have the same value. Default: false.
        ///
        /// **At most one cache of a channel may accept them.** Messages without a namespace do not
        /// say which cache they are for: two such caches would delete, and take for their own, each
        /// other's keys and values.
        pub accept_unnamed: bool = false,
        /// How soon the subscriber detects lost messages; and how long, while it is disconnected,
        /// L1 entries are served before they are looked up again. All instances should have the
        /// same value. Default: 3 s; at least 300 ms.
        ///
        /// While the bus is down, this takes the place of the ttl in L1: with a ttl of 60 s, L2 is
        /// read up to 20 times as often as before. Without L2 the loader runs as often, so the
        /// origin must bear one load per hot key, instance and `trust_timeout`.
        pub trust_timeout: Duration as "humantime_serde" = Duration::from_secs(3),
        /// Whether a delete or set returns only when the bus has acknowledged it. Each
        /// [`Transport`](crate::Transport) says what its acknowledgement means.
        ///
        /// `false`: the call returns at once, and the message is published as soon as the bus
        /// takes it. If this process is killed before that, the message is lost. Then peers serve
        /// their entries until these expire, unless the peers notice that this instance fell
        /// silent. [`close`](crate::LazyLayersCache::close) waits for queued messages.
        ///
        /// `true`: the call waits for up to `publish_timeout`. Its report says
        /// [`Confirmed`](crate::BusEffect::Confirmed), or
        /// [`Unconfirmed`](crate::BusEffect::Unconfirmed) if the bus does not acknowledge in time
        /// or is known to be unreachable. The message stays queued and is published as soon as the
        /// bus is back. (A single call can wait instead:
        /// [`WriteReport::settled`](crate::WriteReport::settled).)
        ///
        /// Default: false.
        pub confirm_deletes: bool = false,
        /// How long the bus may take to acknowledge a message before the publish counts as
        /// failed. Default: 1 s.
        pub publish_timeout: Duration as "humantime_serde" = Duration::from_secs(1),
        /// The most messages that wait to be published, at most one per key. A full outbox never
        /// drops an invalidation: it replaces queued ones by one that covers more keys, at worst
        /// all of them. Default: 10,000.
        #[doc(alias = "retry_queue")]
        pub outbox_max_entries: usize = 10_000,
        /// The most bytes of the outbox. Default: 8 MiB.
        pub outbox_max_bytes: usize as "crate::options::byte_size" = 8 << 20,
    }
}
