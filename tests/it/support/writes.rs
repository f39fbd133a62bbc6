//! The four writes of a cache, each of which changes the key `k`.

use lazy_layers_cache::WriteReport;

use super::Cache;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Write {
    Delete,
    Set,
    Pattern,
    Clear,
}

pub(crate) const WRITES: [Write; 4] = [Write::Delete, Write::Set, Write::Pattern, Write::Clear];

impl Write {
    pub(crate) async fn of(self, cache: &Cache) -> WriteReport {
        let report = match self {
            Self::Delete => cache.delete("k").await,
            Self::Set => cache.set("k", 8u32).await,
            Self::Pattern => cache.delete_by_pattern("[jk]").await,
            Self::Clear => cache.clear().await,
        };
        report.unwrap()
    }
}
