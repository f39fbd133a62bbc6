//! The probes of a subscription, on which the trust in L1 depends.
//!
//! A probe is a message that only its sender receives, behind every message that was published
//! before it. When it is back, the subscriber has processed all of them. So L1 is as current as the
//! bus was when the probe was sent, and is trusted for `trust_timeout` from that time. Nothing else
//! extends trust: a message that arrives may be seconds old, and shows only that the subscriber is
//! not cut off.
//!
//! A probe is sent every third of `trust_timeout`, and at once when a hole in the numbers of a
//! publisher was noticed. If none is back in time, trust *lapses*: the subscriber is behind, or
//! receives nothing. If a probe was lost meanwhile, messages may have been lost too, so L1 is
//! marked untrusted when the next probe is back.

use std::collections::VecDeque;

/// Probes that are remembered while they are out.
const MAX_OUT: usize = 64;

/// All times are milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    trust_timeout: u64,
    /// Numbers begin at 1, and go on over all subscriptions.
    last_number: u64,
    /// The probes of this subscription that are not back, oldest first.
    out: VecDeque<Probe>,
    next_at: u64,
    /// When the subscription began.
    began: u64,
    /// The last probe of this subscription that came back.
    back: Option<Probe>,
    /// When it was noticed that trust has lapsed.
    lapsed: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    number: u64,
    sent_at: u64,
}

/// What a probe that has come back means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeReturn {
    /// It is the first one of its subscription.
    First,
    /// Trust had lapsed and begins again, and an earlier probe was lost.
    AfterLoss,
    /// Trust goes on.
    InTime,
    /// It says nothing new: a later one was back before, or it took longer than `trust_timeout`.
    TooLate,
}

impl Probes {
    pub(super) fn new(trust_timeout: u64) -> Self {
        Self { trust_timeout, ..Self::default() }
    }

    pub(super) fn on_subscribed(&mut self, now: u64) {
        self.out.clear();
        (self.next_at, self.began, self.back, self.lapsed) = (now, now, None, None);
    }

    /// When the next probe is due.
    pub(crate) fn next_at(&self) -> u64 {
        self.next_at
    }

    /// Returns the number of the probe to send now, if one is due. Trust will count from now.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<u64> {
        if now < self.next_at {
            return None;
        }
        self.next_at = now.saturating_add((self.trust_timeout / 3).max(1));
        self.last_number += 1;
        if self.out.len() >= MAX_OUT {
            self.out.pop_front();
        }
        self.out.push_back(Probe { number: self.last_number, sent_at: now });
        Some(self.last_number)
    }

    /// The number of the next probe that is sent.
    pub(super) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// Has a probe with at least this number sent soon. Returns whether none is out.
    pub(super) fn request(&mut self, now: u64, number: u64) -> bool {
        let is_missing = self.last_number < number && self.next_at > now;
        if is_missing {
            self.next_at = now;
        }
        is_missing
    }

    /// Whether this probe or a later one has come back on this subscription.
    pub(super) fn is_back(&self, number: u64) -> bool {
        self.back.is_some_and(|back| back.number >= number)
    }

    pub(super) fn on_back(&mut self, now: u64, number: u64) -> ProbeReturn {
        let Some(at) = self.out.iter().position(|probe| probe.number == number) else {
            return ProbeReturn::TooLate;
        };
        let was_trusted = self.trusted_until().is_some_and(|until| now < until);
        let is_first = self.back.is_none();
        self.back = self.out.drain(..=at).next_back();
        let until = self.trusted_until().unwrap_or_default();
        // A subscriber that stays behind is not dead, and its lapse is reported once.
        let is_prompt = now < until.saturating_sub(self.trust_timeout / 3);
        self.lapsed = self.lapsed.filter(|_| !is_prompt).map(|_| now);
        match (is_first, was_trusted || at == 0, now < until) {
            (true, ..) => ProbeReturn::First,
            (false, false, true) => ProbeReturn::AfterLoss,
            (false, _, true) => ProbeReturn::InTime,
            (false, _, false) => ProbeReturn::TooLate,
        }
    }

    /// Until when L1 may be trusted if no other probe comes back. `None`: not at all.
    pub(super) fn trusted_until(&self) -> Option<u64> {
        self.back.map(|back| back.sent_at.saturating_add(self.trust_timeout))
    }

    /// Whether trust has lapsed; reported once.
    pub(super) fn take_lapse(&mut self, now: u64) -> bool {
        let since = self.back.map_or(self.began, |back| back.sent_at);
        let is_new = self.lapsed.is_none() && now.saturating_sub(since) >= self.trust_timeout;
        if is_new {
            self.lapsed = Some(now);
        }
        is_new
    }

    /// Whether the subscription must be replaced: trust has lapsed, and for `trust_timeout` from
    /// then on nothing was received at all, or for nine times that no probe came back.
    pub(super) fn is_dead(&self, now: u64, last_received: u64) -> bool {
        self.lapsed.is_some_and(|lapsed| {
            let elapsed = |since: u64| now.saturating_sub(since);
            elapsed(lapsed.max(last_received)) >= self.trust_timeout
                || elapsed(lapsed) >= self.trust_timeout.saturating_mul(9)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed() -> Probes {
        let mut probes = Probes::new(3_000);
        probes.on_subscribed(0);
        probes
    }

    #[test]
    fn trust_lasts_from_when_the_last_probe_that_is_back_was_sent() {
        let mut probes = subscribed();
        assert_eq!((probes.take_due(0), probes.take_due(999)), (Some(1), None));
        assert_eq!(probes.trusted_until(), None);
        assert_eq!(probes.on_back(900, 1), ProbeReturn::First);
        assert_eq!(probes.trusted_until(), Some(3_000));
        assert_eq!([1_000, 2_000].map(|now| probes.take_due(now)), [Some(2), Some(3)]);
        // The second one was lost, and the third took long.
        assert_eq!(probes.on_back(2_900, 3), ProbeReturn::InTime);
        assert_eq!(probes.on_back(2_900, 2), ProbeReturn::TooLate);
        assert_eq!((probes.trusted_until(), probes.is_back(3)), (Some(5_000), true));
        assert!(!probes.take_lapse(4_999) && probes.take_lapse(5_000) && !probes.take_lapse(5_100));
        probes.take_due(5_100);
        assert_eq!(probes.on_back(8_100, 4), ProbeReturn::TooLate, "it is behind by three seconds");
        probes.take_due(8_100);
        assert_eq!(probes.on_back(8_200, 5), ProbeReturn::InTime, "no probe was lost");
        assert!(probes.take_lapse(11_100));
        for now in [11_100, 12_100] {
            probes.take_due(now);
        }
        assert_eq!(probes.on_back(12_150, 7), ProbeReturn::AfterLoss);
        assert_eq!(probes.on_back(8_200, 9), ProbeReturn::TooLate, "there is no such probe");
    }

    #[test]
    fn a_subscriber_that_stays_behind_by_most_of_the_trust_timeout_reports_it_once() {
        let mut probes = subscribed();
        let mut lapses = 0;
        for now in (0..60_000).step_by(100) {
            probes.take_due(now);
            let back = now.checked_sub(2_400).filter(|sent| sent % 1_000 == 0);
            back.map(|sent| probes.on_back(now, sent / 1_000 + 1));
            lapses += u32::from(probes.take_lapse(now));
            assert!(!probes.is_dead(now, now));
        }
        assert_eq!(lapses, 1);
    }

    #[test]
    fn a_subscription_without_probes_is_replaced() {
        let mut probes = subscribed();
        assert!(probes.take_lapse(3_000) && !probes.is_dead(5_999, 0) && probes.is_dead(6_000, 0));
        assert!(!probes.is_dead(29_999, 29_000), "it may only be behind");
        assert!(probes.is_dead(30_000, 29_000));
        // After a freeze of the process, the messages that wait are read first.
        let mut probes = subscribed();
        assert!(probes.take_lapse(90_000) && !probes.is_dead(90_000, 0));
        probes.on_subscribed(91_000);
        assert!(!probes.is_dead(100_000, 0));
    }

    #[test]
    fn a_probe_is_sent_earlier_on_request_unless_one_is_out() {
        let mut probes = subscribed();
        assert_eq!((probes.take_due(0), probes.next_number()), (Some(1), 2));
        assert!(!probes.request(100, 1) && probes.request(100, 2) && !probes.request(100, 2));
        assert_eq!((probes.take_due(100), probes.next_at()), (Some(2), 1_100));
        assert!(!probes.request(200, 2));
        for now in (0..200_000).step_by(1_000) {
            probes.take_due(now);
        }
        assert!(probes.out.len() <= MAX_OUT);
    }
}
