//! Checks of the options that the transports share.

use std::time::Duration;

use crate::error::BuildError;

const A_DURATION: &str = "write a duration of at least 1 ms";

/// The durations of a transport, each with the path of its option.
pub(crate) struct Durations {
    pub(crate) connect: (&'static str, Duration),
    pub(crate) confirm: (&'static str, Duration),
    pub(crate) heartbeat: (&'static str, Duration),
}

impl Durations {
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let Self { connect, confirm, heartbeat } = self;
        BuildError::refuse_if(
            connect.1.is_zero(),
            connect.0,
            "is zero, so no connection could ever be made",
            A_DURATION,
        )?;
        BuildError::refuse_if(
            confirm.1.is_zero(),
            confirm.0,
            "is zero, so every publish would fail",
            A_DURATION,
        )?;
        BuildError::refuse_if(
            heartbeat.1 < Duration::from_millis(50),
            heartbeat.0,
            "is less than 50 ms, so a healthy server would count as disconnected",
            "write the interval of the heartbeats, for example 1 s",
        )
    }
}

pub(crate) fn check_queue_capacity(capacity: usize) -> Result<(), BuildError> {
    BuildError::refuse_if(
        capacity == 0,
        "queue_capacity",
        "is 0, so every message would become a gap",
        "write how many messages may wait, for example 10_000",
    )
}
