//! A life of an instance in a process of its own: its cache, and those who call it until they are
//! told to stop, or until it is killed. One thread, as in the simulation: what several threads of a
//! process do to each other is for other tests.

use std::{cell::Cell, io::BufRead, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use lazy_layers_cache::{
    DistributedLock, Event, EventBusOptions, HandlerGuard, L2Timeouts, RedisStore, WireCodec,
};
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Builder,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::{JoinSet, LocalSet},
    time::sleep,
};

use super::{
    keys::{COLD, HOT, names},
    machine::{Machine, Origin, tape},
    servers::broker::{Kind, way},
};
use crate::{
    caller::{Cache, Caller, LEVEL_WRITE, PATTERN, PUBLISH, hears, ms},
    ground::Fact,
    history::History,
    noted::Noted,
    plan::{Call, Load, LoadEnd},
    road::Plain,
};

/// What a process is told of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) by: usize,
    pub(super) slot: usize,
    pub(super) seed: u64,
    /// The history's, in nanoseconds of the clock.
    pub(super) start: u64,
    /// Where the tapes and the origin are.
    pub(super) dir: PathBuf,
    /// The number of the bus in [`KINDS`].
    pub(super) kind: usize,
    pub(super) bus_port: u16,
    pub(super) level_port: u16,
    /// Of the history, so that none hears of another.
    pub(super) namespace: String,
    pub(super) confirms: bool,
    pub(super) locks: bool,
    pub(super) broadcasts: bool,
}

pub(super) const KINDS: [Kind; 5] =
    [Kind::Redis, Kind::Nats, Kind::JetStream, Kind::Passing, Kind::Durable];

/// The number of what an incarnation writes down first: there is room for a million each.
pub(super) const fn first(by: usize) -> usize {
    by << 20
}

const WORKERS: u64 = 8;
/// Milliseconds between two calls, at most: what a broker that writes all to a disk can bear.
const PAUSE: u64 = 80;
const CLOSE: u64 = 2_000;

/// Lives. What it is told comes line by line, and is answered when it is done.
pub(super) fn live(life: &str) {
    let life: Life = serde_json::from_str(life).expect("a life");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, Living::begin(life).live(told()));
}

/// Lines of our parent; it ends when the parent does.
fn told() -> UnboundedReceiver<String> {
    let (sender, lines) = unbounded_channel();
    std::thread::spawn(move || {
        let all = std::io::stdin().lock().lines().map_while(Result::ok);
        all.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    lines
}

struct Living {
    life: Life,
    caller: Rc<Caller>,
    goes_on: Rc<Cell<bool>>,
    tasks: JoinSet<()>,
    _events: HandlerGuard,
}

impl Living {
    fn begin(life: Life) -> Self {
        let names = Arc::new(names());
        let origin = Origin::open(&life.dir, names.keys.len());
        let ground = Machine::new(life.start, origin, Some(&tape(&life.dir, life.by)));
        let history = History::new(ground, names, first(life.by));
        history.with(|record| record.bounds = super::BOUNDS);
        let by = life.by;
        let cache = build(&life, &history);
        let events = {
            let history = history.clone();
            cache.on(move |event| {
                hears(&history, by, event);
                tells(&history, event);
            })
        };
        let caller = Rc::new(Caller { by, cache, road: None, history });
        let goes_on = Rc::new(Cell::new(true));
        Self { life, caller, goes_on, tasks: JoinSet::new(), _events: events }
    }

    async fn live(mut self, mut told: UnboundedReceiver<String>) {
        let listener = self.caller.cache.clone();
        self.tasks.spawn_local(async move { drop(listener.ready().await) });
        for worker in 0..WORKERS {
            let random = fastrand::Rng::with_seed(self.life.seed ^ worker << 32);
            self.tasks.spawn_local(works(Rc::clone(&self.caller), self.going(), random));
        }
        self.tasks.spawn_local(looks(Rc::clone(&self.caller), self.going()));
        self.tasks.spawn_local(deletes(Rc::clone(&self.caller), self.going()));
        while let Some(line) = told.recv().await {
            match &*line {
                "stop" => self.stop().await,
                "last" => self.last().await,
                "close" => self.close().await,
                _ => panic!("told to {line}"),
            }
            println!("{line}");
        }
    }

    fn going(&self) -> impl Fn() -> bool + 'static {
        let goes_on = Rc::clone(&self.goes_on);
        move || goes_on.get()
    }

    async fn stop(&mut self) {
        self.goes_on.set(false);
        while let Some(ended) = self.tasks.join_next().await {
            if ended.is_err() {
                self.caller.history.violated("panic", "a call panicked".to_owned());
            }
        }
    }

    /// All is well again: it knows, and is current.
    async fn last(&self) {
        let Caller { by, cache, history, .. } = &*self.caller;
        let health = cache.health();
        if health.event_bus.as_ref().is_none_or(|bus| bus.waiting > 0 || !bus.trusted) {
            history.violated("R4", format!("instance {by} is not well again: {health:?}"));
        }
        for key in 0..history.names().keys.len() {
            self.caller.load(key, Load::WELL, true).await;
        }
    }

    async fn close(&self) {
        let Caller { by, cache, history, .. } = &*self.caller;
        let begin = history.now();
        cache.close().await;
        history.took(*by, "close", begin, CLOSE + 1_000 + CLOSE + PUBLISH);
    }
}

fn build(life: &Life, history: &History) -> Cache {
    let store = RedisStore::at(format!("redis://127.0.0.1:{}/", life.level_port));
    let store = Noted::new(store.build().expect("sound options"), life.by, history);
    // The same in every history on a broker: queues that stay must not become more and more.
    let bus = way(KINDS[life.kind], life.bus_port, &format!("slot-{}", life.slot));
    let options = EventBusOptions::default().namespace(&*life.namespace);
    let mut builder = Cache::builder()
        // Long: what is old must not go by itself.
        .ttl(Duration::from_secs(600))
        .l2(store, Plain)
        .l2_timeouts(L2Timeouts::default().pattern(ms(PATTERN)))
        .event_bus(bus, WireCodec::new())
        .event_bus_options(options.confirm_deletes(life.confirms))
        .broadcast_set(life.broadcasts)
        .close_timeout(ms(CLOSE));
    if life.locks {
        builder = builder.distributed_lock(DistributedLock::enabled());
    }
    builder.build().expect("sound options")
}

/// What it hears is written down where it counts, see `told`.
fn tells(history: &History, event: &Event<'_>) {
    match event {
        Event::BusSubscribed { .. } => history.tell(|| Fact::Listens(history.stamp())),
        Event::InvalidationReceived { pattern: Some("*"), .. } => {
            history.tell(|| Fact::HeardAll(history.stamp()));
        }
        Event::InvalidationReceived { keys, .. } => {
            for key in keys.iter().filter(|key| key.starts_with(ONCE)) {
                history.tell(|| Fact::Heard((*key).to_owned()));
            }
        }
        _ => {}
    }
}

async fn works(caller: Rc<Caller>, goes_on: impl Fn() -> bool, mut random: fastrand::Rng) {
    while goes_on() {
        caller.make(call(&mut random)).await;
        caller.history.called_once_more();
        sleep(ms(random.u64(0..PAUSE))).await;
    }
}

/// Looks at all that memory has, again and again: nothing old goes unseen.
async fn looks(caller: Rc<Caller>, goes_on: impl Fn() -> bool) {
    while goes_on() {
        for key in 0..caller.history.names().keys.len() {
            caller.make(Call::GetL1(key)).await;
        }
        sleep(ms(200)).await;
    }
}

/// What keys are called that are deleted once: so each of these deletes can be missed.
const ONCE: &str = "once:";

async fn deletes(caller: Rc<Caller>, goes_on: impl Fn() -> bool) {
    let Caller { by, cache, history, .. } = &*caller;
    let mut number = 0;
    while goes_on() {
        let (key, begin) = (format!("{ONCE}{by}:{number}"), history.stamp());
        let done = cache.delete(&*key).await.is_ok();
        history.took(*by, "delete", begin.at, LEVEL_WRITE + PUBLISH);
        history.tell(|| Fact::Told { key: key.clone(), begin, done });
        history.called_once_more();
        number += 1;
        sleep(ms(50)).await;
    }
}

fn call(random: &mut fastrand::Rng) -> Call {
    let mut key = |hot: f64| {
        let keys = if random.f64() < hot { HOT } else { COLD };
        random.usize(keys)
    };
    let read = key(0.4);
    // So seldom changed that what was missed is not soon put right by the next.
    let changed = key(0.85);
    match random.u32(0..1_000) {
        0..=99 => Call::GetL1(read),
        100..=199 => Call::Get(read),
        200..=229 => Call::Has(read),
        230..=899 => Call::Load(read, load(random)),
        900..=969 => Call::Delete { key: changed, exists: random.f64() < 0.95 },
        970..=997 => Call::Set(changed),
        _ => Call::Pattern(*random.choice(&[0, 0, 0, 1, 1, 1, 2, 3]).expect("some")),
    }
}

fn load(random: &mut fastrand::Rng) -> Load {
    let mut takes = || *random.choice(&[0, 0, 0, 1, 5, 20, 100]).expect("some");
    let (before, after) = (takes(), takes());
    let hard = (random.f64() < 0.1).then(|| random.u64(1_000..2_000));
    let refresh = random.f64() < 0.03;
    Load { before, after, end: LoadEnd::Well, soft: None, hard, refresh }
}
