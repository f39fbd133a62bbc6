//! The version vector that a value carries on the bus as its causal context: per publisher, the
//! sequence number below which the sender of the value had applied all messages.
//!
//! Encoded as an array in MessagePack in which incarnations and numbers alternate.

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;

use crate::msgpack::{
    reader::{Reader, Token},
    writer::Writer,
};

/// Publishers in a version vector. With more of them, no values are sent.
pub(super) const MAX_PUBLISHERS: usize = 256;

pub(crate) struct VersionVector<'a>(HashMap<&'a str, u64, RandomState>);

impl<'a> VersionVector<'a> {
    /// Encodes pairs of an incarnation and a number. `None` if there are too many.
    pub(crate) fn encode(entries: &[(&str, u64)]) -> Option<Arc<[u8]>> {
        if entries.len() > MAX_PUBLISHERS {
            return None;
        }
        let mut out = Writer::default();
        out.array(entries.len() * 2);
        for (incarnation, below) in entries {
            out.text(incarnation);
            out.number(*below);
        }
        Some(Arc::from(out.0))
    }

    /// Decodes the vector of a peer. `None` if it is malformed or too long.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let Token::Array(length) = reader.token().ok()? else { return None };
        let pairs = usize::try_from(length / 2).ok().filter(|pairs| *pairs <= MAX_PUBLISHERS)?;
        let mut entries = HashMap::with_capacity_and_hasher(pairs, RandomState::default());
        for _ in 0..pairs {
            let Ok(Token::Text(incarnation)) = reader.token() else { return None };
            let below = match reader.token().ok()? {
                Token::Unsigned(below) => below,
                Token::Signed(below) => u64::try_from(below).ok()?,
                Token::Float(below) if below >= 0.0 => below as u64,
                _ => return None,
            };
            entries.insert(std::str::from_utf8(incarnation).ok()?, below);
        }
        Some(Self(entries))
    }

    /// Adds that all messages of this publisher below this number were applied.
    pub(crate) fn raise(&mut self, incarnation: &'a str, below: u64) {
        let known = self.0.entry(incarnation).or_default();
        *known = below.max(*known);
    }

    /// Whether all messages of this publisher below this number were applied.
    pub(crate) fn covers(&self, incarnation: &str, below: u64) -> bool {
        below == 0 || self.0.get(incarnation).is_some_and(|known| *known >= below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_decoded_as_it_was_encoded() {
        let bytes = VersionVector::encode(&[("a", 4), ("b", 5_000_000_000)]).unwrap();
        let mut vector = VersionVector::decode(&bytes).unwrap();
        assert_eq!(vector.0, HashMap::from_iter([("a", 4), ("b", 5_000_000_000)]));
        assert!(vector.covers("a", 4) && !vector.covers("a", 5) && vector.covers("c", 0));
        vector.raise("a", 6);
        vector.raise("a", 2);
        assert!(vector.covers("a", 6) && !vector.covers("a", 7) && !vector.covers("c", 1));
        assert!(VersionVector::encode(&[("a", 0); 257]).is_none());
        assert!(VersionVector::decode(b"\xc3").is_none());
        assert!(VersionVector::decode(b"\x92\xa1a").is_none(), "truncated");
    }
}
