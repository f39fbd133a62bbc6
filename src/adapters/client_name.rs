//! The name under which a broker or server lists our connections.

use std::fmt;

use parking_lot::Mutex;

/// The names of the caches that use the connections, as far as they are known.
/// [`Display`](fmt::Display) writes the name of a connection: `lazy-layers-cache:users`.
#[derive(Debug, Default)]
pub(crate) struct ClientName(Mutex<Vec<Box<str>>>);

/// Maximum number of caches that a connection is named after.
const MAX_CACHES: usize = 4;

impl ClientName {
    /// Adds a cache. Connections that are open keep their names.
    pub(crate) fn add(&self, cache: &str) {
        let mut caches = self.0.lock();
        if caches.iter().all(|known| **known != *cache) {
            caches.push(Box::from(cache));
        }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(env!("CARGO_PKG_NAME"))?;
        let caches = self.0.lock();
        for (number, cache) in caches.iter().take(MAX_CACHES).enumerate() {
            write!(f, "{}{cache}", if number == 0 { ':' } else { ',' })?;
        }
        match caches.len().saturating_sub(MAX_CACHES) {
            0 => Ok(()),
            more => write!(f, ",+{more}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_named_after_its_caches() {
        let name = ClientName::default();
        assert_eq!(name.to_string(), "lazy-layers-cache");
        for cache in ["users", "users", "mails"] {
            name.add(cache);
        }
        assert_eq!(name.to_string(), "lazy-layers-cache:users,mails");
        for cache in ["a", "b", "c", "d"] {
            name.add(cache);
        }
        assert_eq!(name.to_string(), "lazy-layers-cache:users,mails,a,b,+2");
    }
}
