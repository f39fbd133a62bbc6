//! Deletes that were acknowledged: on a bus that keeps what it confirms, each is heard by every
//! instance that had begun to listen, or by the one that took its place after it was killed.

use std::collections::HashSet;

use super::merge::Hearing;
use crate::history::{Incarnation, Stamp};

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
