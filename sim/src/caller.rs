//! What is asked of an instance, and what is written down of it.

use std::{cell::Cell, future::poll_fn, pin::pin, task::Poll, time::Duration};

use lazy_layers_cache::{Event, LazyLayersCache, Source, Timeouts};
use tokio::time::sleep;

use crate::{
    history::History,
    plan::{Call, Load, LoadEnd},
    record::{Place, Read, Stamp},
    road::{Road, parts, value},
};

pub(crate) type Cache = LazyLayersCache<String, u64>;

/// What a call of the shared level may take, and of the bus: the cache's defaults, but for
/// patterns.
pub(crate) const LEVEL_READ: u64 = 500;
pub(crate) const LEVEL_WRITE: u64 = 1_000;
pub(crate) const PATTERN: u64 = 2_000;
pub(crate) const PUBLISH: u64 = 1_000;
/// A load without a hard timeout: three that are joined and come to nothing, and its own, each
/// with the lock and the shared level around it; and as long as an instance stands still.
pub(crate) const WITHOUT_HARD: u64 = 4 * (3 * LEVEL_READ + 6_000 + 8_000 + LEVEL_WRITE) + 8_000;
pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One who calls an instance.
pub(crate) struct Caller {
    pub(crate) by: usize,
    pub(crate) cache: Cache,
    /// What stands still with the instance, if that is simulated.
    pub(crate) road: Option<Road>,
    pub(crate) history: History,
}

impl Caller {
    pub(crate) async fn make(&self, call: Call) {
        match call {
            Call::GetL1(key) => {
                let begin = self.history.stamp();
                let found = self.cache.get_l1(self.history.key(key)).map(|it| *it);
                if found.is_some() {
                    self.read(key, begin, found, Place::Memory, false, false);
                }
            }
            Call::Get(key) => self.get(key).await,
            Call::Has(key) => {
                let begin = self.history.now();
                self.cache.has(self.history.key(key)).await;
                self.history.took(self.by, "has", begin, LEVEL_READ);
            }
            Call::Load(key, load) => self.load(key, load, false).await,
            Call::Delete { key, exists } => {
                let version = self.history.commit(key, exists);
                let change = self.history.changes(self.by, key, version);
                let mut changing =
                    Changing { history: &self.history, all: vec![change], done: false };
                let begin = self.history.now();
                changing.done = self.cache.delete(self.history.key(key)).await.is_ok();
                self.history.took(self.by, "delete", begin, LEVEL_WRITE + PUBLISH);
            }
            Call::Set(key) => {
                let version = self.history.commit(key, true);
                let change = self.history.changes(self.by, key, version);
                let mut changing =
                    Changing { history: &self.history, all: vec![change], done: false };
                let write = self.history.sets(key, version, change);
                let begin = self.history.now();
                let value = value(version, write);
                changing.done = self.cache.set(self.history.key(key), value).await.is_ok();
                self.history.took(self.by, "set", begin, 2 * LEVEL_WRITE + PUBLISH);
            }
            Call::Pattern(pattern) => {
                let (glob, keys) = &self.history.names().patterns[pattern];
                let mut changing = Changing { history: &self.history, all: vec![], done: false };
                for key in keys {
                    let version = self.history.commit(*key, true);
                    changing.all.push(self.history.changes(self.by, *key, version));
                }
                let begin = self.history.now();
                changing.done = match &**glob {
                    "*" => self.cache.clear().await.is_ok(),
                    glob => self.cache.delete_by_pattern(glob).await.is_ok(),
                };
                self.history.took(self.by, "a pattern", begin, PATTERN + PUBLISH);
            }
        }
    }

    async fn get(&self, key: usize) {
        let begin = self.history.stamp();
        let mut get = pin!(self.cache.get(self.history.key(key)));
        // What memory has is there at the first poll.
        let first = poll_fn(|context| Poll::Ready(get.as_mut().poll(context))).await;
        let (found, place) = match first {
            Poll::Ready(found) => (found, Place::Memory),
            Poll::Pending => (get.await, Place::Level),
        };
        self.history.took(self.by, "get", begin.at, LEVEL_READ);
        if let Some(found) = found {
            self.read(key, begin, Some(*found), place, false, false);
        }
    }

    pub(crate) async fn load(&self, key: usize, load: Load, last: bool) {
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
                passes(road.as_ref()).await;
                let (version, exists) = loading.history.loads(write);
                pass(load.after).await;
                passes(road.as_ref()).await;
                match load.end {
                    LoadEnd::Well => Ok(exists.then(|| value(version, write))),
                    LoadEnd::Fails => Err("as the plan wants"),
                    LoadEnd::Panics => panic!("as the plan wants"),
                    LoadEnd::Hangs => std::future::pending().await,
                }
            }
        };
        let mut request = self.cache.get_or_set(self.history.key(key), loader).timeouts(timeouts);
        if load.refresh {
            request = request.refresh();
        }
        let (answer, joined) = noticing_joins(request.outcome()).await;
        self.history.took(by, "a load", begin.at, load.hard.unwrap_or(WITHOUT_HARD));
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
        begin: Stamp,
        found: Option<u64>,
        place: Place,
        stale: bool,
        last: bool,
    ) {
        let end = self.history.stamp();
        let found = found.map(|found| parts(found).1);
        let read = Read { by: self.by, key, begin, end, found, place, stale, last };
        self.history.reads(read);
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

async fn passes(road: Option<&Road>) {
    if let Some(road) = road {
        road.passes().await;
    }
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

/// After what is heard, loads may begin beside those that run.
pub(crate) fn hears(history: &History, by: usize, event: &Event<'_>) {
    let void = |name: &str| {
        if let Some(key) = history.key_of(name) {
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
