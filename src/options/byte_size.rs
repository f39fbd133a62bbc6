//! Sizes in bytes in a configuration file: a number, or a text such as "64MiB".

use std::fmt;

use serde::{Deserializer, Serializer, de};

/// The units, in lower case, and their bytes.
const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("kib", 1 << 10),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
];

pub(crate) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(*bytes as u64)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_any(Size)
}

/// Returns the bytes that a text such as "64MiB" or "1_000" stands for. Case and spaces do not
/// matter.
fn parse(text: &str) -> Option<usize> {
    let text = text.trim().to_ascii_lowercase();
    let is_digit = |c: char| c.is_ascii_digit() || c == '_';
    let (digits, unit) = text.split_at(text.find(|c| !is_digit(c)).unwrap_or(text.len()));
    let number: u64 = digits.replace('_', "").parse().ok()?;
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    usize::try_from(number.checked_mul(*bytes)?).ok()
}

struct Size;

impl de::Visitor<'_> for Size {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or a text such as \"64MiB\"")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(bytes), &self))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// The same for a size that may be missing.
pub(crate) mod option {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<usize>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(bytes),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_option(MaybeSize)
    }

    struct MaybeSize;

    impl<'de> de::Visitor<'de> for MaybeSize {
        type Value = Option<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            super::Size.expecting(f)
        }

        fn visit_none<E>(self) -> Result<Option<usize>, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Option<usize>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, size: D) -> Result<Option<usize>, D::Error> {
            super::deserialize(size).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_have_units_of_both_kinds() {
        for (text, bytes) in [
            ("0", 0),
            ("1_000", 1_000),
            ("7B", 7),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            (" 2kb ", 2_000),
            ("3KiB", 3 << 10),
            ("5MB", 5_000_000),
            ("1GB", 1_000_000_000),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for wrong in ["", "MiB", "1.5MiB", "-1", "64M", "64 MiB more", "20000000000GiB", "_", "٣"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
