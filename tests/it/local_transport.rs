//! `LocalTransport`: every message to every subscriber, in order, and no silent loss.

use lazy_layers_cache::{Delivery, LocalTransport, MessageStream, Transport};

use crate::support::settle;

async fn publish(transport: &LocalTransport, numbers: std::ops::Range<u8>) {
    for number in numbers {
        transport.publish(&[number]).await.unwrap();
    }
}

async fn take(messages: &mut dyn MessageStream, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(messages.next().await);
    }
    taken
}

fn message(number: u8) -> Delivery {
    Delivery::Message(vec![number])
}

#[tokio::test]
async fn every_subscriber_receives_every_later_message_in_order() {
    let transport = LocalTransport::new();
    publish(&transport, 0..1).await;
    let mut first = transport.subscribe().await.unwrap().messages;
    publish(&transport, 1..2).await;
    let mut second = transport.clone().subscribe().await.unwrap().messages;
    publish(&transport, 2..4).await;
    assert_eq!(take(&mut *first, 3).await, [message(1), message(2), message(3)]);
    assert_eq!(take(&mut *second, 2).await, [message(2), message(3)]);
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken_and_a_dropped_next_loses_nothing() {
    let transport = LocalTransport::new();
    let mut messages = transport.subscribe().await.unwrap().messages;
    {
        let mut next = messages.next();
        let waker = std::task::Waker::noop();
        assert!(next.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    }
    let waiting = tokio::spawn(async move { messages.next().await });
    settle().await;
    publish(&transport, 7..8).await;
    assert_eq!(waiting.await.unwrap(), message(7));
}

#[tokio::test]
async fn a_slow_subscriber_receives_a_gap_instead_of_the_dropped_messages() {
    let transport = LocalTransport::with_capacity(3);
    let mut slow = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *slow, 3).await, [Delivery::Gap, message(3), message(4)]);
    publish(&transport, 5..6).await;
    assert_eq!(take(&mut *slow, 1).await, [message(5)], "the gap is delivered once");
}

#[tokio::test]
async fn the_bytes_that_wait_for_a_slow_subscriber_are_bounded() {
    let transport = LocalTransport::with_limits(100, 3);
    let mut slow = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..4).await;
    assert_eq!(take(&mut *slow, 2).await, [Delivery::Gap, message(3)]);
    transport.publish(&[0; 4]).await.unwrap();
    assert_eq!(take(&mut *slow, 1).await, [Delivery::Gap], "too large for the queue");
}
