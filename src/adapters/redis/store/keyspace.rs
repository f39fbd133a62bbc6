//! The names of keys in Redis, as the TypeScript package has them, and the one that is ours: the
//! epoch, which must lie in the same slot of a Cluster as its value, whatever the key is.

use crate::glob::Pattern;

/// A prefix that makes names that can be told apart.
#[derive(Debug, Clone)]
pub(crate) struct KeySpace {
    prefix: String,
    /// What the names of epochs begin with.
    epoch: String,
    index: String,
    epochs: String,
}

/// After the prefix, this begins every name that is not a user's.
pub(crate) const INTERNAL: &str = "__";
const EPOCH: &str = "__epoch:";

/// What a name in Redis is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// The value of this key of a user's.
    Value(&'a str),
    /// The epoch of this key.
    Epoch(&'a str),
    Other,
}

impl KeySpace {
    pub(crate) fn new(prefix: String) -> Self {
        let (epoch, index) = (format!("{prefix}{EPOCH}"), format!("{prefix}__index"));
        let epochs = format!("{prefix}__epochs");
        Self { prefix, epoch, index, epochs }
    }

    pub(crate) fn value(&self, key: &str) -> String {
        [&*self.prefix, key].concat()
    }

    pub(crate) fn index(&self) -> &str {
        &self.index
    }

    /// The sorted set of the epochs that are out, each with its end in the server's milliseconds.
    pub(crate) fn lease_set(&self) -> &str {
        &self.epochs
    }

    /// Where the server's run is noted whose data is known to be good.
    pub(crate) fn run(&self) -> String {
        format!("{}__run", self.prefix)
    }

    pub(crate) fn lock(&self, key: &str) -> String {
        format!("{}__lock:{key}", self.prefix)
    }

    /// The names of a key's value and of its epoch.
    pub(crate) fn value_and_lease(&self, key: &str) -> (String, String) {
        (self.value(key), self.lease_key(key))
    }

    /// A Cluster hashes what is in the first pair of braces if there is anything in it, else the
    /// whole name. So the epoch has in braces what its value is hashed by; where that cannot be
    /// put in braces, because it is empty or has a closing one itself, a number with the same slot.
    pub(crate) fn lease_key(&self, key: &str) -> String {
        let Self { prefix, epoch, .. } = self;
        if tag(prefix).is_some() {
            // Then that decides for every name with this prefix.
            return [epoch, key].concat();
        }
        let is_plain = |text: &str| text.bytes().all(|byte| !matches!(byte, b'{' | b'}'));
        if is_plain(prefix) && is_plain(key) && !(prefix.is_empty() && key.is_empty()) {
            // Nearly all of them.
            return [epoch, "{", prefix, key, "}"].concat();
        }
        let value = self.value(key);
        match tag(&value) {
            Some(tag) => format!("{epoch}{{{tag}}}:{key}"),
            None => format!("{epoch}{{{}}}:{key}", number_in_slot(slot(value.as_bytes()))),
        }
    }

    pub(crate) fn parse<'a>(&self, name: &'a str) -> Name<'a> {
        let Some(rest) = name.strip_prefix(&*self.prefix) else { return Name::Other };
        let Some(epoch) = rest.strip_prefix(EPOCH) else {
            return if rest.starts_with(INTERNAL) { Name::Other } else { Name::Value(rest) };
        };
        if tag(&self.prefix).is_some() {
            return Name::Epoch(epoch);
        }
        let parts = epoch.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        match parts {
            Some((value, "")) => match value.strip_prefix(&*self.prefix) {
                Some(key) => Name::Epoch(key),
                None => Name::Other,
            },
            Some((_, rest)) => rest.strip_prefix(':').map_or(Name::Other, Name::Epoch),
            None => Name::Other,
        }
    }

    /// The key of a value that the pattern matches.
    pub(crate) fn is_value_of(&self, name: &str, pattern: &Pattern) -> bool {
        matches!(self.parse(name), Name::Value(key) if pattern.matches(key))
    }

    pub(crate) fn is_epoch_of(&self, name: &str, pattern: &Pattern) -> bool {
        matches!(self.parse(name), Name::Epoch(key) if pattern.matches(key))
    }

    /// A glob of Redis that matches all names with this prefix, and `then`.
    pub(crate) fn glob(&self, then: &str) -> String {
        let mut glob = String::with_capacity(self.prefix.len() + then.len());
        for symbol in self.prefix.chars() {
            if matches!(symbol, '*' | '?' | '[' | ']' | '\\' | '^') {
                glob.push('\\');
            }
            glob.push(symbol);
        }
        glob + then
    }

    pub(crate) fn epochs_glob(&self) -> String {
        self.glob("__epoch:*")
    }

    /// An opening brace in a prefix would pair with a closing one in a key, so that nobody could
    /// tell by what the names of other keys are hashed.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.prefix.contains('{') && tag(&self.prefix).is_none()
    }
}

/// What a Cluster hashes a name by, if it is not the whole name.
fn tag(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

const SLOTS: u16 = 16_384;

/// CRC-16/XMODEM, as the Cluster specification has it.
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

/// The least number whose digits lie in this slot. Some 16,000 tries, half a millisecond: for keys
/// with stray braces only, which are rare.
fn number_in_slot(wanted: u16) -> u32 {
    (0..u32::MAX).find(|number| slot(number.to_string().as_bytes()) == wanted).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 14] = [
        "", "user:1", "{}", "{}x", "}x", "x}", "{", "}", "{a}", "a{b}c{d}", "{{a}}", "a}b{c}d",
        "a{b", "a{}b{c}",
    ];

    fn slot_of(name: &str) -> u16 {
        slot(tag(name).unwrap_or(name).as_bytes())
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!((slot_of("p:{}x}:d"), slot_of("foo")), (15_262, 12_182));
    }

    #[test]
    fn value_and_epoch_share_a_slot_whatever_the_key() {
        for prefix in ["", "cache:", "app}:", "app{1}:", "{a}{b}"] {
            let names = KeySpace::new(prefix.to_owned());
            assert!(!names.is_ambiguous());
            for key in KEYS {
                let (value, epoch) = (names.value(key), names.lease_key(key));
                assert_eq!(slot_of(&value), slot_of(&epoch), "{value:?} {epoch:?}");
                assert_eq!(names.parse(&value), Name::Value(key), "{value:?}");
                assert_eq!(names.parse(&epoch), Name::Epoch(key), "{epoch:?}");
            }
        }
        assert!(
            KeySpace::new("a{b".into()).is_ambiguous()
                && KeySpace::new("{}:".into()).is_ambiguous()
        );
    }

    #[test]
    fn no_two_keys_share_an_epoch() {
        let names = KeySpace::new("cache:".into());
        let mut epochs: Vec<String> = KEYS.iter().map(|key| names.lease_key(key)).collect();
        epochs.sort();
        epochs.dedup();
        assert_eq!(epochs.len(), KEYS.len());
    }

    #[test]
    fn internal_and_foreign_names_are_no_users() {
        let names = KeySpace::new("a*[b]:".into());
        for name in ["a*[b]:__index", "a*[b]:__lock:k", "axb:k", "other", "a*[b]:__anything"] {
            assert_eq!(names.parse(name), Name::Other, "{name}");
        }
        let glob = Pattern::new(&names.glob("*"));
        assert!(glob.matches("a*[b]:k") && !glob.matches("axb:k") && !glob.matches("a*b:k"));
    }
}
