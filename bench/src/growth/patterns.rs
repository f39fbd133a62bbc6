//! Deletes by pattern over 1,000 to 1,000,000 keys in memory, and how long the longest of them
//! holds up a reader of another key.
//!
//! The machine holds readers up too: it takes the processor away from them. So a call is not judged
//! by its wall time alone. What the thread computed meanwhile is read from its own clock
//! (CLOCK_THREAD_CPUTIME_ID): spinning at a lock is in it, being preempted is not. If the kernel
//! counts that the thread went to sleep of its own accord, it may have waited for a lock: then all
//! of the wall time counts, a preemption included. That is never too little, and sometimes too
//! much; the same reader without a delete beside it shows how much.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::LazyLayersCache;
use rustix::time::{ClockId, clock_gettime};

use super::filled;
use crate::{
    measure::{block_on, key, median, value},
    plot::Line,
    report::Report,
};

type Cache = LazyLayersCache<String, [u8; 100]>;

const ROUNDS: usize = 7;
/// In more shards than one.
const OTHERS: usize = 256;
/// Calls that took less are not looked at more closely.
const SHORT: Duration = Duration::from_micros(20);
/// For the reader without a delete: as long as a delete of a million takes, about.
const AWHILE: Duration = Duration::from_millis(300);

#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    Pattern,
    Clear,
}

pub(super) fn run(report: &mut Report) {
    let mut took = Line { name: "lazy-layers delete_by_pattern".to_owned(), points: Vec::new() };
    let mut held = Line { name: "longest a reader is held up".to_owned(), points: Vec::new() };
    report.title("deletes by pattern, and a reader of other keys: ms");
    for power in 3..=6 {
        let resident = 10_usize.pow(power);
        for (beside, name) in [
            (Beside::Nothing, "no delete"),
            (Beside::Pattern, "delete_by_pattern"),
            (Beside::Clear, "clear"),
        ] {
            let rounds: Vec<_> = (0..ROUNDS).map(|_| one_round(resident, beside)).collect();
            let millis = |of: fn(&Round) -> Duration| -> Vec<f64> {
                rounds.iter().map(|round| of(round).as_secs_f64() * 1e3).collect()
            };
            let (walk, wall, longest) = (
                median(millis(|round| round.took)),
                median(millis(|round| round.wall)),
                millis(|round| round.held),
            );
            let worst = longest.iter().copied().fold(0.0, f64::max);
            let longest = median(longest);
            report.line(&format!(
                "{resident:>8} keys, {name:<18} {walk:>8.2} ms; the reader's longest call \
                 {wall:>7.3} ms, of which held up {longest:>7.3} ms (worst round {worst:>7.3})"
            ));
            if matches!(beside, Beside::Pattern) {
                took.points.push((resident as f64, walk));
                held.points.push((resident as f64, longest.max(1e-3)));
            }
            if resident == 1_000_000 && !matches!(beside, Beside::Nothing) {
                report.check(&format!("{name}: holds up no reader for 1 ms"), longest < 1.0);
            }
        }
    }
    report.lines("growth-patterns", "keys in memory", "ms", &[took, held]);
    report.note(
        "The reader calls get_or_set in turn for 256 other keys, of which each call is timed. Held \
         up: what it computed, and all of its wall time where it may have waited for a lock. \
         Median of the rounds' longest; a clear deletes the reader's keys too, so that it loads.",
    );
    report.end();
}

struct Round {
    /// By the delete.
    took: Duration,
    /// By the reader's longest call.
    wall: Duration,
    /// The most that a call was held up, by the rules above.
    held: Duration,
}

fn one_round(resident: usize, beside: Beside) -> Round {
    let cache = block_on(async {
        let cache = filled(resident).await;
        for number in 0..OTHERS {
            cache.set(&format!("other:{number}"), value()).await.expect("open");
        }
        cache
    });
    assert!(cache.get_l1(&key(resident - 1)).is_some(), "it is full");
    let (done, together) = (AtomicBool::new(false), Barrier::new(2));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&cache, &done, &together));
        together.wait();
        let begun = Instant::now();
        block_on(async {
            match beside {
                Beside::Nothing => tokio::time::sleep(AWHILE).await,
                Beside::Pattern => cache.delete_by_pattern("product:*").await.expect("open"),
                Beside::Clear => cache.clear().await.expect("open"),
            }
        });
        let took = begun.elapsed();
        done.store(true, Ordering::Relaxed);
        let (wall, held) = reader.join().expect("no panic");
        assert_eq!(
            cache.get_l1(&key(resident - 1)).is_none(),
            !matches!(beside, Beside::Nothing),
            "it was deleted"
        );
        Round { took, wall, held }
    })
}

fn read(cache: &Cache, done: &AtomicBool, together: &Barrier) -> (Duration, Duration) {
    let others: Vec<String> = (0..OTHERS).map(|number| format!("other:{number}")).collect();
    let (mut longest, mut held) = (Duration::ZERO, Duration::ZERO);
    block_on(async {
        together.wait();
        let mut slept = sleeps();
        for at in 0.. {
            if done.load(Ordering::Relaxed) && at > 0 {
                break;
            }
            let key = others[at % OTHERS].as_str();
            let computed = on_this_thread();
            let begun = Instant::now();
            cache.get_or_set(key, || async { Ok::<_, String>(value()) }).await.expect("a value");
            let wall = begun.elapsed();
            if wall < SHORT {
                continue;
            }
            let computed = on_this_thread().saturating_sub(computed);
            let now = sleeps();
            let blocked = if now > slept { wall } else { computed };
            slept = now;
            longest = longest.max(wall);
            held = held.max(blocked);
        }
    });
    (longest, held)
}

/// What this thread has computed so far.
fn on_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How often this thread went to sleep of its own accord so far (Linux).
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux' /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).expect("a counter")
}
