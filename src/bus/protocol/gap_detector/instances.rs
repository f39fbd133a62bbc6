//! Notices two live processes that publish under one instance id.
//!
//! Each process has an incarnation of its own, which is random, and its beacons carry its instance
//! id. After a restart there is a new incarnation, and the old one falls silent. So if both still
//! send beacons `trust_timeout` after the first beacon of the new one, both are alive. No transport
//! stores beacons, so no beacon of a process that has ended arrives after that time. This instance
//! takes the one that it hears later for the new one.
//!
//! Two sessions of one process, of different caches, may share an instance id. Therefore only
//! publishers that have a cache in common are compared.

use std::hash::BuildHasher;

use super::GapDetector;
use crate::bus::protocol::publisher_state::Successor;

/// Instance ids, and those that two live processes have.
#[derive(Default)]
pub(super) struct Instances {
    hasher: foldhash::quality::RandomState,
    /// An instance id that was noticed, until it is taken.
    shared: Option<Box<str>>,
}

impl GapDetector {
    /// Records a beacon of a publisher that will send more of them. `id` is its instance id.
    pub(crate) fn observe_instance(&mut self, now: u64, incarnation: &str, id: &str) {
        let Self { publishers, instances, trust_timeout, .. } = self;
        let Some(publisher) = publishers.get_mut(incarnation).filter(|it| !it.is_foreign()) else {
            return;
        };
        publisher.last_beacon = now;
        if publisher.instance.is_none() {
            let hash = instances.hasher.hash_one(id);
            let caches = publisher.caches.clone();
            for older in publishers.values_mut().filter(|it| it.instance == Some(hash)) {
                if older.successor == Successor::None && !older.caches.is_disjoint(&caches) {
                    older.successor = Successor::Since(now, Box::from(incarnation));
                }
            }
            if let Some(publisher) = publishers.get_mut(incarnation) {
                publisher.instance = Some(hash);
            }
            return;
        }
        let Successor::Since(at, newer) = &publisher.successor else { return };
        let both_alive = at.saturating_add(*trust_timeout);
        if now < both_alive {
            return;
        }
        let newer = newer.clone();
        // mutant handed-over: => let is_alive = Some(true);
        let is_alive = match publishers.get(&newer) {
            Some(newer) if newer.last_beacon >= both_alive => Some(true),
            Some(newer) if !newer.has_left => None,
            _ => Some(false),
        };
        let Some(publisher) = publishers.get_mut(incarnation) else { return };
        match is_alive {
            Some(true) if instances.shared.is_none() => {
                publisher.successor = Successor::Reported;
                instances.shared = Some(Box::from(id));
            }
            Some(false) => publisher.successor = Successor::None,
            // The next beacon of either may tell.
            Some(true) | None => {}
        }
    }

    /// Returns an instance id that two live processes have, once for each process too many.
    pub(crate) fn take_shared_instance(&mut self) -> Option<Box<str>> {
        self.instances.shared.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::wire::{message::SequenceStamp, namespace::CacheId};

    const TRUST: u64 = 3_000;

    fn stamp(incarnation: &str, next_within_ms: Option<u64>) -> SequenceStamp<'_> {
        SequenceStamp { incarnation, seq: 0, next_within_ms, idle_ms: None }
    }

    /// Receives a beacon of an incarnation of the instance `host` for this cache. Returns the
    /// instance id that was noticed.
    fn beacon(gaps: &mut GapDetector, now: u64, incarnation: &str, cache: u64) -> Option<Box<str>> {
        gaps.observe(now, &stamp(incarnation, Some(1_000)), true, &[CacheId(cache)]);
        gaps.observe_instance(now, incarnation, "host");
        gaps.take_shared_instance()
    }

    fn detector() -> GapDetector {
        let mut gaps = GapDetector::new("own", TRUST);
        gaps.on_subscribed(0, false);
        gaps
    }

    #[test]
    fn an_incarnation_that_goes_on_beside_its_successor_is_noticed_once() {
        let mut gaps = detector();
        let mut noticed = Vec::new();
        for now in (0..60_000).step_by(1_000) {
            noticed.extend(beacon(&mut gaps, now, "old", 1).map(|id| (now, id)));
            if now >= 20_000 {
                noticed.extend(beacon(&mut gaps, now, "new", 1).map(|id| (now, id)));
            }
        }
        assert_eq!(noticed, [(24_000, Box::from("host"))]);
        // A third process is one more too many.
        let third = (60_000..70_000).step_by(1_000).filter(|now| {
            ["old", "new", "third"].iter().any(|it| beacon(&mut gaps, *now, it, 1).is_some())
        });
        assert_eq!(third.count(), 1);
    }

    #[test]
    fn a_restart_is_not() {
        let mut gaps = detector();
        for restart in 0..5 {
            let incarnation = restart.to_string();
            let begun = restart * 10_000;
            for now in (begun..begun + 10_000).step_by(1_000) {
                assert_eq!(beacon(&mut gaps, now, &incarnation, 1), None);
            }
            // The last beacons of the old process overtake none, and come late.
            if restart > 0 {
                let old = (restart - 1).to_string();
                assert_eq!(beacon(&mut gaps, begun + TRUST - 1, &old, 1), None);
            }
        }
    }

    /// The new process begins before the old one has drained, and may be heard before it.
    #[test]
    fn a_short_overlap_is_not() {
        for (first, second) in [("old", "new"), ("new", "old")] {
            let mut gaps = detector();
            assert_eq!(beacon(&mut gaps, 0, first, 1), None);
            assert_eq!(beacon(&mut gaps, 100, second, 1), None);
            assert_eq!(beacon(&mut gaps, 900, "old", 1), None);
            gaps.observe(1_000, &stamp("old", None), true, &[CacheId(1)]);
            for now in (1_000..20_000).step_by(1_000) {
                assert_eq!(beacon(&mut gaps, now, "new", 1), None, "{first} first, at {now}");
            }
        }
    }

    #[test]
    fn sessions_of_different_caches_may_share_an_instance_id() {
        let mut gaps = detector();
        for now in (0..60_000).step_by(1_000) {
            assert_eq!(beacon(&mut gaps, now, "users", 1), None);
            assert_eq!(beacon(&mut gaps, now, "mails", 2), None);
        }
    }
}
