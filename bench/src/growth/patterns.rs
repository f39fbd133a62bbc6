//! Deletes by pattern over 1,000 to 1,000,000 keys in L1, and the longest delay of a reader of
//! another key.
//!
//! The machine delays readers too, when it takes the processor from them. A call is therefore
//! measured by its wall time minus the time that its thread was runnable but not running, which
//! Linux counts per thread (the second number of /proc/thread-self/schedstat). Waiting for a lock
//! counts, and so do page faults. If the machine takes the processor from the thread that holds the
//! lock, that wait counts as well, since it cannot be told apart; so on a busy machine the worst
//! round is partly the machine's.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::LazyLayersCache;

use super::filled;
use crate::{
    measure::{block_on, key, median, value},
    plot::Line,
    report::Report,
};

type Cache = LazyLayersCache<String, [u8; 100]>;

const ROUNDS: usize = 5;
/// Keys in more than one shard.
const OTHERS: usize = 256;
/// Duration of the round without a delete: about that of a delete of a million keys.
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
        "The reader calls get_or_set in turn for 256 other keys, and each call is timed. Held up: \
         its wall time without what the kernel counts as ready to run but not let. Medians of the \
         rounds' longest; a clear deletes the reader's keys too, so that it loads.",
    );
    report.end();
}

struct Round {
    /// Duration of the delete.
    took: Duration,
    /// Duration of the reader's longest call.
    wall: Duration,
    /// The longest delay of a call, by the rules above.
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
                Beside::Pattern => {
                    cache.delete_by_pattern("product:*").await.expect("open");
                }
                Beside::Clear => drop(cache.clear().await.expect("open")),
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
        let kernel = Kernel::of_this_thread();
        for at in 0.. {
            if done.load(Ordering::Relaxed) && at > 0 {
                break;
            }
            let key = others[at % OTHERS].as_str();
            let waited = kernel.made_it_wait();
            let begun = Instant::now();
            cache.get_or_set(key, || async { Ok::<_, String>(value()) }).await.expect("a value");
            let wall = begun.elapsed();
            let waited = kernel.made_it_wait() - waited;
            longest = longest.max(wall);
            held = held.max(wall.saturating_sub(waited));
        }
    });
    (longest, held)
}

/// The kernel's counters of this thread (Linux).
struct Kernel(File);

impl Kernel {
    fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").expect("Linux' /proc"))
    }

    /// The time that the thread was runnable but not running.
    fn made_it_wait(&self) -> Duration {
        let mut said = [0; 96];
        let length = self.0.read_at(&mut said, 0).expect("it can be read");
        let said = std::str::from_utf8(&said[..length]).expect("numbers");
        let nanos = said.split(' ').nth(1).and_then(|number| number.parse().ok());
        Duration::from_nanos(nanos.expect("a second number"))
    }
}
