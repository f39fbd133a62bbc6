//! Helpers of the tests of all transports.

use std::time::{Duration, Instant};

use lazy_layers_cache::{Delivery, MessageStream, Transport};
use tokio::time::timeout;

/// Longer than any step takes. A test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The time limit for a subscription to report that its broker is gone.
pub(crate) const TRUST: Duration = Duration::from_secs(3);

pub(crate) fn message(number: usize) -> Vec<u8> {
    number.to_string().into_bytes()
}

pub(crate) async fn next(messages: &mut dyn MessageStream) -> Delivery {
    timeout(PATIENCE, messages.next()).await.expect("a delivery arrives")
}

pub(crate) async fn take(messages: &mut dyn MessageStream, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(messages).await);
    }
    taken
}

pub(crate) async fn publish(transport: &dyn Transport, numbers: std::ops::Range<usize>) {
    for number in numbers {
        transport.publish(&message(number)).await.unwrap();
    }
}

pub(crate) fn expected(numbers: std::ops::Range<usize>) -> Vec<Delivery> {
    numbers.map(|number| Delivery::Message(message(number))).collect()
}

/// Waits for a gap or the end of the subscription. Returns it, and how long that took.
pub(crate) async fn loss(messages: &mut dyn MessageStream) -> (Delivery, Duration) {
    let since = Instant::now();
    loop {
        match next(messages).await {
            Delivery::Message(_) => {}
            other => return (other, since.elapsed()),
        }
    }
}

/// Repeats a call until it succeeds, as the cache does.
pub(crate) async fn retry<T, E: std::fmt::Display>(
    mut call: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let since = Instant::now();
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that two instances receive the messages of one of them, in order.
pub(crate) async fn check_delivery_in_order(one: &dyn Transport, other: &dyn Transport) {
    let mut first = one.subscribe().await.unwrap().messages;
    let mut second = other.subscribe().await.unwrap().messages;
    publish(one, 0..100).await;
    assert_eq!(take(&mut *second, 100).await, expected(0..100));
    assert_eq!(
        take(&mut *first, 100).await,
        expected(0..100),
        "an instance receives its own messages"
    );
    one.ping().await.unwrap();
}

/// Checks that a subscription receives a message published right after it has begun.
pub(crate) async fn check_subscribe_misses_nothing(
    publisher: &dyn Transport,
    subscriber: &dyn Transport,
    times: usize,
) {
    for number in 0..times {
        let mut messages = subscriber.subscribe().await.unwrap().messages;
        publisher.publish(&message(number)).await.unwrap();
        assert_eq!(next(&mut *messages).await, Delivery::Message(message(number)));
        // Acknowledges the message, so that it is not redelivered. The acknowledgement must leave
        // before the connection closes.
        let _ = timeout(Duration::from_millis(50), messages.next()).await;
    }
}

/// How many tasks of this runtime are alive but for the test's own.
pub(crate) async fn assert_no_task_is_left() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let since = Instant::now();
    while metrics.num_alive_tasks() > 0 {
        assert!(since.elapsed() < PATIENCE, "{} tasks are left", metrics.num_alive_tasks());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
