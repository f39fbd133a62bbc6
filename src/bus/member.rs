//! An instance's place in the fleet: what it tells and what it has heard, under one lock.
//!
//! Pure but for the lock: it is told the time, given what came and asked what to send. Who sends
//! and receives is the cache's business.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    dedupe::Dedupe,
    gaps::{GapReason, Gaps},
    message::{Kind, Mark, Message},
    order::{Claim, Order, Out},
    outbox::{Change, Outbox},
    pulse::Pulse,
    refused::Refused,
};

/// What a member is, and its bounds. Times are milliseconds.
#[derive(Debug)]
pub(crate) struct Manner {
    pub(crate) source: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) trust_timeout: u64,
    pub(crate) dedupe_entries: usize,
    pub(crate) dedupe_ttl: u64,
    pub(crate) outbox_entries: usize,
    pub(crate) outbox_bytes: usize,
    /// Whether there is a count to be told of each key. An event has room for one.
    pub(crate) tells_counts: bool,
}

pub(crate) struct Member {
    source: Arc<str>,
    namespace: Option<String>,
    /// New with every start, so that numbers may begin at 0.
    incarnation: Arc<str>,
    state: Mutex<State>,
    /// Told when there is something to send.
    pub(crate) work: Notify,
    /// All changes of turns below this are out.
    covered: AtomicU64,
    /// Told when that rises. (Not `watch`, which wakes in random order: so a simulation repeats.)
    rises: Notify,
}

struct State {
    outbox: Outbox,
    gaps: Gaps,
    pulse: Pulse,
    dedupe: Dedupe,
    order: Order,
    /// Until when who sends waits; `None` while it does not, and so looks again before it does.
    rests_until: Option<u64>,
    /// Whether peers are to be asked where they are.
    says_hello: bool,
    /// Counts subscriptions.
    subscriptions: u64,
    /// Whether there is an older part of this subscription to be worked off, until a beacon of its
    /// own comes by.
    catches_up: bool,
}

impl State {
    fn out(&self) -> Out {
        Out { covered: self.outbox.covered(), next_seq: self.outbox.next_seq() }
    }
}

/// What there is to do for who sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Errand {
    /// The number of an event, and its bytes.
    Event(u64, Vec<u8>),
    Beacon(Vec<u8>),
    /// Nothing, until so late, or until there is [`work`](Member::work).
    Wait(Option<u64>),
}

/// What an event is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Whether its value, if it has one, can be no older than any delete that was heard of.
    New { is_good: bool },
    /// Was here before.
    Known,
    /// Comes of ourselves.
    Own,
}

impl Member {
    pub(crate) fn new(manner: Manner) -> Self {
        let random = || format!("{:016x}", fastrand::u64(..));
        let incarnation: Arc<str> = Arc::from(random());
        let outbox = Outbox::new(manner.outbox_entries, manner.outbox_bytes);
        Self {
            source: Arc::from(manner.source.unwrap_or_else(random)),
            namespace: manner.namespace,
            state: Mutex::new(State {
                outbox: if manner.tells_counts { outbox.one_by_one() } else { outbox },
                gaps: Gaps::new(&incarnation, manner.trust_timeout),
                pulse: Pulse::new(manner.trust_timeout),
                dedupe: Dedupe::new(manner.dedupe_entries, manner.dedupe_ttl),
                order: Order::new(&incarnation, Order::MAX_KEYS),
                rests_until: None,
                says_hello: false,
                subscriptions: 0,
                catches_up: false,
            }),
            incarnation,
            work: Notify::new(),
            covered: AtomicU64::new(0),
            rises: Notify::new(),
        }
    }

    /// A key is about to be deleted or set: to be called before memory is changed. Then, once,
    /// [`tell_own`](Self::tell_own).
    pub(crate) fn deleting(&self, now: u64, key: &str) {
        let State { order, gaps, .. } = &mut *self.state.lock();
        order.deleting(gaps, now, key);
    }

    /// The same for a pattern.
    pub(crate) fn deleting_many(&self) {
        self.state.lock().order.deleting_many();
    }

    /// What [`deleting`](Self::deleting) spoke of, for the peers; nothing if it did not happen.
    /// Gives its turn.
    pub(crate) fn tell_own(
        &self,
        now: u64,
        name: &str,
        pattern: bool,
        told: Option<Change>,
    ) -> u64 {
        let State { outbox, order, .. } = &mut *self.state.lock();
        let turn = told.map(|change| outbox.push(now, change));
        if pattern {
            order.told_many(turn);
        } else {
            order.told(name, turn);
        }
        turn.unwrap_or(0)
    }

    /// What a value that was loaded has to say for itself. To be called before the right to publish
    /// it is checked. `None` if too little is known: then it is not to be told.
    pub(crate) fn seen(&self, now: u64) -> Option<Arc<[u8]>> {
        let State { order, gaps, outbox, .. } = &*self.state.lock();
        let knows = gaps.knows_the_present(now);
        if knows { order.seen(Some(gaps), outbox.next_seq()) } else { None }
    }

    /// The same for a value that is given, which is told in any case.
    pub(crate) fn seen_by_given(&self, now: u64) -> Option<Arc<[u8]>> {
        let State { order, gaps, outbox, .. } = &*self.state.lock();
        let gaps = Some(gaps).filter(|gaps| gaps.knows_the_present(now));
        order.seen(gaps, outbox.next_seq())
    }

    /// Takes in a change for the peers.
    pub(crate) fn tell(&self, now: u64, change: Change) {
        self.state.lock().outbox.push(now, change);
    }

    /// Waits until all of a turn is out.
    pub(crate) async fn is_out(&self, turn: u64) {
        loop {
            // Made before the question, it hears of every answer that changes after it.
            let rises = self.rises.notified();
            if self.covered.load(Ordering::SeqCst) > turn {
                return;
            }
            rises.await;
        }
    }

    /// Waits until everything is out.
    pub(crate) async fn all_is_out(&self) {
        loop {
            let rises = self.rises.notified();
            if self.state.lock().outbox.is_empty() {
                return;
            }
            rises.await;
        }
    }

    /// What is to be sent now. For who sends, which waits if that is what there is to do.
    ///
    /// `count` says how often a key was deleted, where that is to be told: asked for only now, it
    /// is told once however often that was.
    pub(crate) fn next(&self, now: u64, count: impl Fn(&str) -> Option<u64>) -> Errand {
        let mut state = self.state.lock();
        let errand = self.errand(&mut state, now, count);
        state.rests_until = match errand {
            Errand::Wait(until) => Some(until.unwrap_or(u64::MAX)),
            Errand::Event(..) | Errand::Beacon(_) => None,
        };
        let covered = state.outbox.covered();
        drop(state);
        // What had become too old for it may have been all that waited.
        self.cover(covered);
        errand
    }

    /// To be called when there may be something to send: who sends is told if it would wait for
    /// longer than it may.
    pub(crate) fn rouse(&self) {
        let state = self.state.lock();
        let has_work = state.rests_until.is_some_and(|until| {
            let is_due = state.pulse.due_at().is_some_and(|due| due < until);
            is_due || state.says_hello || !state.outbox.is_empty()
        });
        drop(state);
        if has_work {
            self.work.notify_one();
        }
    }

    fn errand(&self, state: &mut State, now: u64, count: impl Fn(&str) -> Option<u64>) -> Errand {
        // Once more if what was to go out cannot be written: a value, then, which becomes a delete.
        for _ in 0..2 {
            let State { outbox, pulse, .. } = state;
            let Some(out) = outbox.next(now) else { break };
            let mark = self.mark(out.seq, pulse.promise(false));
            let kind = out.kind();
            let generation = match &kind {
                Kind::Delete { keys } | Kind::Set { keys, prime: false, .. } => match keys[..] {
                    [key] => count(key),
                    _ => None,
                },
                _ => None,
            };
            match self.write(&mark.id(), mark, generation, kind) {
                Ok(bytes) => return Errand::Event(out.seq, bytes),
                Err(_) => outbox.failed(),
            }
        }
        let hello = state.says_hello;
        match state.pulse.due_at() {
            due if !hello && due.is_none_or(|at| at > now) => Errand::Wait(due),
            _ => {
                let mark = self.mark(state.outbox.confirmed_seq(), state.pulse.promise(true));
                self.beacon(mark, state.subscriptions, hello)
                    .map_or(Errand::Wait(None), Errand::Beacon)
            }
        }
    }

    /// The event that is to be sent now, if none is being sent and no beacon is due first.
    pub(crate) fn next_at_once(
        &self,
        now: u64,
        count: impl Fn(&str) -> Option<u64>,
    ) -> Option<(u64, Vec<u8>)> {
        let mut state = self.state.lock();
        if state.outbox.is_sending() {
            return None;
        }
        let errand = self.errand(&mut state, now, count);
        let covered = state.outbox.covered();
        drop(state);
        self.cover(covered);
        match errand {
            Errand::Event(seq, bytes) => Some((seq, bytes)),
            Errand::Beacon(_) | Errand::Wait(_) => None,
        }
    }

    /// The event of this number is out.
    pub(crate) fn sent_event(&self, now: u64, seq: u64) {
        let mut state = self.state.lock();
        let sent = state.outbox.confirm(seq);
        let out = state.out();
        if let Some(sent) = &sent {
            state.pulse.published(now);
            let keys = match sent.kind() {
                Kind::Delete { keys } | Kind::Set { keys, prime: false, .. } => keys,
                _ => Vec::new(),
            };
            state.order.sent(sent.seq, &keys, out);
        }
        drop(state);
        self.cover(out.covered);
    }

    /// What was being sent is not out, or nobody knows.
    pub(crate) fn failed_event(&self) {
        self.state.lock().outbox.failed();
    }

    /// A beacon was sent, or tried.
    pub(crate) fn tried_beacon(&self, now: u64, sent: bool, random: f64) {
        let state = &mut *self.state.lock();
        state.says_hello &= !sent;
        state.pulse.sent(now, random);
    }

    /// The last word of a member that leaves in order: it promises nothing more. `None` if it has
    /// never said anything, or not all that it had to say.
    pub(crate) fn goodbye(&self) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let seq = state.outbox.confirmed_seq();
        let may_go = seq > 0 && state.outbox.is_empty();
        if may_go { self.beacon(self.mark(seq, None), state.subscriptions, false) } else { None }
    }

    /// A subscription began.
    pub(crate) fn subscribed(&self, now: u64, resumed: bool, random: f64) {
        let state = &mut *self.state.lock();
        state.gaps.subscribed(now, resumed);
        state.pulse.heard(now, random);
        state.says_hello = true;
        state.subscriptions += 1;
        state.catches_up = resumed;
        self.work.notify_one();
    }

    pub(crate) fn unsubscribed(&self) {
        let state = &mut *self.state.lock();
        state.gaps.unsubscribed();
        state.pulse.deaf();
    }

    /// Whether events must be taken to be lost. To be asked a few times a second. If so, memory is
    /// to be distrusted, and then [`gave_up_on_events`](Self::gave_up_on_events).
    pub(crate) fn lost_any(&self, now: u64) -> Option<GapReason> {
        self.state.lock().gaps.lost_any(now)
    }

    /// Memory has been distrusted, because events were lost.
    pub(crate) fn gave_up_on_events(&self, now: u64) {
        self.state.lock().gaps.alarmed(now);
    }

    /// Until when memory may be trusted; 0 where there is no subscription, or what was kept for it
    /// is still to be heard.
    pub(crate) fn trusted_until(&self) -> u64 {
        let state = self.state.lock();
        let until = state.gaps.trusted_until().filter(|_| !state.catches_up);
        until.unwrap_or(0)
    }

    /// What to think of an event, before it is applied. Once it is, [`heard`](Self::heard): not
    /// before, for what was heard of counts as applied in what is [`seen`](Self::seen).
    ///
    /// To be asked when the right to write its value is held already: what is deleted here from
    /// then on takes that right.
    pub(crate) fn standing(&self, now: u64, message: &Message<'_>) -> Standing {
        let is_own = match &message.mark {
            Some(mark) => *mark.incarnation == *self.incarnation,
            None => *message.source == *self.source,
        };
        if is_own {
            return Standing::Own;
        }
        let mut state = self.state.lock();
        let out = state.out();
        let State { order, gaps, dedupe, .. } = &mut *state;
        let mark = message.mark.as_ref();
        let mut is_good = false;
        match &message.kind {
            Kind::Beacon { .. } => {}
            _ if dedupe.knows(now, message.source, message.id) => return Standing::Known,
            Kind::Delete { keys } => order.deleted(gaps, now, keys, mark),
            Kind::Pattern { .. } => order.deleted_many(gaps, now, mark),
            Kind::Set { keys, prime, seen, .. } => {
                let claim = Claim { keys, mark, prime: *prime, seen: *seen };
                is_good = order.allows(gaps, now, out, claim);
                if !prime {
                    // It stands for a delete of what there was.
                    order.deleted(gaps, now, keys, mark);
                }
            }
        }
        Standing::New { is_good }
    }

    /// An event was applied, or needs not to be.
    pub(crate) fn heard(&self, now: u64, message: &Message<'_>, standing: Standing, random: f64) {
        let state = &mut *self.state.lock();
        let is_own_of_now = standing == Standing::Own
            && message.generation == Some(state.subscriptions)
            && matches!(message.kind, Kind::Beacon { .. });
        state.catches_up &= !is_own_of_now;
        let State { gaps, pulse, dedupe, .. } = state;
        let beacon = match message.kind {
            Kind::Beacon { hello } => Some(hello),
            _ => None,
        };
        if matches!(standing, Standing::New { .. }) && beacon.is_none() {
            dedupe.is_new(now, message.source, message.id);
        }
        match &message.mark {
            Some(mark) => drop(gaps.note(now, message.source, mark, beacon.is_some())),
            None => gaps.heard(now),
        }
        pulse.heard(now, random);
        if beacon == Some(true) && standing != Standing::Own {
            pulse.asked(now, random);
            self.work.notify_one();
        }
    }

    /// Something came that is not for us; or that cannot be read, so that what it says is lost.
    pub(crate) fn heard_something(&self, now: u64, is_readable: bool, random: f64) {
        let State { gaps, pulse, .. } = &mut *self.state.lock();
        if is_readable {
            gaps.heard(now);
        } else {
            gaps.unreadable(now);
        }
        pulse.heard(now, random);
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Changes that are not out yet.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().outbox.len()
    }

    fn mark(&self, seq: u64, due: Option<u64>) -> Mark<'_> {
        Mark { incarnation: &self.incarnation, seq, due }
    }

    fn cover(&self, covered: u64) {
        if self.covered.fetch_max(covered, Ordering::SeqCst) < covered {
            self.rises.notify_waiters();
        }
    }

    /// Beacons have no generation of a key to tell, so theirs is the subscription's.
    fn beacon(&self, mark: Mark<'_>, subscription: u64, hello: bool) -> Option<Vec<u8>> {
        self.write(&mark.beacon_id(), mark, Some(subscription), Kind::Beacon { hello }).ok()
    }

    fn write(
        &self,
        id: &str,
        mark: Mark<'_>,
        generation: Option<u64>,
        kind: Kind<'_>,
    ) -> Result<Vec<u8>, Refused> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let message = Message {
            id,
            source: &self.source,
            ts: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            generation,
            namespace: self.namespace(),
            mark: Some(mark),
            kind,
        };
        message.encode()
    }
}
