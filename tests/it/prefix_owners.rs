//! Two caches with different names never have one prefix in Redis: the second would return the
//! values of the first one, and its `clear` would remove them.

use std::sync::Arc;

use lazy_layers_cache::{
    BuildError, CacheManager, LazyLayersCache, RedisStore, RedisStoreBuilder, Store, SystemClock,
    WireCodec,
    testing::{ForwardStore, SharedStore},
};

/// `build` connects to nothing.
fn offline() -> RedisStoreBuilder {
    RedisStore::at("redis://127.0.0.1:1/")
}

type Cache = LazyLayersCache<String, u32>;

fn build<'a, S>(name: impl Into<Option<&'a str>>, store: &S) -> Result<Cache, BuildError>
where
    S: Store + Clone,
{
    let builder = Cache::builder().l2(store.clone(), WireCodec::new());
    if let Some(name) = name.into() { builder.name(name).build() } else { builder.build() }
}

fn refused<'a, S>(name: impl Into<Option<&'a str>>, store: &S, text: &str)
where
    S: Store + Clone,
{
    let error = build(name, store).unwrap_err();
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_prefix_belongs_to_the_caches_of_one_name() {
    let store = offline().prefix("shop:").build().unwrap();
    // Its values stay in Redis when the cache is dropped.
    drop(build("users", &store).unwrap());
    let _instances = [build("users", &store).unwrap(), build("users", &store).unwrap()];
    let text = "redis.prefix is `shop:`, which belongs to the cache `users`; it cannot be that of";
    refused("vendors", &store, &format!("{text} the cache `vendors`; give each cache a store"));
    refused(None, &store, &format!("{text} a cache without a name; give each cache a store"));

    let store = offline().prefix("shop:").build().unwrap();
    drop([build(None, &store).unwrap(), build(None, &store).unwrap()]);
    refused("users", &store, "`shop:`, which belongs to a cache without a name");

    // Without a prefix of its own, each cache has a part of the store.
    let store = offline().build().unwrap();
    let names = [Some("users"), Some("vendors"), None];
    let _kept = names.map(|name| build(name, &store).unwrap());
}

#[test]
fn no_two_views_give_their_caches_one_prefix() {
    let store = offline().build().unwrap();
    let view = |prefix: &str| store.with_prefix(prefix).unwrap();
    let users = build("users", &view("shop:")).unwrap();
    refused("vendors", &view("shop:"), "is `shop:`, which belongs to the cache `users`");
    build("users", &view("shop:")).unwrap();
    for (prefix, name) in [("shop:eu:", "vendors"), ("shop:eu:", "users"), ("shop:eu:", "shop")] {
        let text = "is `shop:eu:`, which overlaps `shop:`, the prefix of the cache `users`; give";
        refused(name, &view(prefix), text);
    }
    // A view that is gone does not count any more.
    drop(users);
    let _eu = build("vendors", &view("shop:eu:")).unwrap();
    refused("users", &view("shop:"), "is `shop:`, which overlaps `shop:eu:`");

    let _shop = build("shop", &view("users:cache:")).unwrap();
    refused("users", &store, "is `users:cache:`, which belongs to the cache `shop`");
}

/// Passes all calls on.
#[derive(Clone)]
struct Forward(RedisStore);

impl ForwardStore for Forward {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
}

#[test]
fn a_store_around_the_store_and_that_of_a_test_refuse_a_second_name_too() {
    for (store, prefix) in [(offline().prefix("shop:"), "shop:"), (offline(), "cache:")] {
        let store = Forward(store.build().unwrap());
        drop(build("users", &store).unwrap());
        let text = format!("is `{prefix}`, which belongs to the cache `users`");
        refused("vendors", &store, &text);
    }
    let store = SharedStore::new(SystemClock);
    drop([build("users", &store).unwrap(), build("users", &store).unwrap()]);
    let text = "l2 refuses the cache (`users` uses the store, `vendors` cannot use it too); give";
    refused("vendors", &store, text);
    drop(build(None, &store).unwrap());
}

#[test]
fn a_manager_keeps_its_caches_apart_or_refuses_the_second() {
    let store = offline().prefix("shop:").build().unwrap();
    let manager = CacheManager::builder().l2(move |_| store.clone()).build().unwrap();
    let _users = manager.cache::<String, u32>("users").build().unwrap();
    let refused = manager.cache::<String, u32>("vendors").build().unwrap_err();
    let text = "redis.prefix is `shop:`, which belongs to the cache `users`; it cannot be that of";
    assert!(refused.to_string().contains(text), "{refused}");
    assert!(refused.to_string().contains("vendors"), "{refused}");

    let manager = CacheManager::builder().redis(offline().prefix("shop:")).build().unwrap();
    let build = |name| manager.cache::<String, u32>(name).build().unwrap();
    let _kept = ["users", "vendors"].map(build);
}
