//! Lua scripts: the decisions that Redis takes in one atomic step. Plain commands do the rest.
//!
//! The lease of a key is a random token under an internal name. A caller that finds its own token
//! there knows that the key was not deleted meanwhile: no two tokens are equal.
//!
//! | event | lease in Redis | publish under an earlier token |
//! | --- | --- | --- |
//! | load begins | stored, or adopted; extended if too little of its expiry is left | accepted |
//! | value is published | removed | refused |
//! | negative entry is published | replaced by `0` | refused |
//! | delete | removed | refused |
//! | write begins | replaced by an exclusive token | refused |
//! | expiry, eviction, restart without data | missing | refused |
//!
//! Redis puts its own time into each token. So a call that arrives a second time, because the
//! client retried it or because its first copy was delayed, never restores a token that a delete
//! has removed. A token is a number, which Redis stores in a third of the memory of a text.
//!
//! # The stale copy
//!
//! A copy is a text of its own: [`COPY_HEAD`] bytes, which say of which value it is, and the bytes
//! of the value. It belongs to a value with the length and the expiry in its head. When there is no
//! value, a copy is usable if the time of that expiry has come, because then the value expired.
//!
//! | head | content |
//! | --- | --- |
//! | 1 byte | `1`, the version of this layout |
//! | 13 digits | expiry of the value, in server milliseconds |
//! | 12 digits | stale window in ms |
//! | 10 digits | length of the value |
//!
//! # Alternatives considered
//!
//! - A counter per key in place of a token. Refused: when Redis forgets it, it restarts at a number
//!   that an old load may hold.
//! - One hash a key for lease, negative entry and copy. Refused by measurement (Redis 7.0, a key of
//!   11 bytes): 307 bytes a lease instead of 205, because a field cannot expire; 240 bytes more
//!   for each copy; and the window of a hit takes as long to read.

pub(crate) mod index;
pub(crate) mod locks;
mod trim;
pub(crate) mod values;

use redis::Cmd;

use super::keyspace::Keys;

/// The source of a script, and its SHA-1, by which Redis finds it once it has run it.
pub(crate) struct Script {
    pub(crate) source: &'static str,
    pub(crate) hash: String,
}

/// Sign of the token of a write. No load adopts such a token.
pub(crate) const EXCLUSIVE: &str = "-";

/// Remaining time that [`GET_OR_LEASE`](values::GET_OR_LEASE) reports for a value longer than
/// allowed.
pub(crate) const TOO_LONG: i64 = -3;

/// Bytes before the value in a stale copy.
pub(crate) const COPY_HEAD: usize = 36;

impl Script {
    fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned() }
    }

    /// Starts a call; the caller adds the arguments, of about `bytes` bytes. `keys` are the names
    /// of each value and its sidecar, `index_keys` those of the sets, if the store maintains them.
    ///
    /// | KEYS, for n values | content |
    /// | --- | --- |
    /// | 1 to n | values |
    /// | n + 1 to 2n | leases, in the same order |
    /// | 2n + 1 to 3n | copies, in the same order; left out if no request needs them |
    /// | then | index: sorted set of values by time of their write, if maintained |
    /// | then | sorted set of the names of copies by their expiry, if maintained |
    /// | then | start of the names of the sets of keys with a lease, if maintained |
    pub(crate) fn call<'a>(
        &self,
        keys: impl Iterator<Item = &'a Keys> + Clone,
        index_keys: Option<[&str; 3]>,
        bytes: usize,
    ) -> Cmd {
        let (mut count, mut length, mut has_copies) = (0, 0, false);
        for Keys { value, lease, copy } in keys.clone() {
            (count, length) = (count + 1, length + value.len() + lease.len() + copy.len());
            has_copies |= !copy.is_empty();
        }
        let count = if has_copies { 3 * count } else { 2 * count };
        let index_keys = index_keys.as_ref().map_or(&[][..], |keys| keys);
        // With capacity for the arguments, so that they are rarely moved.
        let mut call = Cmd::with_capacity(2 * count + 16, length + bytes + 256);
        call.arg("EVALSHA").arg(&self.hash).arg(count + index_keys.len());
        let values = keys.clone().map(|it| &*it.value);
        let leases = keys.clone().map(|it| &*it.lease);
        // A request of a cache without fail-safe among others has no name for a copy.
        let copies = keys.map(|it| if it.copy.is_empty() { &*it.value } else { &*it.copy });
        let copies = copies.filter(|_| has_copies);
        for key in values.chain(leases).chain(copies).chain(index_keys.iter().copied()) {
            call.arg(key);
        }
        call
    }
}

/// Defines each script as a static, whose hash is computed on first use. KEYS are those of
/// [`Script::call`] if the documentation of a script names no others.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $source:expr;)*) => {
        $(
            $(#[$doc])*
            pub(crate) static $name: std::sync::LazyLock<super::Script> =
                std::sync::LazyLock::new(|| super::Script::new($source));
        )*
    };
}
pub(crate) use scripts;
