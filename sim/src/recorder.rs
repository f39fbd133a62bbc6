//! Records a history while it happens.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use lazy_layers_cache::Lease;

use parking_lot::Mutex;

use crate::{
    environment::{Environment, Names, TapeEntry},
    history::{Change, Held, History, Late, Read, Stamp, Violation, Write, WriteOrigin},
};

/// The state from which a second load of a key is recognised (rule R7). Keyed by incarnation and
/// key.
#[derive(Default)]
struct LiveState {
    /// Leases that the store gave, and whose loader has not been called yet.
    leases: HashMap<(usize, usize), Lease>,
    /// Loads whose value is not to be cached, and whose publication the store has not answered.
    uncached: Vec<(usize, usize, Lease, usize)>,
    /// The keys of which the next load is outside of the single flight.
    bypassed: HashSet<(usize, usize)>,
    /// The last jump of the clock of each incarnation.
    jumps: HashMap<usize, u64>,
    /// The running loaders.
    running: Vec<Running>,
    /// When the loader of a forced refresh was called last.
    refreshed: HashMap<(usize, usize), u64>,
    /// The last event after which another load may begin: the running loads were revoked, say.
    revoked: HashMap<(usize, usize), Revoked>,
    /// The number of changes that have begun and not ended.
    changing: HashMap<(usize, usize), u32>,
}

struct Running {
    by: usize,
    key: usize,
    write: usize,
    /// When the call began for which the loader runs.
    begin: Stamp,
    lease: Option<Lease>,
    /// A forced refresh has begun beside the load, because it could not use what the load may find
    /// in L2. Its flight has taken the place of the load's: nobody joins the load any more. That
    /// holds also for a load that still waited for L2 or for a lock then.
    is_displaced: bool,
}

#[derive(Clone, Copy)]
struct Revoked {
    seq: u64,
    /// Until this time it may happen again without an event, in milliseconds.
    until: u64,
}

/// The recorder of a history. Clones are the same recorder.
#[derive(Clone)]
pub(crate) struct Recorder {
    environment: Arc<dyn Environment>,
    names: Arc<Names>,
    /// The number of the first change and of the first write.
    first: usize,
    state: Arc<Mutex<(History, LiveState)>>,
}

/// A load older than this may not be joined any more, in milliseconds: without trust, the trust
/// timeout.
const NOT_JOINED: u64 = 3_000;
/// A load that is younger than this counts for certain, in milliseconds: a little less than the
/// cache's `inflight.ttl`.
const COUNTS: u64 = 4_900;

impl Recorder {
    pub(crate) fn new(
        environment: impl Environment + 'static,
        names: Arc<Names>,
        first: usize,
    ) -> Self {
        let history = History { keys: names.keys.clone(), ..History::default() };
        let state = Arc::new(Mutex::new((history, LiveState::default())));
        Self { environment: Arc::new(environment), names, first, state }
    }

    pub(crate) fn now(&self) -> u64 {
        self.environment.now()
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn key(&self, key: usize) -> &str {
        &self.names.keys[key]
    }

    pub(crate) fn key_of(&self, name: &str) -> Option<usize> {
        self.names.keys.iter().position(|key| key == name)
    }

    /// Returns the keys that a glob of the history matches.
    pub(crate) fn keys_of(&self, pattern: &str) -> Vec<usize> {
        let mut patterns = self.names.patterns.iter();
        patterns.find(|(glob, _)| glob == pattern).map_or_else(Vec::new, |(_, keys)| keys.clone())
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.environment.stamp()
    }

    pub(crate) fn with<T>(&self, action: impl FnOnce(&mut History) -> T) -> T {
        action(&mut self.state.lock().0)
    }

    fn update<T>(&self, action: impl FnOnce(&mut History, &mut LiveState) -> T) -> T {
        let (history, live) = &mut *self.state.lock();
        action(history, live)
    }

    /// Writes an entry to the tape, if the environment has one.
    pub(crate) fn write(&self, entry: impl Fn() -> TapeEntry) {
        self.environment.write(&entry);
    }

    pub(crate) fn finish(self) -> History {
        let history = std::mem::take(&mut self.state.lock().0);
        History { origin: self.environment.versions(), ..history }
    }

    pub(crate) fn violation(&self, rule: &'static str, how: String) {
        let at = self.now();
        self.write(|| TapeEntry::Violation(rule.to_owned(), at, how.clone()));
        self.with(|history| history.violations.push(Violation { rule: rule.into(), at, how }));
    }

    /// Records a call that took longer than `limit` and the slack allow.
    pub(crate) fn check_deadline(&self, by: usize, what: &'static str, begin: u64, limit: u64) {
        let end = self.now();
        if end - begin > limit + self.with(|history| history.bounds.slack) {
            let late = Late { by, what: what.into(), begin, end, limit };
            self.write(|| TapeEntry::Late(late.clone()));
            self.with(|history| history.late.push(late));
        }
    }

    pub(crate) fn call_ended(&self) {
        self.write(|| TapeEntry::CallEnded);
        self.with(|history| history.calls += 1);
    }

    pub(crate) fn read(&self, read: Read) {
        self.write(|| TapeEntry::Read(read));
        self.with(|history| history.reads.push(read));
    }

    /// Changes the origin and returns its new version.
    pub(crate) fn commit(&self, key: usize, exists: bool) -> u32 {
        self.environment.commit(key, exists)
    }

    /// Records that `change` sets a value, and returns the number of the write.
    pub(crate) fn set_begins(&self, key: usize, version: u32, change: usize) -> usize {
        let write = Write { key, version, origin: WriteOrigin::Set { change } };
        let number = self.with(|history| {
            history.writes.push(write);
            self.first + history.writes.len() - 1
        });
        self.write(|| TapeEntry::Write(number, write));
        number
    }

    pub(crate) fn change_begins(&self, by: usize, key: usize, version: u32) -> usize {
        let begin = self.stamp();
        self.revoke_loads(by, key);
        let change = Change { by, key, version, begin, end: None, done: false, pending: false };
        let number = self.update(|history, live| {
            *live.changing.entry((by, key)).or_default() += 1;
            history.changes.push(change);
            self.first + history.changes.len() - 1
        });
        self.write(|| TapeEntry::ChangeBegan(number, change));
        number
    }

    pub(crate) fn change_ends(&self, change: usize, done: bool, pending: bool) {
        let end = self.stamp();
        self.write(|| TapeEntry::ChangeEnded(change, end, done, pending));
        let (by, key) = self.update(|history, live| {
            let change = &mut history.changes[change - self.first];
            change.end = Some(end);
            change.done = done;
            change.pending = pending;
            let changed = (change.by, change.key);
            *live.changing.entry(changed).or_default() -= 1;
            changed
        });
        // A task of its own retries an unacknowledged change.
        let until = if done { 0 } else { end.at + 10 };
        self.update(|_, live| live.revoked.insert((by, key), Revoked { seq: end.seq, until }));
    }

    /// Records that the store now holds this write under these keys, or nothing.
    pub(crate) fn store_holds(&self, keys: &[usize], write: Option<usize>) {
        let since = self.stamp();
        let held = keys.iter().map(|&key| Held { key, write, since });
        self.with(|history| history.held.extend(held));
    }

    /// Records whether the store gave a lease for a load of this key.
    pub(crate) fn leased(&self, by: usize, key: usize, lease: Option<Lease>) {
        self.update(|_, live| {
            match lease {
                Some(lease) => live.leases.insert((by, key), lease),
                None => live.leases.remove(&(by, key)),
            };
        });
    }

    /// Records that a load ends with a value that is not to be cached.
    pub(crate) fn is_uncached(&self, write: usize) {
        self.update(|_, live| {
            let Some(load) = live.running.iter().find(|it| it.write == write) else { return };
            if let Some(lease) = load.lease.clone() {
                live.uncached.push((load.by, load.key, lease, write));
            }
        });
    }

    /// Records the store's answer to a publication without a value.
    pub(crate) fn removal_answered(&self, by: usize, key: usize, lease: &Lease, answer: bool) {
        let write = self.update(|_, live| {
            let is_it = |it: &(usize, usize, Lease, usize)| (it.0, it.1, &it.2) == (by, key, lease);
            let at = live.uncached.iter().position(is_it)?;
            Some(live.uncached.remove(at).3)
        });
        if let Some(write) = write {
            self.publish_answered(write, answer);
        }
    }

    /// Records that the next load of a key is outside of the single flight.
    pub(crate) fn bypassed(&self, by: usize, key: usize) {
        self.update(|_, live| live.bypassed.insert((by, key)));
    }

    /// Records that the clock of an instance has jumped: loads seem older than they are.
    pub(crate) fn clock_jumped(&self, by: usize) {
        let now = self.stamp();
        self.update(|_, live| live.jumps.insert(by, now.seq));
        self.revoke_all_loads(by);
    }

    pub(crate) fn publish_answered(&self, write: usize, answer: bool) {
        self.write(|| TapeEntry::Published(write, answer));
        self.with(|history| {
            if let WriteOrigin::Load { published, .. } =
                &mut history.writes[write - self.first].origin
            {
                *published = Some(answer);
            }
        });
    }

    /// Records that a loader is called for a call that began at `begin`, and returns the number of
    /// its write. `refresh`: the call is a forced refresh.
    pub(crate) fn loader_called(
        &self,
        by: usize,
        key: usize,
        begin: Stamp,
        refresh: bool,
    ) -> usize {
        let called = self.stamp();
        let (number, write, twice, too_many) = self.update(|history, live| {
            let lease = live.leases.remove(&(by, key));
            let leased = lease.is_some();
            let revoked = live.revoked.get(&(by, key)).copied();
            let Revoked { seq, until } = revoked.unwrap_or(Revoked { seq: 0, until: 0 });
            let is_changing = live.changing.get(&(by, key)).is_some_and(|count| *count > 0);
            // Neither call began before the other was revoked, so the later of the two could have
            // joined.
            let is_joinable = |other: &&Running| {
                (other.by, other.key) == (by, key)
                    && !other.is_displaced
                    && other.begin.seq.min(begin.seq) > seq
                    && other.begin.at.min(begin.at) >= until
                    && called.at - other.begin.at < NOT_JOINED
            };
            let other = live.running.iter().find(is_joinable);
            let twice = other.filter(|_| !is_changing).map(|other| other.begin.at);
            let jumped = live.jumps.get(&by).copied().unwrap_or(0);
            let counts = |other: &&Running| {
                (other.by, other.key) == (by, key)
                    && other.begin.seq > jumped
                    && called.at - other.begin.at < COUNTS
            };
            let many = live.running.iter().filter(counts).count();
            let is_bypass = live.bypassed.remove(&(by, key));
            // A load whose flight began before a jump of the clock neither counts nor waits.
            let too_many = (many >= 2 && !is_bypass && begin.seq > jumped).then_some(many);
            let number = self.first + history.writes.len();
            for other in live.running.iter_mut().filter(|it| (it.by, it.key) == (by, key)) {
                other.is_displaced |= refresh;
            }
            let is_displaced =
                live.refreshed.get(&(by, key)).is_some_and(|refreshed| begin.seq < *refreshed);
            if refresh {
                live.refreshed.insert((by, key), called.seq);
            }
            live.running.push(Running { by, key, write: number, begin, lease, is_displaced });
            let origin = WriteOrigin::Load { called, ended: None, leased, published: None };
            let write = Write { key, version: 0, origin };
            history.writes.push(write);
            (number, write, twice, too_many)
        });
        self.write(|| TapeEntry::Write(number, write));
        if let Some(since) = twice {
            let key = self.key(key);
            let how = format!("instance {by} loads {key} since {since} ms and begins again");
            self.violation("R7", how);
        }
        if let Some(many) = too_many {
            let key = self.key(key);
            let how = format!("instance {by} begins a load of {key} beside {many} others");
            self.violation("R7", how);
        }
        number
    }

    /// Lets the loader read the origin: returns the version, and whether there is a value.
    pub(crate) fn loader_reads(&self, write: usize) -> (u32, bool) {
        let (version, exists) = self.with(|history| {
            let write = &mut history.writes[write - self.first];
            let (version, exists) = self.environment.origin(write.key);
            write.version = version;
            (version, exists)
        });
        self.write(|| TapeEntry::LoaderRead(write, version));
        (version, exists)
    }

    /// Records that the loader has ended or was dropped.
    pub(crate) fn loader_ends(&self, write: usize) {
        let now = self.stamp();
        self.write(|| TapeEntry::LoaderEnded(write, now));
        self.update(|history, live| {
            if let WriteOrigin::Load { ended, .. } = &mut history.writes[write - self.first].origin
            {
                *ended = Some(now);
            }
            live.running.retain(|it| it.write != write);
        });
    }

    /// Records that another load of the key may begin although one is running.
    pub(crate) fn revoke_loads(&self, by: usize, key: usize) {
        let now = self.stamp();
        self.update(|_, live| {
            let revoked = live.revoked.entry((by, key)).or_insert(Revoked { seq: 0, until: 0 });
            revoked.seq = now.seq;
        });
    }

    pub(crate) fn revoke_all_loads(&self, by: usize) {
        (0..self.names.keys.len()).for_each(|key| self.revoke_loads(by, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::SimulatedEnvironment;

    /// Counts the violations of a load, a refresh that begins beside it and ends, and another load.
    fn violations(refresh: bool, first_waits: bool) -> usize {
        let names = Names { keys: vec!["a".into()], patterns: Vec::new() };
        let recorder = Recorder::new(SimulatedEnvironment::new(1), Arc::new(names), 0);
        let load = |begin, refresh| recorder.loader_called(1, 0, begin, refresh);
        let (first, second) = (recorder.stamp(), recorder.stamp());
        if !first_waits {
            load(first, false);
        }
        let ends = load(second, refresh);
        recorder.loader_ends(ends);
        if first_waits {
            load(first, false);
        }
        load(recorder.stamp(), false);
        recorder.finish().violations.len()
    }

    #[test]
    fn a_load_that_a_refresh_has_displaced_is_not_joined_whether_it_waited_or_not() {
        assert_eq!(violations(true, true), 0);
        assert_eq!(violations(false, true), 1, "two loads at the same time");
        assert_eq!(violations(true, false), 1);
        assert_eq!(violations(false, false), 2);
    }
}
