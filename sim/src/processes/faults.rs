//! What happens to the processes, and to what they depend on.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    fleet::{FAR, Fleet, SLOTS},
    servers::{broker::Broker, ms, proxy::Mode, redis::RedisServer},
};
use crate::history::FaultWindow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KillProcess,
    FreezeProcess,
    KillBroker,
    FreezeBroker,
    CutBus,
    CutLevel,
    RestartLevel,
}

pub(super) const FAULTS: [(&str, Fault); 7] = [
    ("kill-process", Fault::KillProcess),
    ("freeze-process", Fault::FreezeProcess),
    ("kill-broker", Fault::KillBroker),
    ("freeze-broker", Fault::FreezeBroker),
    ("cut-bus", Fault::CutBus),
    ("cut-level", Fault::CutLevel),
    ("restart-level", Fault::RestartLevel),
];

/// Until a subscription has begun again: an attempt to connect that hangs for the 3 s of the
/// transports, a pause of up to one, another. All is well within this, which the quiet end asks.
const RESUBSCRIBES: u64 = super::MENDS;
/// Ways in which a way is cut, in turn; and in turn, whose.
const CUTS: [Mode; 5] =
    [Mode::Blackhole, Mode::Refuse, Mode::LoseReplies, Mode::Pause, Mode::LoseRequests];
/// Between two of a kind.
const BETWEEN: Duration = ms(1_500);

/// What it happens to.
pub(super) struct Simulation<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) broker: &'a mut Broker,
    pub(super) level: &'a mut RedisServer,
}

impl Simulation<'_> {
    /// Again and again, until that time is over: first for half of it, then for shorter times.
    pub(super) fn suffers(&mut self, fault: Fault, time: Duration, random: &mut fastrand::Rng) {
        let begun = Instant::now();
        let mut lasts = time / 2;
        let mut round = 0;
        while begun.elapsed() < time {
            self.once(fault, lasts, round, random);
            round += 1;
            let left = time.saturating_sub(begun.elapsed());
            lasts = left.min(ms(random.u64(300..6_000)));
        }
    }

    fn once(&mut self, fault: Fault, lasts: Duration, round: usize, random: &mut fastrand::Rng) {
        let far = FAR[round % FAR.len()];
        match fault {
            Fault::KillProcess => {
                let (slot, from) = (random.usize(..SLOTS), self.fleet.now());
                // Sometimes what it told last is lost with it. Not for so long that the others
                // miss it before it dies, and then believe what they look up meanwhile.
                let is_cut = FAR.contains(&slot) && random.bool();
                if is_cut {
                    self.set(slot, true, Mode::Blackhole);
                    sleep(ms(random.u64(100..1_500)));
                }
                self.fleet.kill(slot);
                if is_cut {
                    self.mend(slot, true, Mode::Blackhole);
                    let cut = FaultWindow::new(Some(slot), from, self.fleet.now());
                    self.window(FaultWindow { delays_publish: true, disconnected: true, ..cut });
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
                let cut = FaultWindow::new(Some(slot), from, to + RESUBSCRIBES);
                self.window(FaultWindow { delays_publish: true, disconnected: true, ..cut });
                self.window(FaultWindow { frozen: true, ..FaultWindow::new(Some(slot), from, to) });
            }
            Fault::KillBroker => {
                self.away(|simulation| {
                    simulation.broker.kill();
                    sleep(lasts);
                    let back = simulation.fleet.now();
                    simulation.broker.restart();
                    back
                });
            }
            Fault::FreezeBroker => {
                self.away(|simulation| {
                    simulation.broker.freeze();
                    sleep(lasts);
                    let back = simulation.fleet.now();
                    simulation.broker.thaw();
                    back
                });
            }
            Fault::CutBus => {
                let from = self.fleet.now();
                let mode = CUTS[round % CUTS.len()];
                self.set(far, true, mode);
                sleep(lasts);
                self.mend(far, true, mode);
                let cut = FaultWindow::new(Some(far), from, self.fleet.now() + RESUBSCRIBES);
                self.window(FaultWindow { delays_publish: true, disconnected: true, ..cut });
            }
            Fault::CutLevel => {
                let mode = CUTS[round % CUTS.len()];
                self.set(far, false, mode);
                sleep(lasts);
                self.mend(far, false, mode);
            }
            Fault::RestartLevel => {
                self.level.kill();
                // Away for as long only the first time: it is the coming back that counts.
                sleep(if round == 0 { lasts } else { lasts / 4 });
                self.level.restart();
            }
        }
        sleep(BETWEEN);
    }

    fn window(&mut self, window: FaultWindow) {
        self.fleet.fault_windows.push(window);
    }

    /// Without the broker; it is certain to be away until what is said.
    fn away(&mut self, meanwhile: impl FnOnce(&mut Self) -> u64) {
        let from = self.fleet.now();
        let back = meanwhile(self);
        let to = self.fleet.now() + RESUBSCRIBES;
        self.window(FaultWindow {
            delays_publish: true,
            disconnected: true,
            ..FaultWindow::new(None, from, to)
        });
        self.window(FaultWindow { bus_down: true, ..FaultWindow::new(None, from, back) });
    }

    /// All goes well again. What lost bytes does not go on: no connection has a hole in it.
    fn mend(&self, slot: usize, is_bus: bool, mode: Mode) {
        if mode != Mode::Pause {
            self.set(slot, is_bus, Mode::Reset);
        }
        self.set(slot, is_bus, Mode::Pass);
    }

    fn set(&self, slot: usize, is_bus: bool, mode: Mode) {
        let Some(ways) = &self.fleet.ways[slot] else { return };
        let origin = if is_bus { &ways.bus } else { &ways.level };
        origin.set(mode);
    }
}
