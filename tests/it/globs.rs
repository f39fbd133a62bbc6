//! Patterns: L1 matches as a real Redis server does, and all walks over L2 match as L1 does.

use lazy_layers_cache::{L2Options, RedisStore, WireCodec};

use crate::support::{Cache, cluster::Cluster, redis::RedisServer};

/// Few letters, so that keys often match a pattern or nearly do.
const KEY_LETTERS: &[char] = &['a', 'b', 'c', '-', '[', ']', '^', '*', '\\', '?', 'é'];
const GLOB_PARTS: &[&str] = &[
    "a", "b", "c", "é", "*", "*", "?", "[", "]", "^", "-", "\\", "[ab]", "[^a]", "[a-c]", "[c-a]",
    "[^a-b]", "\\*", "\\[", "[\\]]", "[\\^a]", "[a-]", "[-a]", "[]", "[^]", "[]a]",
];

fn text(
    random: &mut fastrand::Rng,
    most: usize,
    mut part: impl FnMut(&mut fastrand::Rng) -> String,
) -> String {
    (0..random.usize(0..=most)).map(|_| part(random)).collect()
}

#[tokio::test]
async fn every_glob_matches_exactly_the_keys_that_redis_matches() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut matches = 0;
    for round in 0..1_000 {
        let keys: Vec<String> = (0..50)
            .map(|_| {
                let tail =
                    text(&mut random, 6, |random| random.choice(KEY_LETTERS).unwrap().to_string());
                format!("p{tail}")
            })
            .collect();
        let cache = Cache::builder().build().unwrap();
        redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
        for key in &keys {
            cache.set(key, 1).await.unwrap();
            redis::cmd("SET").arg(key).arg(1).exec(&mut redis).unwrap();
        }
        let tail = text(&mut random, 5, |random| (*random.choice(GLOB_PARTS).unwrap()).to_owned());
        let glob = format!("p{tail}");
        let mut theirs: Vec<String> = redis::cmd("KEYS").arg(&glob).query(&mut redis).unwrap();
        theirs.sort();
        cache.delete_by_pattern(&glob).await.unwrap();
        let mut ours: Vec<String> =
            keys.iter().filter(|key| cache.get_l1(*key).is_none()).cloned().collect();
        ours.sort();
        ours.dedup();
        assert_eq!(ours, theirs, "round {round}, glob {glob:?}");
        matches += ours.len();
    }
    assert!(matches > 1_500, "the test compares something: {matches}");
}

/// A cache of L1 alone, with these keys.
async fn in_memory(keys: &[&str]) -> Cache {
    let cache = Cache::builder().build().unwrap();
    for key in keys {
        cache.set(*key, 1).await.unwrap();
    }
    cache
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_beyond_ascii_means_the_same_in_l1_and_on_every_walk_over_l2() {
    let (server, cluster) = (RedisServer::start(), Cluster::start());
    let keys = ["nom:a", "nom:z", "nom:A", "nom:\u{7f}", "nom:é", "nom:éa", "nom:日本", "é", "日"];
    let at = || RedisStore::at(server.url());
    for (walk, store) in [
        ("index", at().prefix("index:")),
        ("scan", at().prefix("é[scan]:").use_index(false)),
        ("cluster", RedisStore::cluster(cluster.urls())),
    ] {
        let store = store.build().unwrap();
        for versioning in [false, true] {
            let l2 = L2Options::default().versioning(versioning);
            let cache = Cache::builder().without_l1().l2_options(l2);
            let cache = cache.l2(store.clone(), WireCodec::new()).build().unwrap();
            for glob in [
                "nom:[a-é]*",
                "nom:[é-a]*",
                "nom:[^a-é]*",
                "nom:[z-日]*",
                "nom:[^é]",
                "nom:é*",
                "*é",
                "?",
                "??",
                "[a-é]?",
                "*[\u{7f}-é]*",
            ] {
                for key in keys {
                    cache.set(key, 1).await.unwrap();
                }
                cache.delete_by_pattern(glob).await.unwrap();
                let expected = in_memory(&keys).await;
                expected.delete_by_pattern(glob).await.unwrap();
                for key in keys {
                    let is_left = cache.get(key).await.is_some();
                    let expected = expected.get(key).await.is_some();
                    assert_eq!(is_left, expected, "{walk}, {versioning}, {glob:?}, {key:?}");
                }
            }
        }
    }
}
