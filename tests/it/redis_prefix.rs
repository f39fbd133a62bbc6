//! Prefixes in Redis: the names that begin with a prefix belong to its cache, which touches nothing
//! else; one store serves several caches.

use std::time::{Duration, Instant};

use lazy_layers_cache::{BuildError, LazyLayersCache, LeaseResponse, RedisStore, Store, WireCodec};
use redis::{Connection, cmd};
use serde::{Serialize, de::DeserializeOwned};

use crate::support::{REFRESH, ms, process::wait_for, publication, redis::RedisServer};

const PATIENCE: Duration = Duration::from_secs(20);

fn set(redis: &mut Connection, name: &str) {
    cmd("SET").arg(name).arg("foreign").exec(redis).unwrap();
}

fn exists(redis: &mut Connection, name: &str) -> bool {
    cmd("EXISTS").arg(name).query(redis).unwrap()
}

fn named<V>(name: &str, store: &RedisStore) -> LazyLayersCache<String, V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let builder = LazyLayersCache::builder().name(name).l2(store.clone(), WireCodec::new());
    builder.build().unwrap()
}

async fn write(store: &RedisStore, key: &str) {
    let begun = store.get_or_lease(key, REFRESH).await.unwrap();
    let LeaseResponse::Load { lease: Some(lease), .. } = begun else { panic!("{begun:?}") };
    assert!(store.publish(key, &lease, publication("1", ms(60_000))).await.unwrap());
}

/// What the stores under these prefixes must not touch: names that begin otherwise, and names of
/// other types.
fn plant(redis: &mut Connection, prefix: &str, others: &[&str]) -> Vec<String> {
    let mut kept: Vec<String> = others.iter().map(|name| (*name).to_owned()).collect();
    kept.iter().for_each(|name| set(redis, name));
    for (name, add) in [("list", "RPUSH"), ("set", "SADD"), ("__list", "RPUSH")] {
        let name = format!("{prefix}{name}");
        cmd(add).arg(&name).arg("x").exec(redis).unwrap();
        kept.push(name);
    }
    let hash = format!("{prefix}hash");
    cmd("HSET").arg(&hash).arg("field").arg("x").exec(redis).unwrap();
    kept.push(hash);
    kept
}

/// Clears, deletes all keys by a pattern, and removes what a restarted server may have brought
/// back; checks that exactly the own values go.
async fn touches_only_its_own(
    what: &str,
    server: &RedisServer,
    store: impl Fn() -> RedisStore,
    prefix: &str,
    others: &[&str],
) {
    let mut redis = server.connect();
    let kept = plant(&mut redis, prefix, others);
    for step in ["clear", "pattern", "restart"] {
        let own = store();
        for key in ["a", "b", "list2"] {
            write(&own, key).await;
        }
        // Another program has put a list in the place of a value, and a name into the index.
        let replaced = format!("{prefix}replaced");
        write(&own, "replaced").await;
        cmd("DEL").arg(&replaced).exec(&mut redis).unwrap();
        cmd("RPUSH").arg(&replaced).arg("x").exec(&mut redis).unwrap();
        if exists(&mut redis, &format!("{prefix}__index")) {
            for name in others {
                let mut add = cmd("ZADD");
                add.arg(format!("{prefix}__index")).arg(1).arg(name).exec(&mut redis).unwrap();
            }
        }
        match step {
            "clear" => own.delete_matching("*").await.unwrap(),
            "pattern" => {
                own.delete_matching("[ab]").await.unwrap();
                own.delete_matching("l*").await.unwrap();
                own.delete_matching("r*").await.unwrap();
            }
            _ => {
                set(&mut redis, &format!("{prefix}__run"));
                assert!(store().get("a", false).await.unwrap().is_none(), "{what}");
            }
        }
        for key in ["a", "b", "list2"] {
            assert!(!exists(&mut redis, &format!("{prefix}{key}")), "{what}, {step}: {key}");
        }
        for name in kept.iter().chain([&replaced]) {
            assert!(exists(&mut redis, name), "{what}, {step}: {name} is gone");
        }
        cmd("DEL").arg(&replaced).exec(&mut redis).unwrap();
    }
}

#[tokio::test]
async fn a_clear_a_pattern_and_a_restart_remove_nothing_of_others() {
    let server = RedisServer::start();
    let others = ["users:1", "users:cache", "userscache:a", "users:cachea", "mails:cache:a", "a"];
    for (what, use_index, evicts) in
        [("index", true, false), ("no index", false, false), ("evicting", true, true)]
    {
        cmd("FLUSHALL").exec(&mut server.connect()).unwrap();
        if evicts {
            server.config_set("maxmemory", "500mb");
            server.config_set("maxmemory-policy", "allkeys-lru");
        }
        let prefix = "users:cache:";
        let store = || RedisStore::at(server.url()).prefix(prefix).use_index(use_index).build();
        touches_only_its_own(what, &server, || store().unwrap(), prefix, &others).await;
    }
}

#[tokio::test]
async fn patterns_in_a_prefix_are_taken_literally() {
    let server = RedisServer::start();
    let others =
        ["ab:a", "a:a", "b:a", "axx:a", "a*b:a", "x:a", "^x:a", "[ab]", "a", "a\\:", "aa:a"];
    for prefix in ["a*:", "[ab]:", "a?:", "[^x]:", "a\\:", "*:", "{a*}:", "-", "[a-b]|", "é?#"] {
        for use_index in [true, false] {
            cmd("FLUSHALL").exec(&mut server.connect()).unwrap();
            let store = || RedisStore::at(server.url()).prefix(prefix).use_index(use_index).build();
            let outside: Vec<&str> =
                others.into_iter().filter(|name| !name.starts_with(prefix)).collect();
            touches_only_its_own(prefix, &server, || store().unwrap(), prefix, &outside).await;
        }
    }
}

#[tokio::test]
async fn a_bound_on_entries_removes_no_names_of_others() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).prefix("users:").max_entries(2).build().unwrap();
    let mut redis = server.connect();
    write(&store, "0").await;
    set(&mut redis, "other:k");
    for name in ["other:k", "users:list"] {
        cmd("ZADD").arg("users:__index").arg(1).arg(name).exec(&mut redis).unwrap();
    }
    cmd("RPUSH").arg("users:list").arg("x").exec(&mut redis).unwrap();
    for key in 1..6 {
        write(&store, &key.to_string()).await;
    }
    assert!(exists(&mut redis, "other:k") && exists(&mut redis, "users:list"));
    assert_eq!(store.size().await.unwrap(), 2);
    let left: Vec<String> =
        cmd("ZRANGE").arg("users:__index").arg(0).arg(-1).query(&mut redis).unwrap();
    assert_eq!(left, ["users:4", "users:5"]);
}

#[test]
fn a_prefix_is_not_empty_and_ends_in_a_separator_unless_the_user_insists() {
    let at = || RedisStore::at("redis://127.0.0.1/");
    let store = at().build().unwrap();
    let refused = |result: Result<RedisStore, BuildError>| {
        let error = result.unwrap_err();
        assert_eq!(error.option(), "redis.prefix", "{error}");
    };
    for prefix in ["", "users", "users:cache", "a*", "{users}", "é"] {
        refused(at().prefix(prefix).build());
        refused(store.with_prefix(prefix));
    }
    for separator in ":/.-_|#".chars() {
        at().prefix(format!("users{separator}")).build().unwrap();
        store.with_prefix(format!("users{separator}")).unwrap();
    }
    let insists = at().prefix_needs_separator(false).prefix("users").build().unwrap();
    insists.with_prefix("mails").unwrap();
    refused(at().prefix_needs_separator(false).prefix("").build());
}

#[tokio::test]
async fn one_store_serves_two_caches_of_different_types_over_one_connection() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let numbers = named::<u32>("numbers", &store);
    let lists = named::<Vec<String>>("lists", &store);
    for key in ["a", "b"] {
        numbers.set(key, 1).await.unwrap();
        lists.set(key, vec![key.to_owned()]).await.unwrap();
    }
    let mut redis = server.connect();
    for name in ["numbers:cache:a", "lists:cache:a", "numbers:cache:__run", "lists:cache:__run"] {
        assert!(exists(&mut redis, name), "{name}");
    }
    let unnamed: Vec<String> = cmd("KEYS").arg("cache:*").query(&mut redis).unwrap();
    assert_eq!(unnamed, [""; 0], "no call used the prefix of the store itself");
    let list: String = cmd("CLIENT").arg("LIST").query(&mut redis).unwrap();
    let ours: Vec<&str> = list.lines().filter(|line| line.contains("lazy-layers-cache")).collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert!(ours[0].contains("name=lazy-layers-cache:numbers,lists:store "), "{ours:?}");

    numbers.delete("a").await.unwrap();
    assert!(!exists(&mut redis, "numbers:cache:a") && exists(&mut redis, "lists:cache:a"));
    numbers.clear().await.unwrap();
    let later = named::<Vec<String>>("lists", &store);
    assert_eq!(*later.get("a").await.unwrap(), ["a"]);
    assert_eq!(named::<u32>("numbers", &store).get("b").await, None);
    assert_eq!((lists.size().await, numbers.size().await), (2, 0));
}

#[tokio::test]
async fn a_prefix_of_its_own_takes_precedence_over_the_name() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let mails = store.with_prefix("post:").unwrap();
    named::<u32>("mails", &mails).set("k", 1).await.unwrap();
    let explicit = RedisStore::at(server.url()).prefix("cache:").build().unwrap();
    named::<u32>("users", &explicit).set("k", 1).await.unwrap();
    let unnamed = LazyLayersCache::<String, u32>::builder().l2(store, WireCodec::new());
    unnamed.build().unwrap().set("j", 1).await.unwrap();
    let mut redis = server.connect();
    for name in ["post:k", "cache:k", "cache:j"] {
        assert!(exists(&mut redis, name), "{name}");
    }
}

/// A server that was restarted holds old values under a prefix whose first call comes when the
/// connection has long been made.
#[tokio::test]
async fn a_late_prefix_is_verified_before_it_is_served() {
    let server = RedisServer::start();
    let before = RedisStore::at(server.url()).prefix("late:").build().unwrap();
    for key in 0..500 {
        write(&before, &key.to_string()).await;
    }
    let mut redis = server.connect();
    set(&mut redis, "late:__run");
    let store = RedisStore::at(server.url()).prefix("users:").build().unwrap();
    write(&store, "k").await;
    let late = store.with_prefix("late:").unwrap();
    let reads = (0..50).map(|key| {
        let late = late.clone();
        tokio::spawn(async move { late.get(&key.to_string(), false).await.unwrap() })
    });
    for read in reads.collect::<Vec<_>>() {
        assert!(read.await.unwrap().is_none(), "an old value is served");
    }
    assert!(store.get("k", false).await.unwrap().is_some(), "the other prefix is left alone");
    write(&late, "k").await;
    assert!(late.get("k", false).await.unwrap().is_some());
}

/// So that a second restart, or another master, is noticed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_is_checked_while_a_late_prefix_is_cleared() {
    let server = RedisServer::start();
    // So that the scan takes one step per name.
    let store = RedisStore::at(server.url()).prefix("users:").use_index(false).scan_count(1);
    let store = store.build().unwrap();
    write(&store, "k").await;
    let mut redis = server.connect();
    let mut fill = cmd("MSET");
    for number in 0..50_000 {
        fill.arg(format!("other:{number}")).arg("");
    }
    fill.exec(&mut redis).unwrap();
    set(&mut redis, "late:__run");
    let late = store.with_prefix("late:").unwrap();
    let reading = tokio::spawn(async move { late.get("k", false).await });
    let reaches = |command: &str, calls: u64| {
        wait_for(command, PATIENCE, || (server.calls(command) >= calls).then_some(()));
    };
    reaches("scan", 1);
    reaches("role", server.calls("role") + 2);
    assert!(!reading.is_finished(), "the checks wait for the scan");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_every_prefix_in_use_is_cleared() {
    let mut server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let views: Vec<RedisStore> =
        ["a:", "b:", "c:"].map(|prefix| store.with_prefix(prefix).unwrap()).into();
    for view in &views {
        write(view, "k").await;
    }
    let mut redis = server.connect();
    set(&mut redis, "d:k");
    tokio::task::block_in_place(|| {
        server.save();
        server.kill();
        server.restart();
    });
    for view in &views {
        let begun = Instant::now();
        // The first answer after the restart counts.
        let found = loop {
            match view.get("k", false).await {
                Ok(found) => break found,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(ms(5)).await;
        };
        assert!(found.is_none(), "an old value is served");
    }
    assert!(exists(&mut server.connect(), "d:k"));
}

#[tokio::test]
async fn a_prefix_without_rights_keeps_no_other_from_its_data() {
    let server = RedisServer::start();
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("shop").arg("on").arg(">word").arg("+@all");
    user.arg("~users:*");
    user.exec(&mut server.connect()).unwrap();
    let url = server.url().replace("//", "//shop:word@");
    let store = RedisStore::at(url).build().unwrap();
    let mails = store.with_prefix("mails:").unwrap();
    let users = store.with_prefix("users:").unwrap();
    mails.get("k", false).await.unwrap_err();
    // Until the next attempt to connect, which verifies both.
    let begun = Instant::now();
    while let Err(error) = users.get("k", false).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(ms(5)).await;
    }
    let generation = users.connection_generation();
    for _ in 0..30 {
        mails.get("k", false).await.unwrap_err();
        write(&users, "k").await;
        tokio::time::sleep(ms(50)).await;
        assert!(users.get("k", false).await.unwrap().is_some());
    }
    // The circuit breaker takes a new number for a Redis that works again.
    assert_eq!(users.connection_generation(), generation);
    // Rights that are given later are noticed.
    cmd("ACL").arg("SETUSER").arg("shop").arg("~mails:*").exec(&mut server.connect()).unwrap();
    let begun = Instant::now();
    while let Err(error) = mails.get("k", false).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(ms(5)).await;
    }
}
