//! How far the messages of each publisher of a cache were received, for the causal filter.

use super::GapDetector;
use crate::bus::{protocol::publisher_state::PublisherState, wire::namespace::CacheId};

impl GapDetector {
    /// Whether a message of this incarnation was received in the last minute, and it has the cache.
    pub(crate) fn is_known(&self, cache: CacheId, incarnation: &str) -> bool {
        self.publishers.get(incarnation).is_some_and(|it| it.caches.contains(&cache))
    }

    /// Each publisher that published something, with the number below which all its messages were
    /// received.
    pub(crate) fn watermarks(&self, cache: CacheId) -> impl Iterator<Item = (&str, u64)> {
        let publishers = self.publishers_of(cache);
        let watermarks = publishers.map(|(incarnation, it)| (incarnation, it.numbers.next()));
        watermarks.filter(|(_, next)| *next > 0)
    }

    /// Each publisher, with the number below which its deletes are not known key by key.
    pub(crate) fn forgotten_watermarks(&self, cache: CacheId) -> impl Iterator<Item = (&str, u64)> {
        let publishers = self.publishers_of(cache);
        publishers.map(|(incarnation, publisher)| (incarnation, publisher.forgotten_below))
    }

    /// Records that deletes up to this number are not remembered key by key.
    pub(crate) fn forget_up_to(&mut self, incarnation: &str, seq: u64) {
        if let Some(publisher) = self.publishers.get_mut(incarnation) {
            publisher.forget_below(seq.saturating_add(1));
        }
    }

    fn publishers_of(&self, cache: CacheId) -> impl Iterator<Item = (&str, &PublisherState)> {
        let publishers = self.publishers.iter().filter(move |(_, it)| it.caches.contains(&cache));
        publishers.map(|(incarnation, publisher)| (&**incarnation, publisher))
    }
}
