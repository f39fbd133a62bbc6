//! Makes the plan of a seed: the setup of a fleet, and all calls and faults with their times. The
//! plan exists before anything runs, so that shrinking can leave out steps without changing the
//! rest.

use std::time::Duration;

use lazy_layers_cache::testing::BusFaults;

/// The keys: few, so that calls conflict.
pub const KEYS: [&str; 6] = ["a1", "a2", "b1", "b2", "c1", "c2"];

/// The globs, with the [`KEYS`] that each matches.
pub const PATTERNS: [(&str, &[usize]); 5] = [
    ("a*", &[0, 1]),
    ("?1", &[0, 2, 4]),
    ("[ab]2", &[1, 3]),
    ("c2", &[5]),
    ("*", &[0, 1, 2, 3, 4, 5]),
];

/// The plan of a history.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed, from which every random choice follows.
    pub seed: u64,
    /// The setup of the fleet.
    pub setup: Setup,
    /// The steps, in the order of time.
    pub steps: Vec<Step>,
}

/// The setup of a fleet.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The number of instances at a time.
    pub instances: usize,
    /// The number of [`KEYS`] that calls use.
    pub keys: usize,
    /// Whether there is an L2 store.
    pub has_l2: bool,
    /// Whether the cache may serve stale copies.
    pub fail_safe: bool,
    /// Whether deletes wait for the confirmation of the bus.
    pub confirms: bool,
    /// Whether loads take the distributed lock.
    pub locks: bool,
    /// Whether the cache stores negative entries.
    pub negative_cache: bool,
    /// Whether the cache broadcasts values.
    pub broadcasts: bool,
    /// The time for which a value is fresh.
    pub ttl: Duration,
    /// The slowest request of the store without faults, one way, in milliseconds.
    pub l2_latency: u64,
    /// Whether a cache with another name uses the same bus.
    pub has_neighbour: bool,
    /// Whether each instance has a cache with another name on its bus session.
    pub has_siblings: bool,
    /// Whether calls of a frozen instance begin when it is thawed; else there are none.
    pub delays_calls: bool,
}

/// A step of a plan.
#[derive(Debug, Clone)]
pub struct Step {
    /// Milliseconds from the start.
    pub at: u64,
    /// The action.
    pub action: Action,
}

/// An action.
#[derive(Debug, Clone)]
pub enum Action {
    /// A call of an instance.
    Call {
        /// The slot of the instance.
        slot: usize,
        /// The call.
        call: Call,
        /// The caller drops the call after this, in milliseconds.
        cancel_after: Option<u64>,
    },
    /// A fault.
    Fault(Fault),
}

/// A call; keys are indices into [`KEYS`].
#[derive(Debug, Clone, Copy)]
pub enum Call {
    /// `get_l1`.
    GetL1(usize),
    /// `get`.
    Get(usize),
    /// `has`.
    Has(usize),
    /// `get_or_set`.
    Load(usize, Load),
    /// The origin changes, then `delete`.
    Delete {
        /// The key.
        key: usize,
        /// Whether the origin has a value afterwards.
        exists: bool,
    },
    /// The origin changes, then `set`.
    Set(usize),
    /// The origin changes for all matching keys, then `delete_by_pattern` with one of [`PATTERNS`].
    Pattern(usize),
}

/// The times and the end of a load, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// From the start to the read of the origin.
    pub before: u64,
    /// From the read of the origin to the end.
    pub after: u64,
    /// The end of the loader.
    pub end: LoadEnd,
    /// The caller's soft timeout.
    pub soft: Option<u64>,
    /// The caller's hard timeout.
    pub hard: Option<u64>,
    /// Whether the call is a forced refresh.
    pub refresh: bool,
}

impl Load {
    /// A load that takes no time and succeeds.
    pub const WELL: Self =
        Self { before: 0, after: 0, end: LoadEnd::Well, soft: None, hard: None, refresh: false };
}

/// The end of a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadEnd {
    /// Returns the origin's value.
    Well,
    /// Returns the origin's value, which is not to be cached.
    Uncached,
    /// Returns an error.
    Fails,
    /// Panics.
    Panics,
    /// Never ends.
    Hangs,
}

/// A fault; a `u64` without another meaning is its duration in milliseconds.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The bus loses, repeats, delays or rejects messages.
    Bus(BusFaults, u64),
    /// The connection of one instance to the bus fails.
    Link(usize, LinkFault, u64),
    /// The bus is split: the slots below this number are on one side, all others on the other one.
    Split(usize, u64),
    /// Messages and probes reach an instance later by this many milliseconds, and beacons too if
    /// the last number is even.
    Behind(usize, u64, u64),
    /// Requests of one instance, or of all, to the store fail.
    Store(Option<usize>, StoreFaults, u64),
    /// The store restarts without its data.
    StoreRestartsEmpty,
    /// The store restarts with the data that it had this many milliseconds before.
    StoreRestartsOld(u64),
    /// An instance is killed, and another takes its slot.
    Kill(usize),
    /// An instance is closed, and another takes its slot.
    Close(usize),
    /// An instance is frozen: no message reaches it or leaves it.
    Freeze(usize, u64),
    /// The clock of an instance jumps forward by this many milliseconds.
    ClockJump(usize, u64),
    /// Bytes that are no message arrive on the bus.
    Garbage,
}

/// A fault of the connection to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFault {
    /// The connection ends, and the instance knows it.
    Cut,
    /// No message arrives any more.
    Deaf,
    /// No message arrives, and no call ends.
    Frozen,
}

/// Probabilities of the faults of a request to the store, from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreFaults {
    /// The request fails, and has not happened.
    pub fails: f64,
    /// The request fails, and has happened.
    pub fails_afterwards: f64,
    /// The request is never answered, and does not happen.
    pub hangs: f64,
    /// The request is never answered, and happens later.
    pub happens_late: f64,
    /// The slowest request, one way, in milliseconds.
    pub slowest: u64,
}

/// The time before the first call, in milliseconds.
const START: u64 = 500;

impl Plan {
    /// Makes the plan of a seed with `calls` calls.
    #[must_use]
    pub fn new(seed: u64, calls: usize) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let has_l2 = random.f64() < 0.8;
        let setup = Setup {
            instances: random.usize(3..=5),
            keys: random.usize(2..=KEYS.len()),
            has_l2,
            fail_safe: random.bool(),
            confirms: random.bool(),
            locks: has_l2 && random.f64() < 0.25,
            negative_cache: random.bool(),
            broadcasts: random.f64() < 0.8,
            ttl: Duration::from_millis(*pick(random, &[1_500, 60_000, 600_000])),
            l2_latency: *pick(random, &[0, 2, 20, 60]),
            has_neighbour: has_neighbour(seed),
            has_siblings: has_siblings(seed),
            delays_calls: has_later_choices(seed),
        };
        let paces: [&[u64]; 3] = [&[0, 0, 5, 20, 60, 120], &[0, 1, 2, 5], &[0, 30, 200]];
        let pauses = *pick(random, &paces);
        let mut steps = Vec::with_capacity(calls + 64);
        let mut at = START;
        for _ in 0..calls {
            at += *pick(random, pauses);
            let slot = random.usize(..setup.instances);
            let call = call(random, &setup);
            let cancel_after = (random.f64() < 0.05).then(|| random.u64(0..80));
            steps.push(Step { at, action: Action::Call { slot, call, cancel_after } });
        }
        let end = at;
        let mut strew = |chance: f64, calm: u64, fault: &dyn Fn(&mut fastrand::Rng) -> Fault| {
            if random.f64() >= chance {
                return;
            }
            let mut at = START + random.u64(0..calm);
            while at < end {
                let fault = fault(random);
                steps.push(Step { at, action: Action::Fault(fault) });
                at += fault.lasts() + calm + random.u64(0..calm);
            }
        };
        // Faults of the same kind are far enough apart for the checker to separate them.
        strew(0.75, 6_000, &|random| match has_latest_faults(seed) && random.f64() < 0.6 {
            true => latest_bus_fault(random, &setup),
            false => bus_fault(random, &setup),
        });
        if has_l2 {
            strew(0.7, 2_000, &|random| level_fault(random, &setup));
        }
        strew(0.6, 6_000, &|random| instance_fault(random, &setup));
        if has_later_choices(seed) {
            leave_uncached(seed, &mut steps);
        }
        steps.sort_by_key(|step| step.at);
        Self { seed, setup, steps }
    }
}

impl Fault {
    /// Returns the duration in milliseconds.
    #[must_use]
    pub fn lasts(&self) -> u64 {
        match self {
            Self::Bus(_, lasts)
            | Self::Link(_, _, lasts)
            | Self::Split(_, lasts)
            | Self::Behind(_, _, lasts)
            | Self::Store(_, _, lasts)
            | Self::StoreRestartsOld(lasts)
            | Self::Freeze(_, lasts) => *lasts,
            _ => 0,
        }
    }
}

/// Whether the plan has what later versions of the simulator added: not every one, so that seeds
/// that once broke a rule stay the histories that did.
fn has_later_choices(seed: u64) -> bool {
    seed % 5 < 3
}

/// As [`has_later_choices`], for the faults that were added last.
fn has_latest_faults(seed: u64) -> bool {
    seed % 5 == 1
}

/// As [`has_later_choices`], for the cache with another name.
fn has_neighbour(seed: u64) -> bool {
    seed % 10 == 3
}

/// As [`has_later_choices`], for a second cache of each instance.
fn has_siblings(seed: u64) -> bool {
    seed % 10 == 8 || seed % 20 == 4
}

/// Makes some loads end with a value that is not to be cached.
fn leave_uncached(seed: u64, steps: &mut [Step]) {
    let random = &mut fastrand::Rng::with_seed(!seed);
    for step in steps {
        if let Action::Call { call: Call::Load(_, load), .. } = &mut step.action
            && load.end == LoadEnd::Well
            && random.f64() < 0.08
        {
            load.end = LoadEnd::Uncached;
        }
    }
}

fn pick<'a, T>(random: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(..from.len())]
}

fn call(random: &mut fastrand::Rng, setup: &Setup) -> Call {
    let key = random.usize(..setup.keys);
    match random.u32(0..100) {
        0..=7 => Call::GetL1(key),
        8..=21 => Call::Get(key),
        22..=24 => Call::Has(key),
        25..=72 => Call::Load(key, load(random)),
        73..=87 => Call::Delete { key, exists: random.f64() < 0.9 },
        88..=95 => Call::Set(key),
        _ => Call::Pattern(random.usize(..PATTERNS.len())),
    }
}

fn load(random: &mut fastrand::Rng) -> Load {
    let takes = [0, 0, 1, 10, 50, 200, 900];
    let (before, mut after) = (*pick(random, &takes), *pick(random, &takes));
    if random.f64() < 0.02 {
        after = 4_000;
    }
    let soft = (random.f64() < 0.3).then(|| random.u64(0..200));
    let mut hard = (random.f64() < 0.4).then(|| random.u64(200..1_500));
    let end = match random.u32(0..100) {
        0..=84 => LoadEnd::Well,
        85..=94 => LoadEnd::Fails,
        95..=96 => LoadEnd::Panics,
        _ => LoadEnd::Hangs,
    };
    if end == LoadEnd::Hangs {
        hard = Some(random.u64(200..1_500));
    }
    Load { before, after, end, soft, hard, refresh: random.f64() < 0.1 }
}

fn bus_fault(random: &mut fastrand::Rng, setup: &Setup) -> Fault {
    let slot = random.usize(..setup.instances);
    let lasts = random.u64(100..4_000);
    let longest_delay = Duration::from_millis(*pick(random, &[0, 0, 50, 400]));
    let fair = BusFaults { longest_delay, ..BusFaults::default() };
    match random.u32(0..100) {
        0..=29 => {
            let loses = *pick(random, &[0.05, 0.3, 1.0]);
            // An event and the beacon after it: the promised detection time covers no more.
            let max_lost_in_a_row = Some(2);
            Fault::Bus(BusFaults { loses, max_lost_in_a_row, duplicates: 0.1, ..fair }, lasts)
        }
        30..=44 => Fault::Bus(BusFaults { duplicates: 0.5, ..fair }, lasts),
        45..=54 => {
            let faults = BusFaults { fails: 0.5, fails_afterwards: 0.2, ..fair };
            Fault::Bus(faults, lasts)
        }
        55..=69 => Fault::Link(slot, LinkFault::Cut, random.u64(1..12_000)),
        70..=79 => Fault::Link(slot, LinkFault::Deaf, random.u64(1..8_000)),
        80..=87 => Fault::Link(slot, LinkFault::Frozen, random.u64(1..8_000)),
        88..=94 => Fault::Freeze(slot, random.u64(1..8_000)),
        _ => Fault::Garbage,
    }
}

fn latest_bus_fault(random: &mut fastrand::Rng, setup: &Setup) -> Fault {
    let slot = random.usize(..setup.instances);
    match random.u32(0..100) {
        0..=39 => Fault::Split(random.usize(1..setup.instances), random.u64(1_000..15_000)),
        40..=64 => Fault::Behind(slot, random.u64(500..15_000), random.u64(1_000..15_000)),
        65..=84 => {
            let max_message_bytes = Some(*pick(random, &[150, 250, 400]));
            let faults = BusFaults { max_message_bytes, ..BusFaults::default() };
            Fault::Bus(faults, random.u64(1_000..8_000))
        }
        _ => {
            let faults = BusFaults { refuses_all: true, ..BusFaults::default() };
            Fault::Bus(faults, random.u64(1_000..12_000))
        }
    }
}

fn level_fault(random: &mut fastrand::Rng, setup: &Setup) -> Fault {
    let slot = random.bool().then(|| random.usize(..setup.instances));
    let slowest = *pick(random, &[setup.l2_latency, 100, 400]);
    let fair = StoreFaults { slowest, ..StoreFaults::default() };
    let faults = match random.u32(0..8) {
        0 => StoreFaults { fails: 1.0, ..fair },
        1 => StoreFaults { hangs: 1.0, ..fair },
        2 => StoreFaults { happens_late: 0.5, ..fair },
        3 => StoreFaults { fails_afterwards: 0.5, ..fair },
        4 => StoreFaults { fails: 0.2, fails_afterwards: 0.2, happens_late: 0.2, ..fair },
        5 => StoreFaults { slowest: 800, ..fair },
        6 => return Fault::StoreRestartsEmpty,
        _ => return Fault::StoreRestartsOld(random.u64(100..4_000)),
    };
    Fault::Store(slot, faults, random.u64(100..4_000))
}

fn instance_fault(random: &mut fastrand::Rng, setup: &Setup) -> Fault {
    let slot = random.usize(..setup.instances);
    match random.u32(0..10) {
        0..=3 => Fault::Kill(slot),
        4..=6 => Fault::Close(slot),
        _ => Fault::ClockJump(slot, *pick(random, &[10, 2_000, 10_000, 3_600_000])),
    }
}
