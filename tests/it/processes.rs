//! Several processes over one Redis. With the distributed lock: one load for all of them, and the
//! end of a load whose process is killed or frozen. On a bus: the instances that remain when others
//! are killed while they write.

use std::time::{Duration, Instant};

use crate::support::{child::Child, ms, redis::RedisServer};

const PATIENCE: Duration = Duration::from_secs(30);

fn instance(server: &RedisServer, lock_ttl: u64) -> Child {
    let mut child = Child::start();
    assert_eq!(child.ask(&format!("cache {} {lock_ttl}", server.url())), "ready");
    child
}

/// The number of loads, and the value that the callers got.
fn answer(child: &mut Child) -> (usize, String) {
    let answer = child.answer(PATIENCE).expect("an answer");
    let (loads, got) = answer.split_once(' ').unwrap();
    (loads.parse().unwrap(), got.to_owned())
}

/// Waits until a process has the lock of the key.
fn wait_for_the_lock(server: &RedisServer, key: &str) {
    let begun = Instant::now();
    let name = format!("cache:__lock:{key}");
    while !redis::cmd("EXISTS").arg(&name).query::<bool>(&mut server.connect()).unwrap() {
        assert!(begun.elapsed() < PATIENCE, "no process took the lock");
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
    // And until the owner has read L2 again: after that it loads, whatever happens.
    let begun = Instant::now();
    while server.calls("evalsha") < 3 {
        assert!(begun.elapsed() < PATIENCE, "the owner does not read L2 again");
        std::thread::sleep(ms(2));
    }
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
    assert_ne!(own, published, "its own callers get the value that it loaded");
    assert_eq!(bytes(), before, "and no other caller does");
}

const KEYS: usize = 50;

fn on_the_bus(server: &RedisServer) -> Child {
    let mut child = Child::start();
    assert_eq!(child.ask(&format!("join {}", server.url())), "ready");
    child
}

/// The number of keys of which the child knows an older version than the origin.
fn old(child: &mut Child, server: &RedisServer) -> usize {
    let known = child.ask(&format!("read 0 {KEYS}"));
    let mut get = redis::cmd("MGET");
    get.arg((0..KEYS).map(|key| format!("origin:{key}")).collect::<Vec<_>>());
    let truth: Vec<Option<u32>> = get.query(&mut server.connect()).unwrap();
    let known = known.split(' ').map(|it| it.parse::<u32>().unwrap());
    known.zip(truth).filter(|(known, truth)| *known < truth.unwrap_or_default()).count()
}

fn version(key: usize, server: &RedisServer) -> u32 {
    let get = redis::cmd("GET").arg(format!("origin:{key}")).take();
    get.query::<Option<u32>>(&mut server.connect()).unwrap().unwrap_or_default()
}

/// A writer may die between its write to the origin and the delete. Then no peer receives an event,
/// and the peers must notice that the writer has gone silent.
#[test]
fn instances_are_up_to_date_after_others_were_killed_while_they_wrote() {
    let server = RedisServer::start();
    let (mut one, mut other) = (on_the_bus(&server), on_the_bus(&server));
    let mut latest = Duration::ZERO;
    for round in 0..5 {
        let mut writer = on_the_bus(&server);
        for child in [&mut one, &mut other, &mut writer] {
            child.ask(&format!("read 0 {KEYS}"));
        }
        let before = version(5 + round * 8, &server);
        writer.send(&format!("write 0 {KEYS}"));
        // While the writer writes, each time at a later key.
        let asked = Instant::now();
        while version(5 + round * 8, &server) <= before {
            assert!(asked.elapsed() < PATIENCE, "it does not write");
        }
        writer.kill();
        let killed = Instant::now();
        for child in [&mut one, &mut other] {
            while old(child, &server) > 0 {
                assert!(killed.elapsed() < ms(5_000), "{} are old", old(child, &server));
                std::thread::sleep(ms(20));
            }
        }
        latest = latest.max(killed.elapsed());
    }
    println!("five writers killed: the others are up to date after {latest:.2?} at the latest");
    // The instances receive each other's events as before.
    one.ask(&format!("read 0 {KEYS}"));
    other.ask(&format!("write 0 {KEYS}"));
    let written = Instant::now();
    while old(&mut one, &server) > 0 {
        assert!(written.elapsed() < ms(5_000), "not heard");
    }
}

#[test]
fn an_instance_that_was_frozen_trusts_no_entry_from_before() {
    let server = RedisServer::start();
    let (mut frozen, mut writer) = (on_the_bus(&server), on_the_bus(&server));
    frozen.ask(&format!("read 0 {KEYS}"));
    frozen.freeze();
    writer.ask(&format!("write 0 {KEYS}"));
    std::thread::sleep(ms(3_500));
    frozen.thaw();
    let thawed = Instant::now();
    while old(&mut frozen, &server) > 0 {
        assert!(thawed.elapsed() < ms(5_000), "it still believes what is old");
    }
    println!("thawed: up to date after {:.2?}", thawed.elapsed());
}
