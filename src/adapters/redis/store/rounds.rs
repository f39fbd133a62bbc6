//! Repeats a walk over all nodes of a Cluster until no slot has moved behind it.

use crate::{
    adapters::redis::{cluster::SlotMap, connection::Connection},
    error::BoxError,
};

/// Maximum number of times that all nodes are walked while slots are being moved.
const MAX_ROUNDS: usize = 8;

pub(super) struct Rounds<'a> {
    connection: &'a Connection,
    /// Where the slots were when the present round began.
    pub(super) slots: SlotMap,
    was_moving: bool,
    ended: usize,
}

impl<'a> Rounds<'a> {
    pub(super) async fn begin(connection: &'a Connection) -> Result<Self, BoxError> {
        let slots = SlotMap::read(connection).await?;
        Ok(Self { connection, slots, was_moving: false, ended: 0 })
    }

    /// Ends a round, and returns whether it was the last one: a key that moved from a node before
    /// its walk to one after its walk was missed. It moves so only once, and the next round finds
    /// it.
    pub(super) async fn end(&mut self) -> Result<bool, BoxError> {
        let later = SlotMap::read(self.connection).await?;
        if self.slots == later && (!later.is_moving || self.was_moving) {
            return Ok(true);
        }
        self.was_moving = self.slots.is_moving || later.is_moving;
        self.slots = later;
        self.ended += 1;
        if self.ended == MAX_ROUNDS {
            return Err("slots of the Redis Cluster kept moving during a walk over all keys".into());
        }
        Ok(false)
    }
}
