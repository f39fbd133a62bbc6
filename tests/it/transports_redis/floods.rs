//! Floods of messages at a subscriber that takes none, in a process of its own.

use super::CHANNEL;
use crate::support::{child::Child, redis::RedisServer};

/// What a transport may hold beside its queue: the parts of the client, and the allocator's waste.
const ROOM: u64 = 64 << 20;
const QUEUE: u64 = 32 << 20;

/// Publishes messages in batches, and checks the memory of a subscriber meanwhile. Returns the
/// number of messages and of gaps that wait for it in the end.
fn flood(batches: usize, batch: impl Fn(usize) -> redis::Pipeline) -> (u64, u64) {
    let server =
        RedisServer::start_with(&["--client-output-buffer-limit", "pubsub", "0", "0", "0"]);
    let mut child = Child::start();
    let process: u32 = child.ask("process").parse().unwrap();
    assert_eq!(child.ask(&format!("subscribe {}", server.url())), "ready");
    let before = resident(process);
    let mut redis = server.connect();
    for number in 0..batches {
        batch(number).exec(&mut redis).unwrap();
        let grown = resident(process).saturating_sub(before);
        assert!(grown < QUEUE + ROOM, "{} MiB after {number} batches", grown >> 20);
        if number % 50 == 0 {
            let took: u64 = child.ask("call").parse().unwrap();
            assert!(took < 1_000, "another call takes {took} ms");
        }
    }
    let waiting = child.ask("take");
    let (messages, gaps) = waiting.split_once(' ').unwrap();
    (messages.parse().unwrap(), gaps.parse().unwrap())
}

/// Returns the resident memory of a process, in bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn large_messages_take_no_more_memory_than_the_queue() {
    let large = vec![b'x'; 1 << 20];
    let (messages, gaps) = flood(100, |_| {
        let mut batch = redis::pipe();
        (0..8).for_each(|_| _ = batch.cmd("PUBLISH").arg(CHANNEL).arg(&large).ignore());
        batch
    });
    assert!(messages < 800 && gaps > 0, "{messages} messages, {gaps} gaps");
}

#[test]
fn small_messages_of_many_publishers_take_no_more_memory_than_the_queue() {
    let (messages, gaps) = flood(200, |number| {
        let mut batch = redis::pipe();
        for index in 0..1_000 {
            let source = format!("{:01000}", number * 1_000 + index);
            let message = format!(r#"{{"type":"del","key":"k","source":"{source}"}}"#);
            batch.cmd("PUBLISH").arg(CHANNEL).arg(message).ignore();
        }
        batch
    });
    assert!(messages < 200_000 && gaps > 0, "{messages} messages, {gaps} gaps");
}
