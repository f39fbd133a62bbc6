//! Deletes that were acknowledged: on a bus that keeps what it confirms, each is heard by every
//! instance that had begun to listen, or by the one that took its place after it was killed.

use std::collections::HashSet;

use super::merge::Hearing;
use crate::record::{Incarnation, Stamp};

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) confirmed: usize,
    /// By somebody.
    pub(super) lost: usize,
}

/// What is heard by many is one event, which may have been heard a little before it was confirmed.
const ABOUT: u64 = 2_000;

pub(super) fn told(incarnations: &[Incarnation], hearings: &[Hearing]) -> (Told, Option<String>) {
    let slots = incarnations.iter().map(|it| it.slot + 1).max().unwrap_or_default();
    let of = |slot: usize| {
        let all = incarnations.iter().zip(hearings);
        all.filter(move |(it, _)| it.slot == slot).map(|(_, hearing)| hearing)
    };
    let listens: Vec<Option<Stamp>> =
        (0..slots).map(|slot| of(slot).find_map(|it| it.listens)).collect();
    let heard: Vec<HashSet<&str>> =
        (0..slots).map(|slot| of(slot).flat_map(|it| &it.keys).map(|it| &**it).collect()).collect();
    let is_heard = |slot: usize, key: &str, begin: Stamp| {
        heard[slot].contains(key)
            || of(slot).flat_map(|it| &it.all).any(|at| at.at + ABOUT > begin.at)
    };
    let mut told = Told::default();
    let mut first = None;
    for (by, hearing) in incarnations.iter().zip(hearings).filter(|(it, _)| it.confirms) {
        for (key, begin, _) in hearing.told.iter().filter(|(.., done)| *done) {
            told.confirmed += 1;
            let listened = |slot: &usize| listens[*slot].is_some_and(|at| at.seq < begin.seq);
            let others = (0..slots).filter(|slot| *slot != by.slot).filter(listened);
            if let Some(slot) = { others }.find(|slot| !is_heard(*slot, key, *begin)) {
                told.lost += 1;
                first.get_or_insert_with(|| {
                    format!("{key}, deleted from {} ms on, was not heard by {slot}", begin.at)
                });
            }
        }
    }
    (told, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn life(slot: usize, confirms: bool) -> Incarnation {
        Incarnation { slot, began: 0, ended: None, confirms }
    }

    const fn at(at: u64) -> Stamp {
        Stamp { at, seq: at }
    }

    fn listening_from(begin: u64, keys: &[&str], all: &[u64]) -> Hearing {
        Hearing {
            listens: Some(at(begin)),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            all: all.iter().copied().map(at).collect(),
            told: Vec::new(),
        }
    }

    /// How many of one delete at that time, which was done or not, are lost by these.
    fn lost(begin: u64, done: bool, others: Vec<(usize, Hearing)>) -> usize {
        let mut teller = listening_from(0, &[], &[]);
        teller.told.push(("once:0:0".to_owned(), at(begin), done));
        let mut lives = vec![life(0, true)];
        lives.extend(others.iter().map(|(slot, _)| life(*slot, true)));
        let hearings: Vec<Hearing> =
            std::iter::once(teller).chain(others.into_iter().map(|(_, it)| it)).collect();
        told(&lives, &hearings).0.lost
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
