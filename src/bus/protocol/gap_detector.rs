//! Detects that messages of the bus were lost although the transport reported nothing, and that
//! messages of a publisher may exist which the bus has not got.
//!
//! Transports lose messages silently: a queue overflows at the broker or in the client, a
//! resubscription fails unnoticed, a socket stays dead for minutes. L1 may then hold old values,
//! and must be marked untrusted within `trust_timeout` (3 s).
//!
//! # Losses that are noticed, and how
//!
//! Every message carries a sequence number, contiguous within the incarnation of its publisher.
//! Every instance sends beacons, with the number that its next message will have
//! ([`beacon_schedule`](super::beacon_schedule) says when).
//!
//! 1. **A message is lost, and its publisher sends another message or a beacon**: a number is
//!    missing. The messages may only be reordered, or the beacon has overtaken messages that wait
//!    behind a backlog. So the number is lost once 500 ms have passed (a sixth of `trust_timeout`,
//!    if that is shorter) and a [probe](super::probes) that was sent after the hole was noticed is
//!    back. Between the two, L1 is *uncertain*.
//! 2. **The last message of a publisher is lost**: its next beacon makes this case 1, within a
//!    second.
//! 3. **A publisher falls silent**: each message promises when the publisher will send again, and
//!    nothing arrives for `trust_timeout`. It may have died with a message that reached nobody. Or
//!    it is cut off from the bus, though not from L2 or from the origin, and goes on deleting: so
//!    the silence is a gap when it begins, L1 is uncertain while it lasts, and it is a gap again
//!    when the publisher is heard again. A publisher that is closed sends a last beacon without a
//!    promise. A publisher that stays silent for a minute is taken for dead and forgotten: a gap
//!    too, once no other is silent. A time in which this instance received nothing itself is not
//!    counted.
//! 4. **No message arrives at all**, or the subscriber is behind: no probe is back in time, and
//!    trust lapses.
//!
//! While L1 is uncertain, an entry is served for at most `trust_timeout` from when it was stored.
//!
//! # The first message of a publisher
//!
//! When a subscription has begun, publishers may be at any number. Each message says how long
//! before it the bus had confirmed the message before (`idle`). So the message before was
//! confirmed at a certain time, or a little earlier: how long this message has taken is not known.
//! The broker had delivered the message before to its subscribers earlier still, by as long as the
//! confirmation took. On a busy machine both take a while, so up to 500 ms count as nothing:
//!
//! | confirmed at the latest | then |
//! | --- | --- |
//! | before the subscription began | entries from before are marked untrusted, and numbers count from this message |
//! | up to 500 ms after its first probe was back | it may have been lost before the probe was back: the entries that were stored until then are marked too |
//! | later | it should have been received, and is missing |
//!
//! The same holds for a publisher that begins later: its first message has no message before it.
//!
//! # Losses that are not noticed
//!
//! - Lost messages of publishers without numbers: instances of the TypeScript package.
//! - A message that was published within 500 ms after the first probe of a subscription was back,
//!   if none of its publisher was received before on this subscription: see above.
//! - A publisher that was never heard before it was cut off, or that is cut off for longer than a
//!   minute.
//! - With more than 64 publishers: the silence of a publisher that had published nothing for five
//!   seconds.

mod foreign;
mod instances;
mod reason;
mod watermarks;

pub(crate) use self::reason::GapReason;
use super::{
    probes::{ProbeReturn, Probes},
    publisher_state::{PublisherState, Publishers, known_or_new},
    received_numbers::Noticed,
};
use crate::{
    bus::wire::{message::SequenceStamp, namespace::CacheId},
    time::MAX_CLOCK_STEP,
};

/// Milliseconds in which a missing message may still arrive, as it may only be reordered, and that
/// two messages may take longer than a probe; at most a sixth of `trust_timeout`.
const REORDER_WINDOW: u64 = 500;
/// Milliseconds of silence after which a publisher is forgotten, unless it promised to send later,
/// and if `trust_timeout` is at most half of it.
const FORGET_AFTER: u64 = 60_000;
const MAX_PUBLISHERS: usize = 4_096;

/// All times are milliseconds.
#[derive(Default)]
pub(crate) struct GapDetector {
    pub(crate) probes: Probes,
    trust_timeout: u64,
    max_publishers: usize,
    /// The incarnation of this instance, whose promises need no watching.
    own: Box<str>,
    /// By incarnation, which is random and new with every start of an instance.
    publishers: Publishers,
    is_subscribed: bool,
    /// Counts the subscriptions that did not resume the one before.
    subscription: u64,
    /// When the last of them began.
    began: u64,
    /// When the first probe of the last of them was back: L1 was marked untrusted then. `None`
    /// until that.
    current_since: Option<u64>,
    /// Whether a message may have been lost that was published between these two times.
    is_beginning_unsure: bool,
    last_received: u64,
    /// When the subscription began or the last gap was acknowledged.
    last_gap: u64,
    has_too_many: bool,
    has_unreadable: bool,
    /// Whether a publisher that was silent is heard again, or was forgotten.
    has_returned: bool,
    has_forgotten: bool,
    is_uncertain: bool,
    /// When a message without a number was received that is for none of the caches.
    last_foreign_unnumbered: Option<u64>,
    instances: instances::Instances,
}

impl GapDetector {
    pub(crate) fn new(own: &str, trust_timeout: u64) -> Self {
        Self {
            probes: Probes::new(trust_timeout),
            trust_timeout,
            max_publishers: MAX_PUBLISHERS,
            own: Box::from(own),
            ..Self::default()
        }
    }

    /// Records that a subscription began. If it did not resume the last one, publishers may be at
    /// any number. L1 is not trusted before the first probe is back.
    pub(crate) fn on_subscribed(&mut self, now: u64, resumed: bool) {
        self.probes.on_subscribed(now);
        (self.last_received, self.last_gap) = (now, now);
        (self.is_subscribed, self.is_uncertain) = (true, false);
        if !resumed || self.current_since.is_none() {
            self.subscription += 1;
            self.current_since = None;
            (self.began, self.is_beginning_unsure) = (now, false);
        }
        // The silence of publishers while there was no subscription does not count.
        self.remember_all(now);
        for publisher in self.publishers.values_mut() {
            publisher.expect_again(now, self.trust_timeout);
        }
    }

    /// Records that the subscription ended. L1 is not trusted without one, so no gap is reported.
    pub(crate) fn on_unsubscribed(&mut self) {
        self.is_subscribed = false;
    }

    /// Records that a probe came back. Returns what that means, and whether the caller marks L1
    /// untrusted and then calls [`acknowledge_gap`](Self::acknowledge_gap) and
    /// [`on_current`](Self::on_current): when trust had lapsed and a probe was lost, and when the
    /// first probe of a subscription is back that did not resume another.
    pub(crate) fn on_probe(&mut self, now: u64, number: u64) -> (ProbeReturn, bool) {
        self.last_received = now;
        let back = self.probes.on_back(now, number);
        let must_mark = match back {
            ProbeReturn::First => self.current_since.is_none(),
            // mutant lapse: => ProbeReturn::AfterLoss => false,
            ProbeReturn::AfterLoss => true,
            ProbeReturn::InTime | ProbeReturn::TooLate => false,
        };
        (back, must_mark)
    }

    /// Returns up to when entries of L1 must be marked untrusted, now that the first probe of a
    /// subscription is back: those that were stored before it began, unless a message may have been
    /// lost since.
    pub(crate) fn joined_at(&mut self, now: u64) -> u64 {
        // mutant join-hole: => let has_hole = false;
        let has_hole = self.publishers.values().any(|it| it.numbers.oldest_hole().is_some());
        let is_unsure = std::mem::take(&mut self.is_beginning_unsure) || has_hole;
        match is_unsure || self.has_unreadable || self.has_too_many || self.has_returned {
            true => now,
            false => self.began,
        }
    }

    /// Returns until when entries of L1 must be marked untrusted, if it was noticed late that a
    /// message may have been lost before the first probe of the subscription was back.
    pub(crate) fn take_unsure_beginning(&mut self) -> Option<u64> {
        let since = self.current_since?;
        std::mem::take(&mut self.is_beginning_unsure).then_some(since)
    }

    /// Records that the first probe of a subscription is back, and that L1 was marked.
    pub(crate) fn on_current(&mut self, now: u64) {
        self.current_since.get_or_insert(now);
    }

    /// Until when L1 may be trusted if no other probe comes back. `None`: not at all.
    pub(crate) fn trusted_until(&self) -> Option<u64> {
        let is_certain = self.is_subscribed && !self.is_uncertain;
        // mutant silence: => is_certain.then_some(u64::MAX)
        // mutant probe-trust: => is_certain.then_some(self.last_received + self.trust_timeout)
        self.probes.trusted_until().filter(|_| is_certain)
    }

    /// A message that is received now was published at this time or later: the last probe that is
    /// back was sent then, and was received before it. 0: no probe is back.
    pub(crate) fn current_as_of(&self) -> u64 {
        let until = self.probes.trusted_until();
        until.map_or(0, |until| until.saturating_sub(self.trust_timeout))
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

    /// Records a numbered message, or a beacon, for these caches of the instance.
    pub(crate) fn observe(
        &mut self,
        now: u64,
        stamp: &SequenceStamp<'_>,
        is_beacon: bool,
        caches: &[CacheId],
    ) {
        self.last_received = now;
        let forget_after = self.forget_after();
        // mutant join-margin: => let certain = self.current_since;
        let certain = self.current_since.map(|since| since.saturating_add(self.window()));
        let (publishers, max) = (&mut self.publishers, self.max_publishers);
        let Some(publisher) = known_or_new(publishers, stamp.incarnation, max) else {
            self.has_too_many = true;
            return;
        };
        publisher.forget_at = publisher.forget_at.max(now.saturating_add(forget_after));
        publisher.caches.extend(caches);
        let end = stamp.seq.saturating_add(u64::from(!is_beacon));
        let noticed = Noticed { at: now, probe: self.probes.next_number() };
        // The message before was received, or is missing; unless that was before L1 was marked
        // untrusted, or before its publisher was forgotten.
        let idle = stamp.idle_ms.filter(|idle| *idle < forget_after);
        let follows =
            |since| idle.and_then(|idle| now.checked_sub(idle)).is_some_and(|at| at > since);
        // mutant first-number: => let follows_one = false;
        let follows_one = certain.is_some_and(follows);
        // Each of the two clocks moves in steps.
        let began = self.began.saturating_sub(2 * MAX_CLOCK_STEP);
        let may_follow_one = !follows_one && follows(began);
        if std::mem::replace(&mut publisher.subscription, self.subscription) != self.subscription {
            // The first message of this publisher on this subscription: its earlier deletes, and
            // this one if it is a pattern, are not known key by key.
            publisher.forget_below(end);
            publisher.numbers.begin_at(stamp.seq, follows_one);
            // What this instance publishes, it has applied.
            // mutant join-own: => let is_own = false;
            let is_own = *stamp.incarnation == *self.own;
            // mutant join-unsure: remove
            self.is_beginning_unsure |= may_follow_one && !is_own;
        } else if !is_beacon {
            publisher.numbers.extend_down(stamp.seq, follows_one, noticed);
        }
        let is_new = publisher.numbers.observe(stamp.seq, end, noticed);
        // A known message may have been delivered again, long after its promise was kept or
        // broken. But a beacon with the current number is the very message that was promised.
        if is_new || is_beacon && stamp.seq >= publisher.numbers.next() {
            self.has_returned |= publisher.is_silent;
            publisher.on_promise(now, stamp.next_within_ms, is_beacon, self.trust_timeout);
            if *stamp.incarnation == *self.own {
                publisher.overdue = None;
            }
        }
    }

    /// Returns why messages must be taken to be lost, if so. The subscriber calls this a few times
    /// a second; after a gap it marks L1 untrusted and then calls
    /// [`acknowledge_gap`](Self::acknowledge_gap). In this order, because from then on the lost
    /// messages count as applied.
    pub(crate) fn poll_gap(&mut self, now: u64) -> Option<GapReason> {
        if !self.is_subscribed {
            return None;
        }
        // mutant silence: => let has_lapsed = false;
        let has_lapsed = self.probes.take_lapse(now);
        if has_lapsed {
            // mutant lapse-forgets: remove
            self.remember_all(now);
        }
        let forgotten = self.publishers.extract_if(|_, publisher| publisher.forget_at <= now);
        // mutant forgotten-silent: => drop(forgotten);
        self.has_forgotten |= forgotten.filter(|(_, it)| it.is_silent).count() > 0;
        self.is_uncertain = self.publishers.values().any(|publisher| {
            // mutant silent-publisher: s/publisher.is_silent/false/
            publisher.is_silent || publisher.is_overdue(now) || self.has_old_hole(publisher, now)
        });
        let elapsed = |then: u64| now.saturating_sub(then);
        if has_lapsed {
            return Some(GapReason::Lapsed);
        }
        // mutant hole: if false
        if self.publishers.values().any(|publisher| self.is_missing_some(publisher, now)) {
            return Some(GapReason::Hole);
        }
        // While L1 is uncertain because of one, the silence of others changes nothing.
        let is_new = !self.publishers.values().any(|publisher| publisher.is_silent);
        let publishers = self.publishers.values_mut();
        for publisher in publishers.filter(|publisher| !is_new && publisher.is_overdue(now)) {
            publisher.is_silent = true;
        }
        // mutant publisher-silence: if false
        if self.publishers.values().any(|publisher| publisher.is_overdue(now)) {
            return Some(GapReason::PublisherSilent);
        }
        if self.has_returned {
            return Some(GapReason::PublisherReturned);
        }
        if self.has_forgotten && is_new {
            return Some(GapReason::PublisherForgotten);
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
        (self.has_unreadable, self.has_returned, self.has_forgotten) = (false, false, false);
        for publisher in self.publishers.values_mut() {
            publisher.numbers.accept_all();
            publisher.forget_below(publisher.numbers.next());
            publisher.is_silent |= publisher.is_overdue(now);
        }
    }

    /// Has a probe sent soon if a hole was noticed after the last one was sent. Returns whether
    /// none was out.
    pub(crate) fn request_probe(&mut self, now: u64) -> bool {
        let holes = self.publishers.values().filter_map(|it| it.numbers.oldest_hole());
        holes.map(|hole| hole.probe).max().is_some_and(|probe| self.probes.request(now, probe))
    }

    /// Whether the subscription must be replaced, because no probe comes back.
    pub(crate) fn is_dead(&self, now: u64) -> bool {
        self.probes.is_dead(now, self.last_received)
    }

    /// The number of instances that promised to send again, with this one.
    pub(crate) fn known_publishers(&self) -> usize {
        let promised = self.publishers.iter().filter(|(_, it)| it.promised.is_some());
        promised.filter(|(incarnation, _)| **incarnation != self.own).count() + 1
    }

    /// Whether recent deletes are known well enough to judge peers' values: not within
    /// `trust_timeout` after a subscription began or a gap was acknowledged.
    pub(crate) fn is_caught_up(&self, now: u64) -> bool {
        self.is_subscribed && now.saturating_sub(self.last_gap) >= self.trust_timeout
    }

    /// Forgets no publisher before it had the time to be heard again.
    fn remember_all(&mut self, now: u64) {
        let forget_at = now.saturating_add(self.forget_after());
        for publisher in self.publishers.values_mut() {
            publisher.forget_at = publisher.forget_at.max(forget_at);
        }
    }

    fn forget_after(&self) -> u64 {
        FORGET_AFTER.max(self.trust_timeout.saturating_mul(2))
    }

    fn window(&self) -> u64 {
        REORDER_WINDOW.min(self.trust_timeout / 6)
    }

    fn has_old_hole(&self, publisher: &PublisherState, now: u64) -> bool {
        let hole = publisher.numbers.oldest_hole().filter(|_| !publisher.is_foreign());
        hole.is_some_and(|hole| now.saturating_sub(hole.at) >= self.window())
    }

    fn is_missing_some(&self, publisher: &PublisherState, now: u64) -> bool {
        let hole = publisher.numbers.oldest_hole();
        // mutant hole-after-probe: => let is_behind = false;
        let is_behind = hole.is_none_or(|hole| !self.probes.is_back(hole.probe));
        let has_too_many = publisher.numbers.has_too_many_holes() && !publisher.is_foreign();
        has_too_many || !is_behind && self.has_old_hole(publisher, now)
    }
}

#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod tests;
