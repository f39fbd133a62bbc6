//! A section of a configuration file whose meaning is not known yet, so that sections can be laid
//! over each other before they are read as options.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

/// A value of a configuration file. It has no `Debug`, because it may be a password.
#[derive(Clone)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Section),
}

/// The options of a section, by name.
pub(super) type Section = BTreeMap<String, Tree>;

/// Returns `base` with each option that `over` names. Groups of options are merged alike.
pub(super) fn merge(mut base: Section, over: Section) -> Section {
    for (name, value) in over {
        let merged = match (base.remove(&name), value) {
            (Some(Tree::Map(base)), Tree::Map(over)) => Tree::Map(merge(base, over)),
            (_, value) => value,
        };
        base.insert(name, merged);
    }
    base
}

/// Whether a section names the option at this path, as in `event_bus.trust_timeout`.
pub(super) fn names(section: &Section, path: &str) -> bool {
    match path.split_once('.') {
        None => section.contains_key(path),
        Some((group, rest)) => match section.get(group) {
            Some(Tree::Map(group)) => names(group, rest),
            _ => false,
        },
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an option")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Tree, D::Error> {
        Tree::deserialize(value)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<Tree, D::Error> {
        Tree::deserialize(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut section = Section::new();
        while let Some((name, value)) = map.next_entry()? {
            section.insert(name, value);
        }
        Ok(Tree::Map(section))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(options: &[(&str, Tree)]) -> Section {
        options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn integer(section: &Section, path: &str) -> i128 {
        match path.split_once('.') {
            None => match &section[path] {
                Tree::Integer(value) => *value,
                _ => panic!("{path} is no integer"),
            },
            Some((group, rest)) => match &section[group] {
                Tree::Map(group) => integer(group, rest),
                _ => panic!("{group} is no group"),
            },
        }
    }

    #[test]
    fn a_section_replaces_what_it_names_and_nothing_else() {
        let group = |options: &[(&str, i128)]| {
            let options: Vec<_> =
                options.iter().map(|(name, value)| (*name, Tree::Integer(*value))).collect();
            Tree::Map(section(&options))
        };
        let base = section(&[("a", Tree::Integer(1)), ("group", group(&[("b", 2), ("c", 3)]))]);
        let over = section(&[("d", Tree::Integer(4)), ("group", group(&[("c", 5)]))]);
        let merged = merge(base.clone(), over);
        let found = ["a", "group.b", "group.c", "d"].map(|path| integer(&merged, path));
        assert_eq!(found, [1, 2, 5, 4]);
        assert!(names(&merged, "group.c") && !names(&merged, "group.x") && !names(&merged, "a.x"));
        let emptied = merge(base, section(&[("group", Tree::Null)]));
        assert!(matches!(emptied["group"], Tree::Null));
    }
}
