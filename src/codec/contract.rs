//! The contract of codecs.

use crate::error::BoxError;

/// Encodes values as the bytes that a [`Store`](crate::Store) keeps, and decodes them.
///
/// Implement it where L2 should hold another format than the wire format, for example bytes that
/// exist already, or encrypted ones.
///
/// In L2 and on the bus, `HC1C` stands before the bytes, unless they are in the wire format: a
/// reader with the wire codec then takes them for a miss, and not for a value. The codec decodes
/// them without it, and gets bytes that another program wrote as they are.
///
/// A value that cannot be encoded is not stored (event `l2:refused`), and bytes that cannot be
/// decoded are a miss (event `l2:error`).
///
/// The cache decodes the first 16 values that it has encoded, and the next 16 after each that it
/// could not decode. A value whose bytes do not decode counts as a value that cannot be encoded: it
/// stays in L1 and is not sent to peers. From then on the cache checks every value. The log names
/// the type once.
///
/// ```
/// use lazy_layers_cache::{BoxError, Codec};
///
/// /// Texts as their own bytes.
/// struct Utf8;
///
/// impl Codec<String> for Utf8 {
///     fn encode(&self, value: &String) -> Result<Vec<u8>, BoxError> {
///         Ok(value.clone().into_bytes())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
///         Ok(String::from_utf8(bytes.to_vec())?)
///     }
/// }
///
/// assert_eq!(Utf8.decode(&Utf8.encode(&"Ada".to_owned())?)?, "Ada");
/// # Ok::<(), lazy_layers_cache::BoxError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a codec of `{V}`",
    label = "expected a codec, such as `WireCodec::new()`",
    note = "`WireCodec` encodes all types that implement serde's `Serialize` and \
            `DeserializeOwned`; for other types implement `Codec<{V}>`"
)]
pub trait Codec<V>: Send + Sync + 'static {
    /// Returns the value as bytes.
    ///
    /// # Errors
    ///
    /// The value cannot be encoded, or its bytes exceed a limit of the codec.
    fn encode(&self, value: &V) -> Result<Vec<u8>, BoxError>;

    /// Returns the value that [`encode`](Self::encode) turned into these bytes.
    ///
    /// # Errors
    ///
    /// The bytes are not such a value. Anyone with write access to L2 may have written them, so an
    /// implementation limits its allocations and its recursion.
    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError>;

    /// Returns whether the bytes are a null of a program in another language. If `V` cannot hold a
    /// null, so that [`decode`](Self::decode) fails, such bytes mean that the key does not exist;
    /// other bytes that cannot be decoded are removed from L2. Default: `false`.
    fn is_null(&self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }

    /// Returns the value as bytes for a message of the bus. `HC1M` and then MessagePack is a value
    /// for every peer; other bytes are one for peers of this library only, and a delete for those
    /// of the TypeScript package. Default: [`encode`](Self::encode).
    ///
    /// # Errors
    ///
    /// Those of `encode`.
    fn encode_plain(&self, value: &V) -> Result<Vec<u8>, BoxError> {
        self.encode(value)
    }

    /// Names the form of the bytes of [`encode_plain`](Self::encode_plain), with a number for its
    /// limits. If the codecs of L2 and of the bus name the same form, the cache encodes a value
    /// once for both. Default: `None`, a form of its own.
    fn plain_form(&self) -> Option<(&'static str, usize)> {
        None
    }

    /// Returns what [`encode`](Self::encode) does, from the bytes that
    /// [`encode_plain`](Self::encode_plain) of a codec of the same [form](Self::plain_form) has
    /// returned for the value. Default: `encode`.
    ///
    /// # Errors
    ///
    /// Those of `encode`.
    fn encode_from_plain(&self, value: &V, plain: &[u8]) -> Result<Vec<u8>, BoxError> {
        let _ = plain;
        self.encode(value)
    }

    /// Returns the MessagePack of a bus message that is packed in another format, if it has at
    /// most `limit` bytes. `None` where the codec does not know the format. Default: `None`.
    fn unpack(&self, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
        let _ = (bytes, limit);
        None
    }

    /// Returns whether decoding these bytes takes too long for a thread that runs async tasks.
    /// Then the cache decodes them on the blocking pool of the runtime. The cache calls this
    /// before each decoding, so an implementation looks at the length and a few bytes only. After
    /// a value with such bytes, the cache also encodes on the blocking pool. Default: `false`.
    fn is_heavy_to_decode(&self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }
}
