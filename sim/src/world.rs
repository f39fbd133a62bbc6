//! A plan, lived through: instances, what connects them, callers, faults.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lazy_layers_cache::{
    CircuitBreaker, Clock, DistributedLock, EventBusOptions, FailSafe, HandlerGuard, L2Timeouts,
    NegativeCache, WireCodec,
    testing::{BusFaults, BusLink, SharedBus, SharedStore, StoreSnapshot, TokioClock},
};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    caller::{Cache, Caller, LEVEL_READ, LEVEL_WRITE, PATTERN, PUBLISH, WITHOUT_HARD, hears, ms},
    ground::{Names, Simulated},
    history::History,
    line::Line,
    noted::Noted,
    plan::{Act, Break, Call, Fault, KEYS, LevelWeather, Load, PATTERNS, Plan, Setup},
    record::{Incarnation, Record, Trouble},
    road::{Plain, Road},
};

/// Lives through a plan. To be called outside of any runtime.
#[must_use]
pub fn run(plan: &Plan) -> Record {
    // The library's own dice.
    fastrand::seed(plan.seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(World::new(plan).live(plan))
}

struct World {
    setup: Setup,
    seed: u64,
    history: History,
    start: Instant,
    bus: SharedBus,
    store: SharedStore,
    slots: Vec<Slot>,
    levels: Vec<LevelWeather>,
    /// What the shared level held when it was last saved.
    saved: Option<StoreSnapshot>,
    /// Calls of instances that are closed, and the closing.
    others: JoinSet<()>,
}

struct Slot {
    by: usize,
    cache: Cache,
    link: BusLink,
    road: Road,
    ahead: Ahead,
    stands: bool,
    calls: JoinSet<()>,
    _events: HandlerGuard,
}

/// By how much the clock of an instance is ahead of the time.
#[derive(Clone)]
struct Ahead(TokioClock, Arc<AtomicU64>);

impl Clock for Ahead {
    fn now(&self) -> u64 {
        self.0.now() + self.1.load(Ordering::Relaxed)
    }
}

const CLOSE: u64 = 2_000;
/// Until all instances are current when all is well again.
const MENDS: u64 = 5_000;
/// How long a subscription takes to begin again.
const RESUBSCRIBES: u64 = 1_500;
/// How long an attempt at it may hang.
const SUBSCRIBING: u64 = 1_000;

#[derive(Clone, Copy)]
enum Moment<'a> {
    Act(&'a Act),
    End(&'a Fault),
}

impl World {
    fn new(plan: &Plan) -> Self {
        let ground = Simulated::new(KEYS.len());
        Self {
            setup: plan.setup,
            seed: fastrand::Rng::with_seed(!plan.seed).u64(..),
            history: History::new(ground, names(plan.setup.keys).into(), 0),
            start: Instant::now(),
            bus: SharedBus::new(plan.seed),
            store: SharedStore::new(TokioClock::new()),
            slots: Vec::new(),
            levels: Vec::new(),
            saved: None,
            others: JoinSet::new(),
        }
    }

    async fn live(mut self, plan: &Plan) -> Record {
        let fair = LevelWeather { slowest: self.setup.level_latency, ..LevelWeather::default() };
        self.history.with(|record| record.agrees = self.setup.shared_level);
        self.levels = vec![fair; self.setup.instances];
        for slot in 0..self.setup.instances {
            let new = self.begin(slot);
            self.slots.push(new);
        }
        let mut moments: Vec<(u64, Moment<'_>)> = Vec::with_capacity(plan.steps.len() + 64);
        for step in &plan.steps {
            moments.push((step.at, Moment::Act(&step.act)));
            if let Act::Fault(fault) = &step.act
                && fault.lasts() > 0
            {
                moments.push((step.at + fault.lasts(), Moment::End(fault)));
            }
        }
        moments.sort_by_key(|(at, _)| *at);
        for (at, moment) in moments {
            sleep_until(self.start + ms(at)).await;
            match moment {
                Moment::Act(Act::Call { slot, call, leaves }) => self.call(*slot, *call, *leaves),
                Moment::Act(Act::Fault(fault)) => self.breaks(fault),
                Moment::End(fault) => self.mends(fault, fair),
            }
        }
        self.ends().await;
        self.history.finish()
    }

    fn begin(&mut self, slot: usize) -> Slot {
        let began = self.history.now();
        let by = self.history.with(|record| {
            let confirms = self.setup.confirms;
            record.incarnations.push(Incarnation { slot, began, ended: None, confirms });
            record.incarnations.len() - 1
        });
        self.history.with(|record| {
            let to = began + 400;
            record.troubles.push(Trouble { cut: true, ..Trouble::new(Some(slot), began, to) });
        });
        let (setup, link) = (self.setup, self.bus.link());
        let seed = self.seed ^ (by as u64) << 40;
        let road = Road::new(self.store.clone(), &self.history, seed);
        road.set(self.levels[slot]);
        let ahead = Ahead(TokioClock::new(), Arc::default());
        let breaker = || CircuitBreaker::default().cooldown(ms(1_000));
        let mut builder = Cache::builder()
            .clock(ahead.clone())
            .ttl(setup.ttl)
            .event_bus(Line(link.clone(), seed), WireCodec::new())
            .event_bus_options(EventBusOptions::default().confirm_deletes(setup.confirms))
            .event_bus_circuit_breaker(breaker())
            .l2_circuit_breaker(breaker())
            .l2_timeouts(
                L2Timeouts::default()
                    .read(ms(LEVEL_READ))
                    .write(ms(LEVEL_WRITE))
                    .pattern(ms(PATTERN)),
            )
            .broadcast_set(setup.broadcasts)
            .close_timeout(ms(CLOSE));
        if setup.shared_level {
            builder = builder.l2(Noted::new(road.clone(), by, &self.history), Plain);
        }
        if setup.fail_safe {
            builder = builder.fail_safe(FailSafe::enabled().throttle(ms(500)));
        }
        if setup.locks {
            builder = builder.distributed_lock(DistributedLock::enabled());
        }
        if setup.remembers_missing {
            builder = builder.negative_cache(NegativeCache::enabled());
        }
        let cache = builder.build().expect("sound options");
        let history = self.history.clone();
        let events = cache.on(move |event| hears(&history, by, event));
        let (mut calls, listener) = (JoinSet::new(), cache.clone());
        calls.spawn(async move { drop(listener.ready().await) });
        Slot { by, cache, link, road, ahead, stands: false, calls, _events: events }
    }

    fn call(&mut self, slot: usize, call: Call, leaves: Option<u64>) {
        let slot = &mut self.slots[slot];
        if slot.stands {
            return;
        }
        let caller = Caller {
            by: slot.by,
            cache: slot.cache.clone(),
            road: Some(slot.road.clone()),
            history: self.history.clone(),
        };
        slot.calls.spawn(async move {
            let made = caller.make(call);
            match leaves {
                Some(patience) => drop(timeout(ms(patience), made).await),
                None => made.await,
            }
            caller.history.called_once_more();
        });
        ended(&self.history, &mut slot.calls);
    }

    fn breaks(&mut self, fault: &Fault) {
        let now = self.history.now();
        let end = now + fault.lasts();
        let trouble = |slot, to, holds_up, cut| {
            let new = Trouble { holds_up, cut, ..Trouble::new(slot, now, to) };
            self.history.with(|record| record.troubles.push(new));
        };
        match *fault {
            Fault::Bus(weather, _) => {
                let late = u64::try_from(weather.longest_delay.as_millis()).expect("short");
                trouble(None, end + late, weather.fails > 0.0, false);
                self.bus.set_faults(weather);
            }
            Fault::Link(slot, how, _) => {
                let link = &self.slots[slot].link;
                match how {
                    Break::Cut => {
                        trouble(Some(slot), end + RESUBSCRIBES, true, true);
                        link.cut();
                    }
                    Break::Deaf => {
                        trouble(Some(slot), end, false, false);
                        link.drop_incoming();
                    }
                    Break::Frozen => {
                        trouble(Some(slot), end + SUBSCRIBING + RESUBSCRIBES, true, true);
                        link.freeze();
                    }
                }
            }
            Fault::Pause(slot, _) => {
                trouble(Some(slot), end + SUBSCRIBING + RESUBSCRIBES, true, true);
                let slot = &mut self.slots[slot];
                slot.link.freeze();
                slot.road.stand_still(true);
                slot.stands = true;
            }
            Fault::Level(slot, weather, _) => self.level(slot, weather),
            Fault::LevelRestarts => {
                self.history.with(|record| record.agrees = false);
                self.store.restart();
                self.store.reconnect();
            }
            Fault::LevelReturns(_) => self.saved = Some(self.store.snapshot()),
            Fault::Kill(slot) => drop(self.replace(slot)),
            Fault::Close(slot) => {
                let old = self.replace(slot);
                self.close(old);
            }
            Fault::Jump(slot, by) => {
                let slot = &self.slots[slot];
                slot.ahead.1.fetch_add(by, Ordering::Relaxed);
                self.history.void_all(slot.by);
            }
            Fault::Garbage => self.bus.inject(b"no event at all"),
        }
    }

    fn mends(&mut self, fault: &Fault, fair: LevelWeather) {
        match *fault {
            Fault::Bus(..) => self.bus.set_faults(BusFaults::default()),
            Fault::Link(slot, ..) => self.slots[slot].link.restore(),
            Fault::Pause(slot, _) => self.slots[slot].goes_on(),
            Fault::Level(slot, ..) => self.level(slot, fair),
            Fault::LevelReturns(_) => {
                if let Some(saved) = self.saved.take() {
                    self.history.with(|record| record.agrees = false);
                    self.store.restart_with(&saved);
                }
            }
            _ => {}
        }
    }

    fn level(&mut self, slot: Option<usize>, weather: LevelWeather) {
        let slots = slot.map_or(0..self.slots.len(), |slot| slot..slot + 1);
        for slot in slots {
            self.levels[slot] = weather;
            self.slots[slot].road.set(weather);
        }
    }

    fn replace(&mut self, slot: usize) -> Slot {
        self.slots[slot].goes_on();
        let by = self.slots[slot].by;
        let now = self.history.now();
        self.history.with(|record| record.incarnations[by].ended = Some(now));
        let new = self.begin(slot);
        std::mem::replace(&mut self.slots[slot], new)
    }

    fn close(&mut self, old: Slot) {
        let history = self.history.clone();
        self.others.spawn(async move {
            let Slot { cache, mut calls, by, .. } = old;
            let begin = history.now();
            cache.close().await;
            // Loads, what is left of them, what is to be told, goodbye.
            history.took(by, "close", begin, CLOSE + 1_000 + CLOSE + PUBLISH);
            while let Some(call) = calls.join_next().await {
                survived(&history, call);
            }
            let stats = cache.stats();
            if stats.loads_in_flight > 0 || stats.l1_entries > 0 {
                history.violated("left", format!("instance {by} closed with {stats:?}"));
            }
        });
        ended(&self.history, &mut self.others);
    }

    /// All is well again: everybody is current, and goes without leaving anything behind.
    async fn ends(&mut self) {
        let history = self.history.clone();
        let all_return = async {
            for slot in &mut self.slots {
                while let Some(call) = slot.calls.join_next().await {
                    survived(&history, call);
                }
            }
            while let Some(call) = self.others.join_next().await {
                survived(&history, call);
            }
        };
        if timeout(ms(2 * WITHOUT_HARD), all_return).await.is_err() {
            history.violated("R6", "some calls never return".to_owned());
            return;
        }
        sleep(ms(MENDS)).await;
        for slot in &self.slots {
            let (health, by) = (slot.cache.health(), slot.by);
            if health.event_bus.as_ref().is_none_or(|bus| bus.waiting > 0 || !bus.trusted) {
                history.violated("R4", format!("instance {by} is not well again: {health:?}"));
            }
        }
        for slot in &self.slots {
            let caller = Caller {
                by: slot.by,
                cache: slot.cache.clone(),
                road: Some(slot.road.clone()),
                history: history.clone(),
            };
            for key in 0..self.setup.keys {
                caller.load(key, Load::WELL, true).await;
            }
        }
        for slot in std::mem::take(&mut self.slots) {
            self.close(slot);
        }
        while let Some(call) = self.others.join_next().await {
            survived(&history, call);
        }
        // What was asked of the shared level, and nobody waits for.
        sleep(ms(10_000)).await;
        let tasks = Handle::current().metrics().num_alive_tasks();
        if tasks > 0 {
            history.violated("left", format!("{tasks} tasks"));
        }
    }
}

impl Slot {
    fn goes_on(&mut self) {
        self.link.restore();
        self.road.stand_still(false);
        self.stands = false;
    }
}

/// Takes note of what has returned.
fn ended(history: &History, calls: &mut JoinSet<()>) {
    while let Some(call) = calls.try_join_next() {
        survived(history, call);
    }
}

fn survived(history: &History, call: Result<(), tokio::task::JoinError>) {
    if let Err(error) = call
        && error.is_panic()
    {
        history.violated("panic", "a call panicked".to_owned());
    }
}

/// Of so many keys, and all globs.
fn names(keys: usize) -> Names {
    let matched = |all: &[usize]| all.iter().copied().filter(|key| *key < keys).collect();
    Names {
        keys: KEYS.map(str::to_owned).into(),
        patterns: PATTERNS.iter().map(|(glob, all)| ((*glob).to_owned(), matched(all))).collect(),
    }
}
