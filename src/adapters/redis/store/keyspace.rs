//! Names of keys in Redis.
//!
//! | name | content | written by |
//! | --- | --- | --- |
//! | `{prefix}{key}` | value; lives exactly its ttl | this crate and the TypeScript package |
//! | `{prefix}__index` | sorted set of the names of values, by the time of their write | both |
//! | `{prefix}__lock:{key}` | owner of a distributed lock | both |
//! | `{prefix}__lease:..` | lease or negative entry of a key, in the slot of its value | this crate |
//! | `{prefix}__copy:..` | stale copy of a value, in the slot of the value | this crate |
//! | `{prefix}__leases:0` to `3` | sets of the keys with a lease, by the time of it | this crate |
//! | `{prefix}__sidecars` | sorted set of the names of copies, by their expiry | this crate |
//! | `{prefix}__run` | run id of the server whose data is trusted | this crate |

/// The names under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct KeySpace {
    prefix: String,
    lease_start: String,
    pub(crate) copy_start: String,
    pub(crate) index: String,
    /// Start of the names of the [`LEASE_SETS`] sets.
    pub(crate) lease_sets: String,
    pub(crate) sidecars: String,
}

/// Start of every internal name, after the prefix.
pub(crate) const INTERNAL: &str = "__";
const LEASE: &str = "__lease:";
const COPY: &str = "__copy:";

/// The number of sets of keys with a lease. Each set is in use for 16 seconds, and expires soon
/// after the last of its leases: so no expired lease has to be looked for.
pub(crate) const LEASE_SETS: usize = 4;

/// The names in Redis of a value, and of its sidecar.
pub(crate) struct Keys {
    pub(crate) value: String,
    pub(crate) lease: String,
    /// Empty if the request does not need it.
    pub(crate) copy: String,
}

/// What a name in Redis holds for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lease,
    Value,
    Copy,
}

impl KeySpace {
    pub(crate) fn new(prefix: String) -> Self {
        Self {
            lease_start: format!("{prefix}{LEASE}"),
            copy_start: format!("{prefix}{COPY}"),
            index: format!("{prefix}__index"),
            lease_sets: format!("{prefix}__leases:"),
            sidecars: format!("{prefix}__sidecars"),
            prefix,
        }
    }

    pub(crate) fn of(&self, key: &str) -> Keys {
        Keys { copy: self.copy(key), ..self.without_copy(key) }
    }

    /// The names for a request that does not need the copy.
    pub(crate) fn without_copy(&self, key: &str) -> Keys {
        Keys { value: self.value(key), lease: self.lease(key), copy: String::new() }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn prefix_len(&self) -> usize {
        self.prefix.len()
    }

    pub(crate) fn value(&self, key: &str) -> String {
        [&*self.prefix, key].concat()
    }

    pub(crate) fn run(&self) -> String {
        format!("{}__run", self.prefix)
    }

    pub(crate) fn lock(&self, key: &str) -> String {
        format!("{}__lock:{key}", self.prefix)
    }

    pub(crate) fn lease(&self, key: &str) -> String {
        self.beside_value(&self.lease_start, key)
    }

    pub(crate) fn copy(&self, key: &str) -> String {
        self.beside_value(&self.copy_start, key)
    }

    /// Returns an internal name about a key, which is in the Cluster slot of the key's value.
    ///
    /// A Cluster hashes the text in the first pair of braces of a name if it is not empty, else the
    /// whole name. So the internal name has the hashed text of the value's name in braces. Where
    /// that text is empty or contains a closing brace, it has a text of the same slot instead.
    fn beside_value(&self, start: &str, key: &str) -> String {
        let prefix = &*self.prefix;
        if hash_tag(prefix).is_some() {
            // The tag in the prefix decides for every name.
            return [start, key].concat();
        }
        let is_plain = |text: &str| text.bytes().all(|byte| !matches!(byte, b'{' | b'}'));
        if is_plain(prefix) && is_plain(key) {
            // Nearly every key.
            return [start, "{", prefix, key, "}"].concat();
        }
        let value = self.value(key);
        match hash_tag(&value) {
            Some(tag) => format!("{start}{{{tag}}}:{key}"),
            None => format!("{start}{{{}}}:{key}", text_in_slot(slot(value.as_bytes()))),
        }
    }

    /// Returns what a name holds, and for which key. `None`: another internal or a foreign name.
    pub(crate) fn parse<'a>(&self, name: &'a str) -> Option<(Kind, &'a str)> {
        let rest = name.strip_prefix(&*self.prefix)?;
        let (kind, beside) = if let Some(lease) = rest.strip_prefix(LEASE) {
            (Kind::Lease, lease)
        } else if let Some(copy) = rest.strip_prefix(COPY) {
            (Kind::Copy, copy)
        } else {
            return (!rest.starts_with(INTERNAL)).then_some((Kind::Value, rest));
        };
        if hash_tag(&self.prefix).is_some() {
            return Some((kind, beside));
        }
        let key = match beside.strip_prefix('{')?.split_once('}')? {
            (value, "") => value.strip_prefix(&*self.prefix),
            (_, rest) => rest.strip_prefix(':'),
        };
        Some((kind, key?))
    }

    /// Returns a Redis glob for the prefix, taken literally, followed by the glob `rest`.
    pub(crate) fn glob(&self, rest: &str) -> String {
        let is_special = |symbol| matches!(symbol, '*' | '?' | '[' | ']' | '\\' | '^');
        let escape = |symbol| is_special(symbol).then_some('\\').into_iter().chain([symbol]);
        self.prefix.chars().flat_map(escape).chain(rest.chars()).collect()
    }

    /// Returns true if the prefix has an opening brace that a closing brace in a key would pair
    /// with: then keys would decide the slots of internal names.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.prefix.contains('{') && hash_tag(&self.prefix).is_none()
    }
}

/// Returns the part of a name that a Cluster hashes, if that is not the whole name.
fn hash_tag(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

const SLOTS: u16 = 16_384;

/// Returns the slot of a hashed text: CRC-16/XMODEM, as in the specification of Redis Cluster.
fn slot(hashed: &[u8]) -> u16 {
    let mut crc = 0u16;
    for byte in hashed {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc % SLOTS
}

/// Each slot has a text of four letters from `@` to `O`, which differ in four bits each. A CRC is
/// linear: the bits of the text are the XOR of one item for each bit of the slot that differs from
/// the slot of `@@@@`. The script that trims has the same items.
const SLOT_COLUMNS: [u16; 14] =
    [35028, 32906, 36871, 40699, 6562, 3219, 4484, 36589, 7931, 32802, 35268, 33450, 37959, 38523];

/// Returns a text in a slot. Needed for keys with unpaired braces.
fn text_in_slot(wanted: u16) -> String {
    let differing = wanted ^ slot(b"@@@@");
    let columns = SLOT_COLUMNS.iter().enumerate().filter(|(at, _)| differing >> at & 1 == 1);
    let bits = columns.fold(0u16, |bits, (_, column)| bits ^ column);
    let [low, high] = bits.to_le_bytes();
    [low & 15, low >> 4, high & 15, high >> 4].map(|four| char::from(b'@' | four)).iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{adapters::redis::store::scripts::values::PUBLISH, glob::Pattern};

    const KEYS: [&str; 14] = [
        "", "user:1", "{}", "{}x", "}x", "x}", "{", "}", "{a}", "a{b}c{d}", "{{a}}", "a}b{c}d",
        "a{b", "a{}b{c}",
    ];

    fn slot_of(name: &str) -> u16 {
        slot(hash_tag(name).unwrap_or(name).as_bytes())
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!((slot_of("p:{}x}:d"), slot_of("foo")), (15_262, 12_182));
    }

    #[test]
    fn each_slot_has_a_text_also_in_the_script_that_trims() {
        for wanted in 0..SLOTS {
            assert_eq!(slot(text_in_slot(wanted).as_bytes()), wanted);
        }
        let columns = format!("{SLOT_COLUMNS:?}");
        let source = PUBLISH.source.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(source.contains(columns.trim_matches(['[', ']'])), "{source}");
    }

    #[test]
    fn a_value_and_its_sidecar_share_a_slot_for_every_key() {
        for prefix in ["cache:", "app}:", "app{1}:", "{a}{b}"] {
            let keys = KeySpace::new(prefix.to_owned());
            assert!(!keys.is_ambiguous());
            for key in KEYS {
                let Keys { value, lease, copy } = keys.of(key);
                assert_eq!(slot_of(&value), slot_of(&lease), "{value:?} {lease:?}");
                assert_eq!(slot_of(&value), slot_of(&copy), "{value:?} {copy:?}");
                assert_eq!(keys.parse(&value), Some((Kind::Value, key)), "{value:?}");
                assert_eq!(keys.parse(&lease), Some((Kind::Lease, key)), "{lease:?}");
                assert_eq!(keys.parse(&copy), Some((Kind::Copy, key)), "{copy:?}");
            }
        }
        assert!(
            KeySpace::new("a{b".into()).is_ambiguous()
                && KeySpace::new("{}:".into()).is_ambiguous()
        );
    }

    #[test]
    fn no_two_keys_share_a_lease() {
        let keys = KeySpace::new("cache:".into());
        let mut leases: Vec<String> = KEYS.iter().map(|key| keys.lease(key)).collect();
        leases.sort();
        leases.dedup();
        assert_eq!(leases.len(), KEYS.len());
    }

    #[test]
    fn internal_and_foreign_names_are_not_values() {
        let keys = KeySpace::new("a*[b]:".into());
        for name in ["a*[b]:__index", "a*[b]:__lock:k", "axb:k", "other", "a*[b]:__anything"] {
            assert_eq!(keys.parse(name), None, "{name}");
        }
        let glob = Pattern::new(&keys.glob("*"));
        assert!(glob.matches("a*[b]:k") && !glob.matches("axb:k") && !glob.matches("a*b:k"));
    }
}
