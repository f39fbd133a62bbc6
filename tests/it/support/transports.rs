//! What is asked of every transport that goes by way of a broker.

use std::time::{Duration, Instant};

use lazy_layers_cache::{Delivery, MessageStream, Transport};
use tokio::time::timeout;

/// Longer than anything takes; a test that waits for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Within this a subscriber must know that its broker is gone.
pub(crate) const TRUST: Duration = Duration::from_secs(3);

pub(crate) fn event(number: usize) -> Vec<u8> {
    number.to_string().into_bytes()
}

pub(crate) async fn next(events: &mut dyn MessageStream) -> Delivery {
    timeout(PATIENCE, events.next()).await.expect("something comes")
}

pub(crate) async fn take(events: &mut dyn MessageStream, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(events).await);
    }
    taken
}

pub(crate) async fn publish(transport: &dyn Transport, numbers: std::ops::Range<usize>) {
    for number in numbers {
        transport.publish(&event(number)).await.unwrap();
    }
}

pub(crate) fn expected(numbers: std::ops::Range<usize>) -> Vec<Delivery> {
    numbers.map(|number| Delivery::Message(event(number))).collect()
}

/// Waits for a loss to be told, however it is told, and says how long that took.
pub(crate) async fn loss(events: &mut dyn MessageStream) -> (Delivery, Duration) {
    let since = Instant::now();
    loop {
        match next(events).await {
            Delivery::Message(_) => {}
            told => return (told, since.elapsed()),
        }
    }
}

/// Asks again until it works, as the bus above does.
pub(crate) async fn until_it_works<T, E: std::fmt::Display>(
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let since = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What two instances and two subscribers see of each other.
pub(crate) async fn everyone_gets_everything_in_order(one: &dyn Transport, other: &dyn Transport) {
    let mut first = one.subscribe().await.unwrap().messages;
    let mut second = other.subscribe().await.unwrap().messages;
    publish(one, 0..100).await;
    assert_eq!(take(&mut *second, 100).await, expected(0..100));
    assert_eq!(take(&mut *first, 100).await, expected(0..100), "one's own come back");
    one.ping().await.unwrap();
}

/// A subscribe that has returned misses nothing.
pub(crate) async fn a_subscription_begins_before_it_returns(
    publisher: &dyn Transport,
    subscriber: &dyn Transport,
    times: usize,
) {
    for number in 0..times {
        let mut events = subscriber.subscribe().await.unwrap().messages;
        publisher.publish(&event(number)).await.unwrap();
        assert_eq!(next(&mut *events).await, Delivery::Message(event(number)));
        // Dealt with, so that it is not brought again.
        let _ = timeout(Duration::ZERO, events.next()).await;
    }
}

/// How many tasks of this runtime are alive but for the test's own.
pub(crate) async fn no_task_is_left() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let since = Instant::now();
    while metrics.num_alive_tasks() > 0 {
        assert!(since.elapsed() < PATIENCE, "{} tasks are left", metrics.num_alive_tasks());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
