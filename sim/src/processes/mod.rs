//! Runs the checker over real processes: four of them, each an instance with L1, with Redis as L2,
//! and with one of the buses, two of them a cache alone and two a manager of fifty caches. All
//! servers are real, and faults come from outside. The tapes of the processes are merged by the
//! machine's monotonic clock, and checked as a simulated history is.

mod confirmed_deletes;
mod faults;
mod fleet;
mod flood;
mod instance;
mod keys;
mod limits;
mod merge;
mod monotonic_env;
mod servers;
mod siblings;

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
    faults::{FAULTS, Fault, Targets},
    fleet::Fleet,
    instance::{InstanceConfig, KINDS},
    keys::names,
    limits::{BOUNDS, RECOVERY},
    merge::merge,
    monotonic_env::{MonotonicEnv, Origin},
    servers::{
        broker::{Broker, Kind},
        ms,
        nats_cluster::NatsCluster,
        process::own_dir,
        redis::RedisServer,
    },
};
use crate::{
    check::{check, oldest},
    history::{History, Violation},
    recorder::Recorder,
};

/// RabbitMQ runs on one scheduler here, and confirms within a second if the machine is busy. This
/// value is for a quiet machine.
const LATENCY_OF_RABBITMQ: u64 = 1_000;
/// The time before the first fault.
const CALM: Duration = Duration::from_secs(3);

const BUSES: [&str; 5] = ["redis", "nats", "jetstream", "rabbitmq", "rabbitmq-durable"];

struct Args {
    seconds: u64,
    /// How long each fault lasts; `None`: at random.
    lasts: Option<Duration>,
    seed: u64,
    buses: Vec<usize>,
    faults: Vec<(&'static str, Fault)>,
}

fn args(words: impl Iterator<Item = String>) -> Args {
    let mut args = Args {
        seconds: 20,
        lasts: None,
        seed: fastrand::u64(..1 << 32),
        buses: vec![],
        faults: vec![],
    };
    let mut words = words;
    while let Some(word) = words.next() {
        let mut what = || words.next().unwrap_or_else(|| panic!("{word} what?"));
        match &*word {
            "--seconds" => args.seconds = what().parse().expect("seconds"),
            "--lasts" => args.lasts = Some(ms(what().parse().expect("milliseconds"))),
            "--seed" => args.seed = what().parse().expect("a number"),
            "--fault" => {
                let name = what();
                let known = || FAULTS.map(|(name, _)| name).join(", ");
                let fault = FAULTS.iter().find(|(it, _)| *it == name);
                args.faults.push(*fault.unwrap_or_else(|| panic!("none of {}", known())));
            }
            bus => {
                let number = BUSES.iter().position(|it| *it == bus);
                args.buses.push(number.unwrap_or_else(|| panic!("none of {}", BUSES.join(", "))));
            }
        }
    }
    if args.buses.is_empty() {
        args.buses = (0..BUSES.len()).collect();
    }
    if args.faults.is_empty() {
        args.faults = FAULTS.into();
    }
    args
}

/// Runs the program with these arguments: see `scripts/processes`.
#[must_use]
pub fn main(mut words: impl Iterator<Item = String>) -> ExitCode {
    let first = words.next();
    if first.as_deref() == Some("--instance") {
        instance::run(&words.next().expect("a configuration"));
        return ExitCode::SUCCESS;
    }
    let args = args(first.into_iter().chain(words));
    println!("seed {}; in milliseconds, {BOUNDS:?}", args.seed);
    println!("a latency of {LATENCY_OF_RABBITMQ} for RabbitMQ; the longest stall is added to it");
    println!(
        "{:<17} {:<15} {:>5} {:>6} {:>7} {:>8} {:>9} {:>5} {:>6} {:>7} {:>10}",
        "bus",
        "fault",
        "s",
        "faults",
        "calls",
        "reads",
        "confirmed",
        "lost",
        "oldest",
        "stall",
        "violations"
    );
    let mut is_well = true;
    for bus in &args.buses {
        let mut broker = Broker::start(KINDS[*bus]);
        let splits = KINDS[*bus] == Kind::Nats;
        for (name, fault) in args.faults.iter().filter(|it| splits || it.1 != Fault::SplitBroker) {
            is_well &= run(&args, *bus, &mut broker, name, *fault);
        }
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one history, and returns whether it keeps all promises.
fn run(args: &Args, bus: usize, broker: &mut Broker, name: &str, fault: Fault) -> bool {
    let mut random =
        fastrand::Rng::with_seed(args.seed ^ (bus as u64) << 32 ^ (fault as u64) << 40);
    let mut redis = RedisServer::start();
    let (dir, names, start) = (own_dir(), Arc::new(names()), monotonic_env::now());
    let environment = MonotonicEnv::new(start, Origin::make(dir.path(), names.keys.len()), None);
    let recorder = Recorder::new(environment, names, 0);
    let cluster = (fault == Fault::SplitBroker).then(NatsCluster::start);
    let bus_ports = match &cluster {
        Some(cluster) => [cluster.one.port(), cluster.other.port()],
        None => [broker.port(); 2],
    };
    let mut fleet = Fleet::start(
        InstanceConfig {
            by: 0,
            slot: 0,
            seed: random.u64(..),
            start,
            dir: dir.path().to_owned(),
            kind: bus,
            bus_port: bus_ports[0],
            redis_port: redis.port(),
            cache: format!("{name}-{}", std::process::id()),
            confirms: true,
            locks: random.bool(),
            broadcasts: random.bool(),
            is_managed: false,
        },
        bus_ports,
    );
    let stalls = Stalls::watch();
    sleep(CALM);
    let begun = Instant::now();
    let mut targets = Targets { fleet: &mut fleet, broker, redis: &mut redis, cluster };
    let time = Duration::from_secs(args.seconds);
    let faults = targets.repeat(fault, time, args.lasts, &mut random);
    let (lasted, recovered_from) = (begun.elapsed(), Instant::now());
    let ended = finish(&mut fleet, recovered_from, fault == Fault::SlowSubscriber);
    let stall = stalls.end();
    recorder.with(|history| {
        history.bounds = BOUNDS;
        if matches!(broker.kind, Kind::Transient | Kind::Durable) {
            history.bounds.latency = LATENCY_OF_RABBITMQ;
        }
        history.bounds.latency += stall;
        history.bounds.slack += stall;
        history.incarnations.clone_from(&fleet.incarnations);
        history.fault_windows.clone_from(&fleet.fault_windows);
        history.l2_is_complete = fault != Fault::RestartRedis;
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
        "{:<17} {name:<15} {:>5.1} {faults:>6} {:>7} {:>8} {:>9} {:>5} {:>6} {:>7} {:>10}",
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
    report(&history, &violations);
    println!("the tapes are in {}", dir.keep().display());
    false
}

/// The end, without faults: every instance must be up to date. An instance that was behind first
/// receives what the broker has kept for it.
fn finish(fleet: &mut Fleet, recovered_from: Instant, is_behind: bool) -> Result<(), String> {
    sleep(ms(RECOVERY * 2 / 5));
    fleet.order("stop")?;
    sleep(ms(RECOVERY).saturating_sub(recovered_from.elapsed()));
    if is_behind {
        fleet.order("catch up")?;
    }
    fleet.order("last")?;
    fleet.order("close")
}

fn report(history: &History, violations: &[Violation]) {
    for violation in violations.iter().take(5) {
        println!("breaks {} at {} ms: {}", violation.rule, violation.at, violation.how);
    }
    println!("{:?}\n{:?}", history.incarnations, history.fault_windows);
}

/// Measures the longest stall of a thread that only sleeps: the delay that the machine adds to all
/// times.
struct Stalls(Arc<AtomicBool>, Arc<AtomicU64>, JoinHandle<()>);

impl Stalls {
    fn watch() -> Self {
        let (is_running, longest) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (running, found) = (Arc::clone(&is_running), Arc::clone(&longest));
        let thread = std::thread::spawn(move || {
            while running.load(Ordering::Relaxed) {
                let begun = monotonic_env::now();
                sleep(ms(10));
                found.fetch_max(monotonic_env::now() - begun - 10_000_000, Ordering::Relaxed);
            }
        });
        Self(is_running, longest, thread)
    }

    /// Returns milliseconds.
    fn end(self) -> u64 {
        self.0.store(false, Ordering::Relaxed);
        self.2.join().expect("it only sleeps");
        self.1.load(Ordering::Relaxed) / 1_000_000
    }
}
