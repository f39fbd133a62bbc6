//! Several processes over one Redis, with a lock: one load for all of them, and what becomes of a
//! load whose process is killed or frozen.

use std::time::{Duration, Instant};

use crate::support::{child::Child, ms, redis::RedisServer};

const PATIENCE: Duration = Duration::from_secs(30);

fn instance(server: &RedisServer, lock_ttl: u64) -> Child {
    let mut child = Child::start();
    assert_eq!(child.ask(&format!("cache {} {lock_ttl}", server.url())), "ready");
    child
}

/// How often it loaded, and what its callers got.
fn answer(child: &mut Child) -> (usize, String) {
    let answer = child.answer(PATIENCE).expect("an answer");
    let (loads, got) = answer.split_once(' ').unwrap();
    (loads.parse().unwrap(), got.to_owned())
}

/// Waits until somebody has the lock of the key.
fn wait_for_the_lock(server: &RedisServer, key: &str) {
    let begun = Instant::now();
    let name = format!("cache:__lock:{key}");
    while !redis::cmd("EXISTS").arg(&name).query::<bool>(&mut server.connect()).unwrap() {
        assert!(begun.elapsed() < PATIENCE, "nobody took the lock");
        std::thread::sleep(ms(2));
    }
}

#[test]
fn five_processes_with_a_thousand_callers_each_load_a_cold_key_once() {
    let server = RedisServer::start();
    let mut children: Vec<Child> = (0..5).map(|_| instance(&server, 10_000)).collect();
    for key in ["cold", "colder", "coldest"] {
        for child in &mut children {
            child.send(&format!("load {key} 1000 300"));
        }
        let answers: Vec<(usize, String)> = children.iter_mut().map(answer).collect();
        assert_eq!(answers.iter().map(|(loads, _)| loads).sum::<usize>(), 1, "{answers:?}");
        assert!(answers.iter().all(|(_, got)| *got == answers[0].1), "{answers:?}");
    }
}

#[test]
fn an_owner_that_is_killed_is_replaced_when_its_lock_has_ended() {
    let server = RedisServer::start();
    let (mut owner, mut other) = (instance(&server, 1_000), instance(&server, 1_000));
    owner.send("load k 1 60000");
    wait_for_the_lock(&server, "k");
    other.send("load k 1 0");
    let killed = Instant::now();
    owner.kill();
    assert_eq!(answer(&mut other).0, 1);
    let waited = killed.elapsed();
    assert!(waited < ms(1_000 + 200), "{waited:?} with a lock of 1 s");
}

#[test]
fn an_owner_frozen_beyond_its_time_and_woken_publishes_nothing() {
    let server = RedisServer::start();
    let (mut owner, mut other) = (instance(&server, 300), instance(&server, 300));
    owner.send("load k 1 500");
    wait_for_the_lock(&server, "k");
    owner.freeze();
    other.send("load k 1 0");
    let (loads, published) = answer(&mut other);
    assert_eq!(loads, 1, "the lock ended with its time");
    let bytes =
        || -> Vec<u8> { redis::cmd("GET").arg("cache:k").query(&mut server.connect()).unwrap() };
    let before = bytes();
    owner.thaw();
    let (loads, own) = answer(&mut owner);
    assert_eq!(loads, 1);
    assert_ne!(own, published, "its own callers get what it loaded");
    assert_eq!(bytes(), before, "and nobody else");
}
