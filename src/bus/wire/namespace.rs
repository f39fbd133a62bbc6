//! The namespace of a cache on the bus: which messages its subscriber accepts, and what its own
//! messages carry.
//!
//! | the message carries | accepted |
//! | --- | --- |
//! | the name of the cache | yes |
//! | another name | no |
//! | none | if the cache accepts unnamed messages |

/// The name of a cache, and whether it also accepts messages that carry none.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    name: Option<Box<str>>,
    accepts_unnamed: bool,
}

impl Namespace {
    pub(crate) fn new(name: Option<&str>, accepts_unnamed: bool) -> Self {
        Self { name: name.map(Box::from), accepts_unnamed }
    }

    pub(crate) fn accepts(&self, namespace: Option<&str>) -> bool {
        match namespace {
            // mutant foreign-namespace: => Some(_) => true,
            Some(_) => namespace == self.name.as_deref(),
            None => self.accepts_unnamed || self.name.is_none(),
        }
    }

    /// Returns what the messages of the cache carry.
    pub(crate) fn of_messages(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| !self.accepts_unnamed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_messages_are_for_the_caches_that_accept_them() {
        let (closed, open) =
            (Namespace::new(Some("users"), false), Namespace::new(Some("users"), true));
        for (namespace, is_accepted) in [
            (Some("users"), true),
            (Some("mails"), false),
            (Some(""), false),
            (Some("Users"), false),
        ] {
            assert_eq!(closed.accepts(namespace), is_accepted, "{namespace:?}");
            assert_eq!(open.accepts(namespace), is_accepted, "{namespace:?}");
        }
        assert_eq!((closed.accepts(None), open.accepts(None)), (false, true));
        assert_eq!((closed.of_messages(), open.of_messages()), (Some("users"), None));
    }
}
