//! Two languages: a Rust instance and one in JavaScript, which follows the TypeScript package, on
//! one Redis or RabbitMQ. Needs Node.js and packages of npm, so it is not among the tests that
//! `cargo test` runs: `scripts/mixed` does.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "that is how a test fails"
)]

mod deletes;
mod events;
mod options;
mod queues;
#[expect(dead_code, reason = "files of the other tests, of which some is not needed here")]
mod support;
mod values;
mod work;
