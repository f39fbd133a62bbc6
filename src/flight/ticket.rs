//! Fencing tokens: the right to write a key, which later invalidations revoke; and the leader's
//! part of a flight, which is a ticket and the duty to complete the flight.

use super::{
    key_states::{KeyHash, KeyStates, Origin},
    shared_flight::Flight,
};
use crate::sync::{Arc, Ordering};

/// A fencing token: the right to write the value of one key, held from before the value is read or
/// loaded until after it is written. A later delete revokes it.
pub(crate) struct Ticket<C, T> {
    states: Arc<KeyStates<C, T>>,
    key: Arc<str>,
    hash: KeyHash,
    number: u64,
}

/// The leader's part of a flight: its ticket, and the duty to complete the flight. A dropped `Lead`
/// completes the flight without a result.
pub(crate) struct Lead<C, T> {
    /// Dropped before `flight` is completed, so that a follower that then loads for itself does not
    /// find the ended flight in the table.
    pub(crate) ticket: Ticket<C, T>,
    flight: CompleteOnDrop<C, T>,
}

struct CompleteOnDrop<C, T>(Arc<Flight<C, T>>);

/// The rights that a ticket has left.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TicketValidity {
    /// Since the ticket was issued, the key was not deleted or `set`, and no later load has
    /// published.
    pub(crate) may_write: bool,
    /// Since the ticket was issued, no value was published or deleted at all.
    pub(crate) stale_valid: bool,
    /// Since the ticket was issued, this instance has learnt that a peer deleted or `set` the key,
    /// or that it may have done so. Late followers must not take the result.
    pub(crate) is_superseded: bool,
}

impl<C, T> Ticket<C, T> {
    pub(super) fn new(
        states: &Arc<KeyStates<C, T>>,
        hash: KeyHash,
        key: &Arc<str>,
        number: u64,
    ) -> Self {
        states.tickets.fetch_add(1, Ordering::Relaxed);
        Self { states: Arc::clone(states), key: Arc::clone(key), hash, number }
    }

    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Writes the result of a load, unless the key was deleted or a later load has published: then
    /// the error says which rights are left. Ends the load, as
    /// [`end_load`](Self::end_load) does, under the same lock, so that every caller finds either
    /// the flight or the value.
    ///
    /// `write` runs under the lock and must not run user code; it returns the displaced values.
    pub(crate) fn publish<R>(&mut self, write: impl FnOnce() -> R) -> Result<R, TicketValidity> {
        let mut guard = self.states.lock(self.hash);
        let shard = &mut *guard;
        let Some(state) = shard.keys.get_mut(self.hash, &self.key) else {
            return Err(TicketValidity::default());
        };
        // mutant fence-publish: remove
        if self.number < state.publish_watermark {
            let is_superseded = self.number < state.peer_watermark;
            return Err(TicketValidity { is_superseded, ..TicketValidity::default() });
        }
        state.publish_watermark = self.number + 1;
        state.stale_watermark = shard.next_ticket;
        let ended = state.end_load(self.number);
        let written = write();
        drop(guard);
        self.states.finish(ended);
        Ok(written)
    }

    /// Writes a value that was read from L2, unless a value was published or deleted since the
    /// ticket was issued: then the read value may be older. A running load may publish over it.
    /// Ends the load. `None` if the value was not written.
    pub(crate) fn promote<R>(&mut self, write: impl FnOnce() -> R) -> Option<R> {
        let mut write = Some(write);
        // A closure that does not run owns values of the user, which are dropped after the unlock.
        self.with_validity(|validity| {
            // mutant fence-promote: s/(validity/(true || validity/
            let may_promote = (validity.may_write && validity.stale_valid).then_some(());
            may_promote.and_then(|()| write.take()).map(|write| write())
        })
    }

    /// Runs `write` under the lock with the rights that the ticket has left. The written value is
    /// no result: an earlier load may still publish over it. Ends the load.
    pub(crate) fn with_validity<R>(&mut self, write: impl FnOnce(TicketValidity) -> R) -> R {
        let mut guard = self.states.lock(self.hash);
        let mut validity = TicketValidity::default();
        let mut ended = None;
        if let Some(state) = guard.keys.get_mut(self.hash, &self.key) {
            validity.may_write = self.number >= state.publish_watermark;
            validity.stale_valid = self.number >= state.stale_watermark;
            validity.is_superseded = self.number < state.peer_watermark;
            ended = Some(state.end_load(self.number));
        }
        let written = write(validity);
        drop(guard);
        if let Some(ended) = ended {
            self.states.finish(ended);
        }
        written
    }

    /// Writes a value that was passed to `set`, unless the key was deleted or `set` since the
    /// ticket was issued. Writes also over the result of a later load, and revokes all running
    /// loads.
    pub(crate) fn overwrite<R>(&mut self, by: Origin, write: impl FnOnce() -> R) -> Option<R> {
        let mut guard = self.states.lock(self.hash);
        let shard = &mut *guard;
        let state = shard.keys.get_mut(self.hash, &self.key)?;
        // mutant fence-overwrite: remove
        if self.number < state.delete_watermark {
            return None;
        }
        let revoked = state.revoke_all(shard.next_ticket, by);
        let written = write();
        drop(guard);
        self.states.finish(revoked);
        Some(written)
    }

    /// The load has ended: it does not count any more, and later callers do not join its flight but
    /// read L1 and L2 themselves. The leader calls it before it publishes the result in L2, where a
    /// peer can delete it. Returns the rights that are left.
    pub(crate) fn end_load(&mut self) -> TicketValidity {
        self.with_validity(|validity| validity)
    }
}

impl<C, T> Drop for Ticket<C, T> {
    fn drop(&mut self) {
        let mut guard = self.states.lock(self.hash);
        let released = guard.keys.release(self.hash, &self.key, |state| {
            state.tickets -= 1;
            state.end_load(self.number)
        });
        drop(guard);
        if let Some((ended, unused)) = released {
            drop(unused);
            self.states.finish(ended);
        }
        self.states.tickets.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C, T> Lead<C, T> {
    pub(super) fn new(ticket: Ticket<C, T>, flight: Arc<Flight<C, T>>) -> Self {
        Self { ticket, flight: CompleteOnDrop(flight) }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight<C, T>> {
        &self.flight.0
    }

    /// Returns the ticket and hands the result to all waiting callers.
    pub(crate) fn complete(self, result: T) {
        let Self { ticket, flight } = self;
        drop(ticket);
        flight.0.result.complete(Some(result));
    }
}

impl<C, T> Drop for CompleteOnDrop<C, T> {
    fn drop(&mut self) {
        self.0.result.complete(None);
    }
}
