//! A plan, lived through: instances, what connects them, callers, faults.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use lazy_layers_cache::{
    CircuitBreaker, Clock, DistributedLock, Event, EventBusOptions, FailSafe, L2Timeouts,
    LazyLayersCache, NegativeCache, Source, Subscription, Timeouts, WireCodec,
    testing::{BusLink, BusWeather, SharedBus, SharedStore, StoreSnapshot, TokioClock},
};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    history::{History, Incarnation, Place, Read, Record, Trouble, Way, Write},
    line::Line,
    plan::{Act, Break, Call, Fault, KEYS, LevelWeather, Load, LoadEnd, PATTERNS, Plan, Setup},
    road::{Plain, Road, parts, value},
};

type Cache = LazyLayersCache<String, u64>;

/// Lives through a plan. To be called outside of any runtime.
#[must_use]
pub fn run(plan: &Plan) -> Record {
    // The library's own dice.
    fastrand::seed(plan.seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(World::new(plan).live(plan))
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct World {
    setup: Setup,
    seed: u64,
    history: History,
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
    _events: Subscription,
}

/// By how much the clock of an instance is ahead of the time.
#[derive(Clone)]
struct Ahead(TokioClock, Arc<AtomicU64>);

impl Clock for Ahead {
    fn now(&self) -> u64 {
        self.0.now() + self.1.load(Ordering::Relaxed)
    }
}

/// What a call of the shared level may take, and of the bus: the cache's defaults, but for
/// patterns.
const LEVEL_READ: u64 = 500;
const LEVEL_WRITE: u64 = 1_000;
const PATTERN: u64 = 2_000;
const PUBLISH: u64 = 1_000;
const CLOSE: u64 = 2_000;
/// What any call may take longer than its deadline.
const SLACK: u64 = 150;
/// A load without a hard timeout: three that are joined and come to nothing, and its own, each
/// with the lock and the shared level around it; and as long as an instance stands still.
const WITHOUT_HARD: u64 = 4 * (3 * LEVEL_READ + 6_000 + 8_000 + LEVEL_WRITE) + 8_000;
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
        Self {
            setup: plan.setup,
            seed: fastrand::Rng::with_seed(!plan.seed).u64(..),
            history: History::new(),
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
        self.history.with(|record| {
            record.confirms = self.setup.confirms;
            record.agrees = self.setup.shared_level;
        });
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
            sleep_until(self.history.start() + ms(at)).await;
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
            record.incarnations.push(Incarnation { slot, began, ended: None });
            record.incarnations.len() - 1
        });
        self.history.with(|record| {
            let to = began + 400;
            let new = Trouble { slot: Some(slot), from: began, to, holds_up: false, cut: true };
            record.troubles.push(new);
        });
        let (setup, link) = (self.setup, self.bus.link());
        let seed = self.seed ^ (by as u64) << 40;
        let road = Road::new(self.store.clone(), by, &self.history, seed);
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
            builder = builder.l2(road.clone(), Plain);
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
            road: slot.road.clone(),
            history: self.history.clone(),
            setup: self.setup,
        };
        slot.calls.spawn(async move {
            let made = caller.make(call);
            match leaves {
                Some(patience) => drop(timeout(ms(patience), made).await),
                None => made.await,
            }
            caller.history.with(|record| record.calls += 1);
        });
        ended(&self.history, &mut slot.calls);
    }

    fn breaks(&mut self, fault: &Fault) {
        let now = self.history.now();
        let end = now + fault.lasts();
        let trouble = |slot, to, holds_up, cut| {
            let new = Trouble { slot, from: now, to, holds_up, cut };
            self.history.with(|record| record.troubles.push(new));
        };
        match *fault {
            Fault::Bus(weather, _) => {
                let late = u64::try_from(weather.longest_delay.as_millis()).expect("short");
                trouble(None, end + late, weather.fails > 0.0, false);
                self.bus.set(weather);
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
                        link.deafen();
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
            Fault::Bus(..) => self.bus.set(BusWeather::default()),
            Fault::Link(slot, ..) => self.slots[slot].link.mend(),
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
            keeps(&history, by, "close", begin, CLOSE + 1_000 + CLOSE + PUBLISH);
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
                road: slot.road.clone(),
                history: history.clone(),
                setup: self.setup,
            };
            for key in 0..self.setup.keys {
                let well = Load {
                    before: 0,
                    after: 0,
                    end: LoadEnd::Well,
                    soft: None,
                    hard: None,
                    refresh: false,
                };
                caller.load(key, well, true).await;
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
        self.link.mend();
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

fn keeps(history: &History, by: usize, what: &str, begin: u64, limit: u64) {
    let took = history.now() - begin;
    if took > limit + SLACK {
        history.violated("R6", format!("{what} of instance {by} took {took} ms, not {limit}"));
    }
}

/// After what is heard, loads may begin beside those that run.
fn hears(history: &History, by: usize, event: &Event<'_>) {
    let void = |name: &str| {
        if let Some(key) = KEYS.iter().position(|key| *key == name) {
            history.void(by, key);
        }
    };
    match event {
        Event::InvalidationReceived { pattern: Some(_), .. }
        | Event::BusGap { .. }
        | Event::BusSubscribed { .. } => history.void_all(by),
        Event::InvalidationReceived { keys, .. } => keys.iter().for_each(|key| void(key)),
        Event::InflightReuse { .. } => JOINED.set(true),
        Event::SetReceived { key, .. } | Event::InflightBypass { key, .. } => void(key),
        _ => {}
    }
}

struct Caller {
    by: usize,
    cache: Cache,
    road: Road,
    history: History,
    setup: Setup,
}

impl Caller {
    async fn make(&self, call: Call) {
        match call {
            Call::GetL1(key) => {
                let begin = self.history.stamp();
                let found = self.cache.get_l1(KEYS[key]).map(|it| *it);
                if found.is_some() {
                    self.read(key, begin, found, Place::Memory, false, false);
                }
            }
            Call::Get(key) => self.get(key).await,
            Call::Has(key) => {
                let begin = self.history.now();
                self.cache.has(KEYS[key]).await;
                keeps(&self.history, self.by, "has", begin, LEVEL_READ);
            }
            Call::Load(key, load) => self.load(key, load, false).await,
            Call::Delete { key, exists } => {
                let version = self.history.commit(key, exists);
                let change = self.history.changes(self.by, key, version);
                let mut changing =
                    Changing { history: &self.history, all: vec![change], done: false };
                let begin = self.history.now();
                changing.done = self.cache.delete(KEYS[key]).await.is_ok();
                keeps(&self.history, self.by, "delete", begin, LEVEL_WRITE + PUBLISH);
            }
            Call::Set(key) => {
                let version = self.history.commit(key, true);
                let change = self.history.changes(self.by, key, version);
                let mut changing =
                    Changing { history: &self.history, all: vec![change], done: false };
                let write = self.history.with(|record| {
                    record.writes.push(Write { key, version, way: Way::Set { change } });
                    record.writes.len() - 1
                });
                let begin = self.history.now();
                let value = value(version, write);
                changing.done = self.cache.set(KEYS[key], value).await.is_ok();
                keeps(&self.history, self.by, "set", begin, 2 * LEVEL_WRITE + PUBLISH);
            }
            Call::Pattern(pattern) => {
                let (glob, keys) = PATTERNS[pattern];
                let mut changing = Changing { history: &self.history, all: vec![], done: false };
                for key in keys.iter().filter(|key| **key < self.setup.keys) {
                    let version = self.history.commit(*key, true);
                    changing.all.push(self.history.changes(self.by, *key, version));
                }
                let begin = self.history.now();
                changing.done = match glob {
                    "*" => self.cache.clear().await.is_ok(),
                    _ => self.cache.delete_by_pattern(glob).await.is_ok(),
                };
                keeps(&self.history, self.by, "a pattern", begin, PATTERN + PUBLISH);
            }
        }
    }

    async fn get(&self, key: usize) {
        let begin = self.history.stamp();
        let mut get = pin!(self.cache.get(KEYS[key]));
        // What memory has is there at the first poll.
        let first = poll_fn(|context| Poll::Ready(get.as_mut().poll(context))).await;
        let (found, place) = match first {
            Poll::Ready(found) => (found, Place::Memory),
            Poll::Pending => (get.await, Place::Level),
        };
        keeps(&self.history, self.by, "get", begin.at, LEVEL_READ);
        if let Some(found) = found {
            self.read(key, begin, Some(*found), place, false, false);
        }
    }

    async fn load(&self, key: usize, load: Load, last: bool) {
        let begin = self.history.stamp();
        let mut timeouts = Timeouts::none();
        if let Some(soft) = load.soft {
            timeouts = timeouts.soft(ms(load.hard.map_or(soft, |hard| soft.min(hard))));
        }
        if let Some(hard) = load.hard {
            timeouts = timeouts.hard(ms(hard));
        }
        let (history, road, by) = (self.history.clone(), self.road.clone(), self.by);
        let loader = move || {
            let write = history.called(by, key, begin);
            let loading = Loading { history, write };
            async move {
                pass(load.before).await;
                road.passes().await;
                let (version, exists) = loading.history.loads(write);
                pass(load.after).await;
                road.passes().await;
                match load.end {
                    LoadEnd::Well => Ok(exists.then(|| value(version, write))),
                    LoadEnd::Fails => Err("as the plan wants"),
                    LoadEnd::Panics => panic!("as the plan wants"),
                    LoadEnd::Hangs => std::future::pending().await,
                }
            }
        };
        let mut request = self.cache.get_or_set(KEYS[key], loader).timeouts(timeouts);
        if load.refresh {
            request = request.refresh();
        }
        let (answer, joined) = noticing_joins(request.outcome()).await;
        keeps(&self.history, by, "a load", begin.at, load.hard.unwrap_or(WITHOUT_HARD));
        match answer {
            Ok(outcome) => {
                let place = match outcome.source {
                    Source::L1 => Place::Memory,
                    // What the load of another found there, before this call began perhaps: that is
                    // in memory now, and as good as from there.
                    Source::L2 if joined => Place::JoinedLevel,
                    Source::L2 => Place::Level,
                    Source::Loader => Place::Loader,
                    _ => Place::Joined,
                };
                let found = outcome.value.map(|value| *value);
                self.read(key, begin, found, place, outcome.stale.is_some(), last);
            }
            Err(error) if last => {
                self.history.violated("R4", format!("instance {by} cannot load: {error}"));
            }
            Err(_) => {}
        }
    }

    fn read(
        &self,
        key: usize,
        begin: crate::history::Stamp,
        found: Option<u64>,
        place: Place,
        stale: bool,
        last: bool,
    ) {
        let end = self.history.stamp();
        let found = found.map(|found| parts(found).1);
        let read = Read { by: self.by, key, begin, end, found, place, stale, last };
        self.history.with(|record| record.reads.push(read));
    }
}

thread_local! {
    static JOINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the call joined the load of another.
async fn noticing_joins<T>(call: impl Future<Output = T>) -> (T, bool) {
    let mut call = pin!(call);
    let mut joined = false;
    let answer = poll_fn(|context| {
        JOINED.set(false);
        let polled = call.as_mut().poll(context);
        joined |= JOINED.get();
        polled
    });
    (answer.await, joined)
}

async fn pass(millis: u64) {
    if millis > 0 {
        sleep(ms(millis)).await;
    }
}

/// Changes on their way, written down however they end.
struct Changing<'a> {
    history: &'a History,
    all: Vec<usize>,
    done: bool,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.all.iter().for_each(|change| self.history.changed(*change, self.done));
    }
}

/// A loader that runs.
struct Loading {
    history: History,
    write: usize,
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.history.loaded(self.write);
    }
}
