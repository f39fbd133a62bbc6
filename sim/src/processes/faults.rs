//! Faults of the processes and of their servers.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    fleet::{FAR, Fleet, SLOTS},
    flood::Flood,
    limits::RECOVERY,
    servers::{broker::Broker, ms, nats_cluster::NatsCluster, proxy::Mode, redis::RedisServer},
};
use crate::history::FaultWindow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KillProcess,
    FreezeProcess,
    KillBroker,
    FreezeBroker,
    CutBus,
    CutRedis,
    RestartRedis,
    SlowSubscriber,
    /// Only of NATS.
    SplitBroker,
}

pub(super) const FAULTS: [(&str, Fault); 9] = [
    ("kill-process", Fault::KillProcess),
    ("freeze-process", Fault::FreezeProcess),
    ("kill-broker", Fault::KillBroker),
    ("freeze-broker", Fault::FreezeBroker),
    ("cut-bus", Fault::CutBus),
    ("cut-redis", Fault::CutRedis),
    ("restart-redis", Fault::RestartRedis),
    ("slow-subscriber", Fault::SlowSubscriber),
    ("split-broker", Fault::SplitBroker),
];

/// The time until a subscription has begun again: an attempt to connect that hangs for the 3 s of
/// the transports, a pause of up to 1 s, and another attempt.
const RESUBSCRIBE: u64 = RECOVERY;
/// The modes in which a connection is cut, used in turn.
const CUTS: [Mode; 5] =
    [Mode::Blackhole, Mode::Refuse, Mode::LoseReplies, Mode::Pause, Mode::LoseRequests];
/// The pause between two faults.
const BETWEEN: Duration = ms(1_500);

/// The targets of faults.
pub(super) struct Targets<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) broker: &'a mut Broker,
    pub(super) redis: &'a mut RedisServer,
    /// The servers of `SplitBroker`, to which the fleet is connected instead of the broker.
    pub(super) cluster: Option<NatsCluster>,
}

impl Targets<'_> {
    /// Repeats a fault until `time` is over, and returns how often it did. Each fault takes
    /// `each`, if given; otherwise the first one takes half of `time`, and the others less.
    pub(super) fn repeat(
        &mut self,
        fault: Fault,
        time: Duration,
        each: Option<Duration>,
        random: &mut fastrand::Rng,
    ) -> usize {
        let begun = Instant::now();
        let mut round = 0;
        while begun.elapsed() < time {
            let left = time.saturating_sub(begun.elapsed());
            let lasts = if round == 0 { time / 2 } else { left.min(ms(random.u64(300..6_000))) };
            self.inject(fault, each.unwrap_or(lasts), round, random);
            round += 1;
        }
        round
    }

    fn inject(&mut self, fault: Fault, lasts: Duration, round: usize, random: &mut fastrand::Rng) {
        let far = FAR[round % FAR.len()];
        match fault {
            Fault::KillProcess => {
                let (slot, from) = (random.usize(..SLOTS), self.fleet.now());
                // Sometimes the last events of the process are lost with it. The cut is short, so
                // that peers do not notice the gap before the process dies: they would then trust
                // the values that they look up meanwhile.
                let is_cut = FAR.contains(&slot) && random.bool();
                if is_cut {
                    self.set(slot, true, Mode::Blackhole);
                    sleep(ms(random.u64(100..1_500)));
                }
                self.fleet.kill(slot);
                if is_cut {
                    self.restore(slot, true, Mode::Blackhole);
                    let cut = FaultWindow::new(Some(slot), from, self.fleet.now());
                    self.add_window(FaultWindow {
                        delays_publish: true,
                        disconnected: true,
                        ..cut
                    });
                }
                sleep(ms(random.u64(0..800)));
                self.fleet.replace(slot);
                sleep(ms(random.u64(200..2_500)));
                return;
            }
            Fault::FreezeProcess => {
                let slot = (round + 1) % SLOTS;
                let from = self.fleet.now();
                self.fleet.freeze(slot);
                sleep(lasts);
                self.fleet.thaw(slot);
                let to = self.fleet.now();
                let cut = FaultWindow::new(Some(slot), from, to + RESUBSCRIBE);
                self.add_window(FaultWindow { delays_publish: true, disconnected: true, ..cut });
                self.add_window(FaultWindow {
                    frozen: true,
                    ..FaultWindow::new(Some(slot), from, to)
                });
            }
            Fault::KillBroker => {
                self.without_broker(|targets| {
                    targets.broker.kill();
                    sleep(lasts);
                    let back = targets.fleet.now();
                    targets.broker.restart();
                    back
                });
            }
            Fault::FreezeBroker => {
                self.without_broker(|targets| {
                    targets.broker.freeze();
                    sleep(lasts);
                    let back = targets.fleet.now();
                    targets.broker.thaw();
                    back
                });
            }
            Fault::CutBus => {
                let from = self.fleet.now();
                let mode = CUTS[round % CUTS.len()];
                self.set(far, true, mode);
                sleep(lasts);
                self.restore(far, true, mode);
                let cut = FaultWindow::new(Some(far), from, self.fleet.now() + RESUBSCRIBE);
                self.add_window(FaultWindow { delays_publish: true, disconnected: true, ..cut });
            }
            Fault::CutRedis => {
                let mode = CUTS[round % CUTS.len()];
                self.set(far, false, mode);
                sleep(lasts);
                self.restore(far, false, mode);
            }
            Fault::RestartRedis => {
                self.redis.kill();
                // Only the first outage is long: the others are about the restart.
                sleep(if round == 0 { lasts } else { lasts / 4 });
                self.redis.restart();
            }
            Fault::SplitBroker => {
                let from = self.fleet.now();
                let cluster = self.cluster.as_ref().expect("a cluster");
                cluster.split();
                sleep(lasts);
                cluster.heal();
                let split = FaultWindow::new(None, from, self.fleet.now() + RESUBSCRIBE);
                self.add_window(FaultWindow { delays_publish: true, disconnected: true, ..split });
            }
            Fault::SlowSubscriber => self.flood_a_slow_subscriber((round + 1) % SLOTS, lasts),
        }
        sleep(BETWEEN);
    }

    /// Publishes documents of 1 MB while one process has a fifth of a processor.
    fn flood_a_slow_subscriber(&mut self, slot: usize, lasts: Duration) {
        let (from, begun) = (self.fleet.now(), Instant::now());
        let cache = self.fleet.cache().to_owned();
        let flood = Flood::start(self.broker.kind, self.broker.port(), &cache);
        while begun.elapsed() < lasts {
            self.fleet.freeze(slot);
            sleep(ms(80));
            self.fleet.thaw(slot);
            sleep(ms(20));
        }
        let published = flood.end();
        assert!(published > 0, "the broker took no document");
        let to = self.fleet.now();
        let busy = FaultWindow::new(None, from, to + RESUBSCRIBE);
        self.add_window(FaultWindow { delays_publish: true, disconnected: true, ..busy });
        self.add_window(FaultWindow { frozen: true, ..FaultWindow::new(Some(slot), from, to) });
    }

    fn add_window(&mut self, window: FaultWindow) {
        self.fleet.fault_windows.push(window);
    }

    /// Takes the broker away. `meanwhile` returns the time up to which it was certainly away.
    fn without_broker(&mut self, meanwhile: impl FnOnce(&mut Self) -> u64) {
        let from = self.fleet.now();
        let back = meanwhile(self);
        let to = self.fleet.now() + RESUBSCRIBE;
        self.add_window(FaultWindow {
            delays_publish: true,
            disconnected: true,
            ..FaultWindow::new(None, from, to)
        });
        self.add_window(FaultWindow { bus_down: true, ..FaultWindow::new(None, from, back) });
    }

    /// Ends a fault of a connection. A connection that lost bytes is reset, so that none continues
    /// with a hole.
    fn restore(&self, slot: usize, is_bus: bool, mode: Mode) {
        if mode != Mode::Pause {
            self.set(slot, is_bus, Mode::Reset);
        }
        self.set(slot, is_bus, Mode::Pass);
    }

    fn set(&self, slot: usize, is_bus: bool, mode: Mode) {
        let Some(proxies) = &self.fleet.proxies[slot] else { return };
        let proxy = if is_bus { &proxies.bus } else { &proxies.redis };
        proxy.set(mode);
    }
}
