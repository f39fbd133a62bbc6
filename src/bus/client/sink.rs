//! What the bus session asks of a cache.

use crate::observe::Observer;

/// A cache as the bus session sees it: the receiver of the messages of its peers.
///
/// The session calls the methods for one message in this order: `unpack`, `ticket` for each key of
/// a value, `record_pending` if L2 has not got the invalidation, `adopt_generation`, then
/// `invalidate` or `invalidate_matching`, or `decode` and `offer`. It waits for each before the
/// next, also for a value that is decoded on another thread: so messages are applied in the order
/// in which they were received, and a delete of this instance that comes while a value is decoded
/// revokes the ticket of the value.
pub(crate) trait Sink: Send + Sync + 'static {
    /// The right to write a key of L1. A delete of the key that comes later revokes it.
    type Ticket: Send;
    /// A decoded value.
    type Value: Send + Sync;

    fn now(&self) -> u64;

    fn observer(&self) -> &Observer;

    /// Returns the MessagePack that a packed message stands for, of at most `limit` bytes.
    fn unpack(
        &self,
        message: Vec<u8>,
        limit: usize,
    ) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// Returns the form of the codec. Of two codecs with one form, one unpacks what the other does.
    fn codec_form(&self) -> Option<(&'static str, usize)>;

    fn ticket(&self, key: &str) -> Self::Ticket;

    /// Makes the invalidation of a key, or of the keys that match a Redis glob, pending here,
    /// because its publisher could not bring it to L2: the keys are not read from L2 until a retry
    /// of this instance has succeeded. `generation` is the publisher's of the key.
    fn record_pending(&self, name: &str, is_pattern: bool, generation: Option<u64>);

    /// A peer that knows nothing of sidecars, one of the TypeScript package, has changed a key, or
    /// the keys that match a Redis glob, in L2.
    fn on_foreign_change(&self, name: &str, is_pattern: bool);

    /// A peer's retry has brought this invalidation to L2. Returns whether L1 can have no value
    /// that was read from L2 before that, because the invalidation is pending here.
    fn on_peer_retried(&self, name: &str, is_pattern: bool) -> bool;

    /// Removes a key from L1 and revokes the tickets of its running loads.
    fn invalidate(&self, key: &str);

    /// Removes the keys that match a Redis glob from L1, and revokes the tickets of their loads.
    fn invalidate_matching(&self, pattern: &str) -> impl Future<Output = ()> + Send;

    /// Decodes a value of a message; `None` if the codec cannot.
    fn decode(&self, value: Vec<u8>) -> impl Future<Output = Option<Self::Value>> + Send;

    /// Writes a peer's value to L1 under its ticket, with its ttl and its stale window. `as_of`:
    /// the message was published later than that, so the value was current then. `prime`:
    /// the peer loaded the value, so that a load of this instance may still overwrite it; else the
    /// peer `set` it. Returns whether L1 keeps it.
    fn offer(
        &self,
        ticket: Self::Ticket,
        value: &Self::Value,
        times_ms: (Option<u64>, Option<u64>),
        as_of: u64,
        prime: bool,
    ) -> bool;

    /// A message about the key was applied: wakes the callers that wait for a peer to load it.
    fn on_applied(&self, key: &str);

    /// Revokes the tickets of all running loads: what they read may be older than a message that
    /// was lost.
    fn revoke_loads(&self);

    /// Returns how often a key was deleted, if the names of its copies in L2 carry that number.
    fn generation(&self, key: &str) -> Option<u64>;

    /// Takes over a peer's generation of a key, if it is higher.
    fn adopt_generation(&self, key: &str, generation: u64);
}
