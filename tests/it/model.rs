//! Random operations against a model of the cache that is small enough to check by reading.
//!
//! One instance, paused time, loads that overlap with all other operations. A failure names its
//! seed.

use std::collections::HashMap;

use lazy_layers_cache::{Coalescing, ErrorKind, FailSafe, NegativeCache};
use tokio::task::JoinHandle;

use crate::support::{Broken, Cache, ms, on_tokio_time, settle};

const TTL: u64 = 1_000;
const STALE: u64 = 4_000;
const THROTTLE: u64 = 700;
const NEGATIVE: u64 = 900;
const KEYS: [&str; 4] = ["a1", "a2", "b1", "b2"];
const PATTERNS: [&str; 5] = ["a*", "?1", "b[1-2]", "*", "none"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Load {
    Value(u32),
    None,
    Error,
}

#[derive(Debug, Clone, Copy)]
struct ModelEntry {
    value: u32,
    fresh_until: u64,
    usable_until: u64,
    throttled_until: u64,
}

type Answer = Result<Option<u32>, ErrorKind>;

/// A running load in the model.
struct Running {
    key: &'static str,
    ends_at: u64,
    load: Load,
    /// The position in the order in which loads started.
    number: usize,
    /// No invalidation and no result of a later load has come since the load started.
    current: bool,
    callers: Vec<JoinHandle<Answer>>,
}

#[derive(Default)]
struct Model {
    now: u64,
    entries: HashMap<&'static str, ModelEntry>,
    missing_until: HashMap<&'static str, u64>,
    running: Vec<Running>,
    begun: usize,
    /// Whether loads can be joined.
    coalesces: bool,
}

impl Model {
    fn fresh(&self, key: &str) -> Option<u32> {
        let entry = self.entries.get(key)?;
        (self.now < entry.fresh_until).then_some(entry.value)
    }

    fn invalidate(&mut self, matches: impl Fn(&str) -> bool) {
        self.entries.retain(|key, _| !matches(key));
        self.missing_until.retain(|key, _| !matches(key));
        for running in self.running.iter_mut().filter(|running| matches(running.key)) {
            running.current = false;
        }
    }

    fn store(&mut self, key: &'static str, value: u32) {
        let fresh_until = self.now + TTL;
        let usable_until = fresh_until + STALE;
        self.missing_until.remove(key);
        self.entries
            .insert(key, ModelEntry { value, fresh_until, usable_until, throttled_until: 0 });
    }

    /// The answer of `get_or_set` without a load, if there is one.
    fn answer(&self, key: &str) -> Option<Answer> {
        if let Some(value) = self.fresh(key) {
            return Some(Ok(Some(value)));
        }
        if self.missing_until.get(key).is_some_and(|&until| self.now < until) {
            return Some(Ok(None));
        }
        let entry = self.entries.get(key)?;
        let throttled = self.now < entry.throttled_until && self.now < entry.usable_until;
        (throttled && self.joinable(key).is_none()).then_some(Ok(Some(entry.value)))
    }

    fn joinable(&self, key: &str) -> Option<usize> {
        let joins = |running: &Running| running.key == key && running.current && self.coalesces;
        self.running.iter().position(joins)
    }

    /// Whether a caller would wait until one of two loads has ended. `flights` has tests of that.
    fn must_wait(&self, key: &str) -> bool {
        let loads = self.running.iter().filter(|running| running.key == key).count();
        self.coalesces && loads >= 2 && self.joinable(key).is_none() && self.answer(key).is_none()
    }

    fn complete(&mut self, ended: &Running) -> Answer {
        let Running { key, load, number, current, .. } = *ended;
        if current && load != Load::Error {
            let earlier = |other: &&mut Running| other.key == key && other.number < number;
            self.running.iter_mut().filter(earlier).for_each(|other| other.current = false);
        }
        match load {
            Load::Value(value) => {
                if current {
                    self.store(key, value);
                }
                Ok(Some(value))
            }
            Load::None => {
                if current {
                    self.entries.remove(key);
                    self.missing_until.insert(key, self.now + NEGATIVE);
                }
                Ok(None)
            }
            Load::Error => {
                // A usable entry that L1 holds now was written under a valid ticket.
                let held = self.entries.get_mut(key).filter(|held| self.now < held.usable_until);
                let Some(held) = held else { return Err(ErrorKind::Loader) };
                if current && self.now >= held.fresh_until {
                    held.throttled_until = self.now + THROTTLE;
                }
                Ok(Some(held.value))
            }
        }
    }
}

struct Run {
    cache: Cache,
    model: Model,
    random: fastrand::Rng,
    next_value: u32,
    /// The steps so far, for the message of a failure.
    done: Vec<String>,
}

impl Run {
    fn ask(&self, key: &'static str, load: Load, takes: u64) -> JoinHandle<Answer> {
        let cache = self.cache.clone();
        tokio::spawn(async move {
            let load = move || async move {
                if takes > 0 {
                    tokio::time::sleep(ms(takes)).await;
                }
                match load {
                    Load::Value(value) => Ok(Some(value)),
                    Load::None => Ok(None),
                    Load::Error => Err(Broken),
                }
            };
            let answer = cache.get_or_set(key, load).await;
            answer.map(|value| value.as_deref().copied()).map_err(|error| error.kind())
        })
    }

    async fn get_or_set(&mut self, key: &'static str) {
        if self.model.must_wait(key) {
            return;
        }
        self.next_value += 1;
        let load = match self.random.u8(0..4) {
            0 => Load::Error,
            1 => Load::None,
            _ => Load::Value(self.next_value),
        };
        // All loads end at different times, so that their order is defined.
        let mut takes = if self.random.bool() { 0 } else { self.random.u64(1..1_500) };
        while takes > 0 && self.model.running.iter().any(|it| it.ends_at == self.model.now + takes)
        {
            takes += 1;
        }
        self.done.push(format!("{:>6}: get_or_set {key} {load:?} in {takes}", self.model.now));
        let caller = self.ask(key, load, takes);
        settle().await;
        if let Some(answer) = self.model.answer(key) {
            return self.check(caller, answer).await;
        }
        if let Some(at) = self.model.joinable(key) {
            return self.model.running[at].callers.push(caller);
        }
        let ends_at = self.model.now + takes;
        let number = self.model.begun;
        self.model.begun += 1;
        let mut running = Running { key, ends_at, load, number, current: true, callers: vec![] };
        if takes == 0 {
            let answer = self.model.complete(&running);
            return self.check(caller, answer).await;
        }
        running.callers.push(caller);
        self.model.running.push(running);
    }

    async fn advance(&mut self, by: u64) {
        self.done.push(format!("{:>6}: advance by {by}", self.model.now));
        let until = self.model.now + by;
        loop {
            let next = self.model.running.iter().map(|running| running.ends_at).min();
            let at = next.unwrap_or(u64::MAX).min(until);
            tokio::time::sleep(ms(at - self.model.now)).await;
            settle().await;
            self.model.now = at;
            let Some(ended) = self.model.running.iter().position(|it| it.ends_at == at) else {
                return;
            };
            let mut running = self.model.running.swap_remove(ended);
            let answer = self.model.complete(&running);
            for caller in std::mem::take(&mut running.callers) {
                self.check(caller, answer).await;
            }
        }
    }

    async fn check(&self, caller: JoinHandle<Answer>, expected: Answer) {
        settle().await;
        assert!(caller.is_finished(), "no answer, not {expected:?}\n{}", self.done.join("\n"));
        assert_eq!(caller.await.unwrap(), expected, "\n{}", self.done.join("\n"));
    }

    async fn step(&mut self) {
        let key = KEYS[self.random.usize(0..KEYS.len())];
        match self.random.u8(0..20) {
            0..=8 => self.get_or_set(key).await,
            9..=13 => {
                let by = self.random.u64(1..900);
                self.advance(by).await;
            }
            14 | 15 => {
                self.done.push(format!("{:>6}: delete {key}", self.model.now));
                self.cache.delete(key).await.unwrap();
                self.model.invalidate(|other| other == key);
            }
            16 | 17 => {
                self.next_value += 1;
                self.done.push(format!("{:>6}: set {key} {}", self.model.now, self.next_value));
                self.cache.set(key, self.next_value).await.unwrap();
                self.model.invalidate(|other| other == key);
                self.model.store(key, self.next_value);
            }
            _ => {
                let pattern = PATTERNS[self.random.usize(0..PATTERNS.len())];
                self.done.push(format!("{:>6}: delete_by_pattern {pattern}", self.model.now));
                self.cache.delete_by_pattern(pattern).await.unwrap();
                self.model.invalidate(|key| match pattern {
                    "a*" => key.starts_with('a'),
                    "?1" => key.ends_with('1'),
                    "b[1-2]" => key.starts_with('b'),
                    "*" => true,
                    _ => false,
                });
            }
        }
        for key in KEYS {
            let held = self.cache.get_l1(key).as_deref().copied();
            assert_eq!(held, self.model.fresh(key), "{key}\n{}", self.done.join("\n"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn random_operations_agree_with_the_model() {
    for seed in 0..400 {
        let run = async {
            let coalesces = seed % 2 == 0;
            let cache = on_tokio_time()
                .ttl(ms(TTL))
                .fail_safe(FailSafe::enabled().stale_ttl(ms(STALE)).throttle(ms(THROTTLE)))
                .negative_cache(NegativeCache::enabled().ttl(ms(NEGATIVE)))
                .inflight(if coalesces { Coalescing::default() } else { Coalescing::disabled() })
                .build()
                .unwrap();
            let mut run = Run {
                cache,
                model: Model { coalesces, ..Model::default() },
                random: fastrand::Rng::with_seed(seed),
                next_value: 0,
                done: vec![format!("seed {seed}")],
            };
            for _ in 0..200 {
                run.step().await;
            }
            run.advance(10_000).await;
            assert_eq!(run.cache.stats().loads_in_flight, 0, "seed {seed}");
        };
        run.await;
    }
}
