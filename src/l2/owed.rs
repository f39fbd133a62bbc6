//! Deletes that could not reach the shared level. It is not asked about what they cover until they
//! have.
//!
//! Bounded, and what is too much becomes less precise instead of lost: too many keys become "all".

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::pattern::Pattern;

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
    /// The number of the next debt. One that is made again while it is being paid has a new
    /// number, and so is not settled by the payment.
    next: u64,
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
            self.owed.remember_pattern(self.name);
        } else {
            self.owed.remember_key(self.name);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Debt {
    Key(Arc<str>, u64),
    Pattern(Arc<str>, u64),
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
        let number = state.number();
        if state.keys.len() < MOST_KEYS || state.keys.contains_key(key) {
            state.keys.insert(Arc::from(key), number);
        } else {
            state.remember_all(number);
        }
        self.count.store(state.len(), Ordering::SeqCst);
    }

    fn remember_pattern(&self, glob: &str) {
        let state = &mut *self.state.lock();
        let number = state.number();
        if glob == ALL {
            state.remember_all(number);
        } else {
            state.patterns.retain(|(known, ..)| &**known != glob);
            if state.patterns.len() < MOST_PATTERNS {
                state.patterns.push((Arc::from(glob), Pattern::new(glob), number));
            } else {
                state.remember_all(number);
            }
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

    /// One of them, the widest first.
    pub(crate) fn next(&self) -> Option<Debt> {
        let state = self.state.lock();
        let pattern = state.patterns.first().map(|(glob, _, it)| Debt::Pattern(glob.clone(), *it));
        pattern.or_else(|| state.keys.iter().next().map(|(key, it)| Debt::Key(key.clone(), *it)))
    }

    /// The store has it now, unless it was made again since.
    pub(crate) fn settle(&self, debt: &Debt) {
        let state = &mut *self.state.lock();
        match debt {
            Debt::Key(key, number) => {
                if state.keys.get(key) == Some(number) {
                    state.keys.remove(key);
                }
            }
            Debt::Pattern(_, number) => state.patterns.retain(|(.., it)| it != number),
        }
        self.count.store(state.len(), Ordering::SeqCst);
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn remember_all(&mut self, number: u64) {
        self.keys.clear();
        self.patterns = vec![(Arc::from(ALL), Pattern::new(ALL), number)];
    }

    fn len(&self) -> usize {
        self.keys.len() + self.patterns.len()
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
