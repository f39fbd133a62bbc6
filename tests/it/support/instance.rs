//! What a child has: a cache over a Redis that it shares with others, on a runtime of its own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use lazy_layers_cache::{DistributedLock, LazyLayersCache, RedisStore, WireCodec};
use tokio::runtime::Runtime;

use super::ms;

pub(crate) struct Instance {
    runtime: Runtime,
    cache: LazyLayersCache<String, u32>,
}

impl Instance {
    pub(crate) fn over(url: &str, lock_ttl: u64) -> Self {
        let lock = DistributedLock::enabled().ttl(ms(lock_ttl)).wait_timeout(ms(30_000));
        let cache = LazyLayersCache::builder()
            .distributed_lock(lock)
            .l2(RedisStore::at(url).build().unwrap(), WireCodec::new())
            .build()
            .unwrap();
        Self { runtime: Runtime::new().unwrap(), cache }
    }

    /// Lets so many callers ask for a key whose loader takes so many milliseconds and gives this
    /// process's number. Says how often it was called, and what they got, if they agree.
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
