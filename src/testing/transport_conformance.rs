//! `check_transport`: checks an implementation of [`Transport`] against its contract.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::time::timeout;

use crate::bus::{Delivery, MessageStream, Prober, Transport};

/// Checks a transport against the contract of [`Transport`], on a bus that works. The behaviour
/// under faults of a broker needs tests of its own. The check takes about a second, and longer if
/// the broker writes each message to disk.
///
/// The two transports belong to two instances. They must be new, and alone on their bus. Both stay
/// connected.
///
/// # Panics
///
/// At the first rule that does not hold, with the rule; and if the transport returns an error.
///
/// ```
/// # use lazy_layers_cache::{LocalTransport, testing::check_transport};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let transport = LocalTransport::new();
/// check_transport(&transport, &transport.clone()).await;
/// # }
/// ```
pub async fn check_transport(one: &dyn Transport, other: &dyn Transport) {
    let check = Check { one, other, next: AtomicU64::new(0) };
    check.a_ping_succeeds().await;
    check.a_subscription_is_in_force_when_subscribe_returns().await;
    check.every_message_reaches_every_instance().await;
    check.bytes_arrive_unchanged().await;
    check.an_oversized_message_harms_no_other().await;
    check.concurrent_publishes_all_arrive().await;
    check.a_dropped_next_loses_nothing().await;
    check.a_slow_subscriber_receives_all_or_a_gap().await;
    check.a_resumed_subscription_missed_nothing().await;
    check.a_probe_comes_back_behind_all_messages_and_to_nobody_else().await;
    check.a_probe_of_a_subscription_that_has_ended_does_not_come_back().await;
    check.a_beacon_reaches_every_instance().await;
    check.after_a_disconnect_calls_connect_anew().await;
}

struct Check<'a> {
    one: &'a dyn Transport,
    other: &'a dyn Transport,
    /// The number of the next message: one may arrive twice, or be left over from another rule.
    next: AtomicU64,
}

/// The time limit for each message, longer than any bus needs.
const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "conformance:";
/// At least as large as the largest message of a cache.
const LARGE: usize = 512 << 10;
/// Larger than some brokers accept.
const TOO_LARGE: usize = 2 << 20;

#[expect(clippy::panic, clippy::expect_used, reason = "it is an assertion")]
impl Check<'_> {
    async fn a_ping_succeeds(&self) {
        self.one.ping().await.expect("ping");
        self.other.ping().await.expect("ping");
    }

    async fn a_subscription_is_in_force_when_subscribe_returns(&self) {
        for round in 0..20 {
            let mut subscribed = self.other.subscribe().await.expect("subscribe");
            if round == 0 {
                assert!(!subscribed.resumed, "the first subscription has nothing to resume");
            }
            let sent = self.publish(self.one, 1).await;
            let rule = "a message published after `subscribe` has returned arrives";
            all_of(&mut *subscribed.messages, sent, rule).await;
        }
    }

    async fn every_message_reaches_every_instance(&self) {
        let (mut first, mut second) = self.both().await;
        let rule = "every message reaches every instance";
        let sent = self.publish(self.one, 50).await;
        all_of(&mut *second, sent, rule).await;
        let sent = self.publish(self.other, 50).await;
        all_of(&mut *first, sent, rule).await;
        let rule = "an instance receives its own messages";
        let sent = self.publish(self.one, 5).await;
        all_of(&mut *first, sent, rule).await;
    }

    async fn bytes_arrive_unchanged(&self) {
        let (_first, mut second) = self.both().await;
        let all: Vec<u8> = (0..=u8::MAX).chain(*b"HC1M\r\n\0").collect();
        let large = all.iter().copied().cycle().take(LARGE).collect();
        for sent in [all, large] {
            self.one.publish(&sent).await.expect("publish");
            loop {
                match next(&mut *second, "bytes arrive unchanged").await {
                    Delivery::Message(message) if number(&message).is_some() => {}
                    Delivery::Message(message) if message == sent => break,
                    other => {
                        panic!("{} bytes arrive unchanged, not as {}", sent.len(), text(&other))
                    }
                }
            }
        }
    }

    async fn an_oversized_message_harms_no_other(&self) {
        let (_first, mut second) = self.both().await;
        let large = vec![b'x'; TOO_LARGE];
        if self.one.publish(&large).await.is_ok() {
            let rule = "a message is refused, or it arrives, or its loss is reported";
            let is_another = |it: &Delivery| matches!(it, Delivery::Message(it) if *it != large);
            while is_another(&next(&mut *second, rule).await) {}
        }
        // The subscription may have ended, and an instance has one at a time.
        drop(second);
        let mut messages = self.other.subscribe().await.expect("subscribe").messages;
        let sent = self.publish(self.one, 10).await;
        all_of(&mut *messages, sent, "an oversized message harms no other").await;
    }

    async fn concurrent_publishes_all_arrive(&self) {
        let (mut first, mut second) = self.both().await;
        let start = self.next.load(Ordering::Relaxed);
        let many = (0..50).map(|index| {
            let by = if index % 2 == 0 { self.one } else { self.other };
            Box::pin(self.publish(by, 4))
        });
        let mut many: Vec<_> = many.collect();
        poll_fn(|context| {
            many.retain_mut(|publish| publish.as_mut().poll(context).is_pending());
            if many.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let sent = start..self.next.load(Ordering::Relaxed);
        let rule = "messages that are published concurrently all arrive";
        all_of(&mut *first, sent.clone(), rule).await;
        all_of(&mut *second, sent, rule).await;
    }

    async fn a_dropped_next_loses_nothing(&self) {
        let (_first, mut second) = self.both().await;
        let rule = "no message is lost when a call of `next` is dropped";
        let mut arrived = BTreeSet::new();
        let start = self.next.load(Ordering::Relaxed);
        for _ in 0..20 {
            self.publish(self.one, 3).await;
            // Polled once, then dropped: it may already hold a message.
            let mut waiting = second.next();
            let polled = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
            drop(waiting);
            if let Poll::Ready(delivery) = polled {
                arrived.extend(expect_message(delivery, rule));
            }
        }
        let sent = start..self.next.load(Ordering::Relaxed);
        all_of(&mut *second, sent.filter(|number| !arrived.contains(number)), rule).await;
    }

    async fn a_slow_subscriber_receives_all_or_a_gap(&self) {
        let (_first, mut second) = self.both().await;
        let mut missing: BTreeSet<u64> = self.publish(self.one, 1_000).await.collect();
        let rule = "a slow subscriber receives all messages, or a gap";
        while !missing.is_empty() {
            match next(&mut *second, rule).await {
                Delivery::Message(message) => drop(number(&message).map(|it| missing.remove(&it))),
                _ => return,
            }
        }
    }

    async fn a_resumed_subscription_missed_nothing(&self) {
        for _ in 0..3 {
            let mut messages = self.other.subscribe().await.expect("subscribe").messages;
            let sent = self.publish(self.one, 3).await;
            all_of(&mut *messages, sent, "a subscription can replace a dropped one").await;
            drop(messages);
            let meanwhile = self.publish(self.one, 5).await;
            let mut subscribed = self.other.subscribe().await.expect("subscribe");
            if subscribed.resumed {
                let rule = "a resumed subscription receives the messages published in between";
                all_of(&mut *subscribed.messages, meanwhile, rule).await;
            }
        }
    }

    /// With an empty inbox, and behind a backlog that nobody has begun to read.
    async fn a_probe_comes_back_behind_all_messages_and_to_nobody_else(&self) {
        let mut first = self.one.subscribe().await.expect("subscribe");
        let mut second = self.other.subscribe().await.expect("subscribe");
        for (round, backlog) in (1..).zip([0, 1, 150]) {
            let (own, lower, number) = (round * 10, round * 10 + 1, round * 10 + 2);
            let start = self.next.load(Ordering::Relaxed);
            self.publish(self.one, backlog).await;
            self.publish(self.other, backlog).await;
            let sent = start..self.next.load(Ordering::Relaxed);
            send_probe(&*first.prober, own).await;
            send_probe(&*second.prober, lower).await;
            send_probe(&*second.prober, number).await;
            for (subscribed, number) in [(&mut first, own), (&mut second, number)] {
                let mut missing: BTreeSet<u64> = sent.clone().collect();
                loop {
                    // Polled once and dropped: that loses no probe.
                    let mut waiting = subscribed.messages.next();
                    let polled = poll_fn(|it| Poll::Ready(waiting.as_mut().poll(it))).await;
                    drop(waiting);
                    let rule = "a probe comes back";
                    let delivery = match polled {
                        Poll::Ready(delivery) => delivery,
                        Poll::Pending => next(&mut *subscribed.messages, rule).await,
                    };
                    match delivery {
                        Delivery::Probe(it) if it == number => break,
                        Delivery::Probe(it) => {
                            let is_ours = number != own && it == lower;
                            assert!(is_ours, "a probe comes back to its own subscription alone");
                        }
                        other => drop(expect_message(other, rule).map(|it| missing.remove(&it))),
                    }
                }
                let left = missing.len();
                let rule = "a probe comes back after all messages that were published before it";
                assert!(missing.is_empty(), "{rule}: {left} of {} are missing", 2 * backlog);
            }
        }
        send_probe(&*second.prober, 1_000).await;
        while next(&mut *second.messages, "a probe comes back").await != Delivery::Probe(1_000) {}
        let sent = self.publish(self.one, 1).await;
        let rule = "a probe comes back to its own subscription alone";
        all_of(&mut *first.messages, sent, rule).await;
    }

    async fn a_probe_of_a_subscription_that_has_ended_does_not_come_back(&self) {
        for _ in 0..3 {
            let ended = self.other.subscribe().await.expect("subscribe");
            send_probe(&*ended.prober, 1).await;
            drop(ended.messages);
            let mut subscribed = self.other.subscribe().await.expect("subscribe");
            // That subscription may be gone, with its connection.
            let _ = timeout(PATIENCE, ended.prober.send(2)).await;
            send_probe(&*subscribed.prober, 3).await;
            let rule = "a probe comes back to its own subscription, not to the next one";
            loop {
                match next(&mut *subscribed.messages, rule).await {
                    Delivery::Probe(number) => {
                        assert_eq!(number, 3, "{rule}");
                        break;
                    }
                    other => drop(expect_message(other, rule)),
                }
            }
        }
    }

    async fn a_beacon_reaches_every_instance(&self) {
        let (mut first, mut second) = self.both().await;
        for by in [self.one, self.other] {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            by.announce(format!("{NAME}{number}").as_bytes()).await.expect("announce");
            let rule = "a beacon that is announced reaches every instance";
            all_of(&mut *first, number..number + 1, rule).await;
            all_of(&mut *second, number..number + 1, rule).await;
        }
    }

    async fn after_a_disconnect_calls_connect_anew(&self) {
        let (_first, mut second) = self.both().await;
        self.other.disconnect().await.expect("disconnect");
        self.other.disconnect().await.expect("a second disconnect changes nothing");
        let sent = self.publish(self.one, 1).await;
        let rule = "a subscription continues after a disconnect, or reports its end";
        let is_earlier =
            |it: &Delivery| matches!(it, Delivery::Message(it) if number(it) != Some(sent.start));
        while is_earlier(&next(&mut *second, rule).await) {}
        drop(second);
        let (mut first, mut second) = self.both().await;
        let sent = self.publish(self.other, 3).await;
        let rule = "a message published after a disconnect arrives";
        all_of(&mut *first, sent.clone(), rule).await;
        all_of(&mut *second, sent, rule).await;
        self.other.ping().await.expect("ping");
        let mut subscribed = self.other.subscribe().await.expect("subscribe");
        send_probe(&*subscribed.prober, 1).await;
        let rule = "a probe that is sent after a disconnect comes back";
        while !matches!(next(&mut *subscribed.messages, rule).await, Delivery::Probe(1)) {}
    }

    async fn both(&self) -> (Box<dyn MessageStream>, Box<dyn MessageStream>) {
        let first = self.one.subscribe().await.expect("subscribe").messages;
        let second = self.other.subscribe().await.expect("subscribe").messages;
        (first, second)
    }

    /// Publishes `count` messages and returns their numbers.
    async fn publish(&self, by: &dyn Transport, count: u64) -> Range<u64> {
        let start = self.next.fetch_add(count, Ordering::Relaxed);
        for number in start..start + count {
            by.publish(format!("{NAME}{number}").as_bytes()).await.expect("publish");
        }
        start..start + count
    }
}

fn number(message: &[u8]) -> Option<u64> {
    std::str::from_utf8(message).ok()?.strip_prefix(NAME)?.parse().ok()
}

/// Sends a probe: within the time limit, although nobody reads the subscription meanwhile.
#[expect(clippy::panic, clippy::expect_used, reason = "it is an assertion")]
async fn send_probe(prober: &dyn Prober, number: u64) {
    let sent = timeout(PATIENCE, prober.send(number)).await;
    let rule = "a probe is sent while nobody reads the subscription";
    sent.unwrap_or_else(|_| panic!("{rule}: not within {PATIENCE:?}")).expect("a probe is sent");
}

#[expect(clippy::panic, reason = "it is an assertion")]
async fn next(messages: &mut dyn MessageStream, rule: &str) -> Delivery {
    let next = timeout(PATIENCE, messages.next()).await;
    next.unwrap_or_else(|_| panic!("{rule}: nothing arrived for {PATIENCE:?}"))
}

/// Returns the number of the message, if the message is one of ours.
#[expect(clippy::panic, reason = "it is an assertion")]
fn expect_message(delivery: Delivery, rule: &str) -> Option<u64> {
    match delivery {
        Delivery::Message(message) => number(&message),
        other => panic!("{rule}: {} on a bus that works", text(&other)),
    }
}

async fn all_of(messages: &mut dyn MessageStream, numbers: impl Iterator<Item = u64>, rule: &str) {
    let mut missing: BTreeSet<u64> = numbers.collect();
    while !missing.is_empty() {
        if let Some(number) = expect_message(next(messages, rule).await, rule) {
            missing.remove(&number);
        }
    }
}

/// Describes a delivery without the bytes of the message.
fn text(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Message(message) => format!("a message of {} bytes", message.len()),
        other => format!("{other:?}"),
    }
}
