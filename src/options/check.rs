//! Checks the options: `build()` refuses wrong ones with the name of the option and a fix.

use std::time::Duration;

use super::{cache::CacheOptions, name};
use crate::error::BuildError;

const MIN_LOCK_TTL: Duration = Duration::from_millis(30);
const MIN_TRUST_TIMEOUT: Duration = Duration::from_millis(300);
/// In bytes. The instance id is part of every message.
const MAX_INSTANCE_ID: usize = 1_024;

const SET_A_TIME: &str = "set a time such as 60 s";
const SET_ONE_OR_MORE: &str = "set 1 or more, or turn L1 off";
const SET_A_THRESHOLD: &str = "set how many consecutive failures open the circuit, 1 or more";
const TURN_IT_OFF: &str = "set negative_cache.enabled to false if that is meant";

impl CacheOptions {
    /// Returns an error for the first wrong option.
    pub(crate) fn check(&self, has_weigher: bool, has_bus: bool) -> Result<(), BuildError> {
        name::check(self.name.as_deref(), has_bus)?;
        let Self { l1, l2_timeouts, event_bus: bus, .. } = self;
        let lock = self.distributed_lock.enabled.then_some(&self.distributed_lock);
        let negative = self.negative_cache.enabled.then_some(&self.negative_cache);
        let is_zero = |time: Option<Duration>| time.is_some_and(|time| time.is_zero());
        // Each row: whether the option is wrong, its name, the problem, a fix.
        let rules = [
            (self.ttl.is_zero(), "ttl", "is zero, so nothing would ever be cached", SET_A_TIME),
            (
                !(0.0..1.0).contains(&self.ttl_jitter),
                "ttl_jitter",
                "is not a fraction",
                "set at least 0 (none) and less than 1; 0.1 takes off up to a tenth",
            ),
            (l1.enabled && l1.max_entries == Some(0), "l1.max_entries", "is 0", SET_ONE_OR_MORE),
            (l1.enabled && l1.max_weight == Some(0), "l1.max_weight", "is 0", SET_ONE_OR_MORE),
            (l1.enabled && is_zero(l1.ttl), "l1.ttl", "is zero", SET_A_TIME),
            (
                l1.enabled && l1.max_weight.is_some() && !has_weigher,
                "l1.max_weight",
                "is set, but the cache has no weigher",
                "call the builder's weigher(..)",
            ),
            (
                l1.enabled && has_weigher && l1.max_weight.is_none(),
                "l1.max_weight",
                "is missing, so the weigher would have no effect",
                "set it, in the unit of the weigher",
            ),
            (is_zero(self.l2.ttl), "l2.ttl", "is zero", SET_A_TIME),
            (
                l2_timeouts.read.is_zero(),
                "l2_timeouts.read",
                "is zero, so every read would fail",
                SET_A_TIME,
            ),
            (
                l2_timeouts.write.is_zero(),
                "l2_timeouts.write",
                "is zero, so every write would fail",
                SET_A_TIME,
            ),
            (
                l2_timeouts.pattern.is_zero(),
                "l2_timeouts.pattern",
                "is zero, so every delete by pattern would fail",
                SET_A_TIME,
            ),
            (
                self.l2_circuit_breaker.failure_threshold == 0,
                "l2_circuit_breaker.failure_threshold",
                "is 0, so L2 would never be asked",
                SET_A_THRESHOLD,
            ),
            (
                self.inflight.enabled && self.inflight.ttl.is_zero(),
                "inflight.ttl",
                "is zero, so no load would ever be joined",
                "set inflight.enabled to false if that is meant",
            ),
            (
                lock.is_some_and(|lock| lock.ttl < MIN_LOCK_TTL),
                "distributed_lock.ttl",
                "is shorter than 30 ms, so the lock would expire between two renewals",
                "set a time such as 10 s",
            ),
            (
                lock.is_some_and(|lock| lock.poll.is_zero()),
                "distributed_lock.poll",
                "is zero, so a waiting caller would ask L2 without a pause",
                "set a time such as 50 ms",
            ),
            (
                negative.is_some_and(|negative| negative.ttl.is_zero()),
                "negative_cache.ttl",
                "is zero, so no missing key would be cached",
                TURN_IT_OFF,
            ),
            (
                negative.is_some_and(|negative| negative.max_entries == 0),
                "negative_cache.max_entries",
                "is 0, so no missing key would be cached",
                TURN_IT_OFF,
            ),
            (
                self.fail_safe.enabled && self.fail_safe.stale_ttl.is_zero(),
                "fail_safe.stale_ttl",
                "is zero, so no stale copy would be kept",
                "set fail_safe.enabled to false if that is meant",
            ),
            (
                self.event_bus_circuit_breaker.failure_threshold == 0,
                "event_bus_circuit_breaker.failure_threshold",
                "is 0, so nothing would ever be published",
                SET_A_THRESHOLD,
            ),
            (
                self.instance_id
                    .as_ref()
                    .is_some_and(|id| id.is_empty() || id.len() > MAX_INSTANCE_ID),
                "instance_id",
                "is empty, or longer than 1,024 bytes",
                "set a short name that no other instance has, or leave it out",
            ),
            (
                bus.trust_timeout < MIN_TRUST_TIMEOUT,
                "event_bus.trust_timeout",
                "is shorter than 300 ms, less than messages may take",
                "set a time such as 3 s",
            ),
            (
                bus.publish_timeout.is_zero(),
                "event_bus.publish_timeout",
                "is zero, so every publish would fail",
                "set a time such as 1 s",
            ),
            (
                is_zero(self.timeouts.hard),
                "timeouts.hard",
                "is zero, so every load would fail",
                "set a longer time, or leave it out",
            ),
        ];
        for (is_wrong, option, problem, fix) in rules {
            BuildError::refuse_if(is_wrong, option, problem, fix)?;
        }
        match (self.timeouts.soft, self.timeouts.hard) {
            (Some(soft), Some(hard)) if soft > hard => Err(BuildError::new(
                "timeouts.soft",
                format!("({soft:?}) is longer than timeouts.hard ({hard:?})"),
                "make it the shorter one: it says when a stale copy is served",
            )),
            _ => Ok(()),
        }
    }
}
