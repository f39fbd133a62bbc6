//! Reads options from a [`Tree`]: errors know the path of the option, and numbers may be given as
//! texts, as environment variables are.

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, Unexpected, VariantAccess,
        Visitor, value::SeqDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    error::ConfigError,
    tree::{Section, Tree},
};

/// Reads a section as options.
pub(super) fn read<T: for<'de> Deserialize<'de>>(section: Section) -> Result<T, ConfigError> {
    T::deserialize(Tree::Map(section))
}

/// Reads one option as a value.
pub(super) fn read_value<T: for<'de> Deserialize<'de>>(value: Tree) -> Result<T, ConfigError> {
    T::deserialize(value)
}

/// A text as the number that it writes, where a number is asked for.
fn as_number(tree: Tree) -> Tree {
    let Tree::Text(text) = &tree else { return tree };
    let digits = text.trim().replace('_', "");
    match (digits.parse(), digits.parse()) {
        (Ok(integer), _) => Tree::Integer(integer),
        (_, Ok(float)) => Tree::Float(float),
        _ => tree,
    }
}

fn as_bool(tree: Tree) -> Tree {
    match &tree {
        Tree::Text(text) if text.trim() == "true" => Tree::Bool(true),
        Tree::Text(text) if text.trim() == "false" => Tree::Bool(false),
        _ => tree,
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            as_number(self).deserialize_any(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Tree {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Integer(value) => match (u64::try_from(value), i64::try_from(value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(value),
            },
            Self::Float(value) => visitor.visit_f64(value),
            Self::Text(value) => visitor.visit_string(value),
            Self::List(values) => SeqDeserializer::new(values.into_iter()).deserialize_any(visitor),
            Self::Map(section) => {
                visitor.visit_map(Options { rest: section.into_iter(), value: None })
            }
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        as_bool(self).deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self {
            Self::Null => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match self {
            Self::Text(name) => visitor.visit_enum(Variant(name)),
            value => value.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, ConfigError> for Tree {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The options of a section, one after the other.
struct Options {
    rest: std::collections::btree_map::IntoIter<String, Tree>,
    value: Option<(String, Tree)>,
}

impl<'de> MapAccess<'de> for Options {
    type Error = ConfigError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, ConfigError> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((name.clone(), value));
        seed.deserialize(Tree::Text(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, ConfigError> {
        let (name, value) = self.value.take().unwrap_or((String::new(), Tree::Null));
        seed.deserialize(value).map_err(|error| error.within(&name))
    }
}

/// The name of a variant without fields. No option has other variants.
struct Variant(String);

impl<'de> EnumAccess<'de> for Variant {
    type Error = ConfigError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), ConfigError> {
        Ok((seed.deserialize(Tree::Text(self.0.clone()))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = ConfigError;

    fn unit_variant(self) -> Result<(), ConfigError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, ConfigError> {
        Err(without_fields())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ConfigError> {
        Err(without_fields())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ConfigError> {
        Err(without_fields())
    }
}

fn without_fields() -> ConfigError {
    serde::de::Error::invalid_type(Unexpected::UnitVariant, &"a variant with fields")
}
