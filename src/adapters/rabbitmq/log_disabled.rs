//! Without the feature `tracing`: no log lines.

pub(crate) fn warn_of_waiting_messages(_queue: &str, _waiting: u32) {}
