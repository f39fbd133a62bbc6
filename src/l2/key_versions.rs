//! Interop only: the versioned keys of the TypeScript package.
//!
//! The TypeScript package stores the value of a key under the name `<key>::v<version>`, where the
//! version counts the deletes of the key. Only this file knows these names. They are used if
//! `l2.versioning` is set, for a store that TypeScript instances share.
//!
//! Each instance counts for itself, and a message about a delete or set carries the version of its
//! publisher. A subscriber that is behind adopts the higher version, so that both see each other's
//! values. Two instances may still be at different versions: without a bus, after a lost message,
//! or because one of them has just started. They then do not see each other's values, but a delete
//! holds all the same: it removes the versions within [`DELETE_WINDOW`] of its own, and version 0,
//! where every instance starts.
//!
//! # Versions further apart
//!
//! A delete does not remove a version outside of its window. Both instances detect this by the
//! version in the other's message, and each removes the value at the version that it uses from then
//! on before it reads there again:
//!
//! | the message says | so the subscriber |
//! | --- | --- |
//! | a version so low that the peer's delete did not remove the subscriber's | removes its own |
//! | a version so high that the subscriber's last delete did not remove it | removes the new one |
//!
//! The number of known keys is bounded. A forgotten key is at version 0 again, where no value is
//! older than the last delete, because that delete removed version 0 too.

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct KeyVersions(Mutex<State>);

#[derive(Default)]
struct State {
    versions: HashMap<Arc<str>, Version>,
    /// Sum of the lengths of the keys, which peers choose too.
    bytes: usize,
    /// Whether a key was removed to keep the bounds.
    has_forgotten: bool,
}

#[derive(Clone, Copy)]
struct Version {
    current: u64,
    /// The highest version that this instance's last delete or set removed.
    deleted_up_to: u64,
}

/// Version of an unknown key that this instance may have deleted or set, and forgotten.
const FORGOTTEN: Version = Version { current: 0, deleted_up_to: DELETE_WINDOW };
/// Version of an unknown key that this instance never deleted or set: no value of the key can be
/// older than a delete of this instance.
const UNTOUCHED: Version = Version { current: 0, deleted_up_to: u64::MAX };

const MAX_KEYS: usize = 10_000;
const MAX_KEY_BYTES: usize = 8 << 20;
/// A delete removes the versions up to this much below and above its own.
const DELETE_WINDOW: u64 = 8;
/// The highest version: JavaScript cannot add 1 to it either. A peer that sends a higher one can
/// only make the key stay at this version, where deletes still remove the value.
const MAX_VERSION: u64 = 1 << 53;

impl KeyVersions {
    /// The store's name of a key's value.
    pub(super) fn name(&self, key: &str) -> String {
        versioned(key, self.version_of(key))
    }

    /// The names that a delete of the key removes; `also` is another version that it removes, with
    /// those within [`DELETE_WINDOW`] of it.
    pub(super) fn names_to_delete(&self, key: &str, also: Option<u64>) -> Vec<String> {
        let mut state = self.0.lock();
        let current = state.get(key).current;
        let deleted_up_to = current.saturating_add(DELETE_WINDOW);
        state.put(key, Version { current, deleted_up_to });
        drop(state);
        let also = also.into_iter().flat_map(window);
        let versions = std::iter::once(0).chain(window(current)).chain(also);
        versions.map(|version| versioned(key, version)).collect()
    }

    /// A peer at version `remote` leaves a delete of the key to this instance, which is to
    /// [observe](Self::observe_remote) that version, and then is at the higher one of both. Returns
    /// the lower one, if the window of the higher one does not include it.
    pub(super) fn version_to_delete_too(&self, key: &str, remote: u64) -> Option<u64> {
        let (current, remote) = (self.version_of(key), remote.min(MAX_VERSION));
        (current.abs_diff(remote) > DELETE_WINDOW).then(|| current.min(remote))
    }

    /// Counts a delete of the key.
    pub(super) fn bump(&self, key: &str) {
        let mut state = self.0.lock();
        let Version { current, deleted_up_to } = state.get(key);
        let current = current.saturating_add(1).min(MAX_VERSION);
        state.put(key, Version { current, deleted_up_to });
    }

    /// A peer has deleted or set the key, which is at version `remote` there. The key moves to the
    /// higher version. If the store may hold a value there that is older than the peer's delete,
    /// or than one of this instance, `on_maybe_old` is called first, under the lock: before any
    /// reader gets the new name.
    pub(super) fn observe_remote(&self, key: &str, remote: u64, on_maybe_old: impl FnOnce()) {
        let remote = remote.min(MAX_VERSION);
        let mut state = self.0.lock();
        let Version { current, deleted_up_to } = state.get(key);
        // mutant counts-apart: if false
        if current > remote.saturating_add(DELETE_WINDOW) || remote > deleted_up_to {
            on_maybe_old();
        }
        if remote > current {
            state.put(key, Version { current: remote, deleted_up_to });
        }
    }

    /// A glob of the names of all versions of the keys that `glob` matches. It may match more: a
    /// key that ends like a version.
    pub(super) fn glob(glob: &str) -> String {
        closed(glob) + "::v[0-9]*"
    }

    pub(super) fn version_of(&self, key: &str) -> u64 {
        self.0.lock().get(key).current
    }
}

impl State {
    fn get(&self, key: &str) -> Version {
        let unknown = if self.has_forgotten { FORGOTTEN } else { UNTOUCHED };
        self.versions.get(key).copied().unwrap_or(unknown)
    }

    fn put(&mut self, key: &str, version: Version) {
        if let Some(known) = self.versions.get_mut(key) {
            *known = version;
            return;
        }
        self.bytes += key.len();
        self.versions.insert(Arc::from(key), version);
        while self.versions.len() > MAX_KEYS || self.bytes > MAX_KEY_BYTES {
            let other = self.versions.keys().find(|other| ***other != *key).cloned();
            let Some(other) = other else { return };
            self.versions.remove(&other);
            self.has_forgotten = true;
            self.bytes -= other.len();
        }
    }
}

/// The versions, but for 0, that a delete at this version removes.
fn window(version: u64) -> RangeInclusive<u64> {
    version.saturating_sub(DELETE_WINDOW).max(1)..=version.saturating_add(DELETE_WINDOW)
}

fn versioned(key: &str, version: u64) -> String {
    format!("{key}::v{version}")
}

/// Closes a glob, so that a suffix can be appended to it: an open escape or bracket at its end
/// would include the suffix. An open bracket becomes `?`, which matches more than it, never less.
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
    fn a_key_starts_at_version_0_and_a_delete_makes_it_1() {
        let versions = KeyVersions::default();
        assert_eq!(versions.name("k"), "k::v0");
        versions.bump("k");
        assert_eq!(
            (versions.name("k"), versions.name("other")),
            ("k::v1".into(), "other::v0".into())
        );
        versions.bump("k");
        assert_eq!(versions.name("k"), "k::v2");
    }

    #[test]
    fn a_delete_removes_the_versions_in_its_window_and_version_0() {
        let versions = KeyVersions::default();
        let numbers = |versions: &KeyVersions| -> Vec<u64> {
            let names = versions.names_to_delete("k", None);
            names.iter().map(|name| name.strip_prefix("k::v").unwrap().parse().unwrap()).collect()
        };
        assert_eq!(numbers(&versions), (0..=8).collect::<Vec<_>>());
        (0..20).for_each(|_| versions.bump("k"));
        assert_eq!(numbers(&versions), std::iter::once(0).chain(12..=28).collect::<Vec<_>>());
    }

    #[test]
    fn a_delete_for_a_peer_removes_the_versions_of_both() {
        for (local, remote, lower) in [
            (0, 8, None),
            (0, 9, Some(0)),
            (20, 12, None),
            (20, 3, Some(3)),
            (3, u64::MAX, Some(3)),
        ] {
            let versions = KeyVersions::default();
            (0..local).for_each(|_| versions.bump("k"));
            let also = versions.version_to_delete_too("k", remote);
            assert_eq!(also, lower, "{local} {remote}");
            versions.observe_remote("k", remote, || ());
            let names = versions.names_to_delete("k", also);
            for version in [local, remote.min(MAX_VERSION)] {
                assert!(names.contains(&versioned("k", version)), "{local} {remote}");
            }
        }
    }

    #[test]
    fn the_number_of_known_keys_is_bounded() {
        let versions = KeyVersions::default();
        (0..2 * MAX_KEYS).for_each(|key| versions.bump(&key.to_string()));
        assert_eq!(versions.0.lock().versions.len(), MAX_KEYS);
        let last = (2 * MAX_KEYS - 1).to_string();
        assert_eq!(versions.version_of(&last), 1, "the last key must not be the forgotten one");
        for key in 0..1_000 {
            observe(&versions, &format!("{key:065000}"), 7);
        }
        let state = versions.0.lock();
        assert!(state.bytes <= MAX_KEY_BYTES);
        assert_eq!(state.bytes, state.versions.keys().map(|key| key.len()).sum::<usize>());
        drop(state);
        assert_eq!(versions.version_of(&format!("{:065000}", 999)), 7);
    }

    /// Whether the value at the key's version may be old.
    fn observe(versions: &KeyVersions, key: &str, remote: u64) -> bool {
        let mut is_maybe_old = false;
        versions.observe_remote(key, remote, || is_maybe_old = true);
        is_maybe_old
    }

    #[test]
    fn a_higher_version_of_a_peer_is_adopted() {
        let versions = KeyVersions::default();
        assert!(!observe(&versions, "k", 3));
        assert_eq!(versions.name("k"), "k::v3");
        assert!(!observe(&versions, "k", 2), "a late message");
        versions.bump("k");
        assert_eq!(versions.name("k"), "k::v4");
        assert_eq!(versions.version_of("other"), 0);
    }

    #[test]
    fn a_value_outside_of_the_window_of_a_delete_may_be_old() {
        let deleted = |times| {
            let versions = KeyVersions::default();
            for _ in 0..times {
                versions.bump("k");
                let _ = versions.names_to_delete("k", None);
            }
            versions
        };
        for (local, remote, is_maybe_old) in [
            (0, u64::MAX, false),
            (1, 9, false),
            (1, 10, true),
            (9, 1, false),
            (10, 1, true),
            (1, u64::MAX, true),
        ] {
            assert_eq!(observe(&deleted(local), "k", remote), is_maybe_old, "{local} {remote}");
        }
        // A set of this instance has the same window.
        let set = || {
            let versions = KeyVersions::default();
            let _ = versions.names_to_delete("k", None);
            versions
        };
        assert!(!observe(&set(), "k", 8) && observe(&set(), "k", 9));
        // The window does not move with the versions of peers.
        let versions = deleted(1);
        assert!(!observe(&versions, "k", 9) && observe(&versions, "k", 10));
        let _ = versions.names_to_delete("k", None);
        assert!(!observe(&versions, "k", 18) && observe(&versions, "k", 19));
    }

    #[test]
    fn a_key_that_may_have_been_forgotten_counts_as_set() {
        let versions = KeyVersions::default();
        assert!(!observe(&versions, "k", 9));
        for key in 0..=MAX_KEYS {
            versions.bump(&key.to_string());
        }
        assert!(observe(&versions, "new", 9) && !observe(&versions, "other", 8));
    }

    #[test]
    fn no_remote_version_makes_a_key_useless() {
        let (one, other) = (KeyVersions::default(), KeyVersions::default());
        for versions in [&one, &other] {
            observe(versions, "k", u64::MAX);
        }
        one.bump("k");
        observe(&other, "k", one.version_of("k"));
        assert_eq!(one.name("k"), other.name("k"));
        assert!(other.names_to_delete("k", None).contains(&one.name("k")));
    }

    #[test]
    fn a_glob_matches_all_versions_of_the_keys_it_matched() {
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
            let pattern = Pattern::new(&KeyVersions::glob(glob));
            for version in [0, 7, 123] {
                let name = versioned(key, version);
                assert!(
                    pattern.matches(&name) || !Pattern::new(glob).matches(key),
                    "{glob} {name}"
                );
            }
            assert!(!pattern.matches("another::v0") || glob == "*", "{glob}");
        }
        assert!(!Pattern::new(&KeyVersions::glob("k")).matches("kk::v0"));
    }

    #[test]
    fn a_random_glob_matches_the_versions_of_every_key_it_matched() {
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
                assert!(Pattern::new(&KeyVersions::glob(&glob)).matches(&name), "{glob} {name}");
            }
        }
        assert!(matched > 1_000, "{matched}");
    }
}
