//! The product of everything a load can do and everything that can be waiting for it: for each
//! story the result, the events, the number of loads, and that nothing is left behind.

use std::time::Duration;

use lazy_layers_cache::{Error, ErrorKind, FailSafe, Outcome, StaleReason, Timeouts};
use tokio::{runtime::Handle, time::Instant};

use crate::support::{Cache, Gate, Log, Origin, SLOW, ms, on_tokio_time, settle};

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// The caller whose loader runs.
    Leader,
    /// A caller who joined it.
    Follower,
    /// A loader that asks for another key, whose load is the one that does it.
    OuterLoader,
}

#[derive(Debug, Clone, Copy)]
struct Story {
    stage: Stage,
    gate: Gate,
    stale: bool,
    soft: bool,
    hard: bool,
    /// The caller goes away at [`DROPPED_AT`].
    dropped: bool,
}

const SOFT: Duration = ms(100);
const HARD: Duration = ms(1_000);
const DROPPED_AT: Duration = ms(50);
/// Beyond every time limit: a caller that has no answer by then has none at all.
const PATIENCE: Duration = ms(30_000);

/// How a story must end.
#[derive(Debug, PartialEq)]
struct End {
    /// `None`: no answer.
    result: Option<Result<Got, ErrorKind>>,
    at: Duration,
    events: Vec<&'static str>,
    /// What memory holds in the end, fresh.
    cached: Option<u32>,
    in_flight: u64,
}

type Got = (Option<u32>, Option<StaleReason>);

impl Story {
    fn all() -> Vec<Self> {
        let mut stories = Vec::new();
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
                    let story = Self {
                        stage,
                        gate,
                        stale: bit(0),
                        soft: bit(1),
                        hard: bit(2),
                        dropped: bit(3),
                    };
                    if story.makes_sense() {
                        stories.push(story);
                    }
                }
            }
        }
        stories
    }

    fn waits(self) -> bool {
        matches!(self.gate, Gate::Slow | Gate::SlowErr | Gate::Never)
    }

    fn makes_sense(self) -> bool {
        // Nobody can join, or leave, a load that is over at once.
        self.waits() || !(self.dropped || self.stage == Stage::Follower)
    }

    /// The table of behaviours, once more and independently: what must come of it.
    fn end(self) -> End {
        let soft_at = (self.soft && self.stale && self.waits()).then_some(SOFT);
        let lands_at = match self.gate {
            Gate::Slow | Gate::SlowErr => Some(SLOW),
            Gate::Never => self.hard.then_some(HARD),
            _ => Some(ms(0)),
        };
        let mut events = vec!["miss", "loader:start"];
        if self.stage == Stage::Follower {
            events.push("inflight:reuse");
        }
        let answered_at = match (soft_at, lands_at) {
            (Some(soft), Some(lands)) => Some(soft.min(lands)),
            (soft, lands) => soft.or(lands),
        };
        let landing = match self.gate {
            Gate::Ok | Gate::Slow => "loader:success",
            Gate::None => "loader:success",
            Gate::Err | Gate::SlowErr | Gate::Panic => "loader:error",
            Gate::Never => "loader:timeout(hard)",
        };
        let stale = self.stale.then_some(1);
        let loaded = if self.stale { 2 } else { 1 };
        let served_stale = |reason| Ok((stale, Some(reason)));
        let (result, landed) = if self.dropped {
            (None, lands_at.is_some())
        } else if soft_at.is_some() {
            events.extend(self.each("loader:timeout(soft)", "stale:hit(soft-timeout)"));
            (Some(served_stale(StaleReason::SoftTimeout)), lands_at.is_some())
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
            (result, lands_at.is_some())
        };
        if landed {
            events.push(landing);
            match self.gate {
                Gate::Ok | Gate::Slow => events.push("set"),
                _ => {}
            }
            let waited_till_the_end = !self.dropped && soft_at.is_none();
            if waited_till_the_end
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
            in_flight: u64::from(lands_at.is_none()),
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
            // The last caller is the one the story is about; whoever leads fares alike.
            let told = callers.last_mut().unwrap();
            if let Ok(answer) = tokio::time::timeout(PATIENCE, told).await {
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
        assert_eq!(origin.loads() - loads_before, 1, "{self:?}");

        cache.close().await;
        callers.iter().for_each(tokio::task::JoinHandle::abort);
        settle().await;
        assert_eq!(cache.stats().loads_in_flight, 0, "{self:?}");
        assert_eq!(Handle::current().metrics().num_alive_tasks(), baseline, "{self:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_story_ends_as_it_should() {
    let stories = Story::all();
    assert!(stories.len() > 150, "{}", stories.len());
    for story in stories {
        story.run().await;
    }
}
