//! Deletes that could not reach the shared level. It is not asked about what they cover until they
//! have.
//!
//! Bounded, and what is too much becomes less precise instead of lost: too many keys become "all".

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::glob::Pattern;

#[derive(Default)]
pub(crate) struct Owed {
    state: Mutex<State>,
    /// How many there are, so that reads ask with one load.
    count: AtomicUsize,
}

#[derive(Default)]
struct State {
    keys: HashMap<Arc<str>, u64>,
    patterns: Vec<(Arc<str>, Pattern, u64)>,
    /// All of them, in the order in which they are to be paid.
    queue: BTreeMap<u64, PendingInvalidation>,
    /// The number of the next debt. One that is made again while it is being paid has a new
    /// number, and so is not settled by the payment.
    next: u64,
    /// Whether there is somebody who pays.
    is_being_paid: bool,
}

const MOST_KEYS: usize = 10_000;
const MOST_PATTERNS: usize = 100;
const ALL: &str = "*";

/// A delete on its way. Dropped before it is [`kept`](Self::kept), because it failed or because
/// whoever waited for it went away, it is owed.
#[must_use]
pub(crate) struct Promise<'a> {
    owed: &'a Owed,
    name: &'a str,
    is_pattern: bool,
}

impl Promise<'_> {
    pub(crate) fn kept(self) {
        std::mem::forget(self);
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if self.is_pattern {
            // mutant pending: remove
            self.owed.remember_pattern(self.name);
        } else {
            // mutant pending: remove
            self.owed.remember_key(self.name);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingInvalidation {
    pub(crate) name: Arc<str>,
    pub(crate) is_pattern: bool,
    number: u64,
}

impl Owed {
    pub(crate) fn promise_key<'a>(&'a self, key: &'a str) -> Promise<'a> {
        Promise { owed: self, name: key, is_pattern: false }
    }

    pub(crate) fn promise_pattern<'a>(&'a self, glob: &'a str) -> Promise<'a> {
        Promise { owed: self, name: glob, is_pattern: true }
    }

    fn remember_key(&self, key: &str) {
        let state = &mut *self.state.lock();
        if let Some(known) = state.keys.get(key) {
            state.queue.remove(known);
        } else if state.keys.len() == MOST_KEYS {
            state.remember_all();
            return self.count.store(state.len(), Ordering::SeqCst);
        }
        let debt = state.add(Arc::from(key), false);
        state.keys.insert(debt.name, debt.number);
        self.count.store(state.len(), Ordering::SeqCst);
    }

    fn remember_pattern(&self, glob: &str) {
        let state = &mut *self.state.lock();
        if let Some(known) = state.patterns.iter().position(|(known, ..)| &**known == glob) {
            let (.., number) = state.patterns.remove(known);
            state.queue.remove(&number);
        }
        if glob == ALL || state.patterns.len() == MOST_PATTERNS {
            state.remember_all();
        } else {
            let debt = state.add(Arc::from(glob), true);
            state.patterns.push((debt.name, Pattern::new(glob), debt.number));
        }
        self.count.store(state.len(), Ordering::SeqCst);
    }

    /// Whether the shared level may still hold what was deleted under this key.
    pub(crate) fn covers(&self, key: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let state = self.state.lock();
        state.keys.contains_key(key)
            || state.patterns.iter().any(|(_, pattern, _)| pattern.matches(key))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether the caller is to pay: something is owed, and nobody else does. It is theirs until
    /// [`next`](Self::next) has nothing more, or they give it up.
    pub(crate) fn take_over(&self) -> bool {
        let state = &mut *self.state.lock();
        let is_mine = !state.is_being_paid && !state.queue.is_empty();
        state.is_being_paid |= is_mine;
        is_mine
    }

    pub(crate) fn give_up(&self) {
        self.state.lock().is_being_paid = false;
    }

    /// The one whose turn it is. Where there is none, in the same step there is nobody any more who
    /// pays, so that what comes to be owed later finds somebody to take it over.
    pub(crate) fn next(&self) -> Option<PendingInvalidation> {
        let state = &mut *self.state.lock();
        let first = state.queue.values().next().cloned();
        state.is_being_paid &= first.is_some();
        first
    }

    /// The store has it now, unless it was made again since.
    pub(crate) fn settle(&self, debt: &PendingInvalidation) {
        let state = &mut *self.state.lock();
        if state.queue.remove(&debt.number).is_none() {
            return;
        }
        if debt.is_pattern {
            state.patterns.retain(|(.., number)| *number != debt.number);
        } else {
            state.keys.remove(&debt.name);
        }
        self.count.store(state.len(), Ordering::SeqCst);
    }

    /// It could not be paid: all others go first.
    pub(crate) fn postpone(&self, debt: &PendingInvalidation) {
        let state = &mut *self.state.lock();
        if state.queue.remove(&debt.number).is_none() {
            return;
        }
        let later = state.add(Arc::clone(&debt.name), debt.is_pattern).number;
        if debt.is_pattern {
            let known = state.patterns.iter_mut().find(|(.., number)| *number == debt.number);
            known.into_iter().for_each(|(.., number)| *number = later);
        } else {
            state.keys.insert(Arc::clone(&debt.name), later);
        }
    }
}

impl State {
    /// At the end of the queue.
    fn add(&mut self, name: Arc<str>, is_pattern: bool) -> PendingInvalidation {
        self.next += 1;
        let debt = PendingInvalidation { name, is_pattern, number: self.next };
        self.queue.insert(debt.number, debt.clone());
        debt
    }

    fn remember_all(&mut self) {
        self.keys.clear();
        self.queue.clear();
        let debt = self.add(Arc::from(ALL), true);
        self.patterns = vec![(debt.name, Pattern::new(ALL), debt.number)];
    }

    fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_covered_until_it_is_settled() {
        let owed = Owed::default();
        assert!(!owed.covers("a"));
        owed.remember_key("a");
        owed.remember_pattern("b:*");
        assert!(owed.covers("a") && owed.covers("b:1") && !owed.covers("c"));
        while let Some(debt) = owed.next() {
            owed.settle(&debt);
        }
        assert!(!owed.covers("a") && !owed.covers("b:1") && owed.is_empty());
    }

    #[test]
    fn a_promise_is_owed_unless_it_is_kept() {
        let owed = Owed::default();
        owed.promise_key("a").kept();
        assert!(owed.is_empty());
        drop(owed.promise_key("a"));
        drop(owed.promise_pattern("b*"));
        assert!(owed.covers("a") && owed.covers("bb"));
    }

    #[test]
    fn one_made_again_while_it_is_paid_is_still_owed() {
        let owed = Owed::default();
        for remember in
            [|owed: &Owed| owed.remember_key("a"), |owed: &Owed| owed.remember_pattern("a*")]
        {
            remember(&owed);
            let paid = owed.next().unwrap();
            remember(&owed);
            owed.settle(&paid);
            assert!(owed.covers("a"));
            owed.settle(&owed.next().unwrap());
            assert!(owed.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_paid_goes_to_the_back() {
        let owed = Owed::default();
        owed.remember_pattern("a*");
        owed.remember_key("b");
        for _ in 0..2 {
            owed.postpone(&owed.next().unwrap());
        }
        assert_eq!((owed.len(), owed.covers("a"), owed.covers("b")), (2, true, true));
        owed.postpone(&owed.next().unwrap());
        let turn = owed.next().unwrap();
        assert_eq!(&*turn.name, "b");
        owed.settle(&turn);
        assert_eq!(&*owed.next().unwrap().name, "a*");
        owed.settle(&owed.next().unwrap());
        assert!(owed.is_empty());
    }

    #[test]
    fn one_pays_and_when_nothing_is_owed_any_more_nobody_does() {
        let owed = Owed::default();
        assert!(!owed.take_over());
        owed.remember_key("a");
        assert!(owed.take_over() && !owed.take_over());
        owed.give_up();
        assert!(owed.take_over());
        owed.settle(&owed.next().unwrap());
        // Whoever pays has not looked again: what comes now is theirs.
        owed.remember_key("b");
        assert!(!owed.take_over());
        owed.settle(&owed.next().unwrap());
        assert_eq!(owed.next(), None);
        owed.remember_key("c");
        assert!(owed.take_over());
    }

    #[test]
    fn too_many_become_all_of_them() {
        for pattern in [false, true] {
            let owed = Owed::default();
            for i in 0..=MOST_KEYS {
                if pattern {
                    owed.remember_pattern(&format!("{i}:*"));
                } else {
                    owed.remember_key(&i.to_string());
                }
            }
            assert!(owed.len() <= MOST_PATTERNS && owed.covers("anything"));
        }
    }
}
