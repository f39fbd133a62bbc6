//! Checks of the options that the transports share.

use std::time::Duration;

use crate::error::BuildError;

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
    )
}
