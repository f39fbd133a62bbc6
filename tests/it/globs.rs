//! Compares the pattern matching of L1 with that of a real Redis server.

use crate::support::{Cache, redis::RedisServer};

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
