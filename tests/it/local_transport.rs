//! The transport within one process: everything to everyone, in order, and no loss in silence.

use lazy_layers_cache::{Delivery, LocalTransport, MessageStream, Transport};

use crate::support::settle;

async fn publish(transport: &LocalTransport, numbers: std::ops::Range<u8>) {
    for number in numbers {
        transport.publish(&[number]).await.unwrap();
    }
}

async fn take(events: &mut dyn MessageStream, many: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..many {
        taken.push(events.next().await);
    }
    taken
}

fn event(number: u8) -> Delivery {
    Delivery::Message(vec![number])
}

#[tokio::test]
async fn every_subscriber_gets_everything_in_order_from_its_subscription_on() {
    let transport = LocalTransport::new();
    publish(&transport, 0..1).await;
    let mut first = transport.subscribe().await.unwrap().messages;
    publish(&transport, 1..2).await;
    let mut second = transport.clone().subscribe().await.unwrap().messages;
    publish(&transport, 2..4).await;
    assert_eq!(take(&mut *first, 3).await, [event(1), event(2), event(3)]);
    assert_eq!(take(&mut *second, 2).await, [event(2), event(3)]);
}

#[tokio::test]
async fn a_subscriber_that_waits_is_woken_and_may_stop_waiting_without_loss() {
    let transport = LocalTransport::new();
    let mut events = transport.subscribe().await.unwrap().messages;
    {
        let mut next = events.next();
        let waker = std::task::Waker::noop();
        assert!(next.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    }
    let waiting = tokio::spawn(async move { events.next().await });
    settle().await;
    publish(&transport, 7..8).await;
    assert_eq!(waiting.await.unwrap(), event(7));
}

#[tokio::test]
async fn whoever_falls_behind_too_far_is_told_of_a_gap_and_not_of_what_it_covers() {
    let transport = LocalTransport::with_capacity(3);
    let mut slow = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *slow, 3).await, [Delivery::Gap, event(3), event(4)]);
    publish(&transport, 5..6).await;
    assert_eq!(take(&mut *slow, 1).await, [event(5)], "one gap, told once");
}
