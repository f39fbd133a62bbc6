//! Operations over all keys: delete by pattern, and size.
//!
//! | step of a delete by pattern | effect |
//! | --- | --- |
//! | 1. scan the leases, delete those that match | no load that began before can publish any more |
//! | 2. scan the values, delete those that match | all that was published before is deleted |
//!
//! Alternatives considered: one scan over both. Refused: a load could publish a value behind the
//! position of the scan and use up its lease before the scan reaches it.
//!
//! Redis is asked for the names that begin with the literal part of a pattern, and the matcher of
//! L1 decides among them. So a pattern means the same in L1, in the index and on every server.

use redis::{Cmd, RedisResult, Value};

use super::{
    context::StoreContext,
    keyspace::Kind,
    scripts::{COUNT_EXISTING, DELETE_INDEXED},
};
use crate::adapters::redis::{
    cluster::SlotMap,
    connection::{Connection, Node, Request, decode, info_field},
};
use crate::{error::BoxError, glob::Pattern};

/// Maximum number of times that a Cluster is scanned while its slots are being moved.
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
    /// The members of a sorted set.
    Set(&'a str),
}

impl Scanner<'_> {
    /// Deletes all values that match a glob, and their leases.
    pub(crate) async fn delete_matching(&self, glob: &str) -> Result<(), BoxError> {
        let pattern = Pattern::new(glob);
        let keys = &self.context.keys;
        let begin = Pattern::literal_prefix(glob);
        let with_index = self.has_complete_index().await;
        let mut slots = SlotMap::read(self.connection).await?;
        let mut was_moving = false;
        for _ in 0..MAX_ROUNDS {
            // mutant one-walk: s/] {/].into_iter().rev() {/
            for kind in [Kind::Lease, Kind::Value] {
                let (set, glob) = match kind {
                    Kind::Lease => (&keys.lease_set, keys.glob("__epoch:*")),
                    Kind::Value => (&keys.index, keys.glob(begin) + "*"),
                };
                if with_index {
                    self.delete_from(Source::Set(set), kind, &pattern).await?;
                    continue;
                }
                for node in slots.nodes() {
                    self.delete_from(Source::Node(node, &glob), kind, &pattern).await?;
                }
            }
            let later = SlotMap::read(self.connection).await?;
            // A key that moved from a node before its scan to one after its scan was missed. It
            // moves so only once, and the next round finds it.
            if slots == later && (!later.is_moving || was_moving) {
                return Ok(());
            }
            was_moving = slots.is_moving || later.is_moving;
            slots = later;
        }
        Err("slots of the Redis Cluster kept moving during a delete by pattern".into())
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
            let mut cursor = Some("0".to_owned());
            while let Some(names) = self.step(Source::Node(node, &glob), &mut cursor).await? {
                let is_value = |name: &&String| matches!(keys.parse(name), Some((Kind::Value, _)));
                size += names.iter().filter(is_value).count() as u64;
            }
        }
        Ok(size)
    }

    /// Returns false if there is no index, or if values may be missing in it: Redis may have
    /// evicted it, or another program has put a key of another type in its place. The index never
    /// expires, so only a server that evicts any key evicts it.
    async fn has_complete_index(&self) -> bool {
        let Some(sets) = self.context.index_keys() else { return false };
        let mut questions = redis::pipe();
        questions.cmd("INFO").arg("memory");
        for set in sets {
            questions.cmd("TYPE").arg(set);
        }
        let replies = self.connection.send(&Request::Pipeline(questions)).await;
        let Ok((info, types)) = replies.and_then(|replies| {
            let (info, index, leases) = decode::<(String, String, String)>(replies)?;
            Ok((info, [index, leases]))
        }) else {
            return false;
        };
        let is_bounded = info_field(&info, "maxmemory").is_none_or(|bytes| bytes != "0");
        let policy = info_field(&info, "maxmemory_policy").unwrap_or_default();
        let is_kept = !is_bounded || policy == "noeviction" || policy.starts_with("volatile");
        is_kept && types.iter().all(|it| matches!(&**it, "zset" | "none"))
    }

    /// Deletes the keys of one kind that a source names and a pattern matches.
    async fn delete_from(
        &self,
        source: Source<'_>,
        kind: Kind,
        pattern: &Pattern,
    ) -> RedisResult<()> {
        let StoreContext { keys, options, .. } = self.context;
        let command = options.delete_strategy.command();
        let is_match = |name: &String| {
            keys.parse(name).is_some_and(|(it, key)| it == kind && pattern.matches(key))
        };
        let mut cursor = Some("0".to_owned());
        while let Some(mut names) = self.step(source, &mut cursor).await? {
            names.retain(is_match);
            for names in names.chunks(options.batch_size.max(1)) {
                if let Source::Set(set) = source {
                    let mut call = redis::cmd("EVALSHA");
                    call.arg(&DELETE_INDEXED.hash).arg(names.len() + 1).arg(set);
                    call.arg(names).arg(command);
                    decode::<()>(
                        self.connection.send(&Request::Script(&DELETE_INDEXED, call)).await?,
                    )?;
                    continue;
                }
                // The keys of a Cluster are in different slots.
                let per_command = if self.connection.is_cluster() { 1 } else { names.len() };
                for names in names.chunks(per_command) {
                    self.connection.run::<()>(redis::cmd(command).arg(names)).await?;
                }
            }
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

    /// Returns the names that the next step of a scan finds, maybe none, and `None` at the end.
    /// Skips names that are not UTF-8: the store writes none.
    async fn step(
        &self,
        source: Source<'_>,
        cursor: &mut Option<String>,
    ) -> RedisResult<Option<Vec<String>>> {
        let Some(from) = cursor.take() else { return Ok(None) };
        let mut command = Cmd::new();
        // Each member of a set is followed by its score.
        let (node, items_per_name) = match source {
            Source::Node(node, glob) => {
                command.arg("SCAN").arg(from).arg("MATCH").arg(glob);
                (node, 1)
            }
            Source::Set(name) => {
                command.arg("ZSCAN").arg(name).arg(from);
                (None, 2)
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
