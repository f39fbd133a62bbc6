//! Whether a server evicts keys, as `INFO` says.

use redis::RedisResult;

use super::connection::{Connection, Request, decode, info_field};

/// How a server makes room.
pub(crate) struct Eviction {
    /// The policy, unless the server has no bound on its memory. Empty if the server does not say.
    policy: Option<String>,
    /// The server has evicted keys since it started, or does not say.
    has_evicted: bool,
}

impl Eviction {
    /// Asks a single server.
    pub(crate) async fn of(connection: &Connection) -> RedisResult<Self> {
        let mut questions = redis::pipe();
        questions.cmd("INFO").arg("memory").cmd("INFO").arg("stats");
        let replies = connection.send(&Request::Pipeline(questions)).await?;
        let (memory, stats): (String, String) = decode(replies)?;
        Ok(Self::parse(&memory, &stats))
    }

    fn parse(memory: &str, stats: &str) -> Self {
        let is_bounded = info_field(memory, "maxmemory").is_none_or(|bytes| bytes != "0");
        let policy = info_field(memory, "maxmemory_policy").unwrap_or_default();
        let has_evicted = info_field(stats, "evicted_keys").is_none_or(|keys| keys != "0");
        Self { policy: is_bounded.then_some(policy), has_evicted }
    }

    /// Whether the server keeps every key to its end, and has done so since it started. The policy
    /// may have changed meanwhile.
    pub(crate) fn keeps_all(&self) -> bool {
        !self.has_evicted && self.policy.as_ref().is_none_or(|policy| policy == "noeviction")
    }

    /// Whether the server evicts keys that have no expiry.
    pub(crate) fn evicts_any(&self) -> bool {
        let keeps = |policy: &str| matches!(policy, "" | "noeviction");
        let is_any = |policy: &str| !keeps(policy) && !policy.starts_with("volatile-");
        self.policy.as_deref().is_some_and(is_any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_counts_if_memory_is_bounded() {
        for (memory, policy, evicted, keeps_all, evicts_any) in [
            ("0", "noeviction", "0", true, false),
            ("0", "allkeys-lru", "0", true, false),
            ("0", "allkeys-lru", "1", false, false),
            ("9", "noeviction", "0", true, false),
            ("9", "noeviction", "1", false, false),
            ("9", "allkeys-lfu", "0", false, true),
            ("9", "volatile-ttl", "0", false, false),
            ("9", "eviction", "0", false, true),
        ] {
            let memory = format!("# Memory\r\nmaxmemory:{memory}\r\nmaxmemory_policy:{policy}");
            let of = Eviction::parse(&memory, &format!("evicted_keys:{evicted}\r\n"));
            assert_eq!((of.keeps_all(), of.evicts_any()), (keeps_all, evicts_any), "{memory}");
        }
        let unknown = Eviction::parse("", "");
        assert!(!unknown.keeps_all() && !unknown.evicts_any());
    }
}
