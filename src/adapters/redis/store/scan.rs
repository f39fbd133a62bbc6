//! Operations over all keys: delete by pattern, and size.
//!
//! | step of a delete by pattern | effect |
//! | --- | --- |
//! | 1. scan the leases, delete those that match | no load that began before can publish any more |
//! | 2. scan the values, delete those that match | all that was published before is deleted |
//! | 3. scan the copies, delete those that match | also those of values that have expired |
//!
//! Alternatives considered: one scan over all. Refused: a load could publish a value behind the
//! position of the scan and use up its lease before the scan reaches it.
//!
//! Redis is asked for the names that begin with the literal part of a pattern, and the matcher of
//! L1 decides among them. So a pattern means the same in L1, in the index and on every server.
//!
//! A delete that ends early continues at its [position](super::scan_position).

use redis::{Cmd, RedisResult, Value};

use super::{
    context::StoreContext,
    keyspace::{Kind, LEASE_SETS},
    rounds::Rounds,
    scan_position::Positions,
    scripts::index::{COUNT_EXISTING, DELETE_INDEXED},
};
use crate::adapters::redis::{
    cluster::SlotMap,
    connection::{Connection, Node, Request, decode},
    eviction::Eviction,
};
use crate::{error::BoxError, glob::Pattern, l2::PatternCursor};

/// Maximum number of times that the sets of keys with a lease are scanned while some of them
/// expire.
const MAX_ROUNDS: usize = 8;

/// Scans the names of one store.
pub(crate) struct Scanner<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) context: &'a StoreContext,
}

/// Where a scan finds names.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// All keys of a node, or of the only server, that match a glob.
    Node(Option<&'a Node>, &'a str),
    /// The names of keys in a sorted set.
    Names(&'a str),
    /// The keys of the cache in a set, of which each has a lease.
    Leases(&'a str),
}

/// The start of a scan.
const START: &str = "0";

impl Scanner<'_> {
    /// Deletes all values that match a glob, with their sidecars; or the sidecars only. Continues
    /// at the position of the cursor, if it is one of this scan.
    pub(crate) async fn delete_matching(
        &self,
        glob: &str,
        sidecars_only: bool,
        cursor: &PatternCursor,
    ) -> Result<(), BoxError> {
        let pattern = Pattern::new(glob);
        let keys = &self.context.keys;
        let with_index = self.has_complete_index().await;
        let mut positions = Positions::new(self.connection, cursor).await;
        let mut rounds = Rounds::begin(self.connection).await?;
        let value_glob = keys.glob(literal_start(glob)) + "*";
        let globs = [
            (Kind::Lease, keys.glob("__lease:*")),
            (Kind::Value, value_glob),
            (Kind::Copy, keys.glob("__copy:*")),
        ];
        loop {
            let slots = &rounds.slots;
            // mutant one-walk: s/globs.iter()/globs.iter().rev()/
            let kinds = globs.iter().filter(|(kind, _)| !sidecars_only || *kind != Kind::Value);
            let mut walk = Vec::new();
            for (kind, glob) in kinds {
                if with_index {
                    let source = match kind {
                        Kind::Lease => None,
                        Kind::Value => Some(Source::Names(&keys.index)),
                        Kind::Copy => Some(Source::Names(&keys.sidecars)),
                    };
                    walk.push((*kind, source));
                } else {
                    let nodes = slots.nodes().into_iter();
                    walk.extend(nodes.map(|node| (*kind, Some(Source::Node(node, glob)))));
                }
            }
            let scan = format!("{glob} {sidecars_only} {with_index} {slots:?}");
            let (first, mut from) = positions.begin(&scan, walk.len());
            for (number, (kind, source)) in walk.into_iter().enumerate().skip(first) {
                let save = |next: Option<&str>| match next {
                    Some(next) => positions.save(number, next),
                    None => positions.save(number + 1, START),
                };
                if let Some(source) = source {
                    self.delete_from(source, kind, &pattern, from, save).await?;
                } else {
                    self.delete_leases(&pattern).await?;
                    save(None);
                }
                from = START.to_owned();
            }
            if rounds.end().await? {
                return Ok(());
            }
        }
    }

    /// Deletes the leases that match, of the keys in the sets of keys with a lease.
    ///
    /// A load that adopts a lease adds its key to the set of the present 16 seconds, which may have
    /// been scanned already, and the older set with the key may expire before it is scanned. So
    /// the sets are scanned again unless none of them can have expired meanwhile.
    async fn delete_leases(&self, pattern: &Pattern) -> Result<(), BoxError> {
        let start = &self.context.keys.lease_sets;
        let sets: Vec<String> = (0..LEASE_SETS).map(|number| format!("{start}{number}")).collect();
        let now = async || -> RedisResult<i64> {
            let (seconds, micros): (i64, i64) = self.connection.run(&redis::cmd("TIME")).await?;
            Ok(seconds * 1_000 + micros / 1_000)
        };
        for _ in 0..MAX_ROUNDS {
            let begun = now().await?;
            let mut remaining = redis::pipe();
            for set in &sets {
                remaining.cmd("PTTL").arg(set);
            }
            let remaining = self.connection.send(&Request::Pipeline(remaining)).await?;
            let remaining: Vec<i64> = decode(remaining)?;
            for set in &sets {
                let (set, from) = (Source::Leases(set), START.to_owned());
                self.delete_from(set, Kind::Lease, pattern, from, |_| ()).await?;
            }
            let took = now().await? - begun;
            // mutant lease-set-expires: if true
            if remaining.into_iter().filter(|rest| *rest >= 0).all(|rest| took < rest) {
                return Ok(());
            }
        }
        Err("sets of keys with a lease kept expiring during a delete by pattern".into())
    }

    /// Counts the values.
    pub(crate) async fn size(&self) -> Result<u64, BoxError> {
        if self.has_complete_index().await {
            return Ok(self.count_indexed().await?);
        }
        let keys = &self.context.keys;
        let glob = keys.glob("*");
        let mut size = 0;
        for node in SlotMap::read(self.connection).await?.nodes() {
            let mut steps = self.steps(node, &glob);
            while let Some(names) = steps.next().await? {
                let is_value = |name: &&String| matches!(keys.parse(name), Some((Kind::Value, _)));
                size += names.iter().filter(is_value).count() as u64;
            }
        }
        Ok(size)
    }

    /// Returns false if there are no sets of names, or if names may be missing in them: Redis has
    /// evicted keys or may do so, or another program has put a key of another type in the place of
    /// a set. The sets of keys with a lease expire, so each policy of eviction may remove one.
    pub(super) async fn has_complete_index(&self) -> bool {
        let Some([index, sidecars, leases]) = self.context.index_keys() else { return false };
        let Ok(eviction) = Eviction::of(self.connection).await else { return false };
        let mut questions = redis::pipe();
        questions.cmd("TYPE").arg(index).cmd("TYPE").arg(sidecars);
        for number in 0..LEASE_SETS {
            questions.cmd("TYPE").arg(format!("{leases}{number}"));
        }
        let replies = self.connection.send(&Request::Pipeline(questions)).await;
        let Ok(types) = replies.and_then(decode::<Vec<String>>) else { return false };
        let is_type =
            |(at, it): (usize, &String)| it == "none" || it == if at < 2 { "zset" } else { "set" };
        // mutant evicted-index: s/eviction.keeps_all()/true/
        eviction.keeps_all() && types.iter().enumerate().all(is_type)
    }

    /// Deletes the keys of one kind that a source names and a pattern matches. After each step,
    /// saves from where the next one continues.
    async fn delete_from(
        &self,
        source: Source<'_>,
        kind: Kind,
        pattern: &Pattern,
        from: String,
        save: impl Fn(Option<&str>),
    ) -> RedisResult<()> {
        let StoreContext { keys, options, .. } = self.context;
        let is_match = |name: &String| match source {
            Source::Leases(_) => pattern.matches(name),
            Source::Names(_) => keys.parse(name).is_some_and(|(it, key)| {
                // The set of copies has negative entries too.
                (it == kind || kind == Kind::Copy && it == Kind::Lease) && pattern.matches(key)
            }),
            Source::Node(..) => {
                keys.parse(name).is_some_and(|(it, key)| it == kind && pattern.matches(key))
            }
        };
        let mut cursor = Some(from);
        while let Some(mut members) = self.step(source, &mut cursor).await? {
            members.retain(is_match);
            for members in members.chunks(options.batch_size.max(1)) {
                let (set, names, forget) = match source {
                    Source::Names(set) => (set, members.to_vec(), "ZREM"),
                    Source::Leases(set) => {
                        (set, members.iter().map(|key| keys.lease(key)).collect(), "SREM")
                    }
                    Source::Node(..) => {
                        self.delete_all(members).await?;
                        continue;
                    }
                };
                let mut call = redis::cmd("EVALSHA");
                call.arg(&DELETE_INDEXED.hash).arg(names.len() + 1).arg(set).arg(&names);
                call.arg(options.delete_strategy.command())
                    .arg(forget)
                    .arg(members.len())
                    .arg(members);
                decode::<()>(self.connection.send(&Request::Script(&DELETE_INDEXED, call)).await?)?;
            }
            save(cursor.as_deref());
        }
        Ok(())
    }

    pub(super) async fn delete_all(&self, names: &[String]) -> RedisResult<()> {
        let command = self.context.options.delete_strategy.command();
        // The keys of a Cluster are in different slots.
        let per_command = if self.connection.is_cluster() { 1 } else { names.len().max(1) };
        for names in names.chunks(per_command) {
            self.connection.run::<()>(redis::cmd(command).arg(names)).await?;
        }
        Ok(())
    }

    /// Counts the values in the index by rank, so that none is counted twice, and removes those
    /// that have expired from the index.
    async fn count_indexed(&self) -> RedisResult<u64> {
        let StoreContext { keys, options, .. } = self.context;
        let mut size: u64 = 0;
        loop {
            let to = size + options.scan_count as u64 - 1;
            let range = redis::cmd("ZRANGE").arg(&keys.index).arg(size).arg(to).to_owned();
            let names: Vec<Vec<u8>> = self.connection.run(&range).await?;
            if names.is_empty() {
                return Ok(size);
            }
            let mut call = redis::cmd("EVALSHA");
            call.arg(&COUNT_EXISTING.hash).arg(1).arg(&keys.index).arg(&names);
            size += decode::<u64>(
                self.connection.send(&Request::Script(&COUNT_EXISTING, call)).await?,
            )?;
        }
    }

    /// Scans all keys of a node, or of the only server, that match a glob.
    pub(super) fn steps<'a>(&'a self, node: Option<&'a Node>, glob: &'a str) -> Steps<'a> {
        Steps { scanner: self, source: Source::Node(node, glob), cursor: Some(START.to_owned()) }
    }

    /// Returns the names that the next step of a scan finds, maybe none, and `None` at the end.
    /// Skips names that are not UTF-8: the store writes none.
    async fn step(
        &self,
        source: Source<'_>,
        cursor: &mut Option<String>,
    ) -> RedisResult<Option<Vec<String>>> {
        let Some(from) = cursor.take() else { return Ok(None) };
        let mut command = Cmd::new();
        // Each member of a sorted set is followed by its score.
        let (node, items_per_name) = match source {
            Source::Node(node, glob) => {
                // Values and sidecars are strings. Another program's list or hash is left alone.
                // mutant foreign-types: s/.arg("TYPE").arg("string")//
                command.arg("SCAN").arg(from).arg("MATCH").arg(glob).arg("TYPE").arg("string");
                (node, 1)
            }
            Source::Names(set) => {
                command.arg("ZSCAN").arg(set).arg(from);
                (None, 2)
            }
            Source::Leases(set) => {
                command.arg("SSCAN").arg(set).arg(from);
                (None, 1)
            }
        };
        command.arg("COUNT").arg(self.context.options.scan_count);
        let (next, found): (String, Vec<Value>) = self.connection.run_on(node, &command).await?;
        *cursor = (next != "0").then_some(next);
        let names = found.into_iter().step_by(items_per_name).filter_map(|name| match name {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            Value::SimpleString(text) => Some(text),
            _ => None,
        });
        Ok(Some(names.collect()))
    }
}

/// A scan, step by step.
pub(super) struct Steps<'a> {
    scanner: &'a Scanner<'a>,
    source: Source<'a>,
    cursor: Option<String>,
}

impl Steps<'_> {
    /// Returns the names that the next step finds, maybe none, and `None` at the end.
    pub(super) async fn next(&mut self) -> RedisResult<Option<Vec<String>>> {
        self.scanner.step(self.source, &mut self.cursor).await
    }
}

/// Returns the text with which every key begins that a glob matches.
fn literal_start(glob: &str) -> &str {
    glob.split(['*', '?', '[', '\\']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_a_glob_matches_begins_with_its_literal_start() {
        for (glob, prefix) in [
            ("user:1", "user:1"),
            ("user:*", "user:"),
            ("h?llo", "h"),
            ("[ab]c", ""),
            (r"a\*b", "a"),
            ("né]^-x*", "né]^-x"),
            ("", ""),
        ] {
            assert_eq!(literal_start(glob), prefix, "{glob}");
        }
    }
}
