//! Noticing that events were lost, where nobody says so.
//!
//! Transports lose events in silence: a queue runs over at the broker or in the client, a
//! resubscription fails unseen, a socket is dead for minutes before anyone notices. What memory
//! holds may then be old, and is to be distrusted within `trust_timeout` (3 s).
//!
//! # What is noticed, and by what
//!
//! Every event has a number, contiguous for its publisher's incarnation; beacons repeat the next
//! number. So:
//!
//! 1. **An event is lost, and a later one or a beacon of its publisher arrives**: a hole. It may
//!    be mere reordering, so it has 500 ms to be filled.
//! 2. **The last event of a publisher is lost**: its beacons, from 250 ms after its last publish
//!    and then each second, make 1 of it. With the 500 ms that is within 3 s even if the first
//!    beacon is lost too. When they are through, everybody knows the number and the publisher may
//!    be quiet; it repeats itself every 20 s for those who were not there.
//! 3. **All of one publisher is lost**: it promised to be heard again and is not, for
//!    `trust_timeout`. It may have died instead, right after it published; who can tell what it
//!    said last? So that is a gap too. Who closes in order sends a last beacon that promises
//!    nothing, and who goes while quiet has nothing outstanding: both leave without a gap.
//!    (Beacons have no order among themselves, so one that arrives after the last is a promise
//!    that will be broken, and costs a gap.)
//! 4. **All of everything is lost**: nothing is heard from anyone for `trust_timeout`. Whoever has
//!    heard nothing for a third of that sends a beacon, and hears at least that one. One probe
//!    serves all who wait for a sign, so a quiet fleet of any size makes about one or two a second.
//!
//! What every instance pays is so many deliveries a second as there are instances that publish at
//! the time, and a few more. [`check`](GapDetector::check) looks at each known publisher once.
//!
//! # Who is there
//!
//! A publisher first seen while we listen must be seen from number 0 on, or earlier numbers are a
//! hole. But when our subscription has just begun, publishers are in the midst of things, and
//! their first sign only says where we begin. It asks them (by a hello) to say so soon. What was
//! lost between the beginning of the subscription and a publisher's first sign cannot be known, so
//! if there was anything to be learned, learning ends (`trust_timeout` after the beginning) with
//! one gap of its own. Memory is nearly empty at that time after a start, and suspected anyway
//! after a reconnect.
//!
//! # What is not noticed
//!
//! - Events of publishers without numbers: instances of the TypeScript package. That the
//!   subscription as a whole died is noticed.
//! - A publisher that was quiet, published, and died before its first beacon 250 ms later, if of
//!   all that it sent only this event was lost.
//! - A publisher that is cut off from the bus. Its events wait in its outbox, and it knows.

use std::{collections::HashMap, sync::Arc};

use super::{beacon_schedule::SLOW_INTERVAL, fingerprint::Fingerprints};
use crate::bus::wire::message::SequenceStamp;

/// Milliseconds that a hole may be mere reordering.
const HOLE_FILLS: u64 = 500;
/// Milliseconds of silence after which a publisher is forgotten.
const FORGOTTEN: u64 = 60_000;
/// Known publishers.
const MAX_PUBLISHERS: usize = 4_096;
/// Pieces with holes between them, of one publisher. More is no reordering.
const MAX_PIECES: usize = 32;

/// Why events must be taken to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapReason {
    /// Numbers of a publisher are missing.
    Hole,
    /// A publisher that had promised to be heard was not.
    PublisherSilent,
    /// Nothing was heard from anyone: the subscription is taken to be dead.
    Silent,
    /// What was lost while we learned who is there is not known.
    Joined,
    /// There are more publishers than are watched.
    TooManyPublishers,
    /// Something came that is no event that is known here.
    Unreadable,
}

/// What the number of an event says. Whether it is applied is decided by its id, not by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is missing so far.
    InOrder,
    /// Was there before, or says nothing new.
    Known,
    /// Something before it has not arrived yet.
    Early,
    /// Its publisher is not watched: there are too many.
    Unwatched,
}

pub(crate) struct GapDetector {
    trust_timeout: u64,
    max_publishers: usize,
    /// Our own incarnation, whose promises need no watching.
    own: Box<str>,
    prints: Fingerprints,
    publishers: HashMap<u128, PublisherState, foldhash::fast::RandomState>,
    /// Whether there is a subscription.
    listening: bool,
    /// Counts subscriptions.
    subscription: u64,
    /// Until when the first sign of a publisher only says where it is; whether one did.
    joining: Option<u64>,
    learned: bool,
    last_heard: u64,
    last_alarm: u64,
    unwatched: bool,
    unread: bool,
}

struct PublisherState {
    incarnation: Arc<str>,
    /// What was deleted below this number is not known one by one, see [`order`](super::order).
    floor: u64,
    /// All numbers below are here.
    next: u64,
    /// What is here above, in order, with holes before each.
    pieces: Vec<SeqRange>,
    /// The subscription it was last heard in.
    subscription: u64,
    last_heard: u64,
    /// When it counts as silent, if it promised to be heard.
    overdue: Option<u64>,
}

/// Numbers from here to before there. Empty if a beacon told of them and nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeqRange {
    from: u64,
    to: u64,
    /// When the hole before it was noticed.
    since: u64,
}

impl GapDetector {
    /// `own` is our incarnation; `trust_timeout` is in milliseconds.
    pub(crate) fn new(own: &str, trust_timeout: u64) -> Self {
        Self {
            trust_timeout,
            max_publishers: MAX_PUBLISHERS,
            own: Box::from(own),
            prints: Fingerprints::default(),
            publishers: HashMap::default(),
            listening: false,
            subscription: 0,
            joining: None,
            learned: false,
            last_heard: 0,
            last_alarm: 0,
            unwatched: false,
            unread: false,
        }
    }

    /// A subscription began. If it did not resume the last one, publishers may be anywhere, and
    /// the caller distrusts memory now, of its own accord.
    pub(crate) fn on_subscribed(&mut self, now: u64, resumed: bool) {
        self.listening = true;
        self.last_heard = now;
        self.last_alarm = now;
        if !resumed {
            self.subscription += 1;
            self.joining = Some(now.saturating_add(self.trust_timeout));
        }
        for publisher in self.publishers.values_mut() {
            publisher.last_heard = now;
            publisher.overdue = None;
        }
    }

    /// It ended. Until there is another, nothing is trusted, so nothing is noticed.
    pub(crate) fn on_unsubscribed(&mut self) {
        self.listening = false;
    }

    /// Until when memory may be trusted if nothing more is heard. `None`: not at all, there is no
    /// subscription.
    pub(crate) fn trusted_until(&self) -> Option<u64> {
        // mutant silence: => self.listening.then_some(u64::MAX)
        self.listening.then(|| self.last_heard.saturating_add(self.trust_timeout))
    }

    /// Something came that is not numbered: all it says is that the subscription lives.
    pub(crate) fn observe_activity(&mut self, now: u64) {
        self.last_heard = now;
    }

    /// An event, or a beacon, came.
    pub(crate) fn observe(
        &mut self,
        now: u64,
        source: &str,
        stamp: &SequenceStamp<'_>,
        is_beacon: bool,
    ) -> Verdict {
        self.last_heard = now;
        let joining = self.joining.is_some_and(|until| now < until);
        let print = self.prints.of(source, stamp.incarnation);
        if !self.publishers.contains_key(&print) && self.publishers.len() >= self.max_publishers {
            self.unwatched = true;
            return Verdict::Unwatched;
        }
        let publisher = self.publishers.entry(print).or_insert_with(|| PublisherState {
            incarnation: Arc::from(stamp.incarnation),
            floor: 0,
            next: 0,
            pieces: Vec::new(),
            // Not yet in this one.
            subscription: 0,
            last_heard: now,
            overdue: None,
        });
        publisher.last_heard = now;
        let end = stamp.seq.saturating_add(u64::from(!is_beacon));
        if std::mem::replace(&mut publisher.subscription, self.subscription) != self.subscription {
            // Of what came before, nothing was heard one by one; nor, if this is a pattern, of it.
            publisher.floor = publisher.floor.max(end);
            if joining && stamp.seq > publisher.next {
                publisher.settle(stamp.seq);
                self.learned = true;
            }
        }
        let verdict = publisher.arrived(SeqRange { from: stamp.seq, to: end, since: now });
        // What is known may be an old event delivered again, and its promise was kept or broken
        // long ago. A beacon that says what is known is the very sign that was promised.
        if verdict != Verdict::Known || is_beacon && stamp.seq >= publisher.next {
            // A slow promise is none: who breaks it has nothing outstanding, and is forgotten.
            let due = stamp
                .next_within_ms
                .filter(|due| *due < SLOW_INTERVAL && *stamp.incarnation != *self.own);
            let wait = |due: u64| self.trust_timeout.max(due.saturating_mul(3));
            publisher.overdue = due.map(|due| now.saturating_add(wait(due)));
        }
        verdict
    }

    /// Whether events must be taken to be lost. To be asked a few times a second; then memory is
    /// distrusted, and then this [`acknowledge_gap`](Self::acknowledge_gap): in this order, because from then on
    /// what was lost counts as heard of.
    pub(crate) fn poll_gap(&mut self, now: u64) -> Option<GapReason> {
        if self.listening { self.find(now) } else { None }
    }

    /// Something came that cannot be read. What it would have said is lost, which
    /// [`poll_gap`](Self::poll_gap) says: not for each, as they may be many.
    pub(crate) fn observe_unreadable(&mut self, now: u64) {
        self.last_heard = now;
        self.unread = true;
    }

    /// Memory is distrusted, because events were lost: that is dealt with now, and not said again.
    pub(crate) fn acknowledge_gap(&mut self, now: u64) {
        self.last_alarm = now;
        self.learned = false;
        self.unread = false;
        for publisher in self.publishers.values_mut() {
            publisher.settle(publisher.end());
            publisher.floor = publisher.floor.max(publisher.next);
            publisher.overdue = publisher.overdue.filter(|at| now < *at);
        }
    }

    /// Whether it is known well enough what was deleted of late: not soon after a subscription
    /// began or events were lost.
    pub(crate) fn is_caught_up(&self, now: u64) -> bool {
        self.listening && now.saturating_sub(self.last_alarm) >= self.trust_timeout
    }

    /// Whether a publisher was heard of in the last minute.
    pub(crate) fn is_known(&self, incarnation: &str) -> bool {
        self.publishers.values().any(|publisher| *publisher.incarnation == *incarnation)
    }

    /// Each publisher, and the number below which all of its events are here.
    pub(crate) fn watermarks(&self) -> impl Iterator<Item = (&str, u64)> {
        self.publishers.values().map(|publisher| (&*publisher.incarnation, publisher.next))
    }

    /// Each publisher, and the number below which it is not known what was deleted.
    pub(crate) fn forgotten_watermarks(&self) -> impl Iterator<Item = (&str, u64)> {
        self.publishers.values().map(|publisher| (&*publisher.incarnation, publisher.floor))
    }

    /// What the publisher deleted with this number, or before, is not remembered one by one.
    pub(crate) fn forget_below(&mut self, incarnation: &str, seq: u64) {
        for publisher in self.publishers.values_mut() {
            if *publisher.incarnation == *incarnation {
                publisher.floor = publisher.floor.max(seq.saturating_add(1));
            }
        }
    }

    fn find(&mut self, now: u64) -> Option<GapReason> {
        let since = |then: u64| now.saturating_sub(then);
        let forgotten = FORGOTTEN.max(self.trust_timeout.saturating_mul(2));
        self.publishers.retain(|_, publisher| since(publisher.last_heard) < forgotten);
        // mutant silence: if false
        if since(self.last_heard.max(self.last_alarm)) >= self.trust_timeout {
            return Some(GapReason::Silent);
        }
        if self.joining.take_if(|until| *until <= now).is_some() && self.learned {
            return Some(GapReason::Joined);
        }
        // mutant hole: if false
        if self.publishers.values().any(|publisher| publisher.has_hole(now)) {
            return Some(GapReason::Hole);
        }
        // mutant publisher-silence: if false
        if self.publishers.values().any(|it| it.overdue.is_some_and(|at| at <= now)) {
            return Some(GapReason::PublisherSilent);
        }
        if self.unread && since(self.last_alarm) >= self.trust_timeout / 2 {
            return Some(GapReason::Unreadable);
        }
        if self.unwatched && since(self.last_alarm) >= self.trust_timeout {
            self.unwatched = false;
            return Some(GapReason::TooManyPublishers);
        }
        None
    }
}

impl PublisherState {
    /// Takes all numbers below for dealt with.
    fn settle(&mut self, next: u64) {
        self.next = self.next.max(next);
        let reached = self.pieces.iter().take_while(|piece| piece.from <= self.next).count();
        for piece in self.pieces.drain(..reached) {
            self.next = self.next.max(piece.to);
        }
    }

    /// The highest number that is known to have been given, and one more.
    fn end(&self) -> u64 {
        self.pieces.last().map_or(self.next, |last| last.to)
    }

    fn has_hole(&self, now: u64) -> bool {
        self.pieces.len() > MAX_PIECES
            || self.pieces.first().is_some_and(|it| now.saturating_sub(it.since) >= HOLE_FILLS)
    }

    fn arrived(&mut self, new: SeqRange) -> Verdict {
        if new.to <= self.next {
            return Verdict::Known;
        }
        if new.from <= self.next {
            self.settle(new.to);
            return Verdict::InOrder;
        }
        let at = self.pieces.partition_point(|piece| piece.from <= new.from);
        let is_full = self.pieces.len() > MAX_PIECES;
        let (before, after) = self.pieces.split_at_mut(at);
        let (before, after) = (before.last_mut(), after.first_mut());
        if before.as_ref().is_some_and(|before| new.to <= before.to) {
            return Verdict::Known;
        }
        match (before, after) {
            (Some(before), after) if before.to >= new.from => {
                before.to = new.to;
                if let Some(after) = after
                    && after.from <= new.to
                {
                    before.to = after.to;
                    self.pieces.remove(at);
                }
            }
            (_, Some(after)) if after.from <= new.to => after.from = new.from,
            // There are too many holes already: only the end counts now.
            (_, Some(_)) if is_full => {}
            (Some(before), None) if is_full => before.to = new.to,
            // The hole before what follows was there already, and this stands in its midst.
            (_, Some(after)) => {
                let since = after.since;
                self.pieces.insert(at, SeqRange { since, ..new });
            }
            (_, None) => self.pieces.push(new),
        }
        Verdict::Early
    }
}

#[cfg(test)]
impl GapDetector {
    /// As who listens does it.
    pub(crate) fn check(&mut self, now: u64) -> Option<GapReason> {
        let reason = self.poll_gap(now)?;
        self.acknowledge_gap(now);
        Some(reason)
    }
}

#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod tests;
