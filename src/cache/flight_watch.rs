//! The wait of most callers: for one flight, without a timeout of their own.
//!
//! A load may hang, and then its callers need a later one (`follow.rs`).
//!
//! | the caller | it looks for a later flight |
//! | --- | --- |
//! | the leader, whose loader is used up | when another caller has begun one |
//! | one of the first followers | after `inflight.ttl`, by a timer of its own: it may begin one |
//! | another follower | after `inflight.ttl`, woken by the watch: a task with one timer for them all |
//!
//! So a stampede costs no timer per caller. Each runtime whose callers wait has a watch of its own,
//! because another runtime may have stopped.
//!
//! Alternatives considered: the first follower's timer serves the others. Its task may not be
//! polled for a while, and all others would wait for it.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    flight_context::{Flight, FlightResult, Follower, Wanted},
    follow::{Resolved, wait_edge},
    state::CacheState,
};
use crate::{error::Error, resilience::timeout};

/// A flight is watched from this many followers on: for fewer, a timer each costs less.
const WATCH_FROM: usize = 3;

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Waits for the result of a flight, joined at `now`. `None`: the flight is overtaken, and the
    /// caller has to look for a later one as well.
    ///
    /// # Errors
    ///
    /// As for [`wait_edge`].
    pub(super) async fn await_flight(
        &self,
        key: &Arc<str>,
        follower: &Follower<V>,
        wanted: Wanted,
        now: u64,
    ) -> Result<Option<Resolved<V>>, Error> {
        let flight = &follower.flight;
        let _edge = wait_edge(key, flight)?;
        let result = Arc::clone(flight).wait_alone();
        let result = match self.ensure_watch(flight, now) {
            true => result.await,
            // Boxed, so that the future of a stampede's callers stays small.
            false => Box::pin(timeout(self.joinable_for(flight, now), result)).await.ok().flatten(),
        };
        Ok(result.map(|result| self.resolve(key, result, Some(follower.is_late), wanted)))
    }

    /// Waits for the result of the flight that the caller leads. `None`: as for
    /// [`await_flight`](Self::await_flight).
    ///
    /// # Errors
    ///
    /// As for [`wait_edge`].
    pub(super) async fn await_led(
        &self,
        key: &Arc<str>,
        flight: &Arc<Flight<V>>,
    ) -> Result<Option<Option<FlightResult<V>>>, Error> {
        let _edge = wait_edge(key, flight)?;
        Ok(Arc::clone(flight).wait_alone().await)
    }

    /// Returns whether a watch of the current runtime wakes the followers when the flight has
    /// become too old.
    fn ensure_watch(&self, flight: &Arc<Flight<V>>, now: u64) -> bool {
        if flight.followers() < WATCH_FROM {
            return false;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        if flight.context.add_watch(runtime.id()) {
            let (watched, token) = (Arc::clone(flight), self.running.token());
            let limit = self.joinable_for(flight, now);
            runtime.spawn(async move {
                if timeout(limit, Arc::clone(&watched).wait()).await.is_err() {
                    watched.overtake();
                }
                drop(token);
            });
        }
        true
    }

    fn joinable_for(&self, flight: &Flight<V>, now: u64) -> Option<Duration> {
        Some(Duration::from_millis(self.flights.joinable_for(flight, now).unwrap_or(0)))
    }
}
