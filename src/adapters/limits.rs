//! Checks of the options that the adapters share.

use std::time::Duration;

use crate::error::BuildError;

/// Maximum of every duration of an adapter: clocks, timers and the protocols of the brokers cannot
/// hold all of them, and small multiples of this one they can.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(365 * 86_400);

/// Checks the durations of a transport, each given with the path of its option.
pub(crate) fn check_durations(
    connect_timeout: (&'static str, Duration),
    confirm_timeout: (&'static str, Duration),
    heartbeat: (&'static str, Duration),
) -> Result<(), BuildError> {
    for ((option, limit), problem) in [
        (connect_timeout, "is zero, so no connection could ever be made"),
        (confirm_timeout, "is zero, so every publish would fail"),
    ] {
        let fix = "write a duration of at least 1 ms";
        BuildError::refuse_if(limit.is_zero(), option, problem, fix)?;
    }
    BuildError::refuse_if(
        heartbeat.1 < Duration::from_millis(50),
        heartbeat.0,
        "is less than 50 ms, so a healthy server would count as disconnected",
        "write the interval of the heartbeats, for example 1 s",
    )?;
    [connect_timeout, confirm_timeout, heartbeat].into_iter().try_for_each(check_longest)
}

/// Refuses a duration that is longer than a year.
pub(crate) fn check_longest(
    (option, duration): (&'static str, Duration),
) -> Result<(), BuildError> {
    check_longest_or(option, duration, "write at most 365 days")
}

/// The same, with another cure.
pub(crate) fn check_longest_or(
    option: &'static str,
    duration: Duration,
    fix: &'static str,
) -> Result<(), BuildError> {
    BuildError::refuse_if(duration > MAX_DURATION, option, "is longer than 365 days", fix)
}
