//! Checks that values which are written can be read again.
//!
//! A type may write bytes that it cannot read: serde reads fewer types than it writes. Without this
//! check such a value would go in a circle: an instance loads and writes it, another finds it
//! unreadable, removes it, loads and writes it again.

use std::{
    any::type_name,
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;

use crate::{error::BoxError, observe::log_unreadable_type};

/// Decodes the first values that are encoded, and those after a value that could not be decoded.
/// After a failure it decodes all of them.
#[derive(Debug)]
pub(crate) struct RoundTripCheck {
    /// The name of the cache, for the log.
    cache: Option<Box<str>>,
    /// How many of the next values are to be checked.
    due: AtomicU32,
}

/// The number of values that are checked at first. More than one, because the variants of an enum
/// differ, and an empty map has no keys.
const FIRST: u32 = 16;

/// All values are checked. Not reached by counting.
const ALWAYS: u32 = u32::MAX;

/// The types that the log has named: one warning per type and process, whichever of its caches,
/// and L2 or the bus, meets it first.
static REPORTED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

impl RoundTripCheck {
    pub(crate) fn of_cache(name: Option<&str>) -> Self {
        Self { cache: name.map(Box::from), due: AtomicU32::new(FIRST) }
    }

    /// Whether the value at hand is to be checked. Counts it.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        if due == 0 {
            return false;
        }
        // Threads may count one value for two: a few more or fewer are checked.
        if due != ALWAYS {
            self.due.store(due - 1, Ordering::Relaxed);
        }
        true
    }

    /// To be called where a value could not be decoded. This instance or a peer has written it.
    pub(crate) fn on_unreadable(&self) {
        self.due.fetch_max(FIRST, Ordering::Relaxed);
    }

    /// To be called where the check has failed. Returns the error of encoding.
    pub(crate) fn on_failed<V>(&self, cause: &BoxError) -> BoxError {
        self.due.store(ALWAYS, Ordering::Relaxed);
        let name = type_name::<V>();
        if REPORTED.lock().insert(name) {
            log_unreadable_type(self.cache.as_deref(), name, cause, CURE);
        }
        format!(
            "a value of the type {name} cannot be decoded from its own bytes ({cause}), so it \
             stays in L1; {CURE}"
        )
        .into()
    }
}

/// What the user can do about it.
const CURE: &str = "make its Serialize and Deserialize agree (within untagged, flattened and \
     tagged types serde reads no integers of 128 bits, and neither bools nor negative numbers as \
     keys of a flattened map), or give the cache another codec";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_are_checked_and_all_after_a_failure() {
        let check = RoundTripCheck::of_cache(None);
        let due = || (0..100).filter(|_| check.is_due()).count();
        assert_eq!((due(), due()), (16, 0));
        check.on_unreadable();
        assert_eq!((due(), due()), (16, 0));
        let error = check.on_failed::<Option<u8>>(&"no such variant".into()).to_string();
        assert!(error.contains("Option<u8>") && error.contains("no such variant"), "{error}");
        check.on_unreadable();
        assert_eq!((due(), due()), (100, 100));
    }
}
