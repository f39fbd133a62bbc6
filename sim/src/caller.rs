//! Calls an instance, and records what it answers.

use std::{cell::Cell, future::poll_fn, pin::pin, task::Poll, time::Duration};

use lazy_layers_cache::{
    BusEffect, Error, Event, L2Effect, LazyLayersCache, Loaded, Source, Timeouts, WriteReport,
};
use tokio::time::sleep;

use crate::{
    faulty_store::{FaultyStore, parts, value},
    history::{Read, ReadSource, Stamp},
    neighbour::is_foreign,
    plan::{Call, Load, LoadEnd},
    recorder::Recorder,
};

pub(crate) type Cache = LazyLayersCache<String, u64>;

/// Limits of calls of the store and of the bus, in milliseconds: the cache's defaults, except for
/// patterns.
pub(crate) const L2_READ: u64 = 500;
pub(crate) const L2_WRITE: u64 = 1_000;
pub(crate) const PATTERN: u64 = 2_000;
pub(crate) const PUBLISH: u64 = 1_000;
/// Limit of a load without a hard timeout: three joined loads that fail, and its own load, each
/// with the lock and the calls of the store around it; and the longest freeze of an instance.
pub(crate) const WITHOUT_HARD: u64 = 4 * (3 * L2_READ + 6_000 + 8_000 + L2_WRITE) + 8_000;
pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A caller of an instance.
pub(crate) struct Caller {
    pub(crate) by: usize,
    pub(crate) cache: Cache,
    /// The connection of the instance to the simulated store, which freezes with the instance.
    pub(crate) store: Option<FaultyStore>,
    pub(crate) recorder: Recorder,
}

impl Caller {
    pub(crate) async fn make(&self, call: Call) {
        match call {
            Call::GetL1(key) => {
                let begin = self.recorder.stamp();
                let found = self.cache.get_l1(self.recorder.key(key)).map(|it| *it);
                if found.is_some() {
                    self.read(key, begin, found, ReadSource::L1, false, false);
                }
            }
            Call::Get(key) => self.get(key).await,
            Call::Has(key) => {
                let begin = self.recorder.now();
                self.cache.has(self.recorder.key(key)).await;
                self.recorder.check_deadline(self.by, "has", begin, L2_READ);
            }
            Call::Load(key, load) => self.load(key, load, false).await,
            Call::Delete { key, exists } => {
                let version = self.recorder.commit(key, exists);
                let change = self.recorder.change_begins(self.by, key, version);
                let mut changing = Changing::new(&self.recorder, vec![change]);
                let begin = self.recorder.now();
                changing.ends(self.cache.delete(self.recorder.key(key)).await);
                self.recorder.check_deadline(self.by, "delete", begin, L2_WRITE + PUBLISH);
            }
            Call::Set(key) => {
                let version = self.recorder.commit(key, true);
                let change = self.recorder.change_begins(self.by, key, version);
                let mut changing = Changing::new(&self.recorder, vec![change]);
                let write = self.recorder.set_begins(key, version, change);
                let begin = self.recorder.now();
                let value = value(version, write);
                changing.ends(self.cache.set(self.recorder.key(key), value).await);
                self.recorder.check_deadline(self.by, "set", begin, 2 * L2_WRITE + PUBLISH);
            }
            Call::Pattern(pattern) => {
                let (glob, keys) = &self.recorder.names().patterns[pattern];
                let mut changing = Changing::new(&self.recorder, vec![]);
                for key in keys {
                    let version = self.recorder.commit(*key, true);
                    changing.all.push(self.recorder.change_begins(self.by, *key, version));
                }
                let begin = self.recorder.now();
                changing.ends(match &**glob {
                    "*" => self.cache.clear().await,
                    glob => self.cache.delete_by_pattern(glob).await,
                });
                self.recorder.check_deadline(self.by, "a pattern", begin, PATTERN + PUBLISH);
            }
        }
    }

    async fn get(&self, key: usize) {
        let begin = self.recorder.stamp();
        let mut get = pin!(self.cache.get(self.recorder.key(key)));
        // A value in L1 is returned by the first poll.
        let first = poll_fn(|context| Poll::Ready(get.as_mut().poll(context))).await;
        let (found, source) = match first {
            Poll::Ready(found) => (found, ReadSource::L1),
            Poll::Pending => (get.await, ReadSource::L2),
        };
        self.recorder.check_deadline(self.by, "get", begin.at, L2_READ);
        if let Some(found) = found {
            self.read(key, begin, Some(*found), source, false, false);
        }
    }

    pub(crate) async fn load(&self, key: usize, load: Load, last: bool) {
        let begin = self.recorder.stamp();
        let mut timeouts = Timeouts::none();
        if let Some(soft) = load.soft {
            timeouts = timeouts.soft(ms(load.hard.map_or(soft, |hard| soft.min(hard))));
        }
        if let Some(hard) = load.hard {
            timeouts = timeouts.hard(ms(hard));
        }
        let (recorder, store, by) = (self.recorder.clone(), self.store.clone(), self.by);
        let loader = move || {
            let write = recorder.loader_called(by, key, begin, load.refresh);
            let loading = Loading { recorder, write };
            async move {
                pause(load.before).await;
                wait_while_frozen(store.as_ref()).await;
                let (version, exists) = loading.recorder.loader_reads(write);
                pause(load.after).await;
                wait_while_frozen(store.as_ref()).await;
                match load.end {
                    LoadEnd::Well | LoadEnd::Uncached => {
                        let loaded = value(version, write);
                        let loaded = if exists { Loaded::value(loaded) } else { Loaded::none() };
                        if load.end == LoadEnd::Well {
                            return Ok(loaded);
                        }
                        loading.recorder.is_uncached(write);
                        Ok(loaded.ttl(Duration::ZERO))
                    }
                    LoadEnd::Fails => Err("as the plan wants"),
                    LoadEnd::Panics => panic!("as the plan wants"),
                    LoadEnd::Hangs => std::future::pending().await,
                }
            }
        };
        let mut request = self.cache.get_or_set(self.recorder.key(key), loader).timeouts(timeouts);
        if load.refresh {
            request = request.refresh();
        }
        let (answer, joined) = observe_joins(request.outcome()).await;
        self.recorder.check_deadline(by, "a load", begin.at, load.hard.unwrap_or(WITHOUT_HARD));
        match answer {
            Ok(outcome) => {
                let source = match outcome.source {
                    Source::L1 => ReadSource::L1,
                    // The joined load may have read L2 before this call began. Its value counts as
                    // a value of L1.
                    Source::L2 if joined => ReadSource::JoinedL2,
                    Source::L2 => ReadSource::L2,
                    Source::Loader => ReadSource::Loader,
                    _ => ReadSource::Joined,
                };
                let found = outcome.value.map(|value| *value);
                self.read(key, begin, found, source, outcome.stale.is_some(), last);
            }
            Err(error) if last => {
                self.recorder.violation("R4", format!("instance {by} cannot load: {error}"));
            }
            Err(_) => {}
        }
    }

    fn read(
        &self,
        key: usize,
        begin: Stamp,
        found: Option<u64>,
        source: ReadSource,
        stale: bool,
        last: bool,
    ) {
        if found.is_some_and(is_foreign) {
            let how = format!("instance {} reads a value of another cache", self.by);
            self.recorder.violation("names", how);
            return;
        }
        let end = self.recorder.stamp();
        let found = found.map(|found| parts(found).1);
        let read = Read { by: self.by, key, begin, end, found, source, stale, last };
        self.recorder.read(read);
    }
}

thread_local! {
    static JOINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call, and returns also whether it joined the load of another.
async fn observe_joins<T>(call: impl Future<Output = T>) -> (T, bool) {
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

/// Whether a change has reached the store, and the bus if it waits for the bus.
pub(crate) fn is_done(report: Result<WriteReport, Error>) -> bool {
    report.is_ok_and(|it| it.l2 != L2Effect::Pending && it.bus != BusEffect::Unconfirmed)
}

async fn wait_while_frozen(store: Option<&FaultyStore>) {
    if let Some(store) = store {
        store.wait_while_frozen().await;
    }
}

async fn pause(millis: u64) {
    if millis > 0 {
        sleep(ms(millis)).await;
    }
}

/// Records the end of changes, also when the call is dropped.
struct Changing<'a> {
    recorder: &'a Recorder,
    all: Vec<usize>,
    done: bool,
    pending: bool,
}

impl<'a> Changing<'a> {
    fn new(recorder: &'a Recorder, all: Vec<usize>) -> Self {
        Self { recorder, all, done: false, pending: false }
    }

    /// Records the answer of the call.
    fn ends(&mut self, answer: Result<WriteReport, Error>) {
        self.pending = answer.as_ref().is_ok_and(|report| report.l2 == L2Effect::Pending);
        self.done = is_done(answer);
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let Self { recorder, all, done, pending } = self;
        all.iter().for_each(|change| recorder.change_ends(*change, *done, *pending));
    }
}

/// Records the end of a loader, also when it is dropped.
struct Loading {
    recorder: Recorder,
    write: usize,
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.recorder.loader_ends(self.write);
    }
}

/// Records the events after which another load of a key may begin although one is running.
pub(crate) fn on_event(recorder: &Recorder, by: usize, event: &Event<'_>) {
    let void = |name: &str| {
        if let Some(key) = recorder.key_of(name) {
            recorder.revoke_loads(by, key);
        }
    };
    match event {
        Event::InvalidationReceived { pattern: Some(_), .. }
        | Event::BusGap { .. }
        | Event::BusSubscribed { .. } => recorder.revoke_all_loads(by),
        Event::InvalidationReceived { keys, .. } => keys.iter().for_each(|key| void(key)),
        Event::InflightReuse { .. } => JOINED.set(true),
        Event::SetReceived { key, .. } => void(key),
        Event::InflightBypass { key, .. } => {
            void(key);
            if let Some(key) = recorder.key_of(key) {
                recorder.bypassed(by, key);
            }
        }
        _ => {}
    }
}
