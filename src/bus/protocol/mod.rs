//! The bus protocol of one instance. It does no I/O and reads no clock: callers pass the time,
//! random numbers and received messages, and get back the messages to publish.

mod beacon_schedule;
pub(super) mod causality;
mod dedupe;
pub(super) mod gap_detector;
mod identity;
pub(super) mod outbox;
pub(super) mod probes;
mod publisher_state;
pub(super) mod rebroadcasts;
mod received_numbers;
pub(super) mod session;
mod version_vector;
