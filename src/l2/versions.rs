//! Versioned keys: the name of a value ends with how often its key was deleted, as the TypeScript
//! package has it.
//!
//! Each instance counts for itself, so two of them may be at different versions of a key and then
//! do not see each other's values. What was promised of a delete holds all the same: it takes the
//! versions around its own with it, and that of whoever has just started.
//!
//! Counts are forgotten where there are too many. A key is then back at version 0, where nothing
//! is older than its last delete: that took version 0 with it too.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct Versions(Mutex<HashMap<Arc<str>, u64>>);

const MOST_KEYS: usize = 10_000;
/// How far the counts of two instances may be apart.
const AROUND: u64 = 8;

impl Versions {
    pub(super) fn name(&self, key: &str) -> String {
        versioned(key, self.of(key))
    }

    /// The names that a delete removes.
    pub(super) fn names(&self, key: &str) -> Vec<String> {
        let version = self.of(key);
        let around = version.saturating_sub(AROUND).max(1)..=version.saturating_add(AROUND);
        std::iter::once(0).chain(around).map(|version| versioned(key, version)).collect()
    }

    /// The key is being deleted.
    pub(super) fn advance(&self, key: &str) {
        let mut counts = self.0.lock();
        if let Some(version) = counts.get_mut(key) {
            *version = version.saturating_add(1);
            return;
        }
        if counts.len() >= MOST_KEYS
            && let Some(any) = counts.keys().next().cloned()
        {
            counts.remove(&any);
        }
        counts.insert(Arc::from(key), 1);
    }

    /// A glob of the names of all versions of the keys that `glob` matches. It may match more: a
    /// key that ends as a version does.
    pub(super) fn glob(glob: &str) -> String {
        closed(glob) + "::v[0-9]*"
    }

    fn of(&self, key: &str) -> u64 {
        self.0.lock().get(key).copied().unwrap_or(0)
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
    use crate::pattern::Pattern;

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
        assert_eq!(versions.0.lock().len(), MOST_KEYS);
        assert_eq!(versions.of(&(2 * MOST_KEYS - 1).to_string()), 1, "the last is not the one");
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
}
