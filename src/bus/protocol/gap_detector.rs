//! Detects that messages of the bus were lost although the transport reported nothing.
//!
//! Transports lose messages silently: a queue overflows at the broker or in the client, a
//! resubscription fails unnoticed, a socket stays dead for minutes. L1 may then hold old values,
//! and must be marked untrusted within `trust_timeout` (3 s).
//!
//! # Losses that are noticed, and how
//!
//! Every message carries a sequence number, contiguous within the incarnation of its publisher. A
//! beacon carries the number that the publisher's next message will have.
//!
//! 1. **A message is lost, and its publisher sends another message or a beacon**: a number is
//!    missing. The messages may only be reordered, so the missing one has 500 ms to arrive.
//! 2. **The last message of a publisher is lost**: the publisher sends a beacon 250 ms after its
//!    last message and more at intervals of one second, which makes this case 1. With the 500 ms
//!    the gap is found within 3 s, even if the first beacon is lost too. After these beacons every
//!    peer knows the number, so the publisher sends one only every 20 s, for peers that were not
//!    subscribed.
//! 3. **All messages of one publisher are lost**: each message promises when the publisher will
//!    send again, and nothing arrives for `trust_timeout`. The publisher may have died right after
//!    a message that reached nobody, so this is a gap too. A publisher that is closed sends a last
//!    beacon without a promise, and one that ends while it is idle has no promise to keep: neither
//!    causes a gap. (Beacons have no order. If an older beacon arrives after the last one, its
//!    promise will be broken, which costs a gap.)
//! 4. **All messages of all publishers are lost**: nothing arrives for `trust_timeout`. An
//!    instance that received nothing for a third of this time publishes a beacon, which the bus
//!    also returns to the instance itself. One such probe reaches all instances that wait for a
//!    sign, so an idle bus carries about one or two probes a second, however many instances.
//!
//! Each instance receives about one beacon a second from each instance that published in the last
//! five seconds, one every 20 s from the others, and the probes.
//! [`poll_gap`](GapDetector::poll_gap) visits each known publisher once.
//!
//! # Resync
//!
//! If a publisher appears while the subscription lasts, its numbers must begin at 0, else the
//! earlier ones are missing. When the subscription has just begun, publishers may be at any number,
//! and the first message of each only tells its current number. A hello beacon asks the publishers
//! to send one soon. Nobody can know which messages were lost between the beginning of the
//! subscription and the first message of a publisher. So if any publisher was past the number known
//! of it, the resync window (`trust_timeout` from the begin of the subscription) ends with one gap
//! of its own. This costs little: L1 is nearly empty after a start, and untrusted after a
//! reconnect.
//!
//! # Losses that are not noticed
//!
//! - Lost messages of publishers without numbers: instances of the TypeScript package. The loss of
//!   the whole subscription is noticed.
//! - One lost message of a publisher that was idle before it and died within the 250 ms after it,
//!   if no other message of this publisher was lost.
//! - A publisher that is cut off from the bus. Its messages wait in its outbox, and the publisher
//!   itself reports that.

mod foreign;
mod watermarks;

use std::collections::HashMap;

use super::beacon_schedule::SLOW_INTERVAL;
use crate::bus::wire::message::SequenceStamp;

/// Milliseconds in which a missing message may still arrive, as it may only be reordered.
const REORDER_WINDOW: u64 = 500;
/// Milliseconds of silence after which a publisher is forgotten, if `trust_timeout` is at most half
/// of it; else twice `trust_timeout`.
const FORGET_AFTER: u64 = 60_000;
const MAX_PUBLISHERS: usize = 4_096;
/// Maximum number of holes per publisher. More cannot be reordering, and are a gap at once.
const MAX_RANGES: usize = 32;

/// Why messages must be taken to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapReason {
    Hole,
    PublisherSilent,
    Silent,
    Joined,
    TooManyPublishers,
    Unreadable,
}

impl GapReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hole => "messages of a publisher are missing",
            Self::PublisherSilent => "a publisher fell silent",
            Self::Silent => "no message arrived from any instance",
            Self::Joined => "messages may have been missed while the subscription began",
            Self::TooManyPublishers => "more instances publish than can be tracked",
            Self::Unreadable => "a message could not be decoded",
        }
    }
}

#[derive(Default, PartialEq)]
enum Connection {
    #[default]
    Disconnected,
    /// A resumed subscription first delivers the messages that the broker kept. L1 is untrusted.
    Replaying,
    Live,
}

/// All times are milliseconds.
#[derive(Default)]
pub(crate) struct GapDetector {
    trust_timeout: u64,
    max_publishers: usize,
    /// The incarnation of this instance, whose promises need no watching.
    own: Box<str>,
    /// By incarnation, which is random and new with every start of an instance.
    publishers: HashMap<Box<str>, PublisherState, foldhash::quality::RandomState>,
    connection: Connection,
    /// Counts the subscriptions that did not resume the one before.
    subscription: u64,
    /// The end of the resync window: until then, the first message of a publisher only tells its
    /// current sequence number. A resumed subscription continues the window of the one before.
    resync_until: Option<u64>,
    /// Whether a publisher was past the number that was known of it in the resync window.
    missed_in_resync: bool,
    last_received: u64,
    /// When the subscription began or the last gap was acknowledged.
    last_gap: u64,
    has_too_many: bool,
    has_unreadable: bool,
}

#[derive(Default)]
struct PublisherState {
    /// Deletes below this number are not known key by key, see [`causality`](super::causality).
    forgotten_below: u64,
    /// All numbers below were received.
    next: u64,
    /// The numbers that were received above, in order, with a hole before each range.
    ranges: Vec<SeqRange>,
    /// The subscription on which a message of this publisher was last received; they count from 1.
    subscription: u64,
    last_received: u64,
    /// When the publisher has broken its promise to send again, if it made one.
    overdue: Option<u64>,
    /// Only messages of other caches were received. Their loss is no gap here, and neither is the
    /// silence of their publisher.
    is_foreign: bool,
}

/// The numbers `from..to`. Empty if only a beacon told of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeqRange {
    from: u64,
    to: u64,
    /// When the hole before this range was noticed.
    since: u64,
}

impl GapDetector {
    pub(crate) fn new(own: &str, trust_timeout: u64) -> Self {
        Self {
            trust_timeout,
            max_publishers: MAX_PUBLISHERS,
            own: Box::from(own),
            ..Self::default()
        }
    }

    /// Records that a subscription began. If it did not resume the last one, publishers may be at
    /// any number, and the caller marks L1 untrusted itself.
    pub(crate) fn on_subscribed(&mut self, now: u64, resumed: bool) {
        (self.last_received, self.last_gap) = (now, now);
        if resumed {
            self.connection = Connection::Replaying;
        } else {
            self.connection = Connection::Live;
            self.subscription += 1;
            self.resync_until = Some(now.saturating_add(self.trust_timeout));
        }
        for publisher in self.publishers.values_mut() {
            publisher.last_received = now;
            publisher.overdue = None;
        }
    }

    /// Records that the subscription ended. L1 is not trusted without one, so no gap is reported.
    pub(crate) fn on_unsubscribed(&mut self) {
        self.connection = Connection::Disconnected;
    }

    /// Records that a beacon which this instance published on this subscription came back: so all
    /// messages that the broker kept were received before it.
    pub(crate) fn on_replayed(&mut self) {
        if self.connection == Connection::Replaying {
            self.connection = Connection::Live;
        }
    }

    /// Until when L1 may be trusted if nothing more is received. `None`: not at all.
    pub(crate) fn trusted_until(&self) -> Option<u64> {
        let is_live = self.connection == Connection::Live;
        // mutant silence: => is_live.then_some(u64::MAX)
        is_live.then(|| self.last_received.saturating_add(self.trust_timeout))
    }

    /// A message without a sequence number only shows that the subscription works.
    pub(crate) fn observe_activity(&mut self, now: u64) {
        self.last_received = now;
    }

    /// Records a message that could not be decoded. Its content is lost, so
    /// [`poll_gap`](Self::poll_gap) reports a gap: one for many, as there may be many.
    pub(crate) fn observe_unreadable(&mut self, now: u64) {
        self.last_received = now;
        self.has_unreadable = true;
    }

    /// Records a numbered message or a beacon of this cache.
    pub(crate) fn observe(&mut self, now: u64, stamp: &SequenceStamp<'_>, is_beacon: bool) {
        self.last_received = now;
        if !self.publishers.contains_key(stamp.incarnation) {
            if self.publishers.len() >= self.max_publishers {
                self.has_too_many = true;
                return;
            }
            self.publishers.insert(Box::from(stamp.incarnation), PublisherState::default());
        }
        let Some(publisher) = self.publishers.get_mut(stamp.incarnation) else { return };
        publisher.last_received = now;
        publisher.is_foreign = false;
        let end = stamp.seq.saturating_add(u64::from(!is_beacon));
        if std::mem::replace(&mut publisher.subscription, self.subscription) != self.subscription {
            // The first message of this publisher on this subscription: its earlier deletes, and
            // this one if it is a pattern, are not known key by key.
            publisher.forget_below(end);
            if self.resync_until.is_some_and(|until| now < until) && stamp.seq > publisher.next {
                publisher.advance_to(stamp.seq);
                self.missed_in_resync = true;
            }
        }
        let is_new = publisher.observe_sequence(SeqRange { from: stamp.seq, to: end, since: now });
        // A known message may have been delivered again, long after its promise was kept or
        // broken. But a beacon with the current number is the very message that was promised.
        if is_new || is_beacon && stamp.seq >= publisher.next {
            // A slow promise is not watched: a publisher that breaks it has nothing outstanding.
            let due = stamp.next_within_ms.filter(|due| *due < SLOW_INTERVAL);
            let due = due.filter(|_| *stamp.incarnation != *self.own);
            let wait = |due: u64| self.trust_timeout.max(due.saturating_mul(3));
            publisher.overdue = due.map(|due| now.saturating_add(wait(due)));
        }
    }

    /// Returns why messages must be taken to be lost, if so. The subscriber calls this a few times
    /// a second; after a gap it marks L1 untrusted and then calls
    /// [`acknowledge_gap`](Self::acknowledge_gap). In this order, because from then on the lost
    /// messages count as applied.
    pub(crate) fn poll_gap(&mut self, now: u64) -> Option<GapReason> {
        if self.connection == Connection::Disconnected {
            return None;
        }
        let elapsed = |then: u64| now.saturating_sub(then);
        let forget_after = FORGET_AFTER.max(self.trust_timeout.saturating_mul(2));
        self.publishers.retain(|_, publisher| elapsed(publisher.last_received) < forget_after);
        // mutant silence: if false
        if elapsed(self.last_received.max(self.last_gap)) >= self.trust_timeout {
            return Some(GapReason::Silent);
        }
        let is_resync_over = self.resync_until.take_if(|until| *until <= now).is_some();
        if is_resync_over && self.missed_in_resync {
            return Some(GapReason::Joined);
        }
        // mutant hole: if false
        if self.publishers.values().any(|it| !it.is_foreign && it.has_hole(now)) {
            return Some(GapReason::Hole);
        }
        // mutant publisher-silence: if false
        if self.publishers.values().any(|it| it.overdue.is_some_and(|at| at <= now)) {
            return Some(GapReason::PublisherSilent);
        }
        if self.has_unreadable && elapsed(self.last_gap) >= self.trust_timeout / 2 {
            return Some(GapReason::Unreadable);
        }
        if self.has_too_many && elapsed(self.last_gap) >= self.trust_timeout {
            self.has_too_many = false;
            return Some(GapReason::TooManyPublishers);
        }
        None
    }

    /// Records that L1 was marked untrusted, which covers everything lost so far.
    pub(crate) fn acknowledge_gap(&mut self, now: u64) {
        self.last_gap = now;
        self.missed_in_resync = false;
        self.has_unreadable = false;
        for publisher in self.publishers.values_mut() {
            publisher.advance_to(publisher.highest());
            publisher.forget_below(publisher.next);
            publisher.overdue = publisher.overdue.filter(|at| now < *at);
        }
    }

    /// Whether recent deletes are known well enough to judge peers' values: not within
    /// `trust_timeout` after a subscription began or a gap was acknowledged.
    pub(crate) fn is_caught_up(&self, now: u64) -> bool {
        self.connection != Connection::Disconnected
            && now.saturating_sub(self.last_gap) >= self.trust_timeout
    }
}

impl PublisherState {
    fn forget_below(&mut self, seq: u64) {
        self.forgotten_below = self.forgotten_below.max(seq);
    }

    /// Takes all numbers below `next` as received.
    fn advance_to(&mut self, next: u64) {
        self.next = self.next.max(next);
        let reached = self.ranges.iter().take_while(|range| range.from <= self.next).count();
        for range in self.ranges.drain(..reached) {
            self.next = self.next.max(range.to);
        }
    }

    /// The highest number that the publisher is known to have used, plus one.
    fn highest(&self) -> u64 {
        self.ranges.last().map_or(self.next, |last| last.to)
    }

    fn has_hole(&self, now: u64) -> bool {
        self.ranges.len() > MAX_RANGES
            || self.ranges.first().is_some_and(|it| now.saturating_sub(it.since) >= REORDER_WINDOW)
    }

    /// Records received numbers. Returns whether they say anything new.
    fn observe_sequence(&mut self, new: SeqRange) -> bool {
        if new.to <= self.next {
            return false;
        }
        if new.from <= self.next {
            self.advance_to(new.to);
            return true;
        }
        let at = self.ranges.partition_point(|range| range.from <= new.from);
        let is_full = self.ranges.len() > MAX_RANGES;
        let (before, after) = self.ranges.split_at_mut(at);
        let (before, after) = (before.last_mut(), after.first_mut());
        if before.as_ref().is_some_and(|before| new.to <= before.to) {
            return false;
        }
        match (before, after) {
            (Some(before), after) if before.to >= new.from => {
                before.to = new.to;
                if let Some(after) = after
                    && after.from <= new.to
                {
                    before.to = after.to;
                    self.ranges.remove(at);
                }
            }
            (_, Some(after)) if after.from <= new.to => after.from = new.from,
            // There are too many holes already: only the highest number counts now.
            (_, Some(_)) if is_full => {}
            (Some(before), None) if is_full => before.to = new.to,
            // The new range splits the hole before `after`, which was noticed earlier.
            (_, Some(after)) => {
                let since = after.since;
                self.ranges.insert(at, SeqRange { since, ..new });
            }
            (_, None) => self.ranges.push(new),
        }
        true
    }
}

#[cfg(test)]
impl GapDetector {
    /// Polls and acknowledges, as the subscriber does.
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
