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
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::BuildHasher,
    sync::Arc,
};

use super::gap_detector::GapDetector;
use crate::bus::wire::message::SequenceStamp;
use crate::msgpack::{
    reader::{Reader, Token},
    writer::Writer,
};

/// Milliseconds for which a delete without a number stands.
const UNNUMBERED_STANDS: u64 = 5_000;
/// Publishers in what a value knows. In a larger fleet no values are sent.
const MAX_SEEN: usize = 256;

pub(crate) struct CausalFilter {
    own: Arc<str>,
    /// See the module; of ourselves.
    own_forgotten_below: u64,
    /// Patterns of ours that are not told yet.
    uncommitted_patterns: usize,
    /// The last turn in the outbox of what raises our own floor, until it is out.
    own_forgotten_position: Option<u64>,
    max_keys: usize,
    hasher: foldhash::fast::RandomState,
    /// The last delete of each key. Two keys of one hash only refuse more.
    last: HashMap<u64, Last, foldhash::fast::RandomState>,
    /// The same, oldest first.
    oldest: VecDeque<u64>,
    /// Until when no value is taken, because of a pattern without a number.
    reject_all_until: u64,
}

struct Last {
    by: LastInvalidation,
    at: u64,
}

enum LastInvalidation {
    Peer {
        incarnation: Arc<str>,
        seq: u64,
    },
    /// An event without a number.
    Unnumbered,
    /// Ourselves, and it is out.
    Own {
        seq: u64,
    },
    /// Ourselves: by so many calls that have not told it yet, and with this turn of those that
    /// have. No value can know of it.
    OwnPending {
        uncommitted: usize,
        turn: u64,
    },
}

impl CausalFilter {
    /// Keys remembered by default.
    pub(crate) const MAX_KEYS: usize = 10_000;

    pub(crate) fn new(own: &Arc<str>, max_keys: usize) -> Self {
        Self {
            own: Arc::clone(own),
            own_forgotten_below: 0,
            uncommitted_patterns: 0,
            own_forgotten_position: None,
            max_keys: max_keys.max(1),
            hasher: foldhash::fast::RandomState::default(),
            last: HashMap::default(),
            oldest: VecDeque::new(),
            reject_all_until: 0,
        }
    }

    /// A key is about to be deleted or set here. To be called before memory is changed, so that no
    /// value of before comes in after it; and then, once, [`on_committed`](Self::on_committed).
    pub(crate) fn begin_invalidation(&mut self, gaps: &mut GapDetector, now: u64, key: &str) {
        let print = self.hasher.hash_one(key);
        if let Some(Last { by: LastInvalidation::OwnPending { uncommitted, .. }, .. }) =
            self.last.get_mut(&print)
        {
            *uncommitted += 1;
            return;
        }
        let last = Last { by: LastInvalidation::OwnPending { uncommitted: 1, turn: 0 }, at: now };
        self.remember(gaps, print, last);
    }

    /// It has this turn in the outbox; none if nothing was deleted after all.
    pub(crate) fn on_committed(&mut self, key: &str, told: Option<u64>) {
        let print = self.hasher.hash_one(key);
        if let Some(Last { by: LastInvalidation::OwnPending { uncommitted, turn }, .. }) =
            self.last.get_mut(&print)
        {
            *uncommitted = uncommitted.saturating_sub(1);
            *turn = told.map_or(*turn, |told| told.max(*turn));
        }
    }

    /// As [`begin_invalidation`](Self::begin_invalidation), by a pattern.
    pub(crate) fn begin_pattern(&mut self) {
        self.uncommitted_patterns += 1;
    }

    /// As [`on_committed`](Self::on_committed), by a pattern.
    pub(crate) fn on_pattern_committed(&mut self, told: Option<u64>) {
        self.uncommitted_patterns = self.uncommitted_patterns.saturating_sub(1);
        self.own_forgotten_position = self.own_forgotten_position.max(told);
    }

    /// A message of ours is out.
    pub(crate) fn on_sent(&mut self, seq: u64, keys: &[&str], out: OutboxProgress) {
        for key in keys {
            let print = self.hasher.hash_one(key);
            if let Some(last) = self.last.get_mut(&print)
                && last.by.is_out(out)
            {
                last.by = LastInvalidation::Own { seq };
            }
        }
        if self.own_forgotten_position.take_if(|turn| *turn < out.acked).is_some() {
            self.own_forgotten_below = self.own_forgotten_below.max(out.next_seq);
        }
    }

    /// A peer deleted or set these keys.
    pub(crate) fn on_peer_delete(
        &mut self,
        gaps: &mut GapDetector,
        now: u64,
        keys: &[&str],
        stamp: Option<&SequenceStamp<'_>>,
    ) {
        let by: Option<Arc<str>> = stamp.map(|stamp| Arc::from(stamp.incarnation));
        for key in keys {
            let print = self.hasher.hash_one(key);
            let by = match (&by, stamp) {
                (Some(by), Some(stamp)) => {
                    LastInvalidation::Peer { incarnation: Arc::clone(by), seq: stamp.seq }
                }
                _ => LastInvalidation::Unnumbered,
            };
            self.remember(gaps, print, Last { by, at: now });
        }
    }

    /// A peer deleted by a pattern, which for values is as if it had been everything.
    pub(crate) fn on_peer_pattern(
        &mut self,
        gaps: &mut GapDetector,
        now: u64,
        stamp: Option<&SequenceStamp<'_>>,
    ) {
        match stamp {
            Some(stamp) => gaps.forget_below(stamp.incarnation, stamp.seq),
            None => self.reject_all_until = now.saturating_add(UNNUMBERED_STANDS),
        }
    }

    /// What a value that is taken now will have to say for itself; `next_seq` is the number of
    /// the next message. `None` if it would be too much.
    ///
    /// Of a value that was given it need not say more than of ourselves: where it is not enough,
    /// the value stands for a delete.
    pub(crate) fn causal_context(
        &self,
        gaps: Option<&GapDetector>,
        next_seq: u64,
    ) -> Option<Arc<[u8]>> {
        let peers = gaps.into_iter().flat_map(GapDetector::watermarks);
        let peers = peers.filter(|(who, _)| **who != *self.own);
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
    /// (One that was given is newer than whatever its publisher told before it; one that was loaded
    /// need not be.)
    pub(crate) fn admits(
        &self,
        gaps: &GapDetector,
        now: u64,
        out: OutboxProgress,
        value: ValueClaim<'_>,
    ) -> bool {
        // mutant order: insert if now > 0 { return true; }
        let ValueClaim { keys, stamp, prime, context } = value;
        if !gaps.is_caught_up(now)
            || now < self.reject_all_until
            || self.uncommitted_patterns > 0
            || self.own_forgotten_position.is_some()
        {
            return false;
        }
        let is_long_ago = |last: &Last| now.saturating_sub(last.at) >= UNNUMBERED_STANDS;
        let mut lasts = keys.iter().filter_map(|key| self.last.get(&self.hasher.hash_one(key)));
        let Some(stamp) = stamp else { return lasts.all(is_long_ago) };
        let Some(context) = context.and_then(read) else { return false };
        let knows = |who: &str, below: u64| {
            let is_own = !prime && *who == *stamp.incarnation && stamp.seq >= below;
            below == 0 || is_own || context.get(who).is_some_and(|known| *known >= below)
        };
        lasts.all(|last| match &last.by {
            LastInvalidation::Peer { incarnation, seq } => {
                // Who is forgotten is in nobody's list any more, and was silent for a minute.
                knows(incarnation, seq.saturating_add(1)) || !gaps.is_known(incarnation)
            }
            LastInvalidation::Unnumbered => is_long_ago(last),
            LastInvalidation::Own { seq } => knows(&self.own, seq.saturating_add(1)),
            // OutboxProgress, but under what number is not known: it went as part of a pattern, say.
            by @ LastInvalidation::OwnPending { .. } => {
                by.is_out(out) && knows(&self.own, out.next_seq)
            }
        }) && knows(&self.own, self.own_forgotten_below)
            && gaps
                .forgotten_watermarks()
                .all(|(who, floor)| *who == *self.own || knows(who, floor))
    }

    fn remember(&mut self, gaps: &mut GapDetector, print: u64, last: Last) {
        if let Some(known) = self.last.get_mut(&print) {
            match (&mut known.by, &last.by) {
                // They may arrive in any order.
                (
                    LastInvalidation::Peer { incarnation, seq },
                    LastInvalidation::Peer { incarnation: same, seq: other },
                ) if incarnation == same => {
                    *seq = (*seq).max(*other);
                    known.at = last.at;
                }
                // Ours stays, as no value can know of it.
                (
                    LastInvalidation::OwnPending { .. },
                    LastInvalidation::Peer { .. } | LastInvalidation::Unnumbered,
                ) => {
                    self.forget(gaps, last);
                }
                _ => {
                    let old = std::mem::replace(known, last);
                    self.forget(gaps, old);
                }
            }
            return;
        }
        self.last.insert(print, last);
        self.oldest.push_back(print);
        self.make_room(gaps);
    }

    fn make_room(&mut self, gaps: &mut GapDetector) {
        // Those of calls that are on their way are kept, and are as many as there are such calls.
        for _ in 0..self.oldest.len() {
            if self.oldest.len() <= self.max_keys {
                return;
            }
            let Some(print) = self.oldest.pop_front() else { return };
            match self.last.entry(print) {
                Entry::Occupied(last) if last.get().by.is_uncommitted() => {
                    self.oldest.push_back(print)
                }
                Entry::Occupied(last) => {
                    let old = last.remove();
                    self.forget(gaps, old);
                }
                Entry::Vacant(_) => {}
            }
        }
    }

    /// What is not remembered key by key any more raises a floor.
    fn forget(&mut self, gaps: &mut GapDetector, old: Last) {
        match old.by {
            LastInvalidation::Peer { incarnation, seq } => gaps.forget_below(&incarnation, seq),
            LastInvalidation::Own { seq } => {
                self.own_forgotten_below = self.own_forgotten_below.max(seq.saturating_add(1))
            }
            LastInvalidation::OwnPending { turn, .. } => {
                self.own_forgotten_position = self.own_forgotten_position.max(Some(turn))
            }
            LastInvalidation::Unnumbered => {
                let until = old.at.saturating_add(UNNUMBERED_STANDS);
                self.reject_all_until = self.reject_all_until.max(until);
            }
        }
    }
}

impl LastInvalidation {
    fn is_uncommitted(&self) -> bool {
        matches!(self, Self::OwnPending { uncommitted: 1.., .. })
    }

    fn is_out(&self, out: OutboxProgress) -> bool {
        matches!(self, Self::OwnPending { uncommitted: 0, turn } if *turn < out.acked)
    }
}

/// How far our outbox is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboxProgress {
    /// Turns below are out.
    pub(crate) acked: u64,
    /// The number of the next message that is made.
    pub(crate) next_seq: u64,
}

/// A value of a peer, and what it says for itself: what is in its event.
#[derive(Clone, Copy)]
pub(crate) struct ValueClaim<'a> {
    pub(crate) keys: &'a [&'a str],
    pub(crate) stamp: Option<&'a SequenceStamp<'a>>,
    pub(crate) prime: bool,
    pub(crate) context: Option<&'a [u8]>,
}

fn read(context: &[u8]) -> Option<HashMap<&str, u64>> {
    let mut reader = Reader::new(context);
    let Token::Array(length) = reader.token().ok()? else { return None };
    let pairs = usize::try_from(length / 2).ok().filter(|pairs| *pairs <= MAX_SEEN)?;
    let mut all = HashMap::with_capacity(pairs);
    for _ in 0..pairs {
        let Ok(Token::Text(who)) = reader.token() else { return None };
        let known = match reader.token().ok()? {
            Token::Unsigned(known) => known,
            Token::Signed(known) => u64::try_from(known).ok()?,
            Token::Float(known) if known >= 0.0 => known as u64,
            _ => return None,
        };
        all.insert(std::str::from_utf8(who).ok()?, known);
    }
    Some(all)
}

#[cfg(test)]
mod tests;
