//! Checks the name of a cache.

use crate::error::BuildError;

/// In bytes.
const MAX_LENGTH: usize = 64;

/// The prefix in Redis of a cache without a name begins with it.
const RESERVED: &str = "cache";

const FIX: &str = "write 1 to 64 of the characters A-Z a-z 0-9 . _ -, for example \"users\"";

/// Returns an error if the name is not allowed, or if it is missing and the cache has an event bus.
pub(crate) fn check(name: Option<&str>, has_bus: bool) -> Result<(), BuildError> {
    let refuse = |problem: &str, fix| Err(BuildError::new("name", problem, fix));
    let Some(name) = name else {
        return BuildError::refuse_if(
            has_bus,
            "name",
            "is missing, and a cache with an event bus needs one: caches that share a channel \
             would take each other's keys and values",
            "call the builder's name(..), for example .name(\"users\"), or set `name` in the \
             options; all instances of the cache need the same name",
        );
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        return refuse("is empty", FIX);
    }
    if name.len() > MAX_LENGTH {
        return refuse("is longer than 64 bytes", FIX);
    }
    if !name.bytes().all(is_plain) {
        return refuse("has a character that is not allowed", FIX);
    }
    if name == RESERVED {
        return refuse(
            "is \"cache\", which is reserved: its keys in Redis would begin as those of a cache \
             without a name",
            "write what the cache holds, for example \"users\"",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for name in ["a", "users", "Users-2.v1_x", "0", "Cache", "cache2", &*"x".repeat(64)] {
            check(Some(name), true).unwrap();
        }
        for name in ["", "a b", "a:b", "a*", "é", "a/b", "a\n", "{a}", "cache", &*"x".repeat(65)] {
            let error = check(Some(name), false).unwrap_err();
            assert_eq!(error.option(), "name", "{name}");
        }
        check(None, false).unwrap();
        assert!(check(None, true).unwrap_err().to_string().contains("name(..)"));
    }
}
