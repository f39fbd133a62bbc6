//! The cache of a child process, over a Redis that several processes share, on its own runtime.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use lazy_layers_cache::{DistributedLock, LazyLayersCache, RedisStore, RedisTransport, WireCodec};
use tokio::runtime::Runtime;

use super::ms;

/// The key of the version that every instance loads, in the Redis that is also the bus.
fn origin(key: u32) -> String {
    format!("origin:{key}")
}

fn name(key: u32) -> String {
    format!("key:{key}")
}

pub(crate) struct Instance {
    runtime: Runtime,
    cache: LazyLayersCache<String, u32>,
    origin: Option<redis::Client>,
}

impl Instance {
    pub(crate) fn over(url: &str, lock_ttl: u64) -> Self {
        let lock = DistributedLock::enabled().ttl(ms(lock_ttl)).wait_timeout(ms(30_000));
        let cache = LazyLayersCache::builder()
            .distributed_lock(lock)
            .l2(RedisStore::at(url).build().unwrap(), WireCodec::new())
            .build()
            .unwrap();
        Self { runtime: Runtime::new().unwrap(), cache, origin: None }
    }

    /// Without L2: the Redis is the event bus, and holds the data that the loaders read.
    pub(crate) fn on_the_bus_of(url: &str) -> Self {
        let cache = LazyLayersCache::builder()
            .ttl(ms(600_000))
            .name("test")
            .event_bus(RedisTransport::at(url).build().unwrap(), WireCodec::new())
            .build()
            .unwrap();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(cache.ready()).unwrap();
        let origin = Some(redis::Client::open(url).unwrap());
        Self { runtime, cache, origin }
    }

    /// Reads the versions of these keys through the cache.
    pub(crate) fn read(&self, from: u32, to: u32) -> String {
        let client = self.origin.as_ref().unwrap();
        let read = self.runtime.block_on(async {
            let redis = client.get_multiplexed_async_connection().await.unwrap();
            let mut read = Vec::new();
            for key in from..to {
                let mut redis = redis.clone();
                let load = move || async move {
                    let get = redis::cmd("GET").arg(origin(key)).take();
                    get.query_async::<Option<u32>>(&mut redis).await.map(Option::unwrap_or_default)
                };
                read.push(self.cache.get_or_set(&name(key), load).await.unwrap().to_string());
            }
            read
        });
        read.join(" ")
    }

    /// Writes a new version of each of these keys, one after the other, and deletes each.
    pub(crate) fn write(&self, from: u32, to: u32) -> String {
        let client = self.origin.as_ref().unwrap();
        self.runtime.block_on(async {
            let mut redis = client.get_multiplexed_async_connection().await.unwrap();
            for key in from..to {
                let incr = redis::cmd("INCR").arg(origin(key)).take();
                let () = incr.query_async(&mut redis).await.unwrap();
                self.cache.delete(&name(key)).await.unwrap();
                tokio::time::sleep(ms(1)).await;
            }
        });
        "written".to_owned()
    }

    /// Returns the number of gaps, and whether L1 is trusted.
    pub(crate) fn health(&self) -> String {
        let is_trusted = self.cache.health().event_bus.is_some_and(|bus| bus.trusted);
        format!("{} {is_trusted}", self.cache.stats().bus_gaps)
    }

    /// Lets `callers` callers request a key whose loader takes `takes` milliseconds and returns the
    /// id of this process. Returns the number of loads, and the distinct values that were read.
    pub(crate) fn load(&self, key: &str, callers: usize, takes: u64) -> String {
        let loads = Arc::new(AtomicUsize::new(0));
        let got = self.runtime.block_on(async {
            let asking: Vec<_> = (0..callers)
                .map(|_| {
                    let (cache, loads, key) =
                        (self.cache.clone(), Arc::clone(&loads), key.to_owned());
                    tokio::spawn(async move {
                        let load = move || async move {
                            loads.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(ms(takes)).await;
                            Ok::<_, std::io::Error>(std::process::id())
                        };
                        *cache.get_or_set(&*key, load).await.unwrap()
                    })
                })
                .collect();
            let mut got = Vec::new();
            for asking in asking {
                got.push(asking.await.unwrap());
            }
            got.dedup();
            got
        });
        format!("{} {got:?}", loads.load(Ordering::SeqCst))
    }
}
