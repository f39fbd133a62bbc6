//! The check of transports passes those that keep its rules, and tells each rule that is broken.

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use lazy_layers_cache::{
    Delivery, LocalTransport, MessageStream, Subscribed, Transport, TransportFuture,
    testing::{SharedBus, check_transport},
};
use tokio::task::yield_now;

/// What a transport does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ListensTooLate,
    KeepsItsOwn,
    ChangesBytes,
    ForgetsWhatIsLarge,
    DropsWhatIsInHand,
    ForgetsWhoFallsBehind,
    ClaimsToResume,
    BeginsWithResuming,
    StaysDisconnected,
    AnswersNothing,
}

/// One instance's way to a bus that is well but for one fault.
struct Faulty {
    bus: LocalTransport,
    fault: Fault,
    own: Arc<Mutex<HashSet<Vec<u8>>>>,
    was_there: AtomicBool,
    is_gone: AtomicBool,
}

impl Faulty {
    fn on(bus: &LocalTransport, fault: Fault) -> Self {
        let bus = bus.clone();
        Self { bus, fault, own: Arc::default(), was_there: false.into(), is_gone: false.into() }
    }
}

impl Transport for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            if self.is_gone.load(Ordering::SeqCst) {
                return Err("disconnected".into());
            }
            self.own.lock().unwrap().insert(event.to_vec());
            match self.fault {
                Fault::ForgetsWhatIsLarge if event.len() > 1 << 20 => Ok(()),
                Fault::ChangesBytes => {
                    self.bus.publish(String::from_utf8_lossy(event).as_bytes()).await
                }
                _ => self.bus.publish(event).await,
            }
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let was_there = self.was_there.swap(true, Ordering::SeqCst);
            let resumed = match self.fault {
                Fault::ClaimsToResume => was_there,
                Fault::BeginsWithResuming => true,
                _ => false,
            };
            let events = match self.fault {
                Fault::ListensTooLate => None,
                _ => Some(self.bus.subscribe().await?.messages),
            };
            let (bus, fault, own) = (self.bus.clone(), self.fault, Arc::clone(&self.own));
            let events = FaultyEvents { bus, events, fault, own, behind: VecDeque::new() };
            Ok(Subscribed { messages: Box::new(events), resumed })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async {
            if self.fault == Fault::AnswersNothing { Err("who is there?".into()) } else { Ok(()) }
        })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async {
            self.is_gone.store(self.fault == Fault::StaysDisconnected, Ordering::SeqCst);
            Ok(())
        })
    }
}

struct FaultyEvents {
    bus: LocalTransport,
    events: Option<Box<dyn MessageStream>>,
    fault: Fault,
    own: Arc<Mutex<HashSet<Vec<u8>>>>,
    behind: VecDeque<Delivery>,
}

impl FaultyEvents {
    async fn take(&mut self) -> Delivery {
        if self.events.is_none() {
            self.events = Some(self.bus.subscribe().await.unwrap().messages);
        }
        let events = self.events.as_mut().unwrap();
        if self.fault == Fault::ForgetsWhoFallsBehind {
            // All that is there, of which the first three hundred are kept.
            while self.behind.is_empty() {
                self.behind.push_back(events.next().await);
            }
            while let Ok(more) =
                tokio::time::timeout(std::time::Duration::ZERO, events.next()).await
            {
                self.behind.push_back(more);
            }
            self.behind.truncate(300);
            return self.behind.pop_front().unwrap();
        }
        loop {
            let delivery = events.next().await;
            match &delivery {
                Delivery::Message(event)
                    if self.fault == Fault::KeepsItsOwn
                        && self.own.lock().unwrap().contains(event) => {}
                _ => {
                    if self.fault == Fault::DropsWhatIsInHand {
                        yield_now().await;
                    }
                    return delivery;
                }
            }
        }
    }
}

impl MessageStream for FaultyEvents {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(self.take())
    }
}

#[tokio::test(start_paused = true)]
async fn transports_within_the_process_keep_the_rules() {
    for capacity in [LocalTransport::CAPACITY, 400] {
        let transport = LocalTransport::with_capacity(capacity);
        check_transport(&transport, &transport.clone()).await;
    }
    let bus = SharedBus::new(1);
    check_transport(&bus.link(), &bus.link()).await;
}

#[tokio::test(start_paused = true)]
async fn each_broken_rule_is_told() {
    for (fault, rule) in [
        (Fault::ListensTooLate, "once `subscribe` has returned"),
        (Fault::KeepsItsOwn, "one's own events come back"),
        (Fault::ChangesBytes, "bytes pass unchanged"),
        (Fault::ForgetsWhatIsLarge, "is refused, or it arrives"),
        (Fault::DropsWhatIsInHand, "when a call of `next` is dropped"),
        (Fault::ForgetsWhoFallsBehind, "who falls behind"),
        (Fault::ClaimsToResume, "says it resumed"),
        (Fault::BeginsWithResuming, "has nothing to resume"),
        (Fault::StaysDisconnected, "disconnected"),
        (Fault::AnswersNothing, "who is there?"),
    ] {
        let checking = tokio::spawn(async move {
            let bus = LocalTransport::new();
            check_transport(&Faulty::on(&bus, fault), &Faulty::on(&bus, fault)).await;
        });
        let panic = checking.await.expect_err("a broken rule").into_panic();
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or(panic.downcast_ref::<&str>().copied()).expect("the rule");
        assert!(said.contains(rule), "{fault:?}: {said}");
    }
}
