//! The name under which a broker or server lists our connections.

use std::fmt;

use parking_lot::Mutex;

/// The names of the caches that use the connections, as far as they are known.
/// [`Display`](fmt::Display) writes the name of a connection: `lazy-layers-cache:users`.
#[derive(Debug, Default)]
pub(crate) struct ClientName(Mutex<Caches>);

/// A process may build caches without end, one per tenant say, so only the first names are kept.
#[derive(Debug, Default)]
struct Caches {
    first: Vec<Box<str>>,
    /// How many caches of other names were built since.
    more: usize,
}

/// Maximum number of caches that a connection is named after.
const MAX_CACHES: usize = 4;

impl ClientName {
    /// Adds a cache. Connections that are open keep their names.
    pub(crate) fn add(&self, cache: &str) {
        let mut caches = self.0.lock();
        if caches.first.iter().any(|known| **known == *cache) {
            return;
        }
        if caches.first.len() < MAX_CACHES {
            caches.first.push(Box::from(cache));
        } else {
            caches.more += 1;
        }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(env!("CARGO_PKG_NAME"))?;
        let caches = self.0.lock();
        for (number, cache) in caches.first.iter().enumerate() {
            write!(f, "{}{cache}", if number == 0 { ':' } else { ',' })?;
        }
        match caches.more {
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
        for tenant in 0..100_000 {
            name.add(&format!("tenant-{tenant}"));
        }
        assert_eq!(name.to_string(), "lazy-layers-cache:users,mails,a,b,+100002");
        assert_eq!(name.0.lock().first.len(), MAX_CACHES);
    }
}
