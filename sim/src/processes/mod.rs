//! The same checker over real processes: four of them, each an instance with memory, a Redis as the
//! shared level and one of the buses, all real, and faults from outside. What each of them did is
//! put together by the machine's monotonic clock, and asked what a simulated history is asked.

mod confirmed_deletes;
mod faults;
mod fleet;
mod instance;
mod keys;
mod merge;
mod monotonic_env;
mod servers;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use self::{
    confirmed_deletes::count,
    faults::{FAULTS, Fault, Simulation},
    fleet::Fleet,
    instance::{InstanceConfig, KINDS},
    keys::names,
    merge::merge,
    monotonic_env::{MonotonicEnv, Origin},
    servers::{
        broker::{Broker, Kind},
        ms,
        process::own_dir,
        redis::RedisServer,
    },
};
use crate::{
    bounds::Bounds,
    check::{check, oldest},
    history::{History, Violation},
    recorder::Recorder,
};

/// What a machine with few cores and much else to do may add to any time is in each of them.
const BOUNDS: Bounds = Bounds {
    latency: 500,
    trust: 3_000,
    gap_check: 250 + 500 + 500,
    republish: 1_500,
    beacons: 4_500,
    send: 500,
    flush: 500,
    slack: 1_000,
};
/// Of RabbitMQ: it runs on one scheduler, and confirms in up to a second where the machine has more
/// to do than it can. This is for quiet hours.
const LATENCY_OF_RABBITMQ: u64 = 1_000;
/// Until all are current when all is well again.
const MENDS: u64 = 5_000;
/// Before anything goes wrong.
const CALM: Duration = Duration::from_secs(3);

const BUSES: [&str; 5] = ["redis", "nats", "jetstream", "rabbitmq", "rabbitmq-durable"];

struct Orders {
    seconds: u64,
    seed: u64,
    buses: Vec<usize>,
    faults: Vec<(&'static str, Fault)>,
}

fn orders(words: impl Iterator<Item = String>) -> Orders {
    let mut orders =
        Orders { seconds: 20, seed: fastrand::u64(..1 << 32), buses: vec![], faults: vec![] };
    let mut words = words;
    while let Some(word) = words.next() {
        let mut what = || words.next().unwrap_or_else(|| panic!("{word} what?"));
        match &*word {
            "--seconds" => orders.seconds = what().parse().expect("seconds"),
            "--seed" => orders.seed = what().parse().expect("a number"),
            "--fault" => {
                let name = what();
                let known = || FAULTS.map(|(name, _)| name).join(", ");
                let fault = FAULTS.iter().find(|(it, _)| *it == name);
                orders.faults.push(*fault.unwrap_or_else(|| panic!("none of {}", known())));
            }
            bus => {
                let number = BUSES.iter().position(|it| *it == bus);
                orders.buses.push(number.unwrap_or_else(|| panic!("none of {}", BUSES.join(", "))));
            }
        }
    }
    if orders.buses.is_empty() {
        orders.buses = (0..BUSES.len()).collect();
    }
    if orders.faults.is_empty() {
        orders.faults = FAULTS.into();
    }
    orders
}

/// Does what the words say: see `scripts/processes`.
#[must_use]
pub fn main(mut words: impl Iterator<Item = String>) -> ExitCode {
    let first = words.next();
    if first.as_deref() == Some("--live") {
        instance::run(&words.next().expect("a configuration"));
        return ExitCode::SUCCESS;
    }
    let orders = orders(first.into_iter().chain(words));
    println!("seed {}; in milliseconds, {BOUNDS:?}", orders.seed);
    println!("a latency of {LATENCY_OF_RABBITMQ} for RabbitMQ; the longest stall is added to it");
    println!(
        "{:<17} {:<15} {:>5} {:>7} {:>8} {:>9} {:>5} {:>6} {:>7} {:>10}",
        "bus", "fault", "s", "calls", "reads", "confirmed", "lost", "oldest", "stall", "violations"
    );
    let mut is_well = true;
    for bus in &orders.buses {
        let mut broker = Broker::start(KINDS[*bus]);
        for (name, fault) in &orders.faults {
            is_well &= run(&orders, *bus, &mut broker, name, *fault);
        }
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One history. Whether it keeps all promises.
fn run(orders: &Orders, bus: usize, broker: &mut Broker, name: &str, fault: Fault) -> bool {
    let mut random =
        fastrand::Rng::with_seed(orders.seed ^ (bus as u64) << 32 ^ (fault as u64) << 40);
    let mut level = RedisServer::start();
    let (dir, names, start) = (own_dir(), Arc::new(names()), monotonic_env::now());
    let environment = MonotonicEnv::new(start, Origin::make(dir.path(), names.keys.len()), None);
    let recorder = Recorder::new(environment, names, 0);
    let mut fleet = Fleet::start(InstanceConfig {
        by: 0,
        slot: 0,
        seed: random.u64(..),
        start,
        dir: dir.path().to_owned(),
        kind: bus,
        bus_port: broker.port(),
        level_port: level.port(),
        namespace: format!("{name}-{}", std::process::id()),
        confirms: true,
        locks: random.bool(),
        broadcasts: random.bool(),
    });
    let stalls = Stalls::watch();
    sleep(CALM);
    let begun = Instant::now();
    let mut simulation = Simulation { fleet: &mut fleet, broker, level: &mut level };
    simulation.suffers(fault, Duration::from_secs(orders.seconds), &mut random);
    let (lasted, well) = (begun.elapsed(), Instant::now());
    let ended = ends(&mut fleet, well);
    let stall = stalls.end();
    recorder.with(|history| {
        history.bounds = BOUNDS;
        if matches!(broker.kind, Kind::Passing | Kind::Durable) {
            history.bounds.latency = LATENCY_OF_RABBITMQ;
        }
        history.bounds.latency += stall;
        history.bounds.slack += stall;
        history.incarnations.clone_from(&fleet.incarnations);
        history.fault_windows.clone_from(&fleet.fault_windows);
        history.l2_is_complete = fault != Fault::RestartLevel;
        history.never_idle = true;
        history.bus_keeps_confirmed = broker.kind.keeps();
    });
    let mut history = recorder.finish();
    let received = merge(&mut history, fleet.dir(), fleet.incarnations.len());
    let (counts, lost) = count(&history.incarnations, &received);
    if let Err(how) = ended {
        history.violations.push(Violation { rule: "left".into(), at: fleet.now(), how });
    }
    if let Some(how) = lost.filter(|_| history.bus_keeps_confirmed) {
        history.violations.push(Violation { rule: "lost".into(), at: 0, how });
    }
    let violations = check(&history);
    println!(
        "{:<17} {name:<15} {:>5.1} {:>7} {:>8} {:>9} {:>5} {:>6} {:>7} {:>10}",
        BUSES[bus],
        lasted.as_secs_f64(),
        history.calls,
        history.reads.len(),
        counts.confirmed,
        if history.bus_keeps_confirmed { counts.lost.to_string() } else { "-".to_owned() },
        oldest(&history),
        stall,
        violations.len(),
    );
    if violations.is_empty() {
        return true;
    }
    tell(&history, &violations);
    println!("the tapes are in {}", dir.keep().display());
    false
}

/// The quiet end: all become current.
fn ends(fleet: &mut Fleet, well: Instant) -> Result<(), String> {
    sleep(ms(MENDS * 2 / 5));
    fleet.tell("stop")?;
    sleep(ms(MENDS).saturating_sub(well.elapsed()));
    fleet.tell("last")?;
    fleet.tell("close")
}

fn tell(history: &History, violations: &[Violation]) {
    for violation in violations.iter().take(5) {
        println!("breaks {} at {} ms: {}", violation.rule, violation.at, violation.how);
    }
    println!("{:?}\n{:?}", history.incarnations, history.fault_windows);
}

/// How long the machine let one not go on that only sleeps: what it added to all times.
struct Stalls(Arc<AtomicBool>, Arc<AtomicU64>, JoinHandle<()>);

impl Stalls {
    fn watch() -> Self {
        let (goes_on, longest) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (until, found) = (Arc::clone(&goes_on), Arc::clone(&longest));
        let watches = std::thread::spawn(move || {
            while until.load(Ordering::Relaxed) {
                let begun = monotonic_env::now();
                sleep(ms(10));
                found.fetch_max(monotonic_env::now() - begun - 10_000_000, Ordering::Relaxed);
            }
        });
        Self(goes_on, longest, watches)
    }

    /// Milliseconds.
    fn end(self) -> u64 {
        self.0.store(false, Ordering::Relaxed);
        self.2.join().expect("it only sleeps");
        self.1.load(Ordering::Relaxed) / 1_000_000
    }
}
