//! Random changes, publishes and refusals against a model of a peer.

use std::collections::HashSet;

use super::{
    tests::{confirm, delete, pattern, value},
    *,
};
use crate::{bus::wire::message::MessageKind, glob::Pattern};

use InL2::{No, Retried, Yes};

/// The keys of the model.
fn keys() -> impl Iterator<Item = String> {
    (0..8).map(|n| format!("{}:{}", n / 4, n % 4))
}

/// A change that was pushed and may not have reached the peer.
struct Open {
    key: String,
    in_l2: InL2,
    position: u64,
    received: bool,
}

/// A peer that receives some messages twice, and the changes that must reach it.
#[derive(Default)]
struct Peer {
    holds: HashMap<String, u8>,
    open: Vec<Open>,
    /// The numbers of the messages that it recognises when they arrive again.
    known: Option<HashSet<u64>>,
}

impl Peer {
    fn expect(&mut self, position: u64, in_l2: InL2, is_changed: impl Fn(&str) -> bool) {
        let keys = keys().filter(|key| is_changed(key));
        self.open.extend(keys.map(|key| Open { key, in_l2, position, received: false }));
    }

    fn receive(&mut self, seq: u64, batch: &Batch) {
        if self.known.as_mut().is_some_and(|known| !known.insert(seq)) {
            return;
        }
        let (kind, in_l2) = (batch.kind(), batch.in_l2);
        let covered = |key: &str| match &kind {
            MessageKind::Delete { keys } | MessageKind::Set { keys, .. } => keys.contains(&key),
            MessageKind::Pattern { pattern } => Pattern::new(pattern).matches(key),
            MessageKind::Beacon { .. } => false,
        };
        self.holds.retain(|key, _| !covered(key));
        for open in &mut self.open {
            open.received |= covered(&open.key) && in_l2 >= open.in_l2;
        }
        if let MessageKind::Set { keys, value, .. } = kind {
            self.holds.insert(keys[0].to_owned(), value[0]);
        }
    }
}

#[test]
fn every_change_reaches_the_peer_which_ends_up_with_no_old_value() {
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut outbox = Outbox::new(random.usize(1..12), random.usize(300..3_000));
        let known = random.bool().then(HashSet::new);
        let mut peer = Peer { known, ..Peer::default() };
        let mut acked = 0;
        // The values that the peer may hold: the one set last, and those loaded since, unless
        // they were deleted.
        let mut valid: HashMap<String, Vec<u8>> = HashMap::new();
        let mut seq = 0;
        for now in (0..1_400).step_by(7) {
            let key = keys().nth(random.usize(..8)).unwrap();
            let in_l2 = random.choice([Retried, Yes, Yes, No]).unwrap();
            match random.u8(..10) {
                0..=2 => {
                    valid.remove(&key);
                    let position = outbox.push(now, delete(&key), in_l2);
                    peer.expect(position, in_l2, |other| other == key);
                }
                3 => {
                    let glob = random.choice(["0:*", "1:*", "*", "?:1"]).unwrap();
                    let compiled = Pattern::new(glob);
                    valid.retain(|key, _| !compiled.matches(key));
                    let position = outbox.push(now, pattern(glob), in_l2);
                    peer.expect(position, in_l2, |other| compiled.matches(other));
                }
                4 | 5 => {
                    let (number, prime) = (random.u8(..), random.bool());
                    let values = valid.entry(key.clone()).or_default();
                    if !prime {
                        values.clear();
                    }
                    values.push(number);
                    let in_l2 = if prime { Yes } else { in_l2 };
                    let position = outbox.push(now, value(&key, number, prime), in_l2);
                    peer.expect(position, in_l2, |other| other == key && !prime);
                }
                _ => {
                    let Some(out) = outbox.next(now) else { continue };
                    let arrives = random.u8(..3) > 0;
                    if arrives {
                        peer.receive(seq, out);
                    }
                    if arrives && random.bool() {
                        confirm(&mut outbox);
                        seq += 1;
                    } else if random.bool() {
                        outbox.on_refused();
                    } else {
                        outbox.on_send_failed();
                    }
                }
            }
            assert!(outbox.waiting.len() <= outbox.max_entries && outbox.bytes <= outbox.max_bytes);
            assert!(outbox.acked() >= acked);
            acked = outbox.acked();
            peer.open.retain(|open| {
                let is_acked = open.position < outbox.acked();
                assert!(!is_acked || open.received, "{} of seed {seed}", open.key);
                !is_acked
            });
        }
        while let Some(out) = outbox.next(10_000) {
            peer.receive(seq, out);
            seq += 1;
            confirm(&mut outbox);
        }
        assert!(peer.open.iter().all(|open| open.received), "seed {seed}");
        for (key, held) in &peer.holds {
            let valid = valid.get(key).map(Vec::as_slice).unwrap_or_default();
            assert!(valid.contains(held), "{key} of seed {seed}");
        }
        assert_eq!((outbox.bytes, outbox.len()), (0, 0));
        assert_eq!(outbox.deletes.len() + outbox.values.len() + outbox.patterns.len(), 0);
    }
}
