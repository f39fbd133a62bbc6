//! The contenders: caches between the shop and its database. Ours, the two nearest peers, and Redis
//! alone.

use std::sync::{Arc, atomic::Ordering};

use super::{
    bare::Bare,
    floor::Floor,
    workload::{FAILURES, Page, TTL, load},
};
use amalgam::provider::{MessagePackSerializer, RedisBackplane, RedisDistributedCache};
use lazy_layers_cache::{L1Options, LazyLayersCache, RedisStore, RedisTransport, WireCodec};
use multi_tier_cache::{
    CacheError, CacheManager, CacheSerializer, CacheStrategy, InvalidationConfig, MokaCacheConfig,
    RedisCache, serialization::MsgPackSerializer,
};

pub(super) const NAMES: [&str; 5] =
    ["Redis alone", "amalgam", "multi-tier", "lazy-layers", "no promises (floor)"];
pub(super) const BARE: usize = 0;
pub(super) const AMALGAM: usize = 1;
pub(super) const OURS: usize = 3;
pub(super) const FLOOR: usize = 4;

#[derive(Clone)]
pub(super) enum Shop {
    Bare(Bare),
    Amalgam(amalgam::Cache<Arc<Page>>),
    Tiers(Arc<CacheManager>),
    Ours(LazyLayersCache<String, Page>),
    Floor(Floor),
}

impl Shop {
    pub(super) async fn open(contender: usize, url: &str, in_memory: usize) -> Self {
        match NAMES[contender] {
            "Redis alone" => {
                let client = redis::Client::open(url).expect("a URL");
                Self::Bare(Bare::open(&client).await)
            }
            "amalgam" => {
                let redis = RedisDistributedCache::connect(url).await.expect("it answers");
                let bus = RedisBackplane::connect(url).await.expect("it answers");
                let cache = amalgam::Cache::builder()
                    .max_capacity(in_memory as u64)
                    .default_options(amalgam::EntryOptions::new(TTL))
                    .distributed(Arc::new(redis))
                    .serializer(Arc::new(MessagePackSerializer))
                    .backplane(Arc::new(bus))
                    .wait_for_initial_backplane_subscribe(true)
                    .try_build()
                    .expect("valid options");
                Self::Amalgam(cache)
            }
            "multi-tier" => {
                let config = MokaCacheConfig {
                    max_capacity: in_memory as u64,
                    time_to_live: TTL,
                    time_to_idle: TTL,
                };
                let memory = multi_tier_cache::L1Cache::new(config).expect("valid options");
                let redis = RedisCache::with_url(url).await.expect("it answers");
                let config = InvalidationConfig::default();
                let (memory, redis) = (Arc::new(memory), Arc::new(redis));
                let built = CacheManager::new_with_invalidation(memory, redis, url, config).await;
                let mut built = built.expect("it answers");
                built.set_serializer(CacheSerializer::MsgPack(MsgPackSerializer));
                Self::Tiers(Arc::new(built))
            }
            "lazy-layers" => {
                let redis = RedisStore::at(url).build().expect("valid options");
                let bus = RedisTransport::at(url).build().expect("valid options");
                let cache = LazyLayersCache::builder()
                    .ttl(TTL)
                    .l1(L1Options::default().max_entries(in_memory))
                    .l2(redis, WireCodec::new())
                    .name("bench")
                    .event_bus(bus, WireCodec::new())
                    .build()
                    .expect("valid options");
                cache.ready().await.expect("it answers");
                Self::Ours(cache)
            }
            _ => Self::Floor(Floor::open(url, in_memory).await),
        }
    }

    /// Returns the price of a product: looks the page up or loads it.
    pub(super) async fn price(&self, key: &str) -> u64 {
        match self {
            Self::Bare(redis) => redis.page(key).await.price,
            Self::Amalgam(cache) => {
                let load = |_| async { Ok::<_, std::convert::Infallible>(Arc::new(load().await)) };
                cache.get_or_set(key, load).await.expect("loads").price
            }
            Self::Tiers(cache) => {
                let load = || async { Ok::<_, CacheError>(load().await) };
                let strategy = CacheStrategy::Custom(TTL);
                let page: Page =
                    cache.get_or_compute_typed(key, strategy, load).await.expect("loads");
                page.price
            }
            Self::Ours(cache) => {
                let load = || async { Ok::<_, std::convert::Infallible>(load().await) };
                cache.get_or_set(key, load).await.expect("loads").price
            }
            Self::Floor(cache) => cache.page(key).await.price,
        }
    }

    /// Invalidates a product whose price has changed in the database.
    pub(super) async fn changed(&self, key: &str) {
        let told = match self {
            Self::Bare(redis) => {
                redis::cmd("DEL").arg(key).exec_async(&mut redis.connection()).await.is_ok()
            }
            Self::Amalgam(cache) => cache.remove(key).await.is_ok(),
            Self::Tiers(cache) => cache.invalidate(key).await.is_ok(),
            Self::Ours(cache) => cache.delete(key).await.is_ok_and(|report| report.is_complete()),
            Self::Floor(cache) => cache.changed(key).await,
        };
        if !told {
            FAILURES.fetch_add(1, Ordering::Relaxed);
        }
    }
}
