//! Versioned keys: the name of a value ends with how often its key was deleted, as the TypeScript
//! package has it.
//!
//! Each instance counts for itself, and those that share a bus tell each other: who hears of a
//! higher count has it too, so that they see each other's values. Where two are apart all the same
//! (there is no bus, an event was lost, one has just started), they do not; but what was promised
//! of a delete holds: it takes the versions around its own with it, and that of whoever has just
//! started.
//!
//! # Further apart than that
//!
//! One delete does not reach what the other has. Both notice, by the count in what the other tells,
//! and then remove themselves what is at the count that they have from then on, before they look
//! there again:
//!
//! - who is told of a delete that did not reach its own version,
//! - and who is told of a version that its own last delete did not reach.
//!
//! Counts are forgotten where there are too many. A key is then back at version 0, where nothing
//! is older than its last delete: that took version 0 with it too.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct Versions(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    of: HashMap<Arc<str>, Count>,
    /// Of the keys: what others tell may be long.
    bytes: usize,
    /// Whether there were too many.
    has_forgotten: bool,
}

#[derive(Clone, Copy)]
struct Count {
    version: u64,
    /// The last version that the last delete or set from here took with it.
    reached: u64,
}

/// Of a key that was deleted or set here and forgotten, perhaps.
const FORGOTTEN: Count = Count { version: 0, reached: AROUND };
/// Of a key that was neither deleted nor set here: whatever others come to, no delete of ours can
/// have failed to reach it.
const UNTOUCHED: Count = Count { version: 0, reached: u64::MAX };

const MOST_KEYS: usize = 10_000;
const MOST_BYTES: usize = 8 << 20;
/// How far the counts of two instances may be apart.
const AROUND: u64 = 8;
/// Counts end here: JavaScript cannot add 1 to it either. Whoever tells of a count that no key
/// comes to does no more with it than name the key anew: at one count for good, deletes still
/// remove the value.
const LAST: u64 = 1 << 53;

impl Versions {
    pub(super) fn name(&self, key: &str) -> String {
        versioned(key, self.of(key))
    }

    /// The names that a delete removes.
    pub(super) fn names(&self, key: &str) -> Vec<String> {
        let mut counts = self.0.lock();
        let version = counts.get(key).version;
        let reached = version.saturating_add(AROUND);
        counts.put(key, Count { version, reached });
        drop(counts);
        let around = version.saturating_sub(AROUND).max(1)..=reached;
        std::iter::once(0).chain(around).map(|version| versioned(key, version)).collect()
    }

    /// The key is being deleted.
    pub(super) fn advance(&self, key: &str) {
        let mut counts = self.0.lock();
        let Count { version, reached } = counts.get(key);
        counts.put(key, Count { version: version.saturating_add(1).min(LAST), reached });
    }

    /// Another instance has deleted or set the key, and counts so many. If there may be something
    /// under the key's name from now on that is older than this, or than a delete from here, that
    /// is said first: before anybody has the name.
    pub(super) fn adopt(&self, key: &str, theirs: u64, may_be_old: impl FnOnce()) {
        let theirs = theirs.min(LAST);
        let mut counts = self.0.lock();
        let Count { version, reached } = counts.get(key);
        // mutant counts-apart: if false
        if version > theirs.saturating_add(AROUND) || theirs > reached {
            may_be_old();
        }
        if theirs > version {
            counts.put(key, Count { version: theirs, reached });
        }
    }

    /// A glob of the names of all versions of the keys that `glob` matches. It may match more: a
    /// key that ends as a version does.
    pub(super) fn glob(glob: &str) -> String {
        closed(glob) + "::v[0-9]*"
    }

    pub(super) fn of(&self, key: &str) -> u64 {
        self.0.lock().get(key).version
    }
}

impl Counts {
    fn get(&self, key: &str) -> Count {
        let other = if self.has_forgotten { FORGOTTEN } else { UNTOUCHED };
        self.of.get(key).copied().unwrap_or(other)
    }

    fn put(&mut self, key: &str, count: Count) {
        if let Some(known) = self.of.get_mut(key) {
            *known = count;
            return;
        }
        self.bytes += key.len();
        self.of.insert(Arc::from(key), count);
        while self.of.len() > MOST_KEYS || self.bytes > MOST_BYTES {
            let any = self.of.keys().find(|other| ***other != *key).cloned();
            let Some(any) = any else { return };
            self.of.remove(&any);
            self.has_forgotten = true;
            self.bytes -= any.len();
        }
    }
}

fn versioned(key: &str, version: u64) -> String {
    format!("{key}::v{version}")
}

/// A glob to which more can be added: what is left open at its end would take that in. A bracket
/// that nobody closed becomes any byte, which is more than it meant and never less.
fn closed(glob: &str) -> String {
    let mut rest = glob.as_bytes();
    loop {
        rest = match rest {
            [] => return glob.to_owned(),
            [b'\\'] => return format!("{glob}\\"),
            [b'\\', _, after @ ..] => after,
            [b'[', after @ ..] => match after_bracket(after) {
                Some(after) => after,
                None => {
                    let before = glob.get(..glob.len() - rest.len()).unwrap_or_default();
                    return format!("{before}?");
                }
            },
            [_, after @ ..] => after,
        };
    }
}

fn after_bracket(rest: &[u8]) -> Option<&[u8]> {
    let mut rest = rest.strip_prefix(b"^").unwrap_or(rest);
    loop {
        rest = match rest {
            [] => return None,
            [b']', after @ ..] => return Some(after),
            [b'\\', _, after @ ..] | [_, b'-', _, after @ ..] | [_, after @ ..] => after,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob::Pattern;

    #[test]
    fn a_key_begins_at_0_and_a_delete_makes_it_1() {
        let versions = Versions::default();
        assert_eq!(versions.name("k"), "k::v0");
        versions.advance("k");
        assert_eq!(
            (versions.name("k"), versions.name("other")),
            ("k::v1".into(), "other::v0".into())
        );
        versions.advance("k");
        assert_eq!(versions.name("k"), "k::v2");
    }

    #[test]
    fn a_delete_takes_the_versions_around_it_and_that_of_the_beginning() {
        let versions = Versions::default();
        let numbers = |versions: &Versions| -> Vec<u64> {
            let names = versions.names("k");
            names.iter().map(|name| name.strip_prefix("k::v").unwrap().parse().unwrap()).collect()
        };
        assert_eq!(numbers(&versions), (0..=8).collect::<Vec<_>>());
        (0..20).for_each(|_| versions.advance("k"));
        assert_eq!(numbers(&versions), std::iter::once(0).chain(12..=28).collect::<Vec<_>>());
    }

    #[test]
    fn counts_are_bounded() {
        let versions = Versions::default();
        (0..2 * MOST_KEYS).for_each(|key| versions.advance(&key.to_string()));
        assert_eq!(versions.0.lock().of.len(), MOST_KEYS);
        assert_eq!(versions.of(&(2 * MOST_KEYS - 1).to_string()), 1, "the last is not the one");
        for key in 0..1_000 {
            adopt(&versions, &format!("{key:065000}"), 7);
        }
        let counts = versions.0.lock();
        assert!(counts.bytes <= MOST_BYTES);
        assert_eq!(counts.bytes, counts.of.keys().map(|key| key.len()).sum::<usize>());
        drop(counts);
        assert_eq!(versions.of(&format!("{:065000}", 999)), 7);
    }

    fn adopt(versions: &Versions, key: &str, theirs: u64) -> bool {
        let mut may_be_old = false;
        versions.adopt(key, theirs, || may_be_old = true);
        may_be_old
    }

    #[test]
    fn the_higher_count_is_everybodys() {
        let versions = Versions::default();
        assert!(!adopt(&versions, "k", 3));
        assert_eq!(versions.name("k"), "k::v3");
        assert!(!adopt(&versions, "k", 2), "one that is late");
        versions.advance("k");
        assert_eq!(versions.name("k"), "k::v4");
        assert_eq!(versions.of("other"), 0);
    }

    #[test]
    fn what_a_delete_did_not_reach_may_be_old() {
        let deleted = |times| {
            let versions = Versions::default();
            for _ in 0..times {
                versions.advance("k");
                let _ = versions.names("k");
            }
            versions
        };
        for (own, theirs, may_be_old) in [
            (0, u64::MAX, false),
            (1, 9, false),
            (1, 10, true),
            (9, 1, false),
            (10, 1, true),
            (1, u64::MAX, true),
        ] {
            assert_eq!(adopt(&deleted(own), "k", theirs), may_be_old, "{own} {theirs}");
        }
        // A set from here is no less.
        let set = || {
            let versions = Versions::default();
            let _ = versions.names("k");
            versions
        };
        assert!(!adopt(&set(), "k", 8) && adopt(&set(), "k", 9));
        // However many steps it comes in.
        let versions = deleted(1);
        assert!(!adopt(&versions, "k", 9) && adopt(&versions, "k", 10));
        let _ = versions.names("k");
        assert!(!adopt(&versions, "k", 18) && adopt(&versions, "k", 19));
    }

    #[test]
    fn what_may_have_been_forgotten_counts_as_set() {
        let versions = Versions::default();
        assert!(!adopt(&versions, "k", 9));
        for key in 0..=MOST_KEYS {
            versions.advance(&key.to_string());
        }
        assert!(adopt(&versions, "new", 9) && !adopt(&versions, "other", 8));
    }

    #[test]
    fn no_count_makes_a_key_useless() {
        let (one, other) = (Versions::default(), Versions::default());
        for versions in [&one, &other] {
            adopt(versions, "k", u64::MAX);
        }
        one.advance("k");
        adopt(&other, "k", one.of("k"));
        assert_eq!(one.name("k"), other.name("k"));
        assert!(other.names("k").contains(&one.name("k")));
    }

    #[test]
    fn a_glob_matches_all_versions_of_what_it_matched() {
        for (glob, key) in [
            ("k", "k"),
            ("user:*", "user:1"),
            ("[ab]", "a"),
            ("[^a]", "b"),
            ("x[ab", "xb"),
            ("x[a-", "x-"),
            (r"x[a\", r"x\"),
            (r"x\", r"x\"),
            (r"x\\", r"x\"),
            (r"\[", "["),
            (r"[\]]", "]"),
            ("é[", "é"),
        ] {
            let pattern = Pattern::new(&Versions::glob(glob));
            for version in [0, 7, 123] {
                let name = versioned(key, version);
                assert!(
                    pattern.matches(&name) || !Pattern::new(glob).matches(key),
                    "{glob} {name}"
                );
            }
            assert!(!pattern.matches("another::v0") || glob == "*", "{glob}");
        }
        assert!(!Pattern::new(&Versions::glob("k")).matches("kk::v0"));
    }

    #[test]
    fn and_of_whatever_it_matched_however_it_is_written() {
        let mut random = fastrand::Rng::with_seed(9);
        let mut text = |letters: &str, most| -> String {
            let letters: Vec<char> = letters.chars().collect();
            (0..random.usize(..most)).filter_map(|_| random.choice(&letters)).collect()
        };
        let mut matched = 0;
        for _ in 0..100_000 {
            let (glob, key) = (text(r"ab*?[]^-\:v0é", 9), text(r"ab[]^-\:v0é", 6));
            if Pattern::new(&glob).matches(&key) {
                matched += 1;
                let name = versioned(&key, 12);
                assert!(Pattern::new(&Versions::glob(&glob)).matches(&name), "{glob} {name}");
            }
        }
        assert!(matched > 1_000, "{matched}");
    }
}
