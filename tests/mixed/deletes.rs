//! What one deletes is gone from the other's memory, and from Redis.

use serde_json::json;

use crate::support::{Pair, eventually};

const KEYS: [&str; 4] = ["user:1", "user:2", "42", "Grüße"];

#[tokio::test(flavor = "multi_thread")]
async fn deletes_patterns_and_clears_of_javascript_reach_rust() {
    let Pair { rust, mut javascript, server } = Pair::start().await;
    for (delete, gone) in [
        ("peer.del('user:1')", &KEYS[..1]),
        // A number is the same key as its text.
        ("peer.del(42)", &KEYS[2..3]),
        ("peer.pattern('user:*')", &KEYS[..2]),
        ("peer.pattern('Gr?*e')", &KEYS[3..]),
        ("peer.clear()", &KEYS[..]),
    ] {
        for key in KEYS {
            rust.set(key, json!(key)).await.unwrap();
        }
        javascript.ask(delete);
        eventually(delete, || gone.iter().all(|key| rust.get_l1(*key).is_none())).await;
        let there = KEYS.iter().filter(|key| !gone.contains(key));
        assert!(there.clone().all(|key| rust.get_l1(*key).is_some()), "{delete}: {gone:?} only");
        for key in KEYS {
            let found = rust.get(key).await;
            assert_eq!(found.is_some(), !gone.contains(&key), "{key} in Redis after {delete}");
        }
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_patterns_and_clears_of_rust_reach_javascript() {
    let Pair { rust, mut javascript, server } = Pair::start().await;
    for (number, gone) in [&KEYS[..1], &KEYS[2..3], &KEYS[..2], &KEYS[..]].into_iter().enumerate() {
        for key in KEYS {
            javascript.ask(&format!("peer.set({key:?}, {key:?})"));
        }
        let _ = match number {
            0 | 1 => rust.delete(gone[0]).await.unwrap(),
            2 => rust.delete_by_pattern("user:*").await.unwrap(),
            _ => rust.clear().await.unwrap(),
        };
        for key in KEYS {
            let is_gone = gone.contains(&key);
            let question = format!("(peer.l1({key:?}) === undefined) === {is_gone}");
            eventually(&question, || javascript.is(&question)).await;
            let left = javascript.ask(&format!("peer.l2({key:?})"));
            assert_eq!(left == "undefined", is_gone, "{key} in Redis, after {number}: {left}");
        }
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_finds_the_others_values_by_the_index() {
    let Pair { rust, mut javascript, server } = Pair::start().await;
    rust.clear().await.unwrap();
    rust.set("ours:1", json!(1)).await.unwrap();
    javascript.ask("peer.set('theirs:1', 1)");
    assert_eq!(javascript.ask("peer.index()"), "[ 'ours:1', 'theirs:1' ]");
    assert_eq!(rust.size().await, 2);
    javascript.ask("peer.pattern('ours:*')");
    rust.delete_by_pattern("theirs:*").await.unwrap();
    assert_eq!(javascript.ask("peer.index()"), "[]");
    assert_eq!(javascript.ask("peer.redis.keys('cache:[^_]*')"), "[]");
    drop(server);
}
