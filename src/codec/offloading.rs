//! Values to bytes and back, by the user's codec: what it panics with is contained, and what takes
//! it long is done aside.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{Codec, contained};
use crate::error::BoxError;
use crate::resilience::blocking_pool::spawn_blocking_bounded;

pub(crate) struct Convert<V> {
    codec: Arc<dyn Codec<V>>,
    /// How many more values are expected to be as large as the last large one was.
    large: AtomicU32,
}

/// Bytes that are no value, and why not. Without the bytes where nobody could look at them.
pub(crate) struct Unreadable(pub(crate) BoxError, pub(crate) Option<Vec<u8>>);

/// For so many small values after a large one, the next may be large again.
const REMEMBERED: u32 = 64;

impl<V: Send + Sync + 'static> Convert<V> {
    pub(crate) fn new(codec: Arc<dyn Codec<V>>) -> Self {
        Self { codec, large: AtomicU32::new(0) }
    }

    pub(crate) async fn decode(&self, bytes: Vec<u8>) -> Result<V, Unreadable> {
        let is_heavy = contained(|| Ok(self.codec.is_heavy_to_decode(&bytes))).unwrap_or(false);
        if !is_heavy {
            return decode(&*self.codec, bytes);
        }
        self.expect(is_heavy);
        let codec = Arc::clone(&self.codec);
        // Boxed, so that the future of a small value does not hold room for it.
        let decoded = Box::pin(spawn_blocking_bounded(move || decode(&*codec, bytes))).await;
        decoded.unwrap_or_else(|| Err(Unreadable("the runtime is shutting down".into(), None)))
    }

    /// How large a value is shows only once it is encoded. So a type is expected to go on as it
    /// was: one large value sends it aside, and so many small ones in a row bring it back. A small
    /// one aside costs some microseconds beside a round trip, a large one in line holds up every
    /// task of the thread for milliseconds: thus the long memory, and not the last size alone.
    ///
    /// The weigher was refused: its unit is the user's, and most caches have none.
    pub(crate) async fn encode(&self, value: &Arc<V>) -> Result<Vec<u8>, BoxError> {
        let encoded = if self.large.load(Ordering::Relaxed) == 0 {
            encode(&*self.codec, value)
        } else {
            let (codec, value) = (Arc::clone(&self.codec), Arc::clone(value));
            let encoded = Box::pin(spawn_blocking_bounded(move || encode(&*codec, &value))).await;
            encoded.unwrap_or_else(|| Err("the runtime is shutting down".into()))
        };
        let (bytes, is_heavy) = encoded?;
        self.expect(is_heavy);
        Ok(bytes)
    }

    fn expect(&self, is_large: bool) {
        let large = self.large.load(Ordering::Relaxed);
        let expected = if is_large { REMEMBERED } else { large.saturating_sub(1) };
        // Not exact between threads, and need not be. Mostly there is nothing to write.
        if expected != large {
            self.large.store(expected, Ordering::Relaxed);
        }
    }
}

fn decode<V: 'static>(codec: &dyn Codec<V>, bytes: Vec<u8>) -> Result<V, Unreadable> {
    contained(|| codec.decode(&bytes)).map_err(|error| Unreadable(error, Some(bytes)))
}

/// What it takes to read what was written is taken for what it took to write it.
fn encode<V: 'static>(codec: &dyn Codec<V>, value: &V) -> Result<(Vec<u8>, bool), BoxError> {
    contained(|| {
        let bytes = codec.encode(value)?;
        let is_heavy = codec.is_heavy_to_decode(&bytes);
        Ok((bytes, is_heavy))
    })
}
