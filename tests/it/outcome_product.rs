//! The product of all outcomes of a load and all kinds of callers: checks for each case the result,
//! the events and the number of loads, and that no task and no flight is left.

use std::time::Duration;

use lazy_layers_cache::{Error, ErrorKind, FailSafe, Outcome, StaleReason, Timeouts};
use tokio::{runtime::Handle, time::Instant};

use crate::support::{Cache, Gate, Log, Origin, SLOW, ms, on_tokio_time, settle};

/// The kind of the caller.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// The caller whose loader runs.
    Leader,
    /// A caller that joined the load.
    Follower,
    /// A loader that asks for another key and leads its load.
    OuterLoader,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    stage: Stage,
    gate: Gate,
    stale: bool,
    soft: bool,
    hard: bool,
    /// The caller is dropped at [`DROPPED_AT`].
    dropped: bool,
}

const SOFT: Duration = ms(100);
const HARD: Duration = ms(1_000);
const DROPPED_AT: Duration = ms(50);
/// Beyond every timeout: a caller without an answer by then never gets one.
const PATIENCE: Duration = ms(30_000);

/// The expected end of a case.
#[derive(Debug, PartialEq)]
struct End {
    /// `None`: no answer.
    result: Option<Result<Got, ErrorKind>>,
    at: Duration,
    events: Vec<&'static str>,
    /// The fresh value in L1 at the end.
    cached: Option<u32>,
    in_flight: u64,
}

type Got = (Option<u32>, Option<StaleReason>);

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for stage in [Stage::Leader, Stage::Follower, Stage::OuterLoader] {
            for gate in [
                Gate::Ok,
                Gate::Err,
                Gate::None,
                Gate::Slow,
                Gate::SlowErr,
                Gate::Never,
                Gate::Panic,
            ] {
                for bits in 0..16 {
                    let bit = |n: u32| bits >> n & 1 == 1;
                    let case = Self {
                        stage,
                        gate,
                        stale: bit(0),
                        soft: bit(1),
                        hard: bit(2),
                        dropped: bit(3),
                    };
                    if case.makes_sense() {
                        cases.push(case);
                    }
                }
            }
        }
        cases
    }

    fn waits(self) -> bool {
        matches!(self.gate, Gate::Slow | Gate::SlowErr | Gate::Never)
    }

    fn makes_sense(self) -> bool {
        // A load that is ready at once cannot be joined, and its caller cannot be dropped.
        self.waits() || !(self.dropped || self.stage == Stage::Follower)
    }

    /// The follower does not wait for ever for a load that hangs: it begins another one, which
    /// hangs too.
    fn begins_another(self) -> bool {
        let served_stale = self.soft && self.stale;
        let waits = !self.dropped && !self.hard && !served_stale;
        self.stage == Stage::Follower && self.gate == Gate::Never && waits
    }

    /// The expected end, derived from the behaviour table independently of the library.
    fn end(self) -> End {
        let soft_at = (self.soft && self.stale && self.waits()).then_some(SOFT);
        let ends_at = match self.gate {
            Gate::Slow | Gate::SlowErr => Some(SLOW),
            Gate::Never => self.hard.then_some(HARD),
            _ => Some(ms(0)),
        };
        let mut events = vec!["miss", "loader:start"];
        if self.stage == Stage::Follower {
            events.push("inflight:reuse");
        }
        if self.begins_another() {
            events.extend(["miss", "loader:start"]);
        }
        let answered_at = match (soft_at, ends_at) {
            (Some(soft), Some(end)) => Some(soft.min(end)),
            (soft, end) => soft.or(end),
        };
        let completion = match self.gate {
            Gate::Ok | Gate::Slow => "loader:success",
            Gate::None => "loader:success",
            Gate::Err | Gate::SlowErr | Gate::Panic => "loader:error",
            Gate::Never => "loader:timeout(hard)",
        };
        let stale = self.stale.then_some(1);
        let loaded = if self.stale { 2 } else { 1 };
        let served_stale = |reason| Ok((stale, Some(reason)));
        let (result, completed) = if self.dropped {
            (None, ends_at.is_some())
        } else if soft_at.is_some() {
            events.extend(self.each("loader:timeout(soft)", "stale:hit(soft-timeout)"));
            (Some(served_stale(StaleReason::SoftTimeout)), ends_at.is_some())
        } else {
            let result = match self.gate {
                Gate::Ok | Gate::Slow => Some(Ok((Some(loaded), None))),
                Gate::None => Some(Ok((None, None))),
                Gate::Err | Gate::SlowErr if self.stale => {
                    Some(served_stale(StaleReason::LoaderError))
                }
                Gate::Panic if self.stale => Some(served_stale(StaleReason::LoaderError)),
                Gate::Err | Gate::SlowErr => Some(Err(ErrorKind::Loader)),
                Gate::Panic => Some(Err(ErrorKind::LoaderPanicked)),
                Gate::Never if self.hard && self.stale => {
                    Some(served_stale(StaleReason::HardTimeout))
                }
                Gate::Never if self.hard => Some(Err(ErrorKind::HardTimeout)),
                Gate::Never => None,
            };
            (result, ends_at.is_some())
        };
        if completed {
            events.push(completion);
            match self.gate {
                Gate::Ok | Gate::Slow => events.push("set"),
                _ => {}
            }
            let waited_to_the_end = !self.dropped && soft_at.is_none();
            if waited_to_the_end
                && self.stale
                && !matches!(self.gate, Gate::Ok | Gate::Slow | Gate::None)
            {
                let served = if self.gate == Gate::Never {
                    "stale:hit(hard-timeout)"
                } else {
                    "stale:hit(loader-error)"
                };
                events.extend(self.each_caller(served));
            }
        }
        events.sort_unstable();
        End {
            at: match (self.dropped, answered_at) {
                (true, _) => DROPPED_AT,
                (false, Some(at)) => at,
                (false, None) => PATIENCE,
            },
            result,
            events,
            cached: matches!(self.gate, Gate::Ok | Gate::Slow).then_some(loaded),
            in_flight: u64::from(ends_at.is_none()) + u64::from(self.begins_another()),
        }
    }

    fn each(self, once: &'static str, per_caller: &'static str) -> Vec<&'static str> {
        [vec![once], self.each_caller(per_caller)].concat()
    }

    fn each_caller(self, event: &'static str) -> Vec<&'static str> {
        vec![event; if self.stage == Stage::Follower { 2 } else { 1 }]
    }

    fn timeouts(self) -> Timeouts {
        let timeouts = if self.soft { Timeouts::none().soft(SOFT) } else { Timeouts::none() };
        if self.hard { timeouts.hard(HARD) } else { timeouts }
    }

    async fn ask(
        self,
        cache: Cache,
        origin: Origin,
    ) -> Result<Outcome<Option<std::sync::Arc<u32>>>, Error> {
        cache.get_or_set("k", origin.load(self.gate)).timeouts(self.timeouts()).outcome().await
    }

    async fn run(self) {
        let cache = on_tokio_time().ttl(ms(60_000)).fail_safe(FailSafe::enabled()).build().unwrap();
        let origin = Origin::default();
        let baseline = Handle::current().metrics().num_alive_tasks();
        if self.stale {
            cache.get_or_set("k", origin.load(Gate::Ok)).ttl(ms(1)).await.unwrap();
            tokio::time::advance(ms(1)).await;
        }
        let loads_before = origin.loads();
        let log = Log::of(&cache);
        let begun = Instant::now();

        // Callers run in tasks of their own, so that dropping one is aborting its task.
        let mut callers = Vec::new();
        match self.stage {
            Stage::Leader => callers.push(tokio::spawn(self.ask(cache.clone(), origin.clone()))),
            Stage::Follower => {
                callers.push(tokio::spawn(self.ask(cache.clone(), origin.clone())));
                settle().await;
                callers.push(tokio::spawn(self.ask(cache.clone(), origin.clone())));
            }
            Stage::OuterLoader => {
                let outer = Cache::builder().build().unwrap();
                let (inner, origin) = (cache.clone(), origin.clone());
                callers.push(tokio::spawn(async move {
                    let ask = move || async move { Ok::<_, Error>(self.ask(inner, origin).await) };
                    let outcome = std::sync::Arc::new(std::sync::Mutex::new(None));
                    let slot = outcome.clone();
                    outer
                        .get_or_set("outer", move || async move {
                            *slot.lock().unwrap() = Some(ask().await?);
                            Ok::<_, Error>(0)
                        })
                        .await?;
                    outer.close().await;
                    let outcome = outcome.lock().unwrap().take();
                    outcome.unwrap()
                }));
            }
        }
        let mut result = None;
        let mut at = DROPPED_AT;
        if self.dropped {
            tokio::time::sleep(DROPPED_AT).await;
            callers.iter().for_each(tokio::task::JoinHandle::abort);
        } else {
            // The case is about the last caller; the leader gets the same result.
            let last = callers.last_mut().unwrap();
            if let Ok(answer) = tokio::time::timeout(PATIENCE, last).await {
                let answer = answer.unwrap();
                let got = |outcome: Outcome<Option<std::sync::Arc<u32>>>| {
                    (outcome.value.as_deref().copied(), outcome.stale)
                };
                result = Some(answer.map(got).map_err(|error| error.kind()));
            }
            at = begun.elapsed();
        }
        tokio::time::sleep(PATIENCE).await;
        settle().await;
        let mut events = log.take();
        events.sort_unstable();
        let end = End {
            result,
            at,
            events: events.iter().map(|event| &*event.clone().leak()).collect(),
            cached: cache.get_l1("k").as_deref().copied(),
            in_flight: cache.stats().loads_in_flight,
        };
        assert_eq!(end, self.end(), "{self:?}");
        let loads = 1 + usize::from(self.begins_another());
        assert_eq!(origin.loads() - loads_before, loads, "{self:?}");

        cache.close().await;
        callers.iter().for_each(tokio::task::JoinHandle::abort);
        settle().await;
        assert_eq!(cache.stats().loads_in_flight, 0, "{self:?}");
        assert_eq!(Handle::current().metrics().num_alive_tasks(), baseline, "{self:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_case_ends_as_expected() {
    let cases = Case::all();
    assert!(cases.len() > 150, "{}", cases.len());
    for case in cases {
        case.run().await;
    }
}
