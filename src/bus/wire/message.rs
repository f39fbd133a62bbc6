//! An event as bytes: a map in MessagePack, which the TypeScript package writes and reads too.
//!
//! | field | in | |
//! | --- | --- | --- |
//! | `id`, `type`, `source`, `ts` | all | `type` is `del`, `pattern` or `set` |
//! | `namespace` | all, optional | |
//! | `generation` | all, optional | how often its key was deleted, where there is one key; in beacons the subscription's number |
//! | `keys` | `del`, `set` | `keyTypes` beside it is passed over: every key is text here |
//! | `pattern` | `pattern` | |
//! | `value`, `ttlMs` | `set` | the value itself, not bytes of it |
//! | `prime` | ours, in `set` | `true`: it comes of a load, and changes nothing where it is not wanted |
//! | `seen` | ours, in `set` | what its publisher had heard of before, see [`order`](super::order) |
//! | `inc` | all that we write | the publisher's incarnation: random, new with every start |
//! | `seq` | all that we write | the event's number in its incarnation, from 0 without holes |
//! | `due` | ours, optional | the publisher will be heard again within so many milliseconds |
//! | `beacon` | beacons | `true`; or `"hello"`, which asks publishers to say where they are |
//!
//! A **beacon** changes nothing; its `seq` is the number that the *next* event will have, so it
//! says that all below were sent. It is written as a `del` of no keys, because an unknown `type`
//! may be an error to readers that know nothing of beacons, and deleting nothing is nothing to
//! them. All beacons of an incarnation have one id: to whom it means nothing, the second is a
//! duplicate of the first, and does not push the ids of real events out of what is remembered.
//!
//! `inc` and `seq` count only together and if they have the right types: another release may come
//! to use these names for something else.
//!
//! What is read was written by anyone. Sizes are checked where they are claimed, before anything
//! is built; a message borrows from the bytes, so all it allocates is a list of at most
//! [`MAX_KEYS`](super::limits::MAX_KEYS) slices.

use super::{
    decode_error::DecodeError,
    fields::{Fields, MessageWriter},
};

/// Bytes of an incarnation.
const MAX_INCARNATION: usize = 64;

/// An event, borrowed from its bytes or from what it will be written of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message<'a> {
    pub(crate) id: &'a str,
    pub(crate) source: &'a str,
    /// Milliseconds since 1970 by the sender's clock. Never compared with ours.
    pub(crate) ts: u64,
    pub(crate) generation: Option<u64>,
    pub(crate) namespace: Option<&'a str>,
    /// None in what the TypeScript package sends.
    pub(crate) stamp: Option<SequenceStamp<'a>>,
    pub(crate) kind: MessageKind<'a>,
}

/// Where an event stands among those of its publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequenceStamp<'a> {
    pub(crate) incarnation: &'a str,
    pub(crate) seq: u64,
    /// Within how many milliseconds the publisher promises to be heard again.
    pub(crate) next_within_ms: Option<u64>,
}

impl SequenceStamp<'_> {
    /// The id of the event of this number.
    pub(crate) fn id(&self) -> String {
        format!("{}:{}", self.incarnation, self.seq)
    }

    /// The id of every beacon of the incarnation.
    pub(crate) fn beacon_id(&self) -> String {
        format!("{}:beacon", self.incarnation)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MessageKind<'a> {
    Delete {
        keys: Vec<&'a str>,
    },
    Pattern {
        pattern: &'a str,
    },
    /// `value` is exactly one value in MessagePack, and so is what was seen.
    Set {
        keys: Vec<&'a str>,
        value: &'a [u8],
        ttl_ms: Option<u64>,
        prime: bool,
        context: Option<&'a [u8]>,
    },
    Beacon {
        hello: bool,
    },
}

impl<'a> Message<'a> {
    /// Reads the [`unwrap_body`] of an event. `ours` is our own namespace: an event with another is
    /// refused, one without is everybody's.
    pub(crate) fn decode(body: &'a [u8], ours: Option<&str>) -> Result<Self, DecodeError> {
        let fields = Fields::read(body)?;
        if fields.namespace.is_some() && fields.namespace != ours {
            return Err(DecodeError::OtherNamespace);
        }
        let kind = match fields.kind.ok_or(DecodeError::Missing("type"))? {
            "del" => match (fields.keys.ok_or(DecodeError::Missing("keys"))?, fields.beacon) {
                // Whatever else a field of that name may come to mean, keys are deleted.
                (keys, Some(hello)) if keys.is_empty() => MessageKind::Beacon { hello },
                (keys, _) => MessageKind::Delete { keys },
            },
            "pattern" => MessageKind::Pattern {
                pattern: fields.pattern.ok_or(DecodeError::Missing("pattern"))?,
            },
            "set" => MessageKind::Set {
                keys: fields.keys.ok_or(DecodeError::Missing("keys"))?,
                value: fields.value.ok_or(DecodeError::Missing("value"))?,
                ttl_ms: fields.ttl_ms,
                prime: fields.prime,
                context: fields.context,
            },
            _ => return Err(DecodeError::UnknownType),
        };
        let stamp = match (fields.incarnation, fields.seq) {
            // Longer than anybody needs it, and it would have to be remembered.
            (Some(incarnation), Some(seq)) if incarnation.len() <= MAX_INCARNATION => {
                Some(SequenceStamp { incarnation, seq, next_within_ms: fields.due })
            }
            _ => None,
        };
        Ok(Self {
            id: fields.id.ok_or(DecodeError::Missing("id"))?,
            source: fields.source.ok_or(DecodeError::Missing("source"))?,
            // Nothing hangs on it, so an event is not lost for want of it.
            ts: fields.ts.unwrap_or_default(),
            generation: fields.generation,
            namespace: fields.namespace,
            stamp,
            kind,
        })
    }

    /// The event as a payload.
    ///
    /// # Errors
    ///
    /// What a reader would refuse is not written.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = MessageWriter::new();
        out.text("id", self.id)?;
        out.text("source", self.source)?;
        out.number("ts", self.ts);
        if let Some(generation) = self.generation {
            out.number("generation", generation);
        }
        if let Some(namespace) = self.namespace {
            out.text("namespace", namespace)?;
        }
        if let Some(stamp) = self.stamp {
            out.text("inc", stamp.incarnation)?;
            out.number("seq", stamp.seq);
            if let Some(due) = stamp.next_within_ms {
                out.number("due", due);
            }
        }
        match &self.kind {
            MessageKind::Delete { keys } => {
                out.text("type", "del")?;
                out.keys(keys)?;
            }
            MessageKind::Pattern { pattern } => {
                out.text("type", "pattern")?;
                out.text("pattern", pattern)?;
            }
            MessageKind::Set { keys, value, ttl_ms, prime, context } => {
                out.text("type", "set")?;
                out.keys(keys)?;
                out.value("value", value)?;
                if *prime {
                    out.yes("prime");
                }
                if let Some(context) = context {
                    out.value("seen", context)?;
                }
                if let Some(ttl_ms) = ttl_ms {
                    out.number("ttlMs", *ttl_ms);
                }
            }
            MessageKind::Beacon { hello } => {
                out.text("type", "del")?;
                out.keys(&[])?;
                out.beacon(*hello)?;
            }
        }
        out.finish()
    }
}

#[cfg(test)]
mod tests;
