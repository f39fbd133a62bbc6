//! The namespaces of the caches of an instance: which cache a message is for, and what the messages
//! of a cache carry.
//!
//! | the message carries | it is for |
//! | --- | --- |
//! | a name | the cache with this name |
//! | none | the cache that accepts unnamed messages |

use std::collections::HashMap;

/// The number of a cache within its instance. It is never used again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CacheId(pub(crate) u64);

/// The name of a cache, and whether it also accepts messages that carry none.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    name: Option<Box<str>>,
    accepts_unnamed: bool,
}

/// The caches of an instance that receive messages, by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Namespaces {
    by_name: HashMap<Box<str>, CacheId, foldhash::fast::RandomState>,
    unnamed: Option<CacheId>,
}

impl Namespace {
    pub(crate) fn new(name: Option<&str>, accepts_unnamed: bool) -> Self {
        Self { name: name.map(Box::from), accepts_unnamed }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn accepts_unnamed(&self) -> bool {
        self.accepts_unnamed || self.name.is_none()
    }

    /// Returns what the messages of the cache carry.
    pub(crate) fn of_messages(&self) -> Option<&str> {
        self.name().filter(|_| !self.accepts_unnamed)
    }
}

impl Namespaces {
    /// Adds a cache. It replaces one with the same name.
    pub(crate) fn add(&mut self, id: CacheId, namespace: &Namespace) {
        if let Some(name) = namespace.name() {
            self.by_name.insert(Box::from(name), id);
        }
        if namespace.accepts_unnamed() {
            self.unnamed = Some(id);
        }
    }

    pub(crate) fn remove(&mut self, id: CacheId) {
        self.by_name.retain(|_, other| *other != id);
        self.unnamed = self.unnamed.filter(|other| *other != id);
    }

    /// Returns the cache that a message with this namespace is for; `None` if it is another
    /// instance's.
    pub(crate) fn find(&self, namespace: Option<&str>) -> Option<CacheId> {
        match namespace {
            // mutant foreign-namespace: => Some(_) => self.by_name.values().next().copied(),
            Some(name) => self.by_name.get(name).copied(),
            None => self.unnamed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_messages_are_for_the_cache_that_accepts_them() {
        let (users, mails) = (CacheId(1), CacheId(2));
        let (closed, open) =
            (Namespace::new(Some("users"), false), Namespace::new(Some("mails"), true));
        let mut namespaces = Namespaces::default();
        namespaces.add(users, &closed);
        assert_eq!(namespaces.find(None), None);
        namespaces.add(mails, &open);
        for (namespace, id) in [
            (Some("users"), Some(users)),
            (Some("mails"), Some(mails)),
            (None, Some(mails)),
            (Some(""), None),
            (Some("Users"), None),
        ] {
            assert_eq!(namespaces.find(namespace), id, "{namespace:?}");
        }
        assert_eq!((closed.of_messages(), open.of_messages()), (Some("users"), None));
        namespaces.remove(mails);
        assert_eq!((namespaces.find(None), namespaces.find(Some("mails"))), (None, None));
        assert_eq!(namespaces.find(Some("users")), Some(users));
    }
}
