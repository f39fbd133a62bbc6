//! Floods of messages at a subscriber of RabbitMQ that takes none, in a process of its own.

use std::time::Duration;

use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};

use crate::support::{child::Child, rabbit_place::Place, rabbitmq::RabbitServer};

/// What the transport may hold beside its queue: parts of the client, and the allocator's waste.
const ROOM: u64 = 64 << 20;
const QUEUE: u64 = 32 << 20;
/// The default exchange of the transport, and that of its beacons.
const EXCHANGE: &str = "cache.invalidations";
const BEACONS: &str = "cache.invalidations.beacons";

/// Publishes messages, and checks the memory of a subscriber meanwhile. Returns what arrives before
/// the probe that the subscriber sends then: the numbers of messages and of gaps.
async fn flood(exchange: &str, count: usize, message: impl Fn(usize) -> Vec<u8>) -> String {
    let server = RabbitServer::start();
    let mut child = Child::start();
    let process: u32 = child.ask("process").parse().unwrap();
    assert_eq!(child.ask(&format!("subscribe {}", server.url())), "ready");
    let before = resident(process);
    let channel = Place::on(&server).admin().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for number in 0..count {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let message = message(number);
        let publish =
            channel.basic_publish(exchange.into(), "".into(), options, &message, properties);
        publish.await.unwrap();
        if number % 100 == 0 {
            check(process, before);
        }
        if number % 1_000 == 0 {
            let took: u64 = child.ask("call").parse().unwrap();
            assert!(took < 5_000, "another call takes {took} ms");
        }
    }
    channel.wait_for_confirms().await.unwrap();
    // What the broker sends ahead is there at once, and no more than that.
    for _ in 0..20 {
        check(process, before);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let taken = child.ask("take");
    check(process, before);
    taken
}

fn check(process: u32, before: u64) {
    let grown = resident(process).saturating_sub(before);
    assert!(grown < QUEUE + ROOM, "{} MiB", grown >> 20);
}

/// Returns the resident memory of a process, in bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn large_messages_wait_at_the_broker() {
    let taken = flood(EXCHANGE, 300, |_| vec![b'x'; 1_000_000]).await;
    assert_eq!(taken, "300 0");
}

#[tokio::test]
async fn small_messages_of_many_publishers_wait_at_the_broker() {
    let message =
        |number| format!(r#"{{"type":"del","key":"k","source":"{number:0200}"}}"#).into_bytes();
    assert_eq!(flood(EXCHANGE, 20_000, message).await, "20000 0");
}

#[tokio::test]
async fn large_beacons_are_dropped() {
    let taken = flood(BEACONS, 300, |_| vec![b'x'; 1_000_000]).await;
    assert!(taken.ends_with(" 0"), "{taken}");
}
