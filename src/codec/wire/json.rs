//! Converts JSON to MessagePack, value by value, so that nothing but the result is in memory.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};

use super::ser::write;
use crate::error::BoxError;

/// Returns the MessagePack of a JSON text; an error where it is nested more than `max_depth` deep.
pub(super) fn to_message_pack(json: &[u8], max_depth: usize) -> Result<Vec<u8>, BoxError> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let packed = write(b"", &Once(Cell::new(Some(&mut json))), max_depth)?;
    json.end()?;
    Ok(packed)
}

/// Serializes the value that a deserializer reads. It can do so once.
struct Once<D>(Cell<Option<D>>);

impl<'de, D: Deserializer<'de>> Serialize for Once<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.0.take().ok_or_else(|| S::Error::custom("serialized twice"))?;
        value.deserialize_any(Writing(serializer)).map_err(S::Error::custom)
    }
}

/// Passes a value on to a serializer.
struct Writing<S>(S);

macro_rules! scalars {
    ($($visit:ident $serialize:ident($($value:ident: $type:ty)?);)*) => {$(
        fn $visit<E: serde::de::Error>(self, $($value: $type)?) -> Result<S::Ok, E> {
            self.0.$serialize($($value)?).map_err(E::custom)
        }
    )*};
}

impl<'de, S: Serializer> Visitor<'de> for Writing<S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    scalars! {
        visit_unit serialize_unit();
        visit_bool serialize_bool(value: bool);
        visit_u64 serialize_u64(value: u64);
        visit_i64 serialize_i64(value: i64);
        visit_f64 serialize_f64(value: f64);
        visit_str serialize_str(value: &str);
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<S::Ok, A::Error> {
        let mut array = self.0.serialize_seq(None).map_err(A::Error::custom)?;
        while values.next_element_seed(Element(&mut array))?.is_some() {}
        array.end().map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<S::Ok, A::Error> {
        let mut map = self.0.serialize_map(None).map_err(A::Error::custom)?;
        while let Some(key) = entries.next_key::<String>()? {
            map.serialize_key(&key).map_err(A::Error::custom)?;
            entries.next_value_seed(EntryValue(&mut map))?;
        }
        map.end().map_err(A::Error::custom)
    }
}

struct Element<'a, A>(&'a mut A);

impl<'de, A: SerializeSeq> DeserializeSeed<'de> for Element<'_, A> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        self.0.serialize_element(&Once(Cell::new(Some(value)))).map_err(D::Error::custom)
    }
}

struct EntryValue<'a, M>(&'a mut M);

impl<'de, M: SerializeMap> DeserializeSeed<'de> for EntryValue<'_, M> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        self.0.serialize_value(&Once(Cell::new(Some(value)))).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_the_same_value_would_be() {
        let json = r#"{"a":[1,-2,0.5,null,true],"\u00fc":{"4294967296":"x"},"e":[],"o":{}}"#;
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let packed = to_message_pack(json.as_bytes(), 8).unwrap();
        let read: serde_json::Value = super::super::de::read(&packed, 99).unwrap();
        assert_eq!(read, value);
        to_message_pack(json.as_bytes(), 1).unwrap_err();
        for malformed in ["", "{", "[1,]", "7 8", "\"\\ud800\"", "NaN"] {
            to_message_pack(malformed.as_bytes(), 8).unwrap_err();
        }
    }
}
