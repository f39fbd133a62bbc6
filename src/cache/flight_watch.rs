//! The wait of most callers: for one flight, without a timeout of their own.
//!
//! A load may hang, and then its callers need a later one: the followers after `inflight.ttl`, the
//! leader after twice that time (`follow.rs`). The leader and the first followers have a timer
//! each. The others are woken by a watch, a task with one timer for them all: so a stampede costs
//! no timer per caller. Each runtime whose callers wait has a watch of its own, because another
//! runtime may have stopped.
//!
//! Alternatives considered: the first follower's timer serves the others. Its task may not be
//! polled for a while, and all others would wait for it. Or a leader without a timer, which is told
//! when another caller begins a later flight. But a leader whose load hangs must also notice a
//! value that comes into L1 without a flight: from `set`, L2, a peer or a load that nobody joins.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    flight_context::{Flight, FlightResult, Follower, Wanted},
    follow::{Resolved, wait_edge},
    state::CacheState,
};
use crate::{
    error::Error,
    resilience::{DropGuard, run_until, timeout},
};

/// A flight is watched from this many followers on: for fewer, a timer each costs less.
const WATCH_FROM: usize = 3;

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Waits for the result of a flight, joined at `now`. `None`: the flight is too old, and the
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

    /// Waits for the result of the flight that the caller leads. `None`: the load has exceeded
    /// `inflight.ttl` twice over, and the caller has to look for a later one as well.
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
        let limit = self.flights.doubly_joinable_for(flight, flight.began).unwrap_or(0);
        let result = Arc::clone(flight).wait();
        Ok(timeout(Some(Duration::from_millis(limit)), result).await.ok())
    }

    /// Returns whether a watch of the current runtime wakes the followers when the flight has
    /// become too old.
    fn ensure_watch(&self, flight: &Arc<Flight<V>>, now: u64) -> bool {
        if flight.followers() < WATCH_FROM {
            return false;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        if flight.context.add_watch(runtime.id()) {
            let (watched, result) = (Arc::clone(flight), Arc::clone(flight).wait());
            // Runs also if the runtime shuts down: another one may poll the followers from then on.
            // mutant watch-shutdown: s/watched.set_too_old()/drop(watched)/
            let wake = DropGuard::new(move || watched.set_too_old());
            let result = timeout(self.joinable_for(flight, now), result);
            // Without a token: `close` does not wait for a watch whose runtime has stopped.
            let running = self.running.clone();
            runtime.spawn(async move {
                if let Some(Ok(_)) = run_until(result, running.wait_stopped()).await {
                    wake.disarm();
                }
            });
        }
        true
    }

    fn joinable_for(&self, flight: &Flight<V>, now: u64) -> Option<Duration> {
        Some(Duration::from_millis(self.flights.joinable_for(flight, now).unwrap_or(0)))
    }
}
