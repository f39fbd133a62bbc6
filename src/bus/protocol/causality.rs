//! The causal filter: decides whether a value that a peer sent may be older than a delete.
//!
//! Messages are not ordered, so a value may arrive after the delete that superseded it, and would
//! restore a deleted value. Clocks cannot decide this, because no two agree, and a read of L2 is
//! the cost that the value is meant to spare the peer. Instead each value carries a *version
//! vector*: per publisher, the sequence number below which its sender had applied all messages
//! when its load ended. If the load's right to publish still stood then, the load began after
//! those messages were applied, because a delete takes this right from all running loads. The
//! filter admits a value only if its vector covers
//!
//! - the last delete of its key that this instance knows, and
//! - for each publisher, all numbers below its *forgotten watermark*: deletes below it are not
//!   known key by key, because they were patterns, came before the subscription, or are too old.
//!
//! For `trust_timeout` after a subscription began or messages were lost, too little is known and
//! no value is admitted. A refused value costs one load or one read of L2, and no more.
//!
//! Deletes by instances of the TypeScript package have no numbers. Values of their keys, or of the
//! keys that match their patterns, are refused for five seconds after them. This is a guess and no
//! proof; that package has no proof either.

mod last_invalidation;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::BuildHasher,
    sync::Arc,
};

pub(crate) use self::last_invalidation::OutboxProgress;
use self::last_invalidation::{InvalidatedBy, LastInvalidation};
use super::{
    gap_detector::GapDetector,
    version_vector::{MAX_PUBLISHERS, VersionVector},
};
use crate::{
    bus::wire::{message::SequenceStamp, namespace::CacheId},
    glob::Pattern,
};

/// Milliseconds in which values are refused after a delete without a number.
const UNNUMBERED_WINDOW: u64 = 5_000;

/// Patterns without a number that are remembered, and their bytes. One more, or a longer one,
/// counts as a delete of every key.
const MAX_PATTERNS: usize = 64;
const MAX_PATTERN_LEN: usize = 256;

/// Remembers the last invalidation of each key, and raises a watermark when it forgets one. All
/// times are milliseconds.
///
/// An invalidation by this instance goes through these steps. Before the last one, no value of its
/// key (of a pattern: no value at all) is admitted:
///
/// | step | of a key | of a pattern |
/// | --- | --- | --- |
/// | before the caller changes L1 | `begin_invalidation` | `begin_pattern` |
/// | the message is queued in the outbox, or nothing was changed | `on_committed` | `on_pattern_committed` |
/// | the message was published | `on_sent` | `on_sent` |
#[derive(Default)]
pub(crate) struct CausalFilter {
    /// The incarnation of this instance.
    own: Arc<str>,
    /// The cache whose keys these are.
    cache: CacheId,
    /// The forgotten watermark of this instance itself.
    own_forgotten_below: u64,
    /// The last outbox position of the messages that will raise it once they are published.
    own_forgotten_position: Option<u64>,
    uncommitted_patterns: usize,
    /// Until when every value is refused, because of deletes that are not known key by key.
    reject_all_until: u64,
    /// The patterns without a number, each with the time until which values of its keys are
    /// refused, in the order of these times.
    unnumbered_patterns: VecDeque<(u64, Pattern)>,
    /// The incarnation in the last delete of a peer: often the next one has it too.
    last_peer: Arc<str>,
    max_keys: usize,
    hasher: foldhash::fast::RandomState,
    /// By the hash of the key. If two keys have the same hash, more values are refused.
    last: HashMap<u64, LastInvalidation, foldhash::fast::RandomState>,
    /// The hashes in `last`, oldest first.
    oldest: VecDeque<u64>,
}

/// The encoded version vector of a value, or why there is none.
pub(crate) type CausalContext = Result<Arc<[u8]>, &'static str>;

/// A value of a peer, as its message describes it.
#[derive(Clone, Copy)]
pub(crate) struct ValueClaim<'a> {
    pub(crate) keys: &'a [&'a str],
    pub(crate) stamp: Option<&'a SequenceStamp<'a>>,
    pub(crate) prime: bool,
    /// The encoded version vector.
    pub(crate) context: Option<&'a [u8]>,
}

impl CausalFilter {
    pub(crate) const MAX_KEYS: usize = 10_000;

    pub(crate) fn new(own: &Arc<str>, max_keys: usize) -> Self {
        Self { own: Arc::clone(own), max_keys: max_keys.max(1), ..Self::default() }
    }

    /// Makes it the filter of a cache that joins an instance which has used all sequence numbers
    /// below `next_seq`, perhaps for deletes of a cache of the same name. `unnumbered_at`: when the
    /// last message without a number was received that may be for the cache. `named_at`: when its
    /// publishers are known.
    pub(crate) fn of_cache(
        self,
        cache: CacheId,
        next_seq: u64,
        unnumbered_at: Option<u64>,
        named_at: u64,
    ) -> Self {
        let forgotten_at = unnumbered_at.map_or(0, |at| at.saturating_add(UNNUMBERED_WINDOW));
        // mutant late-values: s/named_at.max(forgotten_at)/forgotten_at/
        let reject_all_until = named_at.max(forgotten_at);
        Self { cache, own_forgotten_below: next_seq, reject_all_until, ..self }
    }

    pub(crate) fn begin_invalidation(&mut self, gaps: &mut GapDetector, now: u64, key: &str) {
        if let Some((uncommitted, _)) = self.own_pending(key) {
            *uncommitted += 1;
        } else {
            let by = InvalidatedBy::OwnPending { uncommitted: 1, position: 0 };
            self.remember(gaps, key, LastInvalidation { by, at: now, refused_until: 0 });
        }
    }

    /// Records the outbox position of the call's message. `None`: nothing was deleted after all.
    pub(crate) fn on_committed(&mut self, key: &str, committed: Option<u64>) {
        if let Some((uncommitted, position)) = self.own_pending(key) {
            *uncommitted = uncommitted.saturating_sub(1);
            *position = committed.map_or(*position, |committed| committed.max(*position));
        }
    }

    pub(crate) fn begin_pattern(&mut self) {
        self.uncommitted_patterns += 1;
    }

    pub(crate) fn on_pattern_committed(&mut self, committed: Option<u64>) {
        self.uncommitted_patterns = self.uncommitted_patterns.saturating_sub(1);
        self.own_forgotten_position = self.own_forgotten_position.max(committed);
    }

    /// Records that a message of this instance, which invalidates these keys, was published.
    pub(crate) fn on_sent(&mut self, seq: u64, keys: &[&str], progress: OutboxProgress) {
        for key in keys {
            if let Some(last) = self.last.get_mut(&self.hasher.hash_one(key))
                && last.by.is_published(progress)
            {
                last.by = InvalidatedBy::Own { seq };
            }
        }
        if self.own_forgotten_position.take_if(|position| *position < progress.acked).is_some() {
            self.own_forgotten_below = self.own_forgotten_below.max(progress.next_seq);
        }
    }

    pub(crate) fn on_peer_delete(
        &mut self,
        gaps: &mut GapDetector,
        now: u64,
        keys: &[&str],
        stamp: Option<&SequenceStamp<'_>>,
    ) {
        let (by, refused_until) = match stamp {
            Some(SequenceStamp { incarnation, seq, .. }) => {
                if *self.last_peer != **incarnation {
                    self.last_peer = Arc::from(*incarnation);
                }
                (InvalidatedBy::Peer { incarnation: Arc::clone(&self.last_peer), seq: *seq }, 0)
            }
            None => (InvalidatedBy::Unnumbered, now.saturating_add(UNNUMBERED_WINDOW)),
        };
        for key in keys {
            let by = by.clone();
            self.remember(gaps, key, LastInvalidation { by, at: now, refused_until });
        }
    }

    /// Records that a peer deleted by a pattern. One with a number counts as a delete of every key.
    pub(crate) fn on_peer_pattern(
        &mut self,
        gaps: &mut GapDetector,
        now: u64,
        pattern: &str,
        stamp: Option<&SequenceStamp<'_>>,
    ) {
        if let Some(stamp) = stamp {
            return gaps.forget_up_to(stamp.incarnation, stamp.seq);
        }
        let until = now.saturating_add(UNNUMBERED_WINDOW);
        let patterns = &mut self.unnumbered_patterns;
        while patterns.front().is_some_and(|(until, _)| *until <= now) {
            patterns.pop_front();
        }
        if patterns.len() < MAX_PATTERNS && pattern.len() <= MAX_PATTERN_LEN {
            patterns.push_back((until, Pattern::new(pattern)));
        } else {
            self.reject_all_until = self.reject_all_until.max(until);
        }
    }

    /// Encodes the version vector of a value that is read or set now; `next_seq` is the sequence
    /// number of the next message of this instance.
    ///
    /// `gaps` may be left out for a value that is set. If its vector then covers too little, peers
    /// take the message as a delete.
    pub(crate) fn causal_context(
        &self,
        gaps: Option<&GapDetector>,
        next_seq: u64,
    ) -> CausalContext {
        let peers = gaps.into_iter().flat_map(|gaps| gaps.watermarks(self.cache));
        let peers = peers.filter(|(incarnation, _)| **incarnation != *self.own);
        // One more than fit shows that there are too many, however many there are.
        let peers = peers.take(MAX_PUBLISHERS);
        let entries: Vec<_> = peers.chain([(&*self.own, next_seq)]).collect();
        VersionVector::encode(&entries).ok_or("more than 256 instances publish")
    }

    /// Whether every known delete of these keys happened before the value was loaded or set.
    pub(crate) fn admits(
        &self,
        gaps: &GapDetector,
        now: u64,
        progress: OutboxProgress,
        value: ValueClaim<'_>,
    ) -> bool {
        // mutant order: insert if now > 0 { return true; }
        let ValueClaim { keys, stamp, prime, context } = value;
        if !gaps.is_caught_up(now)
            || now < self.reject_all_until
            || self.uncommitted_patterns > 0
            || self.own_forgotten_position.is_some()
            || self.is_deleted_by_unnumbered_pattern(now, keys)
        {
            return false;
        }
        let has_expired =
            |last: &LastInvalidation| now.saturating_sub(last.at) >= UNNUMBERED_WINDOW;
        let mut last = keys.iter().filter_map(|key| self.last.get(&self.hasher.hash_one(key)));
        let Some(stamp) = stamp else { return last.all(has_expired) };
        let Some(mut vector) = context.and_then(VersionVector::decode) else { return false };
        if !prime {
            // A value that was set is newer than all earlier messages of its publisher. A loaded
            // one need not be.
            vector.raise(stamp.incarnation, stamp.seq);
        }
        last.all(|last| now >= last.refused_until && match &last.by {
            // A forgotten publisher is in no version vector any more. It was silent for a minute.
            InvalidatedBy::Peer { incarnation, seq } => {
                vector.covers(incarnation, seq.saturating_add(1))
                    || !gaps.is_known(self.cache, incarnation)
            }
            InvalidatedBy::Unnumbered => true,
            InvalidatedBy::Own { seq } => vector.covers(&self.own, seq.saturating_add(1)),
            // The sequence number is not known, for example if the delete was sent as a pattern.
            by @ InvalidatedBy::OwnPending { .. } => {
                by.is_published(progress) && vector.covers(&self.own, progress.next_seq)
            }
        }) && vector.covers(&self.own, self.own_forgotten_below)
            // Of thousands of publishers, this looks up at most one more than the vector has.
            && gaps.forgotten_watermarks(self.cache).filter(|(_, below)| *below > 0).all(
                |(incarnation, below)| {
                    vector.covers(incarnation, below) || *incarnation == *self.own
                },
            )
    }

    fn is_deleted_by_unnumbered_pattern(&self, now: u64, keys: &[&str]) -> bool {
        let mut patterns = self.unnumbered_patterns.iter().filter(|(until, _)| now < *until);
        patterns.any(|(_, pattern)| keys.iter().any(|key| pattern.matches(key)))
    }

    fn own_pending(&mut self, key: &str) -> Option<(&mut usize, &mut u64)> {
        match &mut self.last.get_mut(&self.hasher.hash_one(key))?.by {
            InvalidatedBy::OwnPending { uncommitted, position } => Some((uncommitted, position)),
            _ => None,
        }
    }

    fn remember(&mut self, gaps: &mut GapDetector, key: &str, new: LastInvalidation) {
        use InvalidatedBy::{OwnPending, Peer, Unnumbered};
        let mut new = new;
        let hash = self.hasher.hash_one(key);
        let Some(known) = self.last.get_mut(&hash) else {
            self.last.insert(hash, new);
            self.oldest.push_back(hash);
            self.make_room(gaps);
            return;
        };
        // A delete without a number refuses the values of its key also when another one follows.
        // mutant unnumbered-key: remove
        new.refused_until = new.refused_until.max(known.refused_until);
        known.refused_until = new.refused_until;
        match (&mut known.by, &new.by) {
            // The messages of a peer may arrive in any order.
            (Peer { incarnation, seq }, Peer { incarnation: same, seq: other })
                if incarnation == same =>
            {
                *seq = (*seq).max(*other);
                known.at = new.at;
            }
            // A pending one stays, as no value can cover it.
            (OwnPending { .. }, Peer { .. } | Unnumbered) => self.raise_watermark(gaps, new.by),
            _ => {
                let old = std::mem::replace(known, new);
                self.raise_watermark(gaps, old.by);
            }
        }
    }

    /// Forgets the oldest keys beyond `max_keys`. Keys of calls that have not committed are kept:
    /// they are at most as many as there are such calls.
    fn make_room(&mut self, gaps: &mut GapDetector) {
        for _ in 0..self.oldest.len() {
            if self.oldest.len() <= self.max_keys {
                return;
            }
            let Some(hash) = self.oldest.pop_front() else { return };
            match self.last.entry(hash) {
                Entry::Occupied(last)
                    if matches!(
                        last.get().by,
                        InvalidatedBy::OwnPending { uncommitted: 1.., .. }
                    ) =>
                {
                    self.oldest.push_back(hash);
                }
                Entry::Occupied(last) => {
                    let old = last.remove();
                    self.forget(gaps, old);
                }
                Entry::Vacant(_) => {}
            }
        }
    }

    fn forget(&mut self, gaps: &mut GapDetector, old: LastInvalidation) {
        self.reject_all_until = self.reject_all_until.max(old.refused_until);
        self.raise_watermark(gaps, old.by);
    }

    /// Raises the watermark under which an invalidation falls that is no longer known by its key.
    fn raise_watermark(&mut self, gaps: &mut GapDetector, old: InvalidatedBy) {
        match old {
            InvalidatedBy::Peer { incarnation, seq } => gaps.forget_up_to(&incarnation, seq),
            InvalidatedBy::Own { seq } => {
                self.own_forgotten_below = self.own_forgotten_below.max(seq.saturating_add(1));
            }
            InvalidatedBy::OwnPending { position, .. } => {
                self.own_forgotten_position = self.own_forgotten_position.max(Some(position));
            }
            InvalidatedBy::Unnumbered => {}
        }
    }
}

#[cfg(test)]
mod tests;
