//! The groups of options about what fails.

use std::time::Duration;

/// When something that fails is left alone: after so many failures in a row nothing is tried for
/// a while, and then one call at a time until one succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// Failures in a row. Default: 3.
    pub failure_threshold: u32,
    /// How long nothing is tried. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub cooldown: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { failure_threshold: 3, cooldown: Duration::from_secs(30) }
    }
}

impl CircuitBreaker {
    /// See the field [`failure_threshold`](Self::failure_threshold).
    #[must_use]
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.failure_threshold = failures;
        self
    }

    /// See the field [`cooldown`](Self::cooldown).
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }
}

/// Keeping a value beyond its time to live, to serve it where a load fails or takes too long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct FailSafe {
    /// Default: false.
    pub enabled: bool,
    /// How long a value may serve as a stale copy after it has ceased to be fresh.
    /// Default: 300 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub stale_ttl: Duration,
    /// After a load failed and a stale copy was served, the key is not loaded again for this
    /// long: the stale copy answers at once. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub throttle: Duration,
}

impl Default for FailSafe {
    fn default() -> Self {
        Self {
            enabled: false,
            stale_ttl: Duration::from_secs(300),
            throttle: Duration::from_secs(5),
        }
    }
}

impl FailSafe {
    /// Switched on, with the other defaults.
    #[must_use]
    pub fn enabled() -> Self {
        Self { enabled: true, ..Self::default() }
    }

    /// See the field [`stale_ttl`](Self::stale_ttl).
    #[must_use]
    pub fn stale_ttl(mut self, stale_ttl: Duration) -> Self {
        self.stale_ttl = stale_ttl;
        self
    }

    /// See the field [`throttle`](Self::throttle).
    #[must_use]
    pub fn throttle(mut self, throttle: Duration) -> Self {
        self.throttle = throttle;
        self
    }
}
