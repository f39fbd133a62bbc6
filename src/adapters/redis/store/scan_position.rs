//! The position of a delete by pattern in Redis: the scan, the number of the source of names that
//! is scanned, and the position in it as Redis gave it.
//!
//! A position of Redis is valid in the process that gave it. So a scan is known by the run ids of
//! all servers, and by everything else that decides what its sources are. Without run ids (`INFO`
//! is not offered) no position is saved.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{
    adapters::redis::connection::{Connection, info_field},
    l2::PatternCursor,
};

pub(crate) struct Positions<'a> {
    cursor: &'a PatternCursor,
    /// The run ids of the servers. `None`: they are not known.
    run_ids: Option<Vec<String>>,
    /// The hash of the scan.
    scan: u64,
    /// The position at the start, until it is used.
    saved: Option<String>,
}

impl<'a> Positions<'a> {
    pub(crate) async fn new(connection: &Connection, cursor: &'a PatternCursor) -> Self {
        let info = connection.run_everywhere(redis::cmd("INFO").arg("server")).await;
        let run_id = |info: String| info_field(&info, "run_id");
        let run_ids: Option<Vec<String>> =
            info.ok().and_then(|infos| infos.into_iter().map(run_id).collect());
        let run_ids = run_ids.map(|mut run_ids| {
            run_ids.sort();
            run_ids
        });
        Self { cursor, run_ids, scan: 0, saved: cursor.position() }
    }

    /// Begins a scan over this number of sources. Returns the number of the source, and the
    /// position in it, from which it continues.
    pub(crate) fn begin(&mut self, scan: &str, sources: usize) -> (usize, String) {
        let mut hasher = DefaultHasher::new();
        (&self.run_ids, scan).hash(&mut hasher);
        self.scan = hasher.finish();
        let saved = self.saved.take().filter(|_| self.run_ids.is_some());
        let place = saved.and_then(|saved| {
            let mut parts = saved.split(' ');
            let (scan, source, at) = (parts.next()?, parts.next()?, parts.next()?);
            let source: usize = source.parse().ok()?;
            // mutant position-of-another-run: s/scan == self.scan.to_string()/true/
            (scan == self.scan.to_string() && source <= sources).then(|| (source, at.to_owned()))
        });
        place.unwrap_or_else(|| (0, "0".to_owned()))
    }

    /// Saves that everything before a position is done.
    pub(crate) fn save(&self, source: usize, at: &str) {
        if self.run_ids.is_some() {
            self.cursor.advance(format!("{} {source} {at}", self.scan));
        }
    }
}
