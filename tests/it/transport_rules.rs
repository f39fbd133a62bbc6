//! `check_transport` passes correct transports, and fails for each broken rule by its name.

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use lazy_layers_cache::{
    Delivery, LocalTransport, MessageStream, Prober, Subscribed, Transport, TransportFuture,
    testing::{SharedBus, check_transport},
};
use tokio::task::yield_now;

/// The rule that a transport breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    SubscribesTooLate,
    DropsOwnMessages,
    ChangesBytes,
    DropsLargeMessages,
    LosesMessageOfDroppedNext,
    DropsBeyondThreeHundred,
    ClaimsToResume,
    FirstSubscriptionResumes,
    StaysDisconnected,
    PingFails,
    ProbesAreLost,
    ProbesWaitForTheReader,
    ProbesOvertakeMessages,
    ProbesReachEverybody,
    ProbesOutliveTheirSubscription,
    LosesBeacons,
}

/// The transport of one instance, correct except for one fault.
struct Faulty {
    bus: LocalTransport,
    fault: Fault,
    own: Arc<Mutex<HashSet<Vec<u8>>>>,
    has_subscribed: AtomicBool,
    is_disconnected: AtomicBool,
}

impl Faulty {
    fn on(bus: &LocalTransport, fault: Fault) -> Self {
        let bus = bus.clone();
        Self {
            bus,
            fault,
            own: Arc::default(),
            has_subscribed: false.into(),
            is_disconnected: false.into(),
        }
    }
}

impl Transport for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            if self.is_disconnected.load(Ordering::SeqCst) {
                return Err("disconnected".into());
            }
            self.own.lock().unwrap().insert(message.to_vec());
            match self.fault {
                Fault::DropsLargeMessages if message.len() > 1 << 20 => Ok(()),
                Fault::ChangesBytes => {
                    self.bus.publish(String::from_utf8_lossy(message).as_bytes()).await
                }
                _ => self.bus.publish(message).await,
            }
        })
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        match self.fault {
            Fault::LosesBeacons => Box::pin(async { Ok(()) }),
            _ => self.publish(beacon),
        }
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let has_subscribed = self.has_subscribed.swap(true, Ordering::SeqCst);
            let resumed = match self.fault {
                Fault::ClaimsToResume => has_subscribed,
                Fault::FirstSubscriptionResumes => true,
                _ => false,
            };
            let Subscribed { messages, prober, .. } = self.bus.subscribe().await?;
            let messages = (self.fault != Fault::SubscribesTooLate).then_some(messages);
            let (bus, fault, own) = (self.bus.clone(), self.fault, Arc::clone(&self.own));
            let early = Arc::default();
            let prober = FaultyProber {
                prober,
                bus: bus.clone(),
                fault,
                instance: Arc::as_ptr(&own).addr(),
                early: Arc::clone(&early),
            };
            let messages =
                FaultyMessageStream { bus, messages, fault, own, early, behind: VecDeque::new() };
            Ok(Subscribed { messages: Box::new(messages), prober: Box::new(prober), resumed })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async {
            if self.fault == Fault::PingFails { Err("no answer".into()) } else { Ok(()) }
        })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async {
            self.is_disconnected.store(self.fault == Fault::StaysDisconnected, Ordering::SeqCst);
            Ok(())
        })
    }
}

struct FaultyProber {
    prober: Box<dyn Prober>,
    bus: LocalTransport,
    fault: Fault,
    instance: usize,
    early: Arc<Mutex<VecDeque<u64>>>,
}

impl Prober for FaultyProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            let publish =
                async |to: &str| self.bus.publish(format!("probe:{to}:{number}").as_bytes()).await;
            match self.fault {
                Fault::ProbesAreLost => Ok(()),
                Fault::ProbesWaitForTheReader => std::future::pending().await,
                Fault::ProbesOvertakeMessages => {
                    self.early.lock().unwrap().push_back(number);
                    Ok(())
                }
                Fault::ProbesReachEverybody => publish("all").await,
                Fault::ProbesOutliveTheirSubscription => publish(&self.instance.to_string()).await,
                _ => self.prober.send(number).await,
            }
        })
    }
}

struct FaultyMessageStream {
    bus: LocalTransport,
    messages: Option<Box<dyn MessageStream>>,
    fault: Fault,
    own: Arc<Mutex<HashSet<Vec<u8>>>>,
    /// Probes that are delivered before all messages.
    early: Arc<Mutex<VecDeque<u64>>>,
    behind: VecDeque<Delivery>,
}

impl FaultyMessageStream {
    /// The probe that a message stands for: for this instance, for another, or for all.
    fn probe(&self, message: &[u8]) -> Option<Option<u64>> {
        let text = std::str::from_utf8(message).ok()?;
        let (to, number) = text.strip_prefix("probe:")?.split_once(':')?;
        let is_ours = to == "all" || to == Arc::as_ptr(&self.own).addr().to_string();
        Some(is_ours.then(|| number.parse().unwrap()))
    }

    async fn take(&mut self) -> Delivery {
        if let Some(number) = self.early.lock().unwrap().pop_front() {
            return Delivery::Probe(number);
        }
        loop {
            let delivery = self.take_message().await;
            let Delivery::Message(message) = &delivery else { return delivery };
            match self.probe(message) {
                None => return delivery,
                Some(Some(number)) => return Delivery::Probe(number),
                Some(None) => {}
            }
        }
    }

    async fn take_message(&mut self) -> Delivery {
        if self.messages.is_none() {
            self.messages = Some(self.bus.subscribe().await.unwrap().messages);
        }
        let messages = self.messages.as_mut().unwrap();
        if self.fault == Fault::DropsBeyondThreeHundred {
            // Takes all queued messages and keeps the first three hundred.
            while self.behind.is_empty() {
                self.behind.push_back(messages.next().await);
            }
            while let Ok(more) =
                tokio::time::timeout(std::time::Duration::ZERO, messages.next()).await
            {
                self.behind.push_back(more);
            }
            self.behind.truncate(300);
            return self.behind.pop_front().unwrap();
        }
        loop {
            let delivery = messages.next().await;
            match &delivery {
                Delivery::Message(message)
                    if self.fault == Fault::DropsOwnMessages
                        && self.own.lock().unwrap().contains(message) => {}
                _ => {
                    if self.fault == Fault::LosesMessageOfDroppedNext {
                        yield_now().await;
                    }
                    return delivery;
                }
            }
        }
    }
}

impl MessageStream for FaultyMessageStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(self.take())
    }
}

#[tokio::test(start_paused = true)]
async fn transports_in_memory_pass_the_check() {
    for capacity in [LocalTransport::CAPACITY, 400] {
        let transport = LocalTransport::with_capacity(capacity);
        check_transport(&transport, &transport.clone()).await;
    }
    let bus = SharedBus::new(1);
    check_transport(&bus.link(), &bus.link()).await;
}

#[tokio::test(start_paused = true)]
async fn each_broken_rule_fails_the_check_by_name() {
    for (fault, rule) in [
        (Fault::SubscribesTooLate, "after `subscribe` has returned"),
        (Fault::DropsOwnMessages, "an instance receives its own messages"),
        (Fault::ChangesBytes, "bytes arrive unchanged"),
        (Fault::DropsLargeMessages, "is refused, or it arrives"),
        (Fault::LosesMessageOfDroppedNext, "when a call of `next` is dropped"),
        (Fault::DropsBeyondThreeHundred, "a slow subscriber"),
        (Fault::ClaimsToResume, "a resumed subscription"),
        (Fault::FirstSubscriptionResumes, "has nothing to resume"),
        (Fault::StaysDisconnected, "disconnected"),
        (Fault::PingFails, "no answer"),
        (Fault::ProbesAreLost, "a probe comes back: nothing arrived"),
        (Fault::ProbesWaitForTheReader, "while nobody reads the subscription"),
        (Fault::ProbesOvertakeMessages, "a probe comes back after all messages"),
        (Fault::ProbesReachEverybody, "to its own subscription alone"),
        (Fault::ProbesOutliveTheirSubscription, "not to the next one"),
        (Fault::LosesBeacons, "a beacon that is announced reaches every instance"),
    ] {
        let checking = tokio::spawn(async move {
            let bus = LocalTransport::new();
            check_transport(&Faulty::on(&bus, fault), &Faulty::on(&bus, fault)).await;
        });
        let panic = checking.await.expect_err("the check panics").into_panic();
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).expect("a text");
        assert!(text.contains(rule), "{fault:?}: {text}");
    }
}
