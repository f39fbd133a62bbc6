//! Disconnecting, dropping and runtimes: nothing is left behind.

use std::task::{Context, Poll, Waker};

use lazy_layers_cache::{Delivery, RedisTransport, Transport};

use super::{subscribers, transport};
use crate::support::{
    ms,
    redis::RedisServer,
    transports::{assert_no_task_is_left, expected, loss, next, publish, retry, take},
};

#[tokio::test]
async fn disconnect_ends_subscriptions_and_the_next_call_connects_anew() {
    let server = RedisServer::start();
    let transport = transport(&server);
    let mut first = transport.subscribe().await.unwrap().messages;
    let mut second = transport.subscribe().await.unwrap().messages;
    transport.publish(b"event").await.unwrap();
    transport.disconnect().await.unwrap();
    for events in [&mut first, &mut second] {
        assert_eq!(loss(&mut **events).await.0, Delivery::Closed);
    }
    assert_no_task_is_left().await;
    let mut redis = server.connect();
    retry(async || match subscribers(&mut redis) {
        0 => Ok(()),
        count => Err(format!("{count} subscribers")),
    })
    .await;
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..1).await;
    assert_eq!(take(&mut *events, 1).await, expected(0..1));
    transport.ping().await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_was_dropped_or_cancelled_leaves_nothing() {
    let server = RedisServer::start();
    let transport = transport(&server);
    let mut redis = server.connect();
    // Cancels subscribing at each point where it waits, until one attempt completes.
    let mut polls = 0;
    let through = loop {
        let mut subscribing = transport.subscribe();
        let mut left = polls;
        let cancelled = std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            subscribing.as_mut().poll(context).map(Some)
        });
        match cancelled.await {
            Some(subscribed) => break subscribed.unwrap(),
            None => drop(subscribing),
        }
        polls += 1;
    };
    assert!(polls > 2, "{polls}");
    let mut numbers = async |wanted: u64| {
        retry(async || match subscribers(&mut redis) {
            count if count == wanted => Ok(()),
            count => Err(format!("{count} subscribers")),
        })
        .await;
    };
    numbers(1).await;
    drop(through);
    numbers(0).await;
    assert_no_task_is_left().await;
}

#[tokio::test]
async fn a_dropped_transport_leaves_no_task() {
    let mut server = RedisServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    transport.publish(b"event").await.unwrap();
    drop(transport);
    assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));
    assert!(
        tokio::time::timeout(ms(50), events.next()).await.is_err(),
        "a subscription outlives its transport"
    );
    drop(events);
    assert_no_task_is_left().await;

    // A transport whose server is down leaves nothing either.
    let transport = self::transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    server.kill();
    loss(&mut *events).await;
    assert_no_task_is_left().await;
    drop((transport, events));
}

#[test]
fn everything_may_be_dropped_outside_a_runtime_and_ends_with_the_runtime() {
    let server = RedisServer::start();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (first, second) = (runtime().unwrap(), runtime().unwrap());
    let transport = transport(&server);
    let subscribed = first.block_on(transport.subscribe()).unwrap();
    let mut events = first.block_on(transport.subscribe()).unwrap().messages;
    first.block_on(transport.publish(b"event")).unwrap();
    let half_done = {
        let mut subscribing = transport.subscribe();
        first.block_on(async {
            let _ = subscribing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        });
        subscribing
    };
    drop(half_done);
    drop(subscribed);
    drop(first);
    let told = second.block_on(async { loss(&mut *events).await.0 });
    assert_eq!(told, Delivery::Closed, "the task that reads has ended");
    second.block_on(retry(async || transport.publish(b"event").await));
    drop(second);
    drop(transport);
}

#[test]
fn a_call_without_a_runtime_is_an_error_and_no_panic() {
    let transport = RedisTransport::at("redis://127.0.0.1/").build().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let publishing = transport.publish(b"event").as_mut().poll(&mut context);
    assert!(matches!(publishing, Poll::Ready(Err(_))));
    let subscribing = transport.subscribe().as_mut().poll(&mut context);
    assert!(matches!(subscribing, Poll::Ready(Err(_))));
}
