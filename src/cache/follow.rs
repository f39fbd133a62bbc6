//! What callers do while a flight is up: wait for its landing, or until their patience is over
//! and there is something else to serve.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use super::{
    flight_context::{Arrival, Failure, Flight, Landing},
    outcome::{Found, Source},
    state::CacheState,
};
use crate::{
    entry::Entry,
    error::{Error, ErrorKind},
    flight::Waiting,
    observe::{Counter, Event, StaleReason},
    options::Timeouts,
    resilience::{Elapsed, timeout},
};

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Waits for a flight: with something to serve no longer than `soft` from its start, and in
    /// any case no longer than `hard` from now. `None`: the load was dropped before it ended.
    ///
    /// (The leader needs no `hard` here: its load has it.)
    pub(super) async fn wait(
        &self,
        key: &Arc<str>,
        flight: &Flight<V>,
        timeouts: &Timeouts,
        source: Source,
    ) -> Result<Option<Found<V>>, Error> {
        if let Some(landed) = flight.landed() {
            return self.landed(key, source, landed);
        }
        let Some(_waiting) = Waiting::on(flight.about.node) else {
            return Err(Error::recursion(key));
        };
        let mut waited = Duration::ZERO;
        let flown = Duration::from_millis(self.now().saturating_sub(flight.about.began));
        let soft = timeouts.soft.map(|soft| (soft, soft.saturating_sub(flown)));
        if let Some((limit, patience)) = soft
            && timeouts.hard.is_none_or(|hard| patience < hard)
        {
            if let Ok(landed) = timeout(Some(patience), flight.wait()).await {
                return self.landed(key, source, landed);
            }
            waited = patience;
            if let Some(found) = self.no_longer_wait(key, flight, limit) {
                return Ok(Some(found));
            }
        }
        let patience = timeouts.hard.map(|hard| hard.saturating_sub(waited));
        let slow = soft.filter(|_| !waited.is_zero()).map(|(limit, _)| limit);
        let landing = async {
            let mut landing = pin!(flight.wait());
            poll_fn(|context| {
                if let Poll::Ready(landed) = landing.as_mut().poll(context) {
                    return Poll::Ready(Ok(landed));
                }
                // Beyond the soft timeout: a copy may have come along meanwhile.
                let copy = slow.and_then(|limit| self.no_longer_wait(key, flight, limit));
                copy.map_or(Poll::Pending, |found| Poll::Ready(Err(found)))
            })
            .await
        };
        match timeout(patience, landing).await {
            Ok(Ok(landed)) => return self.landed(key, source, landed),
            Ok(Err(found)) => return Ok(Some(found)),
            Err(Elapsed) => {}
        }
        // Both may come at the same moment.
        if let Some(landed) = flight.landed() {
            return self.landed(key, source, landed);
        }
        match self.at_hand(key, flight) {
            Some(entry) => {
                Ok(Some(self.serve_copy(Arc::clone(key), entry, StaleReason::HardTimeout)))
            }
            None => Err(Error::hard_timeout(key, timeouts.hard.unwrap_or_default())),
        }
    }

    /// What to serve once the soft timeout is over, if there is anything.
    fn no_longer_wait(
        &self,
        key: &Arc<str>,
        flight: &Flight<V>,
        limit: Duration,
    ) -> Option<Found<V>> {
        let entry = self.at_hand(key, flight)?;
        if !flight.about.reported_slow.swap(true, Ordering::Relaxed) {
            self.observer.emit(|| Event::LoaderTimeout { key, limit, hard: false });
        }
        Some(self.serve_copy(Arc::clone(key), entry, StaleReason::SoftTimeout))
    }

    /// What may be served while a flight is up: what memory holds, else the copy that the flight
    /// took along, unless something newer was published or anything deleted since.
    pub(super) fn at_hand(&self, key: &str, flight: &Flight<V>) -> Option<Entry<V>> {
        let now = self.now();
        let held = self.usable(key, now, &mut None);
        let copy = flight.about.copy().filter(|copy| copy.is_usable(now));
        let copy = copy.filter(|_| self.flights.copy_is_good(key, flight));
        Entry::longer_usable(held, copy, now)
    }

    fn landed(
        &self,
        key: &Arc<str>,
        source: Source,
        landed: Option<Landing<V>>,
    ) -> Result<Option<Found<V>>, Error> {
        let key = Arc::clone(key);
        match landed {
            Some(Ok(Arrival { value, from_l2, refused })) => {
                let source = if from_l2 { Source::L2 } else { source };
                Ok(Some(Found { refused, ..Found::arrived(key, value, source) }))
            }
            Some(Err(Failure { error, instead })) => {
                // A caller may come round late: the entry's time may be over.
                match instead.filter(|entry| entry.is_usable(self.now())) {
                    Some(entry) => {
                        let reason = match error.kind() {
                            ErrorKind::HardTimeout => StaleReason::HardTimeout,
                            ErrorKind::LockTimeout => StaleReason::LockTimeout,
                            _ => StaleReason::LoaderError,
                        };
                        Ok(Some(self.serve_copy(key, entry, reason)))
                    }
                    None => Err(error),
                }
            }
            None => Ok(None),
        }
    }

    pub(super) fn serve_copy(
        &self,
        key: Arc<str>,
        entry: Entry<V>,
        reason: StaleReason,
    ) -> Found<V> {
        let now = self.now();
        self.observer.count(Counter::StaleHits);
        self.observer.emit(|| Event::StaleHit { key: &key, reason, age: entry.age(now) });
        Found::in_l1(key, entry, now, Some(reason))
    }
}
