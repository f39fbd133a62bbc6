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

use super::gap_detector::Gaps;
use crate::bus::wire::{
    message::Mark,
    pack::{Head, Reader, Writer},
};

/// Milliseconds for which a delete without a number stands.
const UNNUMBERED_STANDS: u64 = 5_000;
/// Publishers in what a value knows. In a larger fleet no values are sent.
const MAX_SEEN: usize = 256;

pub(crate) struct Order {
    own: Arc<str>,
    /// See the module; of ourselves.
    own_floor: u64,
    /// Patterns of ours that are not told yet.
    untold_patterns: usize,
    /// The last turn in the outbox of what raises our own floor, until it is out.
    floor_turn: Option<u64>,
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
    by: By,
    at: u64,
}

enum By {
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
    OwnOnItsWay {
        untold: usize,
        turn: u64,
    },
}

impl Order {
    /// Keys remembered by default.
    pub(crate) const MAX_KEYS: usize = 10_000;

    pub(crate) fn new(own: &Arc<str>, max_keys: usize) -> Self {
        Self {
            own: Arc::clone(own),
            own_floor: 0,
            untold_patterns: 0,
            floor_turn: None,
            max_keys: max_keys.max(1),
            hasher: foldhash::fast::RandomState::default(),
            last: HashMap::default(),
            oldest: VecDeque::new(),
            blunt_until: 0,
        }
    }

    /// A key is about to be deleted or set here. To be called before memory is changed, so that no
    /// value of before comes in after it; and then, once, [`told`](Self::told).
    pub(crate) fn deleting(&mut self, gaps: &mut Gaps, now: u64, key: &str) {
        let print = self.hasher.hash_one(key);
        if let Some(Last { by: By::OwnOnItsWay { untold, .. }, .. }) = self.last.get_mut(&print) {
            *untold += 1;
            return;
        }
        let last = Last { by: By::OwnOnItsWay { untold: 1, turn: 0 }, at: now };
        self.remember(gaps, print, last);
    }

    /// It has this turn in the outbox; none if nothing was deleted after all.
    pub(crate) fn told(&mut self, key: &str, told: Option<u64>) {
        let print = self.hasher.hash_one(key);
        if let Some(Last { by: By::OwnOnItsWay { untold, turn }, .. }) = self.last.get_mut(&print) {
            *untold = untold.saturating_sub(1);
            *turn = told.map_or(*turn, |told| told.max(*turn));
        }
    }

    /// As [`deleting`](Self::deleting), by a pattern.
    pub(crate) fn deleting_many(&mut self) {
        self.untold_patterns += 1;
    }

    /// As [`told`](Self::told), by a pattern.
    pub(crate) fn told_many(&mut self, told: Option<u64>) {
        self.untold_patterns = self.untold_patterns.saturating_sub(1);
        self.floor_turn = self.floor_turn.max(told);
    }

    /// A message of ours is out.
    pub(crate) fn sent(&mut self, seq: u64, keys: &[&str], out: Out) {
        for key in keys {
            let print = self.hasher.hash_one(key);
            if let Some(last) = self.last.get_mut(&print)
                && last.by.is_out(out)
            {
                last.by = By::Own { seq };
            }
        }
        if self.floor_turn.take_if(|turn| *turn < out.covered).is_some() {
            self.own_floor = self.own_floor.max(out.next_seq);
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
        for key in keys {
            let print = self.hasher.hash_one(key);
            let by = match (&by, mark) {
                (Some(by), Some(mark)) => By::Peer { incarnation: Arc::clone(by), seq: mark.seq },
                _ => By::Unnumbered,
            };
            self.remember(gaps, print, Last { by, at: now });
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
    ///
    /// Of a value that was given it need not say more than of ourselves: where it is not enough,
    /// the value stands for a delete.
    pub(crate) fn seen(&self, gaps: Option<&Gaps>, next_seq: u64) -> Option<Arc<[u8]>> {
        let peers = gaps.into_iter().flat_map(Gaps::heard_of);
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
    pub(crate) fn allows(&self, gaps: &Gaps, now: u64, out: Out, value: Claim<'_>) -> bool {
        // mutant order: insert if now > 0 { return true; }
        let Claim { keys, mark, prime, seen } = value;
        if !gaps.knows_the_present(now)
            || now < self.blunt_until
            || self.untold_patterns > 0
            || self.floor_turn.is_some()
        {
            return false;
        }
        let is_long_ago = |last: &Last| now.saturating_sub(last.at) >= UNNUMBERED_STANDS;
        let mut lasts = keys.iter().filter_map(|key| self.last.get(&self.hasher.hash_one(key)));
        let Some(mark) = mark else { return lasts.all(is_long_ago) };
        let Some(seen) = seen.and_then(read) else { return false };
        let knows = |who: &str, below: u64| {
            let is_own = !prime && *who == *mark.incarnation && mark.seq >= below;
            below == 0 || is_own || seen.get(who).is_some_and(|known| *known >= below)
        };
        lasts.all(|last| match &last.by {
            By::Peer { incarnation, seq } => {
                // Who is forgotten is in nobody's list any more, and was silent for a minute.
                knows(incarnation, seq.saturating_add(1)) || !gaps.remembers(incarnation)
            }
            By::Unnumbered => is_long_ago(last),
            By::Own { seq } => knows(&self.own, seq.saturating_add(1)),
            // Out, but under what number is not known: it went as part of a pattern, say.
            by @ By::OwnOnItsWay { .. } => by.is_out(out) && knows(&self.own, out.next_seq),
        }) && knows(&self.own, self.own_floor)
            && gaps.floors().all(|(who, floor)| *who == *self.own || knows(who, floor))
    }

    fn remember(&mut self, gaps: &mut Gaps, print: u64, last: Last) {
        if let Some(known) = self.last.get_mut(&print) {
            match (&mut known.by, &last.by) {
                // They may arrive in any order.
                (By::Peer { incarnation, seq }, By::Peer { incarnation: same, seq: other })
                    if incarnation == same =>
                {
                    *seq = (*seq).max(*other);
                    known.at = last.at;
                }
                // Ours stays, as no value can know of it.
                (By::OwnOnItsWay { .. }, By::Peer { .. } | By::Unnumbered) => {
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

    fn make_room(&mut self, gaps: &mut Gaps) {
        // Those of calls that are on their way are kept, and are as many as there are such calls.
        for _ in 0..self.oldest.len() {
            if self.oldest.len() <= self.max_keys {
                return;
            }
            let Some(print) = self.oldest.pop_front() else { return };
            match self.last.entry(print) {
                Entry::Occupied(last) if last.get().by.is_untold() => self.oldest.push_back(print),
                Entry::Occupied(last) => {
                    let old = last.remove();
                    self.forget(gaps, old);
                }
                Entry::Vacant(_) => {}
            }
        }
    }

    /// What is not remembered key by key any more raises a floor.
    fn forget(&mut self, gaps: &mut Gaps, old: Last) {
        match old.by {
            By::Peer { incarnation, seq } => gaps.raise_floor(&incarnation, seq),
            By::Own { seq } => self.own_floor = self.own_floor.max(seq.saturating_add(1)),
            By::OwnOnItsWay { turn, .. } => self.floor_turn = self.floor_turn.max(Some(turn)),
            By::Unnumbered => {
                let until = old.at.saturating_add(UNNUMBERED_STANDS);
                self.blunt_until = self.blunt_until.max(until);
            }
        }
    }
}

impl By {
    fn is_untold(&self) -> bool {
        matches!(self, Self::OwnOnItsWay { untold: 1.., .. })
    }

    fn is_out(&self, out: Out) -> bool {
        matches!(self, Self::OwnOnItsWay { untold: 0, turn } if *turn < out.covered)
    }
}

/// How far our outbox is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// Turns below are out.
    pub(crate) covered: u64,
    /// The number of the next message that is made.
    pub(crate) next_seq: u64,
}

/// A value of a peer, and what it says for itself: what is in its event.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) keys: &'a [&'a str],
    pub(crate) mark: Option<&'a Mark<'a>>,
    pub(crate) prime: bool,
    pub(crate) seen: Option<&'a [u8]>,
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
mod tests;
