//! The options that belong to a manager, because all its caches share the parts that they are
//! about: a cache cannot have others.

use crate::{error::BuildError, options::CacheOptions};

/// Sets an option of a cache to that of the manager; `false` if it is neither that nor the default.
type Adopt = fn(&mut CacheOptions, &CacheOptions, &CacheOptions) -> bool;

macro_rules! shared {
    ($($path:literal: $($field:ident).+;)*) => {
        /// These options, by their paths in a configuration file.
        pub(super) const SHARED: &[(&str, Adopt)] = &[$(($path, |own, manager, default| {
            adopt_one(&mut own.$($field).+, &manager.$($field).+, &default.$($field).+)
        })),*];
    };
}

shared! {
    "instance_id": instance_id;
    "event_dedupe": event_dedupe;
    "event_bus.trust_timeout": event_bus.trust_timeout;
    "event_bus.publish_timeout": event_bus.publish_timeout;
    "event_bus_circuit_breaker": event_bus_circuit_breaker;
    "l2_circuit_breaker": l2_circuit_breaker;
}

fn adopt_one<T: Clone + PartialEq>(own: &mut T, manager: &T, default: &T) -> bool {
    // mutant option-adopted: s/own == default/true/
    let may_adopt = own == manager || own == default;
    if may_adopt {
        own.clone_from(manager);
    }
    may_adopt
}

/// Returns an error if an option of a cache is neither that of the manager nor the default, and
/// else sets it to that of the manager.
///
/// The default counts as not set: a setter replaces a whole group of options, and so sets options
/// that its caller does not name.
pub(super) fn adopt(own: &mut CacheOptions, manager: &CacheOptions) -> Result<(), BuildError> {
    let default = CacheOptions::default();
    match SHARED.iter().find(|(_, adopt)| !adopt(own, manager, &default)) {
        Some((path, _)) => Err(misplaced(path)),
        None => Ok(()),
    }
}

const PROBLEM: &str = "is set for one cache, and belongs to the manager, whose caches share it";
const FIX: &str = "set it in [defaults], or in the options of the manager's builder (instance_id: \
                   at the top of the file, or with CacheManagerBuilder::instance_id)";

/// The error of a section that sets an option of the manager.
pub(super) fn misplaced(option: &'static str) -> BuildError {
    BuildError::new(option, PROBLEM, FIX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::options::{CircuitBreaker, EventBusOptions, EventDedupe};

    #[test]
    fn a_cache_takes_the_shared_options_of_its_manager_and_keeps_its_own() {
        let seconds = Duration::from_secs;
        let manager = CacheOptions::default()
            .event_bus(EventBusOptions::default().trust_timeout(seconds(9)))
            .event_dedupe(EventDedupe::default().max_entries(7))
            .instance_id("host-1");
        let mut own = CacheOptions::default()
            .event_bus(EventBusOptions::default().confirm_deletes(true))
            .ttl(seconds(1));
        adopt(&mut own, &manager).unwrap();
        assert_eq!(own.event_bus, manager.event_bus.clone().confirm_deletes(true));
        assert_eq!((own.event_dedupe.max_entries, own.ttl), (7, seconds(1)));
        assert_eq!(own.instance_id, manager.instance_id);
        adopt(&mut own, &manager).unwrap();

        let default = CacheOptions::default;
        type Set = fn(&mut CacheOptions);
        let set: [(&str, Set); 6] = [
            ("instance_id", |it| it.instance_id = Some("x".to_owned())),
            ("event_dedupe", |it| it.event_dedupe.max_entries = 8),
            ("event_bus.trust_timeout", |it| it.event_bus.trust_timeout *= 2),
            ("event_bus.publish_timeout", |it| it.event_bus.publish_timeout *= 2),
            ("event_bus_circuit_breaker", |it| it.event_bus_circuit_breaker.failure_threshold = 9),
            ("l2_circuit_breaker", |it| {
                it.l2_circuit_breaker = CircuitBreaker::default().cooldown(Duration::ZERO);
            }),
        ];
        for (option, set) in set {
            let mut own = default();
            set(&mut own);
            assert_eq!(adopt(&mut own, &manager).unwrap_err().option(), option);
            adopt(&mut default(), &own).unwrap();
        }
    }
}
