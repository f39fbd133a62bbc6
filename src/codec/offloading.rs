//! Encodes and decodes values with the user's codec: contains its panics, runs it on the blocking
//! pool for large values, and refuses values that it would not decode again.
//!
//! A value that goes to L2 and to the bus is encoded once, if the two codecs have the same plain
//! form: as [`Plain`], of which L2 makes its payload.
//!
//! The bytes of a codec other than the wire's begin with a tag of their own, [`TAG`], in L2 and on
//! the bus. So a reader with the wire codec, of this library or of the TypeScript package, takes
//! them for those of another release, and not for a value.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{contract::Codec, round_trip::RoundTripCheck};
use crate::{
    contain::{QuietDrop, contain},
    error::{BoxError, HeldError},
    resilience::blocking_pool::spawn_blocking_bounded,
};

pub(crate) struct OffloadingCodec<V> {
    codec: Arc<dyn Codec<V>>,
    /// How many of the next values are encoded on the blocking pool.
    large_countdown: AtomicU32,
    round_trip: RoundTripCheck,
}

/// Bytes that cannot be decoded, with the reason. `None` where the runtime shut down before the
/// codec was called.
pub(crate) struct Unreadable(pub(crate) HeldError, pub(crate) Option<Vec<u8>>);

/// A value as the bytes of `Codec::encode_plain`.
#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// See `Codec::plain_form`.
    form: Option<(&'static str, usize)>,
}

/// Before the bytes of a codec that is not the wire's.
const TAG: &[u8] = b"HC1C";
/// The tags of the wire format. A codec may use it under a name of its own.
const WIRE_TAGS: [&[u8]; 5] = [b"HC1M", b"HC1G", b"HC1J", b"HC1Z", b"HC1L"];

/// After one large value, this many values are encoded on the blocking pool.
const LARGE_DECAY: u32 = 64;

impl<V: Send + Sync + 'static> OffloadingCodec<V> {
    /// `cache`: its name, for the log.
    pub(crate) fn new(codec: Arc<dyn Codec<V>>, cache: Option<&str>) -> Self {
        let round_trip = RoundTripCheck::of_cache(cache);
        Self { codec, large_countdown: AtomicU32::new(0), round_trip }
    }

    pub(crate) async fn decode(&self, bytes: Vec<u8>) -> Result<V, Unreadable> {
        let decoded = self.decode_in_place(bytes).await;
        if matches!(decoded, Err(Unreadable(_, Some(_)))) {
            self.round_trip.on_unreadable();
        }
        decoded
    }

    async fn decode_in_place(&self, bytes: Vec<u8>) -> Result<V, Unreadable> {
        let is_heavy = self.is_heavy(&bytes);
        let tag_len = bytes.len() - self.body(&bytes).len();
        if !is_heavy {
            return decode(&*self.codec, bytes, tag_len);
        }
        self.record_size(is_heavy);
        let codec = Arc::clone(&self.codec);
        let decode = move || decode(&*codec, bytes, tag_len);
        // Boxed, so that the future of a small value does not contain this one.
        let decoded = Box::pin(spawn_blocking_bounded(decode)).await;
        decoded.unwrap_or_else(|| Err(Unreadable(is_shutting_down(), None)))
    }

    /// Whether bytes that cannot be decoded are a null.
    pub(crate) fn is_null(&self, bytes: &[u8]) -> bool {
        catch_codec_panic(|| Ok(self.codec.is_null(self.body(bytes)))).unwrap_or(false)
    }

    /// Encodes a value for L2, from its plain bytes if there are any and this codec can use them.
    pub(crate) async fn encode(
        &self,
        value: &Arc<V>,
        plain: Option<&Plain>,
    ) -> Result<Vec<u8>, HeldError> {
        let plain = plain.filter(|plain| plain.form.is_some() && plain.form == self.form());
        let Some(plain) = plain else {
            return Ok(self.tagged(self.encode_by(value, false, Codec::encode).await?));
        };
        let bytes = Arc::clone(&plain.bytes);
        let is_heavy = self.is_heavy(&bytes);
        let encode = move |codec: &dyn Codec<V>, value: &V| codec.encode_from_plain(value, &bytes);
        self.encode_by(value, is_heavy, encode).await
    }

    /// Encodes a value for a message of the bus.
    pub(crate) async fn encode_plain(&self, value: &Arc<V>) -> Result<Plain, HeldError> {
        let encode = |codec: &dyn Codec<V>, value: &V| codec.encode_plain(value);
        let bytes = Arc::new(self.tagged(self.encode_by(value, false, encode).await?));
        Ok(Plain { bytes, form: self.form() })
    }

    /// Returns the [form](Codec::plain_form) of the codec.
    pub(crate) fn form(&self) -> Option<(&'static str, usize)> {
        catch_codec_panic(|| Ok(self.codec.plain_form())).ok().flatten()
    }

    /// Returns the MessagePack of a packed message, if it has at most `limit` bytes.
    pub(crate) async fn unpack(&self, message: Vec<u8>, limit: usize) -> Option<Vec<u8>> {
        let is_heavy = self.is_heavy(&message);
        let codec = Arc::clone(&self.codec);
        let unpack = move || catch_codec_panic(|| Ok(codec.unpack(&message, limit))).ok().flatten();
        if !is_heavy {
            return unpack();
        }
        Box::pin(spawn_blocking_bounded(unpack)).await.flatten()
    }

    fn is_heavy(&self, bytes: &[u8]) -> bool {
        let body = self.body(bytes);
        catch_codec_panic(|| Ok(self.codec.is_heavy_to_decode(body))).unwrap_or(false)
    }

    /// Returns the bytes of the codec as a payload.
    fn tagged(&self, bytes: Vec<u8>) -> Vec<u8> {
        // mutant untagged: if true
        if self.form().is_some() || WIRE_TAGS.iter().any(|tag| bytes.starts_with(tag)) {
            return bytes;
        }
        [TAG, &bytes].concat()
    }

    /// The bytes of a payload that the codec knows.
    fn body<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let is_of_codec = |_: &&[u8]| self.form().is_none();
        bytes.strip_prefix(TAG).filter(is_of_codec).unwrap_or(bytes)
    }

    /// Encodes a value. `is_large`: it is known to be. Else its size is unknown beforehand, so this
    /// method predicts it: after one large value, the next 64 values are encoded on the blocking
    /// pool, and each small value counts down. The prediction lasts that long because its errors
    /// cost unequally: a small value on the blocking pool costs some microseconds, a large one in
    /// line blocks all tasks of the thread for milliseconds.
    ///
    /// Alternatives considered: the size from the weigher. Refused because the user chooses its
    /// unit, and most caches have no weigher.
    async fn encode_by(
        &self,
        value: &Arc<V>,
        is_large: bool,
        how: impl FnOnce(&dyn Codec<V>, &V) -> Result<Vec<u8>, BoxError> + Send + 'static,
    ) -> Result<Vec<u8>, HeldError> {
        let encoded = if !is_large && self.large_countdown.load(Ordering::Relaxed) == 0 {
            encode(&*self.codec, value, how)
        } else {
            let (codec, value) = (Arc::clone(&self.codec), Arc::clone(value));
            let encode = move || encode(&*codec, &value, how);
            let encoded = Box::pin(spawn_blocking_bounded(encode)).await;
            encoded.unwrap_or_else(|| Err(is_shutting_down()))
        };
        let (bytes, is_heavy) = encoded?;
        self.record_size(is_heavy);
        if self.round_trip.is_due() {
            // Boxed, as above: this is rare.
            match Box::pin(self.decode(bytes.clone())).await {
                Err(Unreadable(error, Some(_))) => {
                    return catch_codec_panic(|| Err(self.round_trip.on_failed::<V>(&error)));
                }
                decoded => drop(decoded.map(QuietDrop::new)),
            }
        }
        Ok(bytes)
    }

    fn record_size(&self, is_large: bool) {
        let before = self.large_countdown.load(Ordering::Relaxed);
        let after = if is_large { LARGE_DECAY } else { before.saturating_sub(1) };
        // Threads may overwrite each other's count, which only shifts the prediction. The usual
        // case, 0 before and after, writes nothing.
        if after != before {
            self.large_countdown.store(after, Ordering::Relaxed);
        }
    }
}

fn is_shutting_down() -> HeldError {
    HeldError::new("the runtime is shutting down".into())
}

/// `tag_len`: the codec does not know that many of the first bytes.
fn decode<V: 'static>(
    codec: &dyn Codec<V>,
    bytes: Vec<u8>,
    tag_len: usize,
) -> Result<V, Unreadable> {
    let decoded = catch_codec_panic(|| codec.decode(bytes.get(tag_len..).unwrap_or_default()));
    decoded.map_err(|error| Unreadable(error, Some(bytes)))
}

/// Encodes a value, and estimates by the cost of decoding whether encoding was costly.
fn encode<V: 'static>(
    codec: &dyn Codec<V>,
    value: &V,
    how: impl FnOnce(&dyn Codec<V>, &V) -> Result<Vec<u8>, BoxError>,
) -> Result<(Vec<u8>, bool), HeldError> {
    catch_codec_panic(|| {
        let bytes = how(codec, value)?;
        let is_heavy = codec.is_heavy_to_decode(&bytes);
        Ok((bytes, is_heavy))
    })
}

/// Calls the user's codec and returns an error where it panics. The panic hook has reported the
/// message of the panic by then.
pub(crate) fn catch_codec_panic<T>(
    convert: impl FnOnce() -> Result<T, BoxError>,
) -> Result<T, HeldError> {
    let converted = contain(convert).unwrap_or_else(|_| Err("the codec panicked".into()));
    converted.map_err(HeldError::new)
}
