//! The messages of the bus: MessagePack maps, which the TypeScript package writes and reads too.
//!
//! | field | in messages | meaning |
//! | --- | --- | --- |
//! | `id` | all | unique for each publisher, except that its beacons share one |
//! | `type` | all | `del`, `pattern` or `set` |
//! | `source` | all | the name of the publishing instance |
//! | `ts` | all | milliseconds since 1970 by the publisher's clock; never compared with another clock |
//! | `namespace` | all, optional | the [name](crate::CacheOptions::name) of the cache, see [`Namespaces`] |
//! | `generation` | `del` and `set` of one key, optional | how often the key was deleted |
//! | `keys` | `del`, `set` | `keyTypes` beside it is ignored: every key is text here |
//! | `pattern` | `pattern` | the glob of the keys to delete |
//! | `value`, `ttlMs` | `set` | the value itself, as MessagePack, not as bytes |
//! | `staleMs` | `set`, this library only, optional | the stale window of the value; none if absent |
//! | `l2` | invalidations of this library, optional | `false`: L2 has not got the invalidation; see [`InL2`] |
//! | `retried` | invalidations of this library, optional | `true`: L2 had not got the invalidation and has got it now; see [`InL2`] |
//! | `prime` | `set`, this library only | `true`: the value was loaded, and changes nothing where it is not stored |
//! | `raw` | `del`, this library only | the value that was set, by a codec other than the wire's, as bytes |
//! | `rawKeys` | `del` of no keys, this library only | the value in `raw` was loaded for these keys |
//! | `seen` | `set` and with `raw`, this library only | the causal context, see `protocol/version_vector.rs` |
//! | `inc` | all of this library | the publisher's incarnation: random, new with every start |
//! | `seq` | all of this library | the message's number in its incarnation, from 0 without holes |
//! | `due` | this library, optional | the publisher will send again within this many milliseconds; a beacon without it is the publisher's last message |
//! | `idle` | this library, optional | milliseconds since the bus confirmed the message with the number `seq - 1` |
//! | `beacon` | beacons | `true`; or `"hello"`, which asks publishers for a beacon |
//! | `caches` | beacons of an instance with several caches | the names of the caches, in the place of `namespace` |
//!
//! A **beacon** changes nothing. Its `seq` is the number that the publisher's *next* message will
//! have, so it says that all lower numbers were used. It is written as a `del` of no keys, because
//! readers that do not know beacons may refuse an unknown `type`, and a delete of no keys changes
//! nothing for them. All beacons of an incarnation have one id: such readers take each further one
//! for a duplicate, so that beacons do not push the ids of real messages out of their memory.
//!
//! `inc` and `seq` are used only together and if both have their types, because another release of
//! the TypeScript package may use these names for something else.
//!
//! Messages are not trusted. Each size is checked before anything of this size is allocated, and a
//! decoded message borrows from its bytes: it allocates one list of at most `MAX_KEYS` slices,
//! and one of at most `MAX_CACHES`.

use super::{
    decode_error::DecodeError,
    fields::{Fields, HELLO, MessageWriter},
    namespace::{CacheId, Namespaces},
};

/// Bytes of an incarnation. A longer one is ignored, because subscribers remember it.
const MAX_INCARNATION: usize = 64;

/// A message, which borrows from its bytes, or from the data that is to be encoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message<'a> {
    pub(crate) id: &'a str,
    pub(crate) source: &'a str,
    pub(crate) ts: u64,
    pub(crate) generation: Option<u64>,
    pub(crate) namespace: Option<&'a str>,
    /// `None` in messages of the TypeScript package.
    pub(crate) stamp: Option<SequenceStamp<'a>>,
    pub(crate) in_l2: InL2,
    pub(crate) kind: MessageKind<'a>,
}

/// What a subscriber makes of a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Received<'a> {
    /// A message for this cache of the instance; a beacon may be for more of them.
    Ours(CacheId, Message<'a>),
    /// A message of a cache that this instance does not have. Only its number says something here:
    /// one instance may publish the messages of several caches.
    Foreign { stamp: Option<SequenceStamp<'a>>, is_beacon: bool },
}

/// Whether L2 has got an invalidation, as far as its publisher knows.
///
/// Two invalidations that share one message share the higher state: it makes peers do more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum InL2 {
    /// It had not got it, and has got it now by a retry. Peers forget what they have read from L2
    /// meanwhile; peers to which the invalidation was pending have read nothing.
    Retried,
    /// It has got it; also said by a publisher of which this is not known, such as an instance of
    /// the TypeScript package.
    #[default]
    Yes,
    /// It has not got it: each peer makes the invalidation a pending one of its own, and does not
    /// read the keys from L2 until its retry has succeeded.
    No,
}

/// The place of a message among the messages of its publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequenceStamp<'a> {
    pub(crate) incarnation: &'a str,
    pub(crate) seq: u64,
    /// Within how many milliseconds the publisher promises to send again.
    pub(crate) next_within_ms: Option<u64>,
    /// How many milliseconds before this message the bus confirmed the one before it. For a beacon,
    /// the one before is the last message. `None` if there is none.
    pub(crate) idle_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MessageKind<'a> {
    Delete {
        keys: Vec<&'a str>,
    },
    Pattern {
        pattern: &'a str,
    },
    /// `value` and `context` are one value in MessagePack each. `by_codec`: `value` is the payload
    /// of a codec other than the wire's.
    Set {
        keys: Vec<&'a str>,
        value: &'a [u8],
        by_codec: bool,
        ttl_ms: Option<u64>,
        stale_ms: Option<u64>,
        prime: bool,
        context: Option<&'a [u8]>,
    },
    /// `caches`: the names of the caches of its publisher, if that has several.
    Beacon {
        hello: bool,
        caches: Vec<&'a str>,
    },
}

impl<'a> MessageKind<'a> {
    /// The keys whose old values peers must delete.
    pub(crate) fn deleted_keys(&self) -> &[&'a str] {
        match self {
            Self::Delete { keys } | Self::Set { keys, prime: false, .. } => keys,
            _ => &[],
        }
    }
}

impl<'a> Message<'a> {
    /// Decodes the body of a message, without its prefix.
    pub(crate) fn decode(body: &'a [u8], own: &Namespaces) -> Result<Received<'a>, DecodeError> {
        let fields = Fields::read(body).or_else(|error| {
            // Another cache may use a field in a way that this release does not know. Nothing of
            // the message is lost here, so its number counts as received.
            let is_foreign = |name| own.find(Some(name)).is_none();
            let place = Fields::read_place(body);
            place.filter(|it| it.namespace.is_some_and(is_foreign)).ok_or(error)
        })?;
        let incarnation = fields.incarnation.filter(|it| it.len() <= MAX_INCARNATION);
        let stamp = incarnation.zip(fields.seq).map(|(incarnation, seq)| SequenceStamp {
            incarnation,
            seq,
            next_within_ms: fields.next_within_ms,
            idle_ms: fields.idle_ms,
        });
        let is_beacon = fields.beacon.is_some() && fields.keys.as_ref().is_none_or(Vec::is_empty);
        let caches = fields.caches.filter(|_| is_beacon).unwrap_or_default();
        let cache = match &caches[..] {
            [] => own.find(fields.namespace),
            // mutant beacon-caches: => names => names.first().and_then(|it| own.find(Some(it))),
            names => names.iter().find_map(|name| own.find(Some(name))),
        };
        let Some(cache) = cache else { return Ok(Received::Foreign { stamp, is_beacon }) };
        let kind = match required("type", fields.kind)? {
            b"del" => match (required("keys", fields.keys)?, fields.beacon, fields.raw) {
                // Only with no keys: whatever else `beacon` may come to mean, keys are deleted.
                (keys, Some(hello), _) if keys.is_empty() => MessageKind::Beacon { hello, caches },
                (keys, _, None) => MessageKind::Delete { keys },
                (keys, _, Some(value)) => {
                    let primed = fields.raw_keys.filter(|_| keys.is_empty());
                    MessageKind::Set {
                        prime: primed.is_some(),
                        keys: primed.unwrap_or(keys),
                        value,
                        by_codec: true,
                        ttl_ms: fields.ttl_ms,
                        stale_ms: fields.stale_ms,
                        context: fields.context,
                    }
                }
            },
            b"pattern" => MessageKind::Pattern { pattern: required("pattern", fields.pattern)? },
            b"set" => MessageKind::Set {
                keys: required("keys", fields.keys)?,
                value: required("value", fields.value)?,
                by_codec: false,
                ttl_ms: fields.ttl_ms,
                stale_ms: fields.stale_ms,
                prime: fields.prime,
                context: fields.context,
            },
            _ => return Err(DecodeError::UnknownType),
        };
        let message = Self {
            id: required("id", fields.id)?,
            source: required("source", fields.source)?,
            // Nothing depends on it, so a message without it is accepted.
            ts: fields.ts.unwrap_or_default(),
            generation: fields.generation,
            namespace: fields.namespace,
            stamp,
            in_l2: match (fields.l2, fields.retried) {
                (Some(false), _) => InL2::No,
                (_, true) => InL2::Retried,
                _ => InL2::Yes,
            },
            kind,
        };
        Ok(Received::Ours(cache, message))
    }

    /// Encodes the message with its prefix.
    ///
    /// # Errors
    ///
    /// The message is larger than subscribers accept.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = MessageWriter::new();
        out.text("id", self.id)?;
        out.text("source", self.source)?;
        out.number("ts", self.ts);
        out.number("generation", self.generation);
        out.text("namespace", self.namespace)?;
        if let Some(stamp) = self.stamp {
            out.text("inc", stamp.incarnation)?;
            out.number("seq", stamp.seq);
            out.number("due", stamp.next_within_ms);
            out.number("idle", stamp.idle_ms);
        }
        match self.in_l2 {
            InL2::Retried => out.flag("retried", true),
            InL2::Yes => {}
            InL2::No => out.flag("l2", false),
        }
        match &self.kind {
            MessageKind::Delete { keys } => {
                out.text("type", "del")?;
                out.texts("keys", keys)?;
            }
            MessageKind::Pattern { pattern } => {
                out.text("type", "pattern")?;
                out.text("pattern", *pattern)?;
            }
            MessageKind::Set { keys, value, by_codec, ttl_ms, stale_ms, prime, context } => {
                if *by_codec {
                    // Readers that know only values in MessagePack delete the keys.
                    out.text("type", "del")?;
                    out.texts("keys", if *prime { &[] } else { keys })?;
                    out.bytes("raw", value);
                    if *prime {
                        out.texts("rawKeys", keys)?;
                    }
                } else {
                    out.text("type", "set")?;
                    out.texts("keys", keys)?;
                    out.value("value", *value)?;
                    out.flag("prime", prime.then_some(true));
                }
                out.value("seen", *context)?;
                out.number("ttlMs", *ttl_ms);
                out.number("staleMs", *stale_ms);
            }
            MessageKind::Beacon { hello, caches } => {
                out.text("type", "del")?;
                out.texts("keys", &[])?;
                out.flag("beacon", (!hello).then_some(true));
                out.text("beacon", hello.then_some(HELLO))?;
                if !caches.is_empty() {
                    out.texts("caches", caches)?;
                }
            }
        }
        out.finish()
    }
}

fn required<T>(name: &'static str, field: Option<T>) -> Result<T, DecodeError> {
    field.ok_or(DecodeError::Missing(name))
}

#[cfg(test)]
mod tests;
