//! Random options, URLs, patterns and keys: nothing panics, and a delete by pattern removes the
//! keys that match.
//!
//!     cargo +nightly fuzz run texts

#![no_main]

use lazy_layers_cache::{CacheOptions, LazyLayersCache, RedisStore, RedisTransport};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Builder;

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\n');
    let (first, second) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    if let Ok(options) = toml::from_str::<CacheOptions>(text) {
        let _ = LazyLayersCache::<String, u8>::builder().options(options).build();
    }
    let _ = RedisStore::at(first).build();
    let _ = RedisStore::sentinel([first], second).build();
    let _ = RedisStore::cluster([first, second]).build();
    let _ = RedisTransport::at(first).build();
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let cache = LazyLayersCache::<String, u8>::builder().build().expect("sound options");
        cache.set(second, 1u8).await.expect("it is open");
        cache.set("another", 1u8).await.expect("it is open");
        cache.delete_by_pattern(first).await.expect("it is open");
        // A pattern without special characters matches the same text.
        if first == second && !first.contains(['*', '?', '[', '\\']) {
            assert!(cache.get(second).await.is_none());
        }
        cache.clear().await.expect("it is open");
        assert!(cache.get(second).await.is_none());
    });
});
