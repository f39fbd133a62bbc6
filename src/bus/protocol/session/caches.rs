//! The caches of a session: each has its outbox and its causal filter.

use std::sync::Arc;

use super::{Session, cache_state::CacheState};
use crate::{
    bus::{
        protocol::{
            causality::CausalFilter,
            outbox::{Change, Outbox, Reduction},
            rebroadcasts::Name,
        },
        wire::{
            limits::MAX_CACHES,
            message::InL2,
            namespace::{CacheId, Namespace},
        },
    },
    options::CacheOptions,
};

/// Why a cache cannot join a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachRefused {
    /// Another cache of the session has its name.
    NameTaken,
    /// Another cache of the session accepts messages without a namespace.
    UnnamedTaken,
    TooMany,
}

/// The outbox of a cache after a change, for the callers that wait for it.
pub(crate) struct CacheReport {
    pub(crate) cache: CacheId,
    /// See [`Outbox::acked`].
    pub(crate) acked: u64,
    pub(crate) reductions: Vec<Reduction>,
}

impl Session {
    /// Adds a cache. Nothing of it is stored yet, so no message that was received before concerns
    /// it. `sends_generations`: each message carries the generation of its key, so that it has room
    /// for one key.
    ///
    /// For `trust_timeout` the cache admits no value of a peer: until then its publishers name it
    /// in their beacons, and only then their earlier deletes count against a value.
    ///
    /// # Errors
    ///
    /// Another cache of the session is in the way.
    pub(crate) fn attach(
        &mut self,
        now: u64,
        options: &CacheOptions,
        sends_generations: bool,
    ) -> Result<CacheId, AttachRefused> {
        let bus = &options.event_bus;
        let namespace = Namespace::new(options.name.as_deref(), bus.accept_unnamed);
        let mut others = self.caches.values().filter(|it| !it.is_detached && !it.is_ending);
        if others.clone().any(|it| it.namespace.name() == namespace.name()) {
            return Err(AttachRefused::NameTaken);
        }
        if namespace.accepts_unnamed() && others.any(|it| it.namespace.accepts_unnamed()) {
            return Err(AttachRefused::UnnamedTaken);
        }
        if self.caches.len() >= MAX_CACHES {
            return Err(AttachRefused::TooMany);
        }
        let id = CacheId(self.next_id);
        self.next_id += 1;
        let outbox = Outbox::new(bus.outbox_max_entries, bus.outbox_max_bytes);
        let (unnumbered_at, named_at) = self.gaps.on_cache_joined(now);
        let causality = CausalFilter::new(&self.identity.incarnation, CausalFilter::MAX_KEYS);
        let cache = CacheState {
            // mutant counts-alone: if false
            outbox: if sends_generations { outbox.single_key() } else { outbox },
            causality: causality.of_cache(id, self.next_seq, unnumbered_at, named_at),
            has_turn: false,
            is_ending: false,
            is_detached: false,
            namespace,
        };
        if options.subscribe_to_events {
            Arc::make_mut(&mut self.namespaces).add(id, &cache.namespace);
        }
        self.caches.insert(id, cache);
        // The peers must learn soon that this instance has the cache.
        self.hello_pending |= self.caches.len() > 1;
        Ok(id)
    }

    /// The calls of a cache have ended: from now on, another cache may have its name.
    pub(crate) fn release_name(&mut self, cache: CacheId) {
        if let Some(cache) = self.caches.get_mut(&cache) {
            cache.is_ending = true;
        }
    }

    /// Whether the session has a cache beside this one.
    pub(crate) fn has_other(&self, cache: CacheId) -> bool {
        self.caches.iter().any(|(id, it)| *id != cache && !it.is_detached)
    }

    /// Removes a cache. Returns the number of invalidations that are lost with it, and
    /// [how far](Outbox::acked) its outbox was; `None` if it was removed before.
    ///
    /// If there are any, a sequence number is left out. So its peers find a gap, as they would if
    /// the session had ended. The message in flight is published all the same, because its number
    /// is used; unless the cache is the last one of the session. Then that message is lost, of
    /// whichever cache it is.
    pub(crate) fn detach(&mut self, cache: CacheId) -> Option<(usize, u64)> {
        let is_last = !self.has_other(cache);
        let state = self.caches.get_mut(&cache).filter(|it| !it.is_detached)?;
        let acked = state.outbox.acked();
        state.is_detached = true;
        let mut lost = state.outbox.forget_waiting();
        if is_last {
            lost += self.caches.values().map(|it| it.outbox.in_flight()).sum::<usize>();
        }
        if !self.is_sending(cache) {
            self.caches.remove(&cache);
        }
        Arc::make_mut(&mut self.namespaces).remove(cache);
        self.turns.retain(|other| *other != cache);
        self.rebroadcasts.remove_cache(cache);
        self.gaps.on_cache_left(cache);
        // mutant detach-gap: if false
        if lost > 0 {
            self.next_seq += 1;
        }
        Some((lost, acked))
    }

    /// Refuses peers' values of a key that this instance is about to delete or set, or, if it is
    /// about to delete by a pattern, of all keys of the cache, until
    /// [`commit_invalidation`](Self::commit_invalidation).
    pub(crate) fn begin_invalidation(
        &mut self,
        cache: CacheId,
        now: u64,
        name: &str,
        is_pattern: bool,
    ) {
        let Some(CacheState { causality, .. }) = self.caches.get_mut(&cache) else { return };
        if is_pattern {
            causality.begin_pattern();
        } else {
            causality.begin_invalidation(&mut self.gaps, now, name);
        }
    }

    /// Ends an invalidation that was begun: queues its message, or none if nothing was changed.
    /// Returns the outbox position of the message; `None` if there is none, or the cache was
    /// detached.
    pub(crate) fn commit_invalidation(
        &mut self,
        cache: CacheId,
        now: u64,
        name: &str,
        is_pattern: bool,
        change: Option<(Change, InL2)>,
    ) -> Option<u64> {
        let position = change.and_then(|(change, in_l2)| self.push(cache, now, change, in_l2));
        let CacheState { causality, .. } = self.caches.get_mut(&cache)?;
        if is_pattern {
            causality.on_pattern_committed(position);
        } else {
            causality.on_committed(name, position);
        }
        position
    }

    /// Queues a change. Returns its outbox position; `None` if the cache was detached.
    pub(crate) fn push(
        &mut self,
        cache: CacheId,
        now: u64,
        change: Change,
        in_l2: InL2,
    ) -> Option<u64> {
        let state = self.caches.get_mut(&cache).filter(|it| !it.is_detached)?;
        let position = state.outbox.push(now, change, in_l2);
        self.give_turn(cache);
        Some(position)
    }

    /// A retry of this instance has brought an invalidation of a peer to L2: it is broadcast again
    /// after a random time, unless a peer does so first. `random` is from 0 to 1.
    pub(crate) fn rebroadcast_later(&mut self, now: u64, name: Name, random: f64) {
        if !self.caches.contains_key(&name.cache) {
            return;
        }
        if !self.rebroadcasts.schedule(now, &name, random) {
            self.push_retried(now, name);
        }
    }

    /// Queues the rebroadcasts of a cache that wait.
    pub(crate) fn push_rebroadcasts_of(&mut self, now: u64, cache: CacheId) {
        for name in self.rebroadcasts.remove_cache(cache) {
            self.push_retried(now, name);
        }
    }

    pub(super) fn push_retried(&mut self, now: u64, name: Name) {
        let change = Change::invalidation(name.text, name.is_pattern);
        self.push(name.cache, now, change, InL2::Retried);
    }

    /// Whether the change of a cache at this position was published, and all changes before it.
    pub(crate) fn is_published(&self, cache: CacheId, position: u64) -> bool {
        self.outbox(cache).is_some_and(|outbox| outbox.is_published(position))
    }

    /// The position of the last change that was queued.
    pub(crate) fn last_position(&self, cache: CacheId) -> u64 {
        self.outbox(cache).map_or(0, |outbox| outbox.next_position().saturating_sub(1))
    }

    /// The number of changes of a cache that wait to be published, see [`Outbox::len`].
    pub(crate) fn waiting(&self, cache: CacheId) -> usize {
        self.outbox(cache).map_or(0, Outbox::len)
    }

    /// Returns the outboxes that have changed since the last call.
    pub(crate) fn take_reports(&mut self) -> Vec<CacheReport> {
        if self.changed.is_empty() {
            return Vec::new();
        }
        let changed = self.changed.drain(..);
        let reports = changed.filter_map(|cache| {
            let outbox = &mut self.caches.get_mut(&cache).filter(|it| !it.is_detached)?.outbox;
            let (acked, reductions) = (outbox.acked(), outbox.take_reductions());
            Some(CacheReport { cache, acked, reductions })
        });
        reports.collect()
    }

    /// Gives a cache its turn, if it has none and something to publish.
    pub(super) fn give_turn(&mut self, cache: CacheId) {
        self.on_changed(cache);
        let is_sending = self.is_sending(cache);
        let Some(state) = self.caches.get_mut(&cache) else { return };
        if !state.has_turn && !is_sending && !state.outbox.is_empty() {
            state.has_turn = true;
            self.turns.push_back(cache);
        }
    }

    pub(super) fn on_changed(&mut self, cache: CacheId) {
        if !self.changed.contains(&cache) {
            self.changed.push(cache);
        }
    }

    /// Whether the message in flight is one of this cache.
    fn is_sending(&self, cache: CacheId) -> bool {
        self.in_flight.is_some_and(|(id, _)| id == cache)
    }

    fn outbox(&self, cache: CacheId) -> Option<&Outbox> {
        let state = self.caches.get(&cache).filter(|it| !it.is_detached)?;
        Some(&state.outbox)
    }
}
