//! The bus protocol of one instance. It does no I/O and reads no clock: callers pass the time,
//! random numbers and received messages, and get back the messages to publish.

pub(crate) mod beacon_schedule;
pub(crate) mod causality;
pub(crate) mod dedupe;
pub(crate) mod fingerprint;
pub(crate) mod gap_detector;
pub(crate) mod outbox;
pub(crate) mod session;
pub(crate) mod session_state;
pub(crate) mod version_vector;
