//! Checks confirmed deletes: on a bus that keeps every confirmed event, each delete must be
//! received by every instance that had subscribed, or by its successor if it was killed.

use std::collections::HashSet;

use super::merge::Received;
use crate::history::{Incarnation, Stamp};

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) confirmed: usize,
    /// Deletes that at least one instance did not receive.
    pub(super) lost: usize,
}

/// A delete of all keys is one event, which may be received up to this much before it is confirmed.
const ABOUT: u64 = 2_000;

pub(super) fn count(
    incarnations: &[Incarnation],
    received: &[Received],
) -> (Counts, Option<String>) {
    let slots = incarnations.iter().map(|it| it.slot + 1).max().unwrap_or_default();
    let of = |slot: usize| {
        let all = incarnations.iter().zip(received);
        all.filter(move |(it, _)| it.slot == slot).map(|(_, received)| received)
    };
    let listens: Vec<Option<Stamp>> =
        (0..slots).map(|slot| of(slot).find_map(|it| it.listens)).collect();
    let heard: Vec<HashSet<&str>> =
        (0..slots).map(|slot| of(slot).flat_map(|it| &it.keys).map(|it| &**it).collect()).collect();
    let is_heard = |slot: usize, key: &str, begin: Stamp| {
        heard[slot].contains(key)
            || of(slot).flat_map(|it| &it.all).any(|at| at.at + ABOUT > begin.at)
    };
    let mut counts = Counts::default();
    let mut first = None;
    for (by, received) in incarnations.iter().zip(received).filter(|(it, _)| it.confirms) {
        for (key, begin, _) in received.deletes.iter().filter(|(.., done)| *done) {
            counts.confirmed += 1;
            let listened = |slot: &usize| listens[*slot].is_some_and(|at| at.seq < begin.seq);
            let others = (0..slots).filter(|slot| *slot != by.slot).filter(listened);
            if let Some(slot) = { others }.find(|slot| !is_heard(*slot, key, *begin)) {
                counts.lost += 1;
                first.get_or_insert_with(|| {
                    format!("{key}, deleted from {} ms on, was not heard by {slot}", begin.at)
                });
            }
        }
    }
    (counts, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn incarnation(slot: usize, confirms: bool) -> Incarnation {
        Incarnation { slot, began: 0, ended: None, confirms }
    }

    const fn at(at: u64) -> Stamp {
        Stamp { at, seq: at }
    }

    fn listening_from(begin: u64, keys: &[&str], all: &[u64]) -> Received {
        Received {
            listens: Some(at(begin)),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            all: all.iter().copied().map(at).collect(),
            deletes: Vec::new(),
        }
    }

    /// Counts the lost deletes if a key is deleted at `begin`, acknowledged or not, and the others
    /// have received these events.
    fn lost(begin: u64, done: bool, others: Vec<(usize, Received)>) -> usize {
        let mut publisher = listening_from(0, &[], &[]);
        publisher.deletes.push(("once:0:0".to_owned(), at(begin), done));
        let mut incarnations = vec![incarnation(0, true)];
        incarnations.extend(others.iter().map(|(slot, _)| incarnation(*slot, true)));
        let received: Vec<Received> =
            std::iter::once(publisher).chain(others.into_iter().map(|(_, it)| it)).collect();
        count(&incarnations, &received).0.lost
    }

    #[test]
    fn a_delete_is_lost_that_was_confirmed_and_that_one_who_listened_did_not_hear() {
        let deaf = || listening_from(0, &["once:0:1"], &[]);
        assert_eq!(lost(9_000, true, vec![(1, listening_from(0, &["once:0:0"], &[]))]), 0);
        assert_eq!(lost(9_000, true, vec![(1, deaf())]), 1);
        assert_eq!(lost(9_000, false, vec![(1, deaf())]), 0, "it was not confirmed");
        assert_eq!(lost(9_000, true, vec![(1, listening_from(9_001, &[], &[]))]), 0, "not there");
        assert_eq!(lost(9_000, true, vec![(1, listening_from(0, &[], &[9_500]))]), 0, "all");
        assert_eq!(lost(9_000, true, vec![(1, listening_from(0, &[], &[5_000]))]), 1, "all before");
        let next = listening_from(10_000, &["once:0:0"], &[]);
        assert_eq!(lost(9_000, true, vec![(1, deaf()), (1, next)]), 0, "its successor heard it");
    }
}
