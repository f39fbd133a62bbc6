//! Runs a plan: instances, the store and the bus between them, callers, and faults.

use std::sync::Arc;

use lazy_layers_cache::{
    CacheManager, CacheOptions, CircuitBreaker, DistributedLock, EventBus, EventBusOptions,
    FailSafe, HandlerGuard, L2Timeouts, NegativeCache, Store, WireCodec,
    testing::{BusFaults, BusLink, SharedBus, SharedStore, StoreSnapshot, TokioClock},
};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    any_store::AnyStore,
    caller::{Cache, Caller, L2_READ, L2_WRITE, PATTERN, PUBLISH, WITHOUT_HARD, ms, on_event},
    environment::{Names, SimulatedEnvironment},
    faulty_store::FaultyStore,
    history::{FaultWindow, History, Incarnation},
    instance_clock::InstanceClock,
    neighbour::Neighbour,
    plan::{Action, Call, Fault, KEYS, LinkFault, Load, PATTERNS, Plan, Setup, StoreFaults},
    recorder::Recorder,
    recording_store::RecordingStore,
    recording_transport::RecordingTransport,
    sibling::{self, Sibling},
    slow_transport::SlowTransport,
};

/// Runs a plan, and returns its history. Must not be called inside a runtime.
#[must_use]
pub fn run(plan: &Plan) -> History {
    // The random numbers of the library.
    fastrand::seed(plan.seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    // All of it inside the runtime: outside, tokio's clock is that of the system.
    runtime.expect("a runtime").block_on(async { Simulation::new(plan).run(plan).await })
}

struct Simulation {
    setup: Setup,
    seed: u64,
    recorder: Recorder,
    start: Instant,
    bus: SharedBus,
    store: SharedStore,
    /// The part of the siblings, whose keys have the same names.
    siblings_store: SharedStore,
    /// Records nothing that is checked.
    siblings_recorder: Recorder,
    slots: Vec<Slot>,
    store_faults: Vec<StoreFaults>,
    /// A copy of the store, for a restart with old data.
    saved: Option<StoreSnapshot>,
    /// Instances that close, with their last calls.
    closing: JoinSet<()>,
    neighbour: Option<Neighbour>,
    /// When the last subscriber that was behind is up to date. One that subscribes while it is
    /// behind is so as soon as its first probe is back.
    behind_until: u64,
    /// While the bus is split, the slots below this number are one side; with their links.
    apart: (usize, Vec<BusLink>),
}

struct Slot {
    by: usize,
    cache: Cache,
    link: BusLink,
    store: FaultyStore,
    /// The store of the sibling, with the same faults.
    sibling_store: FaultyStore,
    clock: InstanceClock,
    is_frozen: bool,
    /// Calls that wait until the instance is thawed.
    delayed: Vec<(Call, Option<u64>)>,
    calls: JoinSet<()>,
    sibling: Option<Sibling>,
    _events: HandlerGuard,
}

const CLOSE: u64 = 2_000;
/// From the end of all faults until all instances are up to date.
const RECOVERY: u64 = 5_000;
/// Until a peer that was killed is forgotten. L1 is uncertain until then.
const FORGOTTEN: u64 = 61_000;
/// The time until a subscription has begun again.
const RESUBSCRIBE: u64 = 1_500;
/// The limit of one attempt to subscribe.
const SUBSCRIBE_LIMIT: u64 = 1_000;

#[derive(Clone, Copy)]
enum Moment<'a> {
    Action(&'a Action),
    End(&'a Fault),
}

impl Simulation {
    fn new(plan: &Plan) -> Self {
        let recorder = || {
            let environment = SimulatedEnvironment::new(KEYS.len());
            Recorder::new(environment, names(plan.setup.keys).into(), 0)
        };
        Self {
            setup: plan.setup,
            seed: fastrand::Rng::with_seed(!plan.seed).u64(..),
            recorder: recorder(),
            start: Instant::now(),
            bus: SharedBus::new(plan.seed),
            store: SharedStore::new(TokioClock::new()),
            siblings_store: SharedStore::new(TokioClock::new()),
            siblings_recorder: recorder(),
            slots: Vec::new(),
            store_faults: Vec::new(),
            saved: None,
            closing: JoinSet::new(),
            neighbour: None,
            behind_until: 0,
            apart: (0, Vec::new()),
        }
    }

    async fn run(mut self, plan: &Plan) -> History {
        let fair = StoreFaults { slowest: self.setup.l2_latency, ..StoreFaults::default() };
        self.recorder.with(|history| history.l2_is_complete = self.setup.has_l2);
        self.store_faults = vec![fair; self.setup.instances];
        for slot in 0..self.setup.instances {
            let new = self.start(slot);
            self.slots.push(new);
        }
        if self.setup.has_neighbour {
            self.neighbour = Some(Neighbour::start(&self.bus, self.seed, &self.recorder));
        }
        let mut moments: Vec<(u64, Moment<'_>)> = Vec::with_capacity(plan.steps.len() + 64);
        for step in &plan.steps {
            moments.push((step.at, Moment::Action(&step.action)));
            if let Action::Fault(fault) = &step.action
                && fault.lasts() > 0
            {
                moments.push((step.at + fault.lasts(), Moment::End(fault)));
            }
        }
        moments.sort_by_key(|(at, _)| *at);
        for (at, moment) in moments {
            sleep_until(self.start + ms(at)).await;
            match moment {
                Moment::Action(Action::Call { slot, call, cancel_after }) => {
                    self.call(*slot, *call, *cancel_after);
                }
                Moment::Action(Action::Fault(fault)) => self.begin_fault(fault),
                Moment::End(fault) => self.end_fault(fault, fair),
            }
        }
        self.finish().await;
        self.recorder.finish()
    }

    fn start(&mut self, slot: usize) -> Slot {
        let began = self.recorder.now();
        let by = self.recorder.with(|history| {
            let confirms = self.setup.confirms;
            history.incarnations.push(Incarnation { slot, began, ended: None, confirms });
            history.incarnations.len() - 1
        });
        self.recorder.with(|history| {
            let to = began + 400;
            history.fault_windows.push(FaultWindow {
                disconnected: true,
                ..FaultWindow::new(Some(slot), began, to)
            });
        });
        let (setup, link) = (self.setup, self.bus.link());
        let seed = self.seed ^ (by as u64) << 40;
        let inner = SlowTransport { link: link.clone(), seed };
        let transport = RecordingTransport { inner, recorder: self.recorder.clone(), by };
        let store = FaultyStore::new(self.store.clone(), &self.recorder, seed);
        let sibling_store =
            FaultyStore::new(self.siblings_store.clone(), &self.siblings_recorder, !seed);
        for store in [&store, &sibling_store] {
            store.set_faults(self.store_faults[slot]);
        }
        let recording = RecordingStore::new(store.clone(), by, &self.recorder);
        let clock = InstanceClock::new();
        let breaker = CircuitBreaker::default().cooldown(ms(1_000));
        let mut options = CacheOptions::default()
            .ttl(setup.ttl)
            .event_bus(EventBusOptions::default().confirm_deletes(setup.confirms))
            .event_bus_circuit_breaker(breaker.clone())
            .l2_circuit_breaker(breaker)
            .l2_timeouts(
                L2Timeouts::default().read(ms(L2_READ)).write(ms(L2_WRITE)).pattern(ms(PATTERN)),
            )
            .broadcast_set(setup.broadcasts)
            .close_timeout(ms(CLOSE));
        if setup.fail_safe {
            options = options.fail_safe(FailSafe::enabled().throttle(ms(500)));
        }
        if setup.locks {
            options = options.distributed_lock(DistributedLock::enabled());
        }
        if setup.negative_cache {
            options = options.negative_cache(NegativeCache::enabled());
        }
        let mut sibling = None;
        let builder = if setup.has_siblings {
            let mut manager = CacheManager::builder()
                .clock(clock.clone())
                .options(options)
                .event_bus(EventBus::new(transport));
            if setup.has_l2 {
                let stores: [Arc<dyn Store>; 2] =
                    [Arc::new(recording), Arc::new(sibling_store.clone())];
                manager = manager.l2(move |name| {
                    AnyStore(Arc::clone(&stores[usize::from(name == sibling::NAME)]))
                });
            }
            let manager = manager.build().expect("sound options");
            sibling = Some(Sibling::start(&manager, &clock, seed, &self.recorder));
            manager.cache("sim")
        } else {
            let builder = Cache::builder().options(options).name("sim").clock(clock.clone());
            let builder = builder.event_bus(transport, WireCodec::new());
            if setup.has_l2 { builder.l2(recording, WireCodec::new()) } else { builder }
        };
        let cache = builder.build().expect("sound options");
        let recorder = self.recorder.clone();
        let events = cache.on(move |event| on_event(&recorder, by, event));
        let (mut calls, listener) = (JoinSet::new(), cache.clone());
        calls.spawn(async move { drop(listener.ready().await) });
        Slot {
            by,
            cache,
            link,
            store,
            sibling_store,
            clock,
            is_frozen: false,
            delayed: Vec::new(),
            calls,
            sibling,
            _events: events,
        }
    }

    fn call(&mut self, slot: usize, call: Call, cancel_after: Option<u64>) {
        let slot = &mut self.slots[slot];
        if slot.is_frozen {
            if self.setup.delays_calls {
                slot.delayed.push((call, cancel_after));
            }
            return;
        }
        let caller = Caller {
            by: slot.by,
            cache: slot.cache.clone(),
            store: Some(slot.store.clone()),
            recorder: self.recorder.clone(),
        };
        slot.calls.spawn(async move {
            let made = caller.make(call);
            match cancel_after {
                Some(patience) => drop(timeout(ms(patience), made).await),
                None => made.await,
            }
            caller.recorder.call_ended();
        });
        reap(&self.recorder, &mut slot.calls);
    }

    fn begin_fault(&mut self, fault: &Fault) {
        let now = self.recorder.now();
        let end = now + fault.lasts();
        let add = |new| self.recorder.with(|history| history.fault_windows.push(new));
        let window = |slot, to, delays_publish, disconnected| {
            add(FaultWindow { delays_publish, disconnected, ..FaultWindow::new(slot, now, to) });
        };
        let cut_off = |slot, to| FaultWindow {
            delays_publish: true,
            cut_off: true,
            ..FaultWindow::new(slot, now, to)
        };
        match *fault {
            Fault::Bus(faults, _) => {
                let late = u64::try_from(faults.longest_delay.as_millis()).expect("short");
                if faults.refuses_all {
                    add(cut_off(None, end));
                } else {
                    let delays = faults.fails > 0.0 || faults.max_message_bytes.is_some();
                    window(None, end + late, delays, false);
                }
                self.bus.set_faults(faults);
            }
            Fault::Link(slot, how, _) => {
                let link = &self.slots[slot].link;
                match how {
                    LinkFault::Cut => {
                        let cut = cut_off(Some(slot), end + RESUBSCRIBE);
                        add(FaultWindow { disconnected: true, ..cut });
                        link.cut();
                    }
                    LinkFault::Deaf => {
                        window(Some(slot), end, false, false);
                        link.drop_incoming();
                    }
                    LinkFault::Frozen => {
                        let frozen = cut_off(Some(slot), end + SUBSCRIBE_LIMIT + RESUBSCRIBE);
                        add(FaultWindow { disconnected: true, ..frozen });
                        link.freeze();
                    }
                }
            }
            Fault::Split(slots, _) => {
                add(FaultWindow { split: Some(slots), ..cut_off(None, end) });
                let links = self.slots[..slots].iter().map(|slot| slot.link.clone());
                self.apart = (slots, links.collect());
                self.split();
            }
            Fault::Behind(slot, by, lasts) => {
                window(Some(slot), end + by + RESUBSCRIBE, false, true);
                self.behind_until = self.behind_until.max(end + by + RESUBSCRIBE);
                let link = &self.slots[slot].link;
                if lasts % 2 == 0 { link.lag_all(ms(by)) } else { link.lag(ms(by)) }
            }
            Fault::Freeze(slot, _) => {
                window(Some(slot), end + SUBSCRIBE_LIMIT + RESUBSCRIBE, true, true);
                let slot = &mut self.slots[slot];
                slot.link.freeze();
                slot.store.set_frozen(true);
                slot.sibling_store.set_frozen(true);
                slot.clock.freeze();
                slot.is_frozen = true;
            }
            Fault::Store(slot, faults, _) => self.set_store_faults(slot, faults),
            Fault::StoreRestartsEmpty => {
                self.recorder.with(|history| history.l2_is_complete = false);
                for store in [&self.store, &self.siblings_store] {
                    store.restart();
                    store.reconnect();
                }
            }
            Fault::StoreRestartsOld(_) => self.saved = Some(self.store.snapshot()),
            Fault::Kill(slot) => {
                let killed = self.replace(slot);
                // The drop of a cache sends a goodbye, which a killed process does not.
                killed.link.freeze();
            }
            Fault::Close(slot) => {
                let old = self.replace(slot);
                self.close(old);
            }
            Fault::ClockJump(slot, by) => {
                let slot = &self.slots[slot];
                slot.clock.jump(by);
                self.recorder.clock_jumped(slot.by);
            }
            Fault::Garbage => self.bus.inject(b"no event at all"),
        }
    }

    fn end_fault(&mut self, fault: &Fault, fair: StoreFaults) {
        match *fault {
            Fault::Bus(..) => self.bus.set_faults(BusFaults::default()),
            Fault::Link(slot, ..) | Fault::Behind(slot, ..) => self.slots[slot].link.restore(),
            Fault::Split(..) => {
                self.apart = (0, Vec::new());
                self.split();
            }
            Fault::Freeze(slot, _) => self.thaw(slot),
            Fault::Store(slot, ..) => self.set_store_faults(slot, fair),
            Fault::StoreRestartsOld(_) => {
                if let Some(saved) = self.saved.take() {
                    self.recorder.with(|history| history.l2_is_complete = false);
                    self.store.restart_with(&saved);
                }
            }
            _ => {}
        }
    }

    fn set_store_faults(&mut self, slot: Option<usize>, faults: StoreFaults) {
        let slots = slot.map_or(0..self.slots.len(), |slot| slot..slot + 1);
        for slot in slots {
            self.store_faults[slot] = faults;
            self.slots[slot].store.set_faults(faults);
            self.slots[slot].sibling_store.set_faults(faults);
        }
    }

    fn split(&self) {
        self.bus.split(&self.apart.1.iter().collect::<Vec<_>>());
    }

    fn replace(&mut self, slot: usize) -> Slot {
        self.thaw(slot);
        let by = self.slots[slot].by;
        let now = self.recorder.now();
        self.recorder.with(|history| history.incarnations[by].ended = Some(now));
        let new = self.start(slot);
        // An instance that is started during a split is on the side of the one before it.
        if slot < self.apart.0 {
            self.apart.1.push(new.link.clone());
            self.split();
        }
        std::mem::replace(&mut self.slots[slot], new)
    }

    /// Thaws an instance. Calls that were delayed begin at once, before a message arrives.
    fn thaw(&mut self, slot: usize) {
        let thawed = &mut self.slots[slot];
        thawed.is_frozen = false;
        thawed.clock.thaw();
        thawed.store.set_frozen(false);
        thawed.sibling_store.set_frozen(false);
        for (call, cancel_after) in std::mem::take(&mut thawed.delayed) {
            self.call(slot, call, cancel_after);
        }
        self.slots[slot].link.restore();
    }

    fn close(&mut self, old: Slot) {
        let recorder = self.recorder.clone();
        self.closing.spawn(async move {
            let Slot { cache, mut calls, by, mut sibling, .. } = old;
            if by % 2 == 0
                && let Some(sibling) = sibling.take()
            {
                sibling.end().await;
            }
            let begin = recorder.now();
            cache.close().await;
            // The limits of `close`: running loads, dropped loads, the outbox, and the goodbye.
            recorder.check_deadline(by, "close", begin, CLOSE + 1_000 + CLOSE + PUBLISH);
            while let Some(call) = calls.join_next().await {
                check_panic(&recorder, call);
            }
            let stats = cache.stats();
            if stats.loads_in_flight > 0 || stats.l1_entries > 0 {
                recorder.violation("left", format!("instance {by} closed with {stats:?}"));
            }
            if let Some(sibling) = sibling {
                sibling.end().await;
            }
        });
        reap(&self.recorder, &mut self.closing);
    }

    /// After the end of all faults: every instance must be up to date, and must close without
    /// remains.
    async fn finish(&mut self) {
        let recorder = self.recorder.clone();
        let all_return = async {
            for slot in &mut self.slots {
                while let Some(call) = slot.calls.join_next().await {
                    check_panic(&recorder, call);
                }
            }
            while let Some(call) = self.closing.join_next().await {
                check_panic(&recorder, call);
            }
        };
        if timeout(ms(2 * WITHOUT_HARD), all_return).await.is_err() {
            recorder.violation("R6", "some calls never return".to_owned());
            return;
        }
        sleep_until(self.start + ms(self.behind_until)).await;
        sleep(ms(RECOVERY)).await;
        for slot in &self.slots {
            let (health, by) = (slot.cache.health(), slot.by);
            if health.event_bus.as_ref().is_none_or(|bus| bus.waiting > 0 || !bus.subscribed) {
                recorder.violation("R4", format!("instance {by} is not well again: {health:?}"));
            }
        }
        for slot in &self.slots {
            let caller = Caller {
                by: slot.by,
                cache: slot.cache.clone(),
                store: Some(slot.store.clone()),
                recorder: recorder.clone(),
            };
            for key in 0..self.setup.keys {
                caller.load(key, Load::WELL, true).await;
            }
        }
        sleep(ms(FORGOTTEN)).await;
        for slot in std::mem::take(&mut self.slots) {
            let (health, by) = (slot.cache.health(), slot.by);
            if health.event_bus.as_ref().is_none_or(|bus| !bus.trusted) {
                recorder.violation("R4", format!("instance {by} does not trust L1: {health:?}"));
            }
            self.close(slot);
        }
        while let Some(call) = self.closing.join_next().await {
            check_panic(&recorder, call);
        }
        if let Some(neighbour) = self.neighbour.take() {
            neighbour.close().await;
        }
        // Abandoned requests to the store still happen.
        sleep(ms(10_000)).await;
        let tasks = Handle::current().metrics().num_alive_tasks();
        if tasks > 0 {
            recorder.violation("left", format!("{tasks} tasks"));
        }
    }
}

/// Removes the calls that have returned.
fn reap(recorder: &Recorder, calls: &mut JoinSet<()>) {
    while let Some(call) = calls.try_join_next() {
        check_panic(recorder, call);
    }
}

fn check_panic(recorder: &Recorder, call: Result<(), tokio::task::JoinError>) {
    if let Err(error) = call
        && error.is_panic()
    {
        recorder.violation("panic", "a call panicked".to_owned());
    }
}

/// The first `keys` keys, and all globs.
fn names(keys: usize) -> Names {
    let matched = |all: &[usize]| all.iter().copied().filter(|key| *key < keys).collect();
    Names {
        keys: KEYS.map(str::to_owned).into(),
        patterns: PATTERNS.iter().map(|(glob, all)| ((*glob).to_owned(), matched(all))).collect(),
    }
}
