//! What any [`Transport`] must do, as a check that a user's own transport can run.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::time::timeout;

use crate::bus::{Delivery, MessageStream, Transport};

/// Asks a transport for everything that its contract says of a bus that works: what it does where
/// a broker fails only its own tests can know. It takes about a second of real time, more where
/// every event goes to disk.
///
/// The two are of two instances, new, and alone on their bus. Both are left connected.
///
/// # Panics
///
/// At the first rule that does not hold, with the rule; and where the transport returns an error.
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
    check.the_other_side_answers().await;
    check.a_subscription_has_begun_when_it_returns().await;
    check.every_event_gets_to_every_instance().await;
    check.bytes_pass_unchanged().await;
    check.what_is_too_large_harms_nothing_else().await;
    check.publishes_at_the_same_time_all_arrive().await;
    check.to_stop_waiting_loses_nothing().await;
    check.who_falls_behind_gets_all_or_is_told().await;
    check.what_resumes_missed_nothing().await;
    check.after_a_disconnect_it_connects_anew().await;
}

struct Check<'a> {
    one: &'a dyn Transport,
    other: &'a dyn Transport,
    /// The number of the next event: an event may come twice, or be left over from the rule before.
    next: AtomicU64,
}

/// Longer than any bus takes.
const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "conformance:";
/// As large as the events that the cache writes, and more.
const LARGE: usize = 512 << 10;
/// Larger than what some brokers take.
const TOO_LARGE: usize = 2 << 20;

#[expect(clippy::panic, clippy::expect_used, reason = "it is an assertion")]
impl Check<'_> {
    async fn the_other_side_answers(&self) {
        self.one.ping().await.expect("ping");
        self.other.ping().await.expect("ping");
    }

    async fn a_subscription_has_begun_when_it_returns(&self) {
        for round in 0..20 {
            let mut subscribed = self.other.subscribe().await.expect("subscribe");
            if round == 0 {
                assert!(!subscribed.resumed, "the first subscription has nothing to resume");
            }
            let sent = self.publish(self.one, 1).await;
            let rule = "what is published once `subscribe` has returned arrives";
            all_of(&mut *subscribed.messages, sent, rule).await;
        }
    }

    async fn every_event_gets_to_every_instance(&self) {
        let (mut first, mut second) = self.both().await;
        let rule = "every event gets to every instance";
        let sent = self.publish(self.one, 50).await;
        all_of(&mut *second, sent, rule).await;
        let sent = self.publish(self.other, 50).await;
        all_of(&mut *first, sent, rule).await;
        let rule = "one's own events come back: that is how who is alone knows that it would hear";
        let sent = self.publish(self.one, 5).await;
        all_of(&mut *first, sent, rule).await;
    }

    async fn bytes_pass_unchanged(&self) {
        let (_first, mut second) = self.both().await;
        let all: Vec<u8> = (0..=u8::MAX).chain(*b"HC1M\r\n\0").collect();
        let large = all.iter().copied().cycle().take(LARGE).collect();
        for sent in [all, large] {
            self.one.publish(&sent).await.expect("publish");
            loop {
                match next(&mut *second, "bytes pass unchanged").await {
                    Delivery::Message(event) if number(&event).is_some() => {}
                    Delivery::Message(event) if event == sent => break,
                    other => panic!("{} bytes pass unchanged, not as {}", sent.len(), told(&other)),
                }
            }
        }
    }

    async fn what_is_too_large_harms_nothing_else(&self) {
        let (_first, mut second) = self.both().await;
        let large = vec![b'x'; TOO_LARGE];
        if self.one.publish(&large).await.is_ok() {
            let rule = "an event is refused, or it arrives, or its loss is told";
            let is_another = |it: &Delivery| matches!(it, Delivery::Message(it) if *it != large);
            while is_another(&next(&mut *second, rule).await) {}
        }
        // The subscription may be over, and an instance has one at a time.
        drop(second);
        let mut events = self.other.subscribe().await.expect("subscribe").messages;
        let sent = self.publish(self.one, 10).await;
        all_of(&mut *events, sent, "an event that is too large harms no other").await;
    }

    async fn publishes_at_the_same_time_all_arrive(&self) {
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
        let rule = "events that are published at the same time all arrive";
        all_of(&mut *first, sent.clone(), rule).await;
        all_of(&mut *second, sent, rule).await;
    }

    async fn to_stop_waiting_loses_nothing(&self) {
        let (_first, mut second) = self.both().await;
        let rule = "nothing is lost when a call of `next` is dropped";
        let mut arrived = BTreeSet::new();
        let start = self.next.load(Ordering::Relaxed);
        for _ in 0..20 {
            self.publish(self.one, 3).await;
            // One call that may have had an event in hand, dropped while it waits.
            let mut waiting = second.next();
            let polled = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
            drop(waiting);
            if let Poll::Ready(delivery) = polled {
                arrived.extend(expect_event(delivery, rule));
            }
        }
        let mut missing: BTreeSet<u64> = (start..self.next.load(Ordering::Relaxed)).collect();
        missing.retain(|number| !arrived.contains(number));
        each_of(&mut *second, missing, rule).await;
    }

    async fn who_falls_behind_gets_all_or_is_told(&self) {
        let (_first, mut second) = self.both().await;
        let sent = self.publish(self.one, 1_000).await;
        let mut missing: BTreeSet<u64> = sent.collect();
        let rule = "who falls behind gets all events, or is told that some were lost";
        while !missing.is_empty() {
            match next(&mut *second, rule).await {
                Delivery::Message(event) => drop(number(&event).map(|it| missing.remove(&it))),
                _ => return,
            }
        }
    }

    async fn what_resumes_missed_nothing(&self) {
        for _ in 0..3 {
            let mut events = self.other.subscribe().await.expect("subscribe").messages;
            let sent = self.publish(self.one, 3).await;
            all_of(&mut *events, sent, "a subscription follows one that was dropped").await;
            drop(events);
            let meanwhile = self.publish(self.one, 5).await;
            let mut subscribed = self.other.subscribe().await.expect("subscribe");
            if subscribed.resumed {
                let rule =
                    "a subscription that says it resumed brings what was published meanwhile";
                all_of(&mut *subscribed.messages, meanwhile, rule).await;
            }
        }
    }

    async fn after_a_disconnect_it_connects_anew(&self) {
        let (_first, mut second) = self.both().await;
        self.other.disconnect().await.expect("disconnect");
        self.other.disconnect().await.expect("a second disconnect changes nothing");
        let sent = self.publish(self.one, 1).await;
        let rule = "a subscription goes on after a disconnect, or says that it is over";
        loop {
            match next(&mut *second, rule).await {
                Delivery::Message(event) if number(&event) != Some(sent.start) => {}
                _ => break,
            }
        }
        drop(second);
        let (mut first, mut second) = self.both().await;
        let sent = self.publish(self.other, 3).await;
        let rule = "what is published after a disconnect arrives";
        all_of(&mut *first, sent.clone(), rule).await;
        all_of(&mut *second, sent, rule).await;
        self.other.ping().await.expect("ping");
    }

    async fn both(&self) -> (Box<dyn MessageStream>, Box<dyn MessageStream>) {
        let first = self.one.subscribe().await.expect("subscribe").messages;
        let second = self.other.subscribe().await.expect("subscribe").messages;
        (first, second)
    }

    /// Publishes so many events, and says which.
    async fn publish(&self, by: &dyn Transport, count: u64) -> Range<u64> {
        let start = self.next.fetch_add(count, Ordering::Relaxed);
        for number in start..start + count {
            by.publish(format!("{NAME}{number}").as_bytes()).await.expect("publish");
        }
        start..start + count
    }
}

fn number(event: &[u8]) -> Option<u64> {
    std::str::from_utf8(event).ok()?.strip_prefix(NAME)?.parse().ok()
}

#[expect(clippy::panic, reason = "it is an assertion")]
async fn next(events: &mut dyn MessageStream, rule: &str) -> Delivery {
    let next = timeout(PATIENCE, events.next()).await;
    next.unwrap_or_else(|_| panic!("{rule}: nothing came for {PATIENCE:?}"))
}

/// The number of an event, if it is one of ours.
#[expect(clippy::panic, reason = "it is an assertion")]
fn expect_event(delivery: Delivery, rule: &str) -> Option<u64> {
    match delivery {
        Delivery::Message(event) => number(&event),
        other => panic!("{rule}: {}, and nothing was wrong", told(&other)),
    }
}

async fn all_of(events: &mut dyn MessageStream, numbers: Range<u64>, rule: &str) {
    each_of(events, numbers.collect(), rule).await;
}

async fn each_of(events: &mut dyn MessageStream, mut missing: BTreeSet<u64>, rule: &str) {
    while !missing.is_empty() {
        if let Some(number) = expect_event(next(events, rule).await, rule) {
            missing.remove(&number);
        }
    }
}

/// Without what may be megabytes.
fn told(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Message(event) => format!("an event of {} bytes", event.len()),
        other => format!("{other:?}"),
    }
}
