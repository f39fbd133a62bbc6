//! The protocol of one instance on the bus, pure: told the time and the bytes, it says what to send.

pub(crate) mod beacon_schedule;
pub(crate) mod causality;
pub(crate) mod dedupe;
pub(crate) mod fingerprint;
pub(crate) mod gap_detector;
pub(crate) mod outbox;
pub(crate) mod session;
