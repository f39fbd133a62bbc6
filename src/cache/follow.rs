//! Waiting for a flight: callers wait for its result, or until a timeout and a stale entry to serve
//! instead.
//!
//! The soft timeout counts from the start of the flight, and applies while a stale entry is at
//! hand; the hard timeout counts from the start of the wait. One timer after the other is armed,
//! not both at once: the soft timeout is used only if it ends first.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use super::{
    flight_context::{Flight, FlightResult, LoadErr, LoadOk},
    outcome::{ReadResult, Source},
    state::CacheState,
};
use crate::{
    error::{Cause, Error, ErrorKind},
    flight::WaitEdge,
    observe::{Event, StaleReason},
    options::Timeouts,
    resilience::{Elapsed, timeout},
};

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Waits for a flight. `None`: the load was dropped before it ended. A leader needs no hard
    /// timeout here, because its load enforces it.
    pub(super) async fn await_flight(
        &self,
        key: &Arc<str>,
        flight: &Flight<V>,
        timeouts: &Timeouts,
        source: Source,
    ) -> Result<Option<ReadResult<V>>, Error> {
        if let Some(result) = flight.try_result() {
            return self.resolve(key, source, result);
        }
        let edge = WaitEdge::add(flight.context.id);
        let _edge = edge.ok_or_else(|| Error::of_key(key, Cause::Recursion))?;
        let age = Duration::from_millis(self.now().saturating_sub(flight.began));
        let soft = timeouts.soft.map(|soft| soft.saturating_sub(age));
        let soft = soft.filter(|soft| timeouts.hard.is_none_or(|hard| *soft < hard));
        let limit = soft.or(timeouts.hard);
        let waited = match timeout(limit, self.wait(key, flight, source, None)).await {
            Err(Elapsed) if soft.is_some() => {
                let left = timeouts.hard.zip(soft).map(|(hard, soft)| hard.saturating_sub(soft));
                timeout(left, self.wait(key, flight, source, timeouts.soft)).await
            }
            waited => waited,
        };
        if let Ok(result) = waited {
            return result;
        }
        // The result and the timeout may come at the same moment.
        if let Some(result) = flight.try_result() {
            return self.resolve(key, source, result);
        }
        let error = || Error::of_key(key, Cause::HardTimeout(timeouts.hard.unwrap_or_default()));
        let entry = self.stale_candidate(key, flight).ok_or_else(error)?;
        Ok(Some(self.serve_stale(key, entry, StaleReason::HardTimeout)))
    }

    /// Waits for the result; if the soft timeout is `over`, also for a stale entry: the leader may
    /// attach one later, and then wakes the callers.
    async fn wait(
        &self,
        key: &Arc<str>,
        flight: &Flight<V>,
        source: Source,
        over: Option<Duration>,
    ) -> Result<Option<ReadResult<V>>, Error> {
        let mut result = pin!(flight.wait());
        poll_fn(|context| {
            if let Poll::Ready(result) = result.as_mut().poll(context) {
                return Poll::Ready(self.resolve(key, source, result));
            }
            let Some(limit) = over else { return Poll::Pending };
            let Some(entry) = self.stale_candidate(key, flight) else { return Poll::Pending };
            if !flight.context.reported_slow.swap(true, Ordering::Relaxed) {
                self.observer.emit(|| Event::LoaderTimeout { key, limit, hard: false });
            }
            Poll::Ready(Ok(Some(self.serve_stale(key, entry, StaleReason::SoftTimeout))))
        })
        .await
    }

    /// Turns the result of a flight into the answer of one caller.
    fn resolve(
        &self,
        key: &Arc<str>,
        source: Source,
        result: Option<FlightResult<V>>,
    ) -> Result<Option<ReadResult<V>>, Error> {
        match result {
            Some(Ok(LoadOk { value, from_l2, refused })) => {
                let source = if from_l2 { Source::L2 } else { source };
                let key = Arc::clone(key);
                Ok(Some(ReadResult { refused, ..ReadResult::from_flight(key, value, source) }))
            }
            Some(Err(LoadErr { error, fallback })) => {
                // The caller may poll late, when the stale window of the entry has passed.
                let usable = fallback.filter(|entry| entry.is_usable(self.now()));
                let Some(entry) = usable else { return Err(error) };
                let reason = match error.kind() {
                    ErrorKind::HardTimeout => StaleReason::HardTimeout,
                    ErrorKind::LockTimeout => StaleReason::LockTimeout,
                    _ => StaleReason::LoaderError,
                };
                Ok(Some(self.serve_stale(key, entry, reason)))
            }
            None => Ok(None),
        }
    }
}
