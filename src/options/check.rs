//! Checks the options: `build()` refuses wrong ones with the name of the option and a fix.

use std::time::Duration;

use super::{
    bus::EventBusOptions,
    cache::CacheOptions,
    loading::{DistributedLock, NegativeCache, Timeouts},
    resilience::CircuitBreaker,
    tiers::{L1Options, L2Timeouts},
};
use crate::error::BuildError;

const MIN_LOCK_TTL: Duration = Duration::from_millis(30);
const MIN_TRUST_TIMEOUT: Duration = Duration::from_millis(300);
/// In bytes. Instance id and namespace are part of every message.
const MAX_NAME: usize = 1_024;

const SET_A_TIME: &str = "set a time such as 60 s";
const SET_ONE_OR_MORE: &str = "set 1 or more, or turn L1 off";

impl CacheOptions {
    pub(crate) fn check(&self, has_weigher: bool) -> Result<(), BuildError> {
        check_times(&[
            (Some(self.ttl), "ttl", "is zero, so nothing would ever be cached"),
            (self.l1.ttl, "l1.ttl", "is zero"),
            (self.l2.ttl, "l2.ttl", "is zero"),
        ])?;
        BuildError::refuse_if(
            !(0.0..1.0).contains(&self.ttl_jitter),
            "ttl_jitter",
            "is not a fraction",
            "set at least 0 (none) and less than 1; 0.1 takes off up to a tenth",
        )?;
        self.l1.check(has_weigher)?;
        self.l2_timeouts.check()?;
        self.l2_circuit_breaker
            .check("l2_circuit_breaker.failure_threshold", "is 0, so L2 would never be asked")?;
        BuildError::refuse_if(
            self.inflight.enabled && self.inflight.ttl.is_zero(),
            "inflight.ttl",
            "is zero, so no load would ever be joined",
            "set inflight.enabled to false if that is meant",
        )?;
        self.distributed_lock.check()?;
        self.negative_cache.check(&self.l1)?;
        BuildError::refuse_if(
            self.fail_safe.enabled && self.fail_safe.stale_ttl.is_zero(),
            "fail_safe.stale_ttl",
            "is zero, so no stale copy would be kept",
            "set fail_safe.enabled to false if that is meant",
        )?;
        self.event_bus_circuit_breaker.check(
            "event_bus_circuit_breaker.failure_threshold",
            "is 0, so nothing would ever be published",
        )?;
        BuildError::refuse_if(
            self.instance_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_NAME),
            "instance_id",
            "is empty, or longer than 1,024 bytes",
            "set a short name that no other instance has, or leave it out",
        )?;
        self.event_bus.check()?;
        self.timeouts.check()
    }
}

/// Refuses the first of these options that is zero.
fn check_times(times: &[(Option<Duration>, &'static str, &'static str)]) -> Result<(), BuildError> {
    times.iter().try_for_each(|(time, option, problem)| {
        let is_zero = time.is_some_and(|time| time.is_zero());
        BuildError::refuse_if(is_zero, option, problem, SET_A_TIME)
    })
}

impl CircuitBreaker {
    fn check(&self, option: &'static str, problem: &str) -> Result<(), BuildError> {
        let fix = "set how many consecutive failures open the circuit, 1 or more";
        BuildError::refuse_if(self.failure_threshold == 0, option, problem, fix)
    }
}

impl L1Options {
    fn check(&self, has_weigher: bool) -> Result<(), BuildError> {
        let weight = "l1.max_weight";
        BuildError::refuse_if(
            self.max_entries == Some(0),
            "l1.max_entries",
            "is 0",
            SET_ONE_OR_MORE,
        )?;
        BuildError::refuse_if(self.max_weight == Some(0), weight, "is 0", SET_ONE_OR_MORE)?;
        BuildError::refuse_if(
            self.max_weight.is_some() && !has_weigher,
            weight,
            "is set, but the cache has no weigher",
            "call the builder's weigher(..)",
        )?;
        BuildError::refuse_if(
            has_weigher && self.max_weight.is_none(),
            weight,
            "is missing, so the weigher would have no effect",
            "set it, in the unit of the weigher",
        )
    }
}

impl L2Timeouts {
    fn check(&self) -> Result<(), BuildError> {
        check_times(&[
            (Some(self.read), "l2_timeouts.read", "is zero, so every read would fail"),
            (Some(self.write), "l2_timeouts.write", "is zero, so every write would fail"),
            (
                Some(self.pattern),
                "l2_timeouts.pattern",
                "is zero, so every delete by pattern would fail",
            ),
        ])
    }
}

impl DistributedLock {
    fn check(&self) -> Result<(), BuildError> {
        BuildError::refuse_if(
            self.enabled && self.ttl < MIN_LOCK_TTL,
            "distributed_lock.ttl",
            "is shorter than 30 ms, so the lock would expire between two renewals",
            "set a time such as 10 s",
        )?;
        BuildError::refuse_if(
            self.enabled && self.poll.is_zero(),
            "distributed_lock.poll",
            "is zero, so a waiting caller would ask L2 without a pause",
            "set a time such as 50 ms",
        )
    }
}

impl NegativeCache {
    fn check(&self, l1: &L1Options) -> Result<(), BuildError> {
        let turn_off = "set negative_cache.enabled to false if that is meant";
        BuildError::refuse_if(
            self.enabled && self.ttl.is_zero(),
            "negative_cache.ttl",
            "is zero, so no missing key would be cached",
            turn_off,
        )?;
        BuildError::refuse_if(
            self.enabled && self.max_entries == 0,
            "negative_cache.max_entries",
            "is 0, so no missing key would be cached",
            turn_off,
        )?;
        BuildError::refuse_if(
            self.enabled && !l1.enabled,
            "negative_cache.enabled",
            "needs L1, which is off",
            "set l1.enabled to true, or negative_cache.enabled to false",
        )
    }
}

impl EventBusOptions {
    fn check(&self) -> Result<(), BuildError> {
        BuildError::refuse_if(
            self.trust_timeout < MIN_TRUST_TIMEOUT,
            "event_bus.trust_timeout",
            "is shorter than 300 ms, less than messages may take",
            "set a time such as 3 s",
        )?;
        BuildError::refuse_if(
            self.publish_timeout.is_zero(),
            "event_bus.publish_timeout",
            "is zero, so every publish would fail",
            "set a time such as 1 s",
        )?;
        BuildError::refuse_if(
            self.namespace.as_ref().is_some_and(|name| name.len() > MAX_NAME),
            "event_bus.namespace",
            "is longer than 1,024 bytes",
            "set a short name",
        )
    }
}

impl Timeouts {
    fn check(&self) -> Result<(), BuildError> {
        BuildError::refuse_if(
            self.hard.is_some_and(|hard| hard.is_zero()),
            "timeouts.hard",
            "is zero, so every load would fail",
            "set a longer time, or leave it out",
        )?;
        match (self.soft, self.hard) {
            (Some(soft), Some(hard)) if soft > hard => Err(BuildError::new(
                "timeouts.soft",
                format!("({soft:?}) is longer than timeouts.hard ({hard:?})"),
                "make it the shorter one: it says when a stale copy is served",
            )),
            _ => Ok(()),
        }
    }
}
