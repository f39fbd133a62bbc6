//! Tests [`GapDetector`] and [`BeaconSchedule`] together: instances on a bus that delays messages
//! and loses those that the test chooses, in simulated time.

use std::collections::BTreeMap;

use super::{GapDetector, GapReason};
use crate::bus::{
    protocol::beacon_schedule::BeaconSchedule,
    wire::{message::SequenceStamp, namespace::CacheId},
};

const T: u64 = 3_000;
const CACHE: &[CacheId] = &[CacheId(0)];
/// Milliseconds between two polls for gaps, by which a gap may be noticed late.
const POLL_INTERVAL: u64 = 100;

#[derive(Clone, Debug)]
struct Sent {
    from: usize,
    incarnation: String,
    seq: u64,
    next_within_ms: Option<u64>,
    idle_ms: Option<u64>,
    beacon: bool,
    hello: bool,
    /// The number, if it is a probe, which only its sender receives.
    probe: Option<u64>,
}

struct Instance {
    gaps: GapDetector,
    beacons: BeaconSchedule,
    seq: u64,
    published: Option<u64>,
    runs: bool,
    found: Vec<(u64, GapReason)>,
}

struct Fleet {
    now: u64,
    instances: Vec<Instance>,
    wire: BTreeMap<(u64, u64), (usize, Sent)>,
    sent: u64,
    probes: u64,
    random: fastrand::Rng,
    slowest: u64,
}

impl Fleet {
    fn new(size: usize, seed: u64) -> Self {
        let mut fleet = Self {
            now: 0,
            instances: Vec::new(),
            wire: BTreeMap::new(),
            sent: 0,
            probes: 0,
            random: fastrand::Rng::with_seed(seed),
            slowest: 300,
        };
        (0..size).for_each(|_| fleet.join());
        fleet.run(T + POLL_INTERVAL, &nothing);
        fleet.found_nothing();
        fleet
    }

    /// Adds an instance, which sends a hello.
    fn join(&mut self) {
        let name = self.instances.len();
        let mut instance = Instance {
            gaps: GapDetector::new(&format!("i{name}"), T),
            beacons: BeaconSchedule::new(T),
            seq: 0,
            published: None,
            runs: true,
            found: Vec::new(),
        };
        instance.gaps.on_subscribed(self.now, false);
        self.instances.push(instance);
        self.beacon(name, true, &|_, _| false);
    }

    /// `lost` chooses the instances that the message does not reach.
    fn publish(&mut self, from: usize, lost: &dyn Fn(usize, &Sent) -> bool) {
        let now = self.now;
        let Instance { beacons, seq, published, .. } = &mut self.instances[from];
        let due = Some(beacons.next_within(false));
        let sent = Sent { idle_ms: published.map(|at| now - at), ..Sent::new(from, *seq, due) };
        *seq += 1;
        *published = Some(now);
        beacons.on_published(now);
        self.send(&sent, lost);
    }

    fn beacon(&mut self, from: usize, hello: bool, lost: &dyn Fn(usize, &Sent) -> bool) {
        let Instance { beacons, seq, published, .. } = &mut self.instances[from];
        let sent = Sent {
            beacon: true,
            hello,
            idle_ms: published.map(|at| self.now - at),
            ..Sent::new(from, *seq, Some(beacons.next_within(true)))
        };
        beacons.on_beacon_sent(self.now, self.random.f64());
        self.send(&sent, lost);
    }

    fn send(&mut self, sent: &Sent, lost: &dyn Fn(usize, &Sent) -> bool) {
        self.sent += 1;
        for to in (0..self.instances.len()).filter(|to| !lost(*to, sent)) {
            let at = self.now + self.random.u64(1..=self.slowest);
            let tie = self.random.u64(..u64::MAX / 2);
            self.wire.insert((at, tie), (to, sent.clone()));
        }
    }

    /// Sends a probe, which overtakes no message to its sender.
    fn probe(&mut self, from: usize, number: u64, lost: &dyn Fn(usize, &Sent) -> bool) {
        let sent = Sent { probe: Some(number), ..Sent::new(from, 0, None) };
        if !lost(from, &sent) {
            let arrival = self.now + self.random.u64(1..=self.slowest);
            let to_it = self.wire.iter().filter(|(_, (to, _))| *to == from);
            let last = to_it.map(|(at, _)| at.0).max().unwrap_or_default();
            self.probes += 1;
            let tie = u64::MAX / 2 + self.probes;
            self.wire.insert((arrival.max(last), tie), (from, sent));
        }
    }

    /// Runs all instances for a time. `lost` chooses the beacons and probes that are lost.
    fn run(&mut self, millis: u64, lost: &dyn Fn(usize, &Sent) -> bool) {
        for _ in 0..millis {
            self.now += 1;
            while let Some(next) = self.wire.first_entry().filter(|it| it.key().0 <= self.now) {
                let (to, sent) = next.remove();
                let instance = &mut self.instances[to];
                if let Some(number) = sent.probe {
                    if instance.gaps.on_probe(self.now, number).1 {
                        instance.gaps.acknowledge_gap(self.now);
                        instance.gaps.on_current(self.now);
                    }
                    continue;
                }
                let stamp = SequenceStamp {
                    incarnation: &sent.incarnation,
                    seq: sent.seq,
                    next_within_ms: sent.next_within_ms,
                    idle_ms: sent.idle_ms,
                };
                instance.gaps.observe(self.now, &stamp, sent.beacon, CACHE);
                if sent.hello && sent.from != to {
                    instance.beacons.on_hello(self.now, self.random.f64());
                }
            }
            for from in 0..self.instances.len() {
                let instance = &mut self.instances[from];
                if !instance.runs {
                    continue;
                }
                if self.now.is_multiple_of(POLL_INTERVAL) {
                    let found = instance.gaps.check(self.now);
                    instance.found.extend(found.map(|reason| (self.now, reason)));
                    let known = instance.gaps.known_publishers();
                    instance.beacons.on_known(self.now, known, self.random.f64());
                    instance.gaps.request_probe(self.now);
                }
                if let Some(number) = instance.gaps.probes.take_due(self.now) {
                    self.probe(from, number, lost);
                }
                if self.instances[from].beacons.due_at() <= self.now {
                    self.beacon(from, false, lost);
                }
            }
        }
    }

    /// Runs all instances for a time, with publishes at random times.
    fn work(&mut self, millis: u64) {
        let until = self.now + millis;
        while self.now < until {
            let from = self.random.usize(..self.instances.len());
            if self.instances[from].runs {
                self.publish(from, &nothing);
            }
            let pause = self.random.choice([5, 50, 400, 3_000]).unwrap();
            self.run(pause, &nothing);
        }
    }

    /// Takes the gaps that each instance found since the last call.
    fn found(&mut self) -> Vec<Vec<(u64, GapReason)>> {
        self.instances.iter_mut().map(|instance| std::mem::take(&mut instance.found)).collect()
    }

    fn found_nothing(&mut self) {
        let found = self.found();
        assert!(found.iter().all(Vec::is_empty), "{found:?} at {}", self.now);
    }
}

impl Sent {
    fn new(from: usize, seq: u64, next_within_ms: Option<u64>) -> Self {
        let incarnation = format!("i{from}");
        let (beacon, hello) = (false, false);
        Self { from, incarnation, seq, next_within_ms, idle_ms: None, beacon, hello, probe: None }
    }
}

fn nothing(_: usize, _: &Sent) -> bool {
    false
}

#[test]
fn without_a_loss_no_gap_is_found() {
    for seed in 0..20 {
        let mut fleet = Fleet::new(4, seed);
        fleet.work(60_000);
        fleet.found_nothing();
        fleet.run(90_000, &nothing);
        fleet.work(10_000);
        fleet.found_nothing();
    }
}

#[test]
fn a_lost_message_is_noticed_in_time_by_the_instance_that_missed_it_and_by_no_other() {
    for seed in 0..60 {
        let mut fleet = Fleet::new(4, seed);
        fleet.work(8_000);
        // In the middle of work, among the beacons after it, after a long silence.
        fleet.run([0, 2_000, 40_000][seed as usize % 3], &nothing);
        fleet.found_nothing();
        let began = fleet.now;
        fleet.publish(0, &|to, _| to == 1);
        // The first beacon that would have shown the loss is lost too.
        let first_beacon = began + 300;
        while fleet.now < first_beacon {
            fleet.run(1, &|to, sent| to == 1 && sent.from == 0);
        }
        fleet.run(30_000, &nothing);
        for (name, found) in fleet.found().into_iter().enumerate() {
            if name == 1 {
                assert!(found.len() == 1 && found[0].1 == GapReason::Hole, "{found:?}");
                assert!(found[0].0 <= began + T, "{} ms", found[0].0 - began);
            } else {
                assert_eq!(found, [], "seed {seed}");
            }
        }
    }
}

#[test]
fn a_dead_subscription_is_noticed_in_time() {
    for seed in 0..20 {
        let mut fleet = Fleet::new(3, seed);
        fleet.work(8_000);
        fleet.run([0, 40_000][seed as usize % 2], &nothing);
        fleet.found_nothing();
        let began = fleet.now;
        let lost = |to: usize, _: &Sent| to == 1;
        fleet.wire.retain(|_, (to, _)| *to != 1);
        fleet.publish(0, &lost);
        fleet.run(T + POLL_INTERVAL, &lost);
        let found = fleet.found();
        assert!(found[1].iter().any(|(at, _)| *at <= began + T + POLL_INTERVAL), "{found:?}");
        assert_eq!((found[0].len(), found[2].len()), (0, 0));
    }
}

#[test]
fn a_publisher_that_falls_silent_is_noticed_in_time_also_if_it_was_idle() {
    for seed in 0..20 {
        let mut fleet = Fleet::new(3, seed);
        fleet.work(8_000);
        fleet.run([10_000, 70_000][seed as usize % 2], &nothing);
        fleet.found_nothing();
        // Its last message reaches no instance, and it dies.
        let began = fleet.now;
        fleet.publish(0, &|_, _| true);
        fleet.instances[0].runs = false;
        fleet.run(90_000, &nothing);
        for found in &fleet.found()[1..] {
            let reasons: Vec<GapReason> = found.iter().map(|(_, why)| *why).collect();
            let [silent, dead] = [GapReason::PublisherSilent, GapReason::PublisherForgotten];
            assert_eq!(reasons, [silent, dead], "{found:?}");
            // An earlier beacon may still have been in transit.
            let latest = began + fleet.slowest + T + POLL_INTERVAL;
            assert!(found[0].0 <= latest, "{} ms", found[0].0 - began);
        }
    }
}

#[test]
fn an_instance_that_says_goodbye_causes_no_gap() {
    for seed in 0..20 {
        let mut fleet = Fleet::new(4, seed);
        fleet.work(8_000);
        fleet.publish(0, &nothing);
        let goodbye = Sent { beacon: true, ..Sent::new(0, fleet.instances[0].seq, None) };
        fleet.send(&goodbye, &nothing);
        fleet.instances[0].runs = false;
        fleet.run(120_000, &nothing);
        fleet.found_nothing();
    }
}

#[test]
fn a_late_instance_learns_the_numbers_of_its_peers_without_a_gap_and_notices_losses_at_once() {
    for seed in 0..18 {
        let mut fleet = Fleet::new(3, seed);
        fleet.slowest = 30;
        fleet.work(8_000);
        fleet.run([0, 30_000][seed as usize % 2], &nothing);
        fleet.found_nothing();
        fleet.join();
        // Until the first probe is back, and half a second more.
        fleet.run(650, &nothing);
        let publisher = fleet.random.usize(..3);
        let began = fleet.now;
        let is_lost = seed % 3 == 0;
        fleet.publish(publisher, &|to, _| is_lost && to == 3);
        fleet.run(T, &nothing);
        let found = fleet.found().pop().unwrap();
        assert_eq!(found.len(), usize::from(is_lost), "{found:?}");
        assert!(found.iter().all(|(at, _)| *at <= began + T));
        fleet.run(20_000, &nothing);
        fleet.found_nothing();
    }
}

#[test]
fn an_idle_instance_receives_at_most_seventy_messages_a_second_and_two_if_there_are_many() {
    for (size, limit) in [(1, 2.0), (64, 70.0), (66, 2.0)] {
        let mut fleet = Fleet::new(size, 7);
        fleet.slowest = 20;
        (0..size).for_each(|from| fleet.publish(from, &nothing));
        fleet.run(8_000, &nothing);
        let before = fleet.sent;
        fleet.run(10_000, &nothing);
        fleet.found_nothing();
        // Its own probes are one a second.
        let received = (fleet.sent - before) as f64 / 10.0 + 1.0;
        assert!(received <= limit, "{received} a second among {size}");
    }
}

#[test]
fn an_instance_whose_clock_jumps_by_an_hour_does_not_forget_its_peers() {
    let mut fleet = Fleet::new(2, 11);
    fleet.instances[1].runs = false;
    fleet.now += 3_600_000;
    fleet.wire.clear();
    let mut certain = Vec::new();
    for _ in 0..90 {
        fleet.run(1_000, &nothing);
        certain.push(fleet.instances[0].gaps.trusted_until().is_some());
    }
    let uncertain = certain.iter().filter(|is_certain| !**is_certain).count();
    assert!((55..=65).contains(&uncertain), "uncertain for about a minute: {uncertain} s");
    let found: Vec<GapReason> = fleet.instances[0].found.iter().map(|(_, why)| *why).collect();
    assert_eq!(found.first(), Some(&GapReason::Lapsed));
    assert_eq!(found.last(), Some(&GapReason::PublisherForgotten));
}
