//! Whether a value that a peer sent may be older than a delete.
//!
//! Events have no order: a value may arrive after the delete that it is older than, and put back
//! what was deleted. No clock can tell, for no two agree; and the shared level would have to be
//! asked by every peer, which is what the value was to spare them. What can tell is what its
//! publisher *had heard of* when its load ended: a load whose right to publish still stood then
//! began after everything that its publisher had applied (a delete that is applied takes the right
//! from all loads that are running). So a value carries, for each publisher, the number below
//! which all events had been applied where it comes from; and it is taken only where it knew
//!
//! - the last delete of its key that was heard of here, and
//! - for each publisher everything below its *floor*: what was deleted before is not remembered
//!   key by key, because it was a pattern, or came before we listened, or is too long ago.
//!
//! For a while after a subscription began or events were lost, too little is known, and no value
//! is taken. A refused value costs a load or a read of the shared level, and no more.
//!
//! Deletes of instances of the TypeScript package have no numbers. Values are refused for five
//! seconds after them, which is no proof; their own design has none either.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
    sync::Arc,
};

use super::{
    gaps::Gaps,
    message::{Kind, Mark},
    pack::{Head, Reader, Writer},
};

/// Milliseconds for which a delete without a number stands.
const UNNUMBERED_STANDS: u64 = 5_000;
/// Publishers in what a value knows. In a larger fleet no values are sent.
const MAX_SEEN: usize = 256;
/// A number that no message has: of what has not been sent yet.
const UNSENT: u64 = u64::MAX;

pub(crate) struct Order {
    own: Arc<str>,
    /// See the module; of ourselves.
    own_floor: u64,
    max_keys: usize,
    hasher: foldhash::fast::RandomState,
    /// The last delete of each key. Two keys of one hash only refuse more.
    last: HashMap<u64, Last, foldhash::fast::RandomState>,
    /// The same, oldest first.
    oldest: VecDeque<u64>,
    /// Until when no value is taken, because of a pattern without a number.
    blunt_until: u64,
}

struct Last {
    /// `None`: of an event without a number.
    by: Option<Arc<str>>,
    seq: u64,
    at: u64,
}

impl Order {
    /// Keys remembered by default.
    pub(crate) const MAX_KEYS: usize = 10_000;

    pub(crate) fn new(own: &Arc<str>, max_keys: usize) -> Self {
        Self {
            own: Arc::clone(own),
            own_floor: 0,
            max_keys: max_keys.max(1),
            hasher: foldhash::fast::RandomState::default(),
            last: HashMap::default(),
            oldest: VecDeque::new(),
            blunt_until: 0,
        }
    }

    /// A key is about to be deleted or set here. To be called before memory is changed, so that no
    /// value of before comes in after it.
    pub(crate) fn deleting(&mut self, gaps: &mut Gaps, now: u64, key: &str) {
        let last = Last { by: Some(Arc::clone(&self.own)), seq: UNSENT, at: now };
        self.remember(gaps, key, last);
    }

    /// The same for a pattern.
    pub(crate) fn deleting_many(&mut self) {
        self.own_floor = UNSENT;
    }

    /// What was deleted or set here goes out under this number; `is_last` if nothing else waits.
    pub(crate) fn sent(&mut self, seq: u64, kind: &Kind<'_>, is_last: bool) {
        if let Kind::Delete { keys } | Kind::Set { keys, prime: false, .. } = kind {
            for key in keys {
                let print = self.hasher.hash_one(key);
                if let Some(last) = self.last.get_mut(&print).filter(|last| last.seq == UNSENT) {
                    last.seq = seq;
                }
            }
        }
        if self.own_floor == UNSENT && is_last {
            self.own_floor = seq.saturating_add(1);
        }
    }

    /// A peer deleted or set these keys.
    pub(crate) fn deleted(
        &mut self,
        gaps: &mut Gaps,
        now: u64,
        keys: &[&str],
        mark: Option<&Mark<'_>>,
    ) {
        let by: Option<Arc<str>> = mark.map(|mark| Arc::from(mark.incarnation));
        let seq = mark.map_or(UNSENT, |mark| mark.seq);
        for key in keys {
            self.remember(gaps, key, Last { by: by.clone(), seq, at: now });
        }
    }

    /// A peer deleted by a pattern, which for values is as if it had been everything.
    pub(crate) fn deleted_many(&mut self, gaps: &mut Gaps, now: u64, mark: Option<&Mark<'_>>) {
        match mark {
            Some(mark) => gaps.raise_floor(mark.incarnation, mark.seq),
            None => self.blunt_until = now.saturating_add(UNNUMBERED_STANDS),
        }
    }

    /// What a value that is taken now will have to say for itself; `next_seq` is the number of
    /// the next message. `None` if it would be too much.
    pub(crate) fn seen(&self, gaps: &Gaps, next_seq: u64) -> Option<Arc<[u8]>> {
        let peers = gaps.heard_of().filter(|(who, _)| **who != *self.own);
        let all: Vec<_> = peers.chain([(&*self.own, next_seq)]).collect();
        if all.len() > MAX_SEEN {
            return None;
        }
        let mut out = Writer::default();
        out.array(all.len() * 2);
        for (who, seq) in all {
            out.text(who);
            out.number(seq);
        }
        Some(Arc::from(out.0))
    }

    /// Whether no delete that was heard of here can have come after the value was loaded.
    /// `mark`, `prime` and `seen` are those of its event. (A value that was given is newer than
    /// whatever its publisher told before it; one that was loaded need not be.)
    pub(crate) fn allows(
        &self,
        gaps: &Gaps,
        now: u64,
        key: &str,
        mark: Option<&Mark<'_>>,
        prime: bool,
        seen: Option<&[u8]>,
    ) -> bool {
        if !gaps.knows_the_present(now) || now < self.blunt_until {
            return false;
        }
        let last = self.last.get(&self.hasher.hash_one(key));
        let is_long_ago = |last: &Last| now.saturating_sub(last.at) >= UNNUMBERED_STANDS;
        let Some(mark) = mark else { return last.is_none_or(is_long_ago) };
        let Some(seen) = seen.and_then(read) else { return false };
        let knows = |who: &str, below: u64| {
            let is_own = !prime && *who == *mark.incarnation && mark.seq >= below;
            below == 0 || is_own || seen.get(who).is_some_and(|known| *known >= below)
        };
        let knows_last = last.is_none_or(|last| match &last.by {
            Some(by) => last.seq != UNSENT && knows(by, last.seq.saturating_add(1)),
            None => is_long_ago(last),
        });
        knows_last
            && knows(&self.own, self.own_floor)
            && gaps.floors().all(|(who, floor)| *who == *self.own || knows(who, floor))
    }

    fn remember(&mut self, gaps: &mut Gaps, key: &str, last: Last) {
        let print = self.hasher.hash_one(key);
        if let Some(known) = self.last.get_mut(&print) {
            if known.by == last.by {
                // They may arrive in any order.
                let seq = known.seq.max(last.seq);
                *known = Last { seq, ..last };
            } else {
                let old = std::mem::replace(known, last);
                self.forget(gaps, old);
            }
            return;
        }
        self.last.insert(print, last);
        self.oldest.push_back(print);
        if self.oldest.len() > self.max_keys
            && let Some(old) = self.oldest.pop_front().and_then(|print| self.last.remove(&print))
        {
            self.forget(gaps, old);
        }
    }

    fn forget(&mut self, gaps: &mut Gaps, old: Last) {
        match old.by {
            Some(by) if by == self.own => {
                self.own_floor = self.own_floor.max(old.seq.saturating_add(1));
            }
            Some(by) => gaps.raise_floor(&by, old.seq),
            None => {
                let until = old.at.saturating_add(UNNUMBERED_STANDS);
                self.blunt_until = self.blunt_until.max(until);
            }
        }
    }
}

fn read(seen: &[u8]) -> Option<HashMap<&str, u64>> {
    let mut reader = Reader::new(seen);
    let Head::Array(length) = reader.head().ok()? else { return None };
    let pairs = usize::try_from(length / 2).ok().filter(|pairs| *pairs <= MAX_SEEN)?;
    let mut all = HashMap::with_capacity(pairs);
    for _ in 0..pairs {
        let Ok(Head::Text(who)) = reader.head() else { return None };
        let known = match reader.head().ok()? {
            Head::Uint(known) => known,
            Head::Float(known) if known >= 0.0 => known as u64,
            _ => return None,
        };
        all.insert(std::str::from_utf8(who).ok()?, known);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 3_000;
    const NOW: u64 = 10_000;

    /// One who has listened for long enough, to whom `b` was at number 4 when it began.
    fn settled() -> (Order, Gaps) {
        let own = Arc::from("own");
        let mut gaps = Gaps::new(&own, T);
        gaps.subscribed(0, false);
        gaps.note(1, "b", &mark("b", 4), true);
        gaps.alarmed(T);
        (Order::new(&own, 4), gaps)
    }

    fn mark(incarnation: &str, seq: u64) -> Mark<'_> {
        Mark { incarnation, seq, due: None }
    }

    fn seen(all: &[(&str, u64)]) -> Vec<u8> {
        let mut out = Writer::default();
        out.array(all.len() * 2);
        for (who, seq) in all {
            out.text(who);
            out.number(*seq);
        }
        out.0
    }

    /// Whether a value of `k` by `a` that had seen this is taken.
    fn allows(order: &Order, gaps: &Gaps, all: &[(&str, u64)]) -> bool {
        order.allows(gaps, NOW, "k", Some(&mark("a", 9)), true, Some(&seen(all)))
    }

    #[test]
    fn a_value_must_know_the_last_delete_of_its_key() {
        let (mut order, mut gaps) = settled();
        assert!(allows(&order, &gaps, &[("b", 4)]));
        order.deleted(&mut gaps, NOW, &["k"], Some(&mark("b", 6)));
        assert!(!allows(&order, &gaps, &[("b", 6)]));
        assert!(allows(&order, &gaps, &[("b", 7)]));
        order.deleted(&mut gaps, NOW, &["k"], Some(&mark("b", 5)));
        assert!(!allows(&order, &gaps, &[("b", 6)]), "one that comes late is not the last");
        order.deleted(&mut gaps, NOW, &["other"], Some(&mark("b", 8)));
        assert!(allows(&order, &gaps, &[("b", 7)]), "of another key");
        order.deleted(&mut gaps, NOW, &["k"], Some(&mark("c", 0)));
        gaps.note(NOW, "c", &mark("c", 0), false);
        assert!(!allows(&order, &gaps, &[("b", 7)]));
        assert!(allows(&order, &gaps, &[("b", 7), ("c", 1)]));
        assert!(!allows(&order, &gaps, &[("b", 6), ("c", 1)]), "the delete before counts too");
    }

    #[test]
    fn what_was_before_we_listened_must_be_known() {
        let (order, gaps) = settled();
        assert!(!allows(&order, &gaps, &[("b", 3)]));
        assert!(!allows(&order, &gaps, &[]));
        assert!(!order.allows(&gaps, NOW, "k", Some(&mark("a", 9)), true, None));
        assert!(!order.allows(&gaps, NOW, "k", Some(&mark("a", 9)), true, Some(b"\xc3")));
    }

    #[test]
    fn patterns_lost_events_and_what_is_too_long_ago_must_be_known() {
        let (mut order, mut gaps) = settled();
        order.deleted_many(&mut gaps, NOW, Some(&mark("b", 5)));
        assert!(!allows(&order, &gaps, &[("b", 5)]));
        assert!(allows(&order, &gaps, &[("b", 6)]));
        for (seq, key) in (10..).zip(["1", "2", "3", "4", "5"]) {
            order.deleted(&mut gaps, NOW, &[key], Some(&mark("b", seq)));
        }
        assert!(!allows(&order, &gaps, &[("b", 10)]), "the fifth pushed out the first");
        assert!(allows(&order, &gaps, &[("b", 11)]));
        gaps.note(NOW, "b", &mark("b", 20), false);
        gaps.alarmed(NOW);
        assert!(!allows(&order, &gaps, &[("b", 99)]), "for a while");
        let later = |known| {
            let seen = seen(&[("b", known)]);
            order.allows(&gaps, NOW + T, "k", Some(&mark("a", 9)), true, Some(&seen))
        };
        assert!(!later(20) && later(21));
    }

    #[test]
    fn our_own_deletes_must_be_known_and_cannot_be_before_they_are_sent() {
        let (mut order, mut gaps) = settled();
        order.deleting(&mut gaps, NOW, "k");
        assert!(!allows(&order, &gaps, &[("b", 4), ("own", 1_000)]));
        order.sent(7, &Kind::Delete { keys: vec!["k"] }, false);
        assert!(!allows(&order, &gaps, &[("b", 4), ("own", 7)]));
        assert!(allows(&order, &gaps, &[("b", 4), ("own", 8)]));
        order.deleting_many();
        assert!(!allows(&order, &gaps, &[("b", 4), ("own", 1_000)]));
        order.sent(8, &Kind::Pattern { pattern: "x*" }, false);
        assert!(!allows(&order, &gaps, &[("b", 4), ("own", 1_000)]), "another may wait");
        order.sent(9, &Kind::Pattern { pattern: "y*" }, true);
        assert!(!allows(&order, &gaps, &[("b", 4), ("own", 9)]));
        assert!(allows(&order, &gaps, &[("b", 4), ("own", 10)]));
    }

    #[test]
    fn a_given_value_is_newer_than_what_its_publisher_told_before() {
        let (mut order, mut gaps) = settled();
        order.deleted(&mut gaps, NOW, &["k"], Some(&mark("a", 8)));
        let allows = |order: &Order, prime| {
            let seen = seen(&[("b", 4), ("a", 8)]);
            order.allows(&gaps, NOW, "k", Some(&mark("a", 9)), prime, Some(&seen))
        };
        assert!(allows(&order, false) && !allows(&order, true));
        let mut gaps = Gaps::new("own", T);
        order.deleted(&mut gaps, NOW, &["k"], Some(&mark("a", 10)));
        assert!(!allows(&order, false), "what it told later came first");
    }

    #[test]
    fn one_without_numbers_stands_for_a_while() {
        let (mut order, mut gaps) = settled();
        order.deleted(&mut gaps, NOW, &["k"], None);
        let at = |now, mark: Option<&Mark<'_>>| {
            order.allows(&gaps, now, "k", mark, true, Some(&seen(&[("b", 4)])))
        };
        assert!(!at(NOW + 4_999, None) && !at(NOW + 4_999, Some(&mark("a", 9))));
        assert!(at(NOW + 5_000, None) && at(NOW + 5_000, Some(&mark("a", 9))));
        order.deleted_many(&mut gaps, NOW, None);
        assert!(!order.allows(&gaps, NOW + 4_999, "other", None, true, None));
        assert!(order.allows(&gaps, NOW + 5_000, "other", None, true, None));
    }

    #[test]
    fn what_is_seen_here_is_what_others_read() {
        let (order, gaps) = settled();
        let seen = order.seen(&gaps, 12).unwrap();
        let read = read(&seen).unwrap();
        assert_eq!((read.get("b"), read.get("own"), read.len()), (Some(&4), Some(&12), 2));
    }
}
