//! What `build()` refuses, each with the option's name and the fix.

use std::time::Duration;

use super::{CacheOptions, Timeouts, bus::LONGEST_NAME};
use crate::error::BuildError;

impl CacheOptions {
    pub(crate) fn check(&self, has_weigher: bool) -> Result<(), BuildError> {
        let refuse = |refused: bool, option, problem: &str, fix| {
            if refused { Err(BuildError::new(option, problem, fix)) } else { Ok(()) }
        };
        refuse(self.ttl.is_zero(), "ttl", "is zero, so nothing would ever be cached", A_DURATION)?;
        refuse(
            !(0.0..1.0).contains(&self.ttl_jitter),
            "ttl_jitter",
            "is not a fraction",
            "write at least 0 (none) and less than 1; 0.1 takes off up to a tenth",
        )?;
        self.check_l1(has_weigher)?;
        refuse(self.l2.ttl.is_some_and(|ttl| ttl.is_zero()), "l2.ttl", "is zero", A_DURATION)?;
        refuse(
            self.l2_timeouts.read.is_zero(),
            "l2_timeouts.read",
            "is zero, so every read would fail",
            A_DURATION,
        )?;
        refuse(
            self.l2_timeouts.write.is_zero(),
            "l2_timeouts.write",
            "is zero, so every write would fail",
            A_DURATION,
        )?;
        refuse(
            self.l2_timeouts.pattern.is_zero(),
            "l2_timeouts.pattern",
            "is zero, so every delete by pattern would fail",
            A_DURATION,
        )?;
        refuse(
            self.l2_circuit_breaker.failure_threshold == 0,
            "l2_circuit_breaker.failure_threshold",
            "is 0, so the shared level would never be asked",
            "write how many failures in a row open it, 1 or more",
        )?;
        refuse(
            self.inflight.enabled && self.inflight.ttl.is_zero(),
            "inflight.ttl",
            "is zero, so no load would ever be joined",
            "set inflight.enabled to false if that is meant",
        )?;
        refuse(
            self.distributed_lock.enabled && self.distributed_lock.ttl < LEAST_LOCK,
            "distributed_lock.ttl",
            "is shorter than 30 ms, so it would be lost between two renewals",
            "write a time such as 10 s",
        )?;
        refuse(
            self.distributed_lock.enabled && self.distributed_lock.poll.is_zero(),
            "distributed_lock.poll",
            "is zero, so whoever waits would ask without a pause",
            "write a time such as 50 ms",
        )?;
        refuse(
            self.negative_cache.enabled && self.negative_cache.ttl.is_zero(),
            "negative_cache.ttl",
            "is zero, so nothing would be remembered",
            "set negative_cache.enabled to false if that is meant",
        )?;
        refuse(
            self.negative_cache.enabled && self.negative_cache.max_entries == 0,
            "negative_cache.max_entries",
            "is 0, so nothing would be remembered",
            "set negative_cache.enabled to false if that is meant",
        )?;
        refuse(
            self.negative_cache.enabled && !self.l1.enabled,
            "negative_cache.enabled",
            "needs the level in memory, which is off",
            "set l1.enabled to true, or negative_cache.enabled to false",
        )?;
        refuse(
            self.fail_safe.enabled && self.fail_safe.stale_ttl.is_zero(),
            "fail_safe.stale_ttl",
            "is zero, so no stale copy would be kept",
            "set fail_safe.enabled to false if that is meant",
        )?;
        refuse(
            self.event_bus_circuit_breaker.failure_threshold == 0,
            "event_bus_circuit_breaker.failure_threshold",
            "is 0, so nothing would ever be told",
            "write how many failures in a row open it, 1 or more",
        )?;
        refuse(
            self.source.as_ref().is_some_and(|name| name.is_empty() || name.len() > LONGEST_NAME),
            "source",
            "is empty, or longer than 1,024 bytes",
            "write a short name that no other instance has, or leave it out",
        )?;
        self.event_bus.check()?;
        self.timeouts.check()
    }

    fn check_l1(&self, has_weigher: bool) -> Result<(), BuildError> {
        let l1 = &self.l1;
        if l1.max_entries == Some(0) {
            return Err(BuildError::new("l1.max_entries", "is 0", "set 1 or more, or turn L1 off"));
        }
        if l1.max_weight == Some(0) {
            return Err(BuildError::new("l1.max_weight", "is 0", "set 1 or more, or turn L1 off"));
        }
        if l1.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(BuildError::new("l1.ttl", "is zero", A_DURATION));
        }
        if l1.max_weight.is_some() && !has_weigher {
            return Err(BuildError::new(
                "l1.max_weight",
                "is set, but nothing says what an entry weighs",
                "call the builder's weigher(..)",
            ));
        }
        if has_weigher && l1.max_weight.is_none() {
            return Err(BuildError::new(
                "l1.max_weight",
                "is missing, so the weigher would have no effect",
                "set it, in the unit of the weigher",
            ));
        }
        Ok(())
    }
}

impl Timeouts {
    fn check(&self) -> Result<(), BuildError> {
        match (self.soft, self.hard) {
            (_, Some(hard)) if hard.is_zero() => Err(BuildError::new(
                "timeouts.hard",
                "is zero, so every load would fail",
                "write a longer time, or leave it out",
            )),
            (Some(soft), Some(hard)) if soft > hard => Err(BuildError::new(
                "timeouts.soft",
                format!("({soft:?}) is longer than timeouts.hard ({hard:?})"),
                "make it the shorter one: it says when a stale copy is served",
            )),
            _ => Ok(()),
        }
    }
}

const LEAST_LOCK: Duration = Duration::from_millis(30);

const A_DURATION: &str = "write a time such as 60 s";
