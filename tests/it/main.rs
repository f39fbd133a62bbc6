//! The behaviour of the cache, one file per theme, in one binary so that it links once.
//!
//! Time is tokio's, paused: nothing here sleeps until something has probably happened.

mod basics;
mod cases;
mod close;
mod coalescing;
mod events;
mod fences;
mod gates;
mod globs;
mod layering;
mod lifetimes;
mod logs;
mod model;
mod options;
mod races;
mod runtimes;
mod support;
