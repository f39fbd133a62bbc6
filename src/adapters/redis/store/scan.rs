//! Operations over all keys: delete by pattern, and size.
//!
//! | step of a delete by pattern | effect |
//! | --- | --- |
//! | 1. scan the leases, delete those that match | no load that began before can publish any more |
//! | 2. scan the values, delete those that match | all that was published before is deleted |
//!
//! Alternatives considered: one scan over both. Refused: a load could publish a value behind the
//! position of the scan and use up its lease before the scan reaches it.

use redis::{Cmd, RedisResult, Value};

use super::context::StoreContext;
use crate::adapters::redis::{
    cluster::SlotMap,
    connection::{Connection, Node, Request, decode},
    info::info_field,
};
use crate::{error::BoxError, glob::Pattern};

/// Maximum number of times that a Cluster is scanned while its slots are being moved.
const MAX_ROUNDS: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Leases,
    Values,
}

/// Deletes all values that match a glob, and their leases.
pub(crate) async fn delete_matching(
    connection: &Connection,
    context: &StoreContext,
    glob: &str,
) -> Result<(), BoxError> {
    let pattern = Pattern::new(glob);
    let with_index = context.has_index() && is_index_complete(connection).await;
    let mut slots = SlotMap::read(connection).await?;
    let mut was_moving = false;
    for _ in 0..MAX_ROUNDS {
        // mutant one-walk: s/] {/].into_iter().rev() {/
        for kind in [Kind::Leases, Kind::Values] {
            if with_index {
                delete_from(connection, context, Source::set_of(context, kind), kind, &pattern)
                    .await?;
                continue;
            }
            let glob = match kind {
                Kind::Leases => context.keys.leases_glob(),
                Kind::Values => context.keys.glob(glob),
            };
            for node in slots.nodes() {
                let source = Source::Node { node, glob: &glob };
                delete_from(connection, context, source, kind, &pattern).await?;
            }
        }
        let later = SlotMap::read(connection).await?;
        // A key that moved from a node before its scan to one after its scan was missed. It moves
        // so only once, and the next round finds it.
        let is_stable = slots == later && (!later.is_moving || was_moving);
        if is_stable {
            return Ok(());
        }
        was_moving = slots.is_moving || later.is_moving;
        slots = later;
    }
    Err("slots of the Redis Cluster kept moving during a delete by pattern".into())
}

/// Counts the values.
pub(crate) async fn size(connection: &Connection, context: &StoreContext) -> Result<u64, BoxError> {
    if context.has_index() && is_index_complete(connection).await {
        return Ok(count_indexed(connection, context).await?);
    }
    let all = Pattern::new("*");
    let glob = context.keys.glob("*");
    let mut size = 0;
    for node in SlotMap::read(connection).await?.nodes() {
        let source = Source::Node { node, glob: &glob };
        let mut scan = Scan::new(source, context.options.scan_count);
        while let Some(names) = scan.next(connection).await? {
            size += names.iter().filter(|name| context.keys.is_value_of(name, &all)).count() as u64;
        }
    }
    Ok(size)
}

/// Returns false if Redis may have evicted the index, so that values could be missing in it. The
/// index never expires, so only a server that evicts any key evicts it.
async fn is_index_complete(connection: &Connection) -> bool {
    let info = redis::cmd("INFO").arg("memory").to_owned();
    let Ok(info) = connection.run::<String>(&info).await else { return false };
    let is_bounded = info_field(&info, "maxmemory").is_none_or(|bytes| bytes != "0");
    let policy = info_field(&info, "maxmemory_policy").unwrap_or_default();
    !is_bounded || policy == "noeviction" || policy.starts_with("volatile")
}

/// Deletes the keys of one kind that a source names and a pattern matches.
async fn delete_from(
    connection: &Connection,
    context: &StoreContext,
    source: Source<'_>,
    kind: Kind,
    pattern: &Pattern,
) -> RedisResult<()> {
    let is_match = |name: &String| match kind {
        Kind::Leases => context.keys.is_lease_of(name, pattern),
        Kind::Values => context.keys.is_value_of(name, pattern),
    };
    let mut scan = Scan::new(source, context.options.scan_count);
    while let Some(mut names) = scan.next(connection).await? {
        names.retain(is_match);
        for names in names.chunks(context.options.batch_size.max(1)) {
            delete(connection, context, source, names).await?;
        }
    }
    Ok(())
}

async fn delete(
    connection: &Connection,
    context: &StoreContext,
    source: Source<'_>,
    names: &[String],
) -> RedisResult<()> {
    let command = context.options.delete_strategy.command();
    if let Source::Set(set) = source {
        let script = &context.scripts.delete_indexed;
        let mut call = redis::cmd("EVALSHA");
        call.arg(&script.hash).arg(names.len() + 1).arg(set).arg(names).arg(command);
        return decode(connection.send(&Request::Script(script, call)).await?);
    }
    if !connection.is_cluster() {
        return connection.run(redis::cmd(command).arg(names)).await;
    }
    // The keys of a Cluster are in different slots.
    for name in names {
        connection.run::<()>(redis::cmd(command).arg(name)).await?;
    }
    Ok(())
}

/// Counts the values in the index by rank, so that none is counted twice, and removes those that
/// have expired from the index.
async fn count_indexed(connection: &Connection, context: &StoreContext) -> RedisResult<u64> {
    let index = context.keys.index();
    let script = &context.scripts.count_existing;
    let mut size: u64 = 0;
    loop {
        let to = size + context.options.scan_count as u64 - 1;
        let range = redis::cmd("ZRANGE").arg(index).arg(size).arg(to).to_owned();
        let names: Vec<Vec<u8>> = connection.run(&range).await?;
        if names.is_empty() {
            return Ok(size);
        }
        let mut call = redis::cmd("EVALSHA");
        call.arg(&script.hash).arg(1).arg(index).arg(&names);
        size += decode::<u64>(connection.send(&Request::Script(script, call)).await?)?;
    }
}

/// Where a scan finds names.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// All keys of a node, or of the only server, that match a glob.
    Node { node: Option<&'a Node>, glob: &'a str },
    /// The members of a sorted set.
    Set(&'a str),
}

impl<'a> Source<'a> {
    /// The index, or the lease set.
    fn set_of(context: &'a StoreContext, kind: Kind) -> Self {
        match kind {
            Kind::Leases => Self::Set(context.keys.lease_set()),
            Kind::Values => Self::Set(context.keys.index()),
        }
    }
}

/// A scan with the cursor of Redis.
struct Scan<'a> {
    source: Source<'a>,
    count: usize,
    cursor: Option<String>,
}

impl<'a> Scan<'a> {
    fn new(source: Source<'a>, count: usize) -> Self {
        Self { source, count, cursor: Some("0".to_owned()) }
    }

    /// Returns the names of the next step, maybe none; `None` at the end. Skips names that are not
    /// UTF-8: the store writes none.
    async fn next(&mut self, connection: &Connection) -> RedisResult<Option<Vec<String>>> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let mut command = Cmd::new();
        let (node, step) = match self.source {
            Source::Node { node, glob } => {
                command.arg("SCAN").arg(cursor).arg("MATCH").arg(glob);
                (node, 1)
            }
            Source::Set(name) => {
                command.arg("ZSCAN").arg(name).arg(cursor);
                // Each member is followed by its score.
                (None, 2)
            }
        };
        command.arg("COUNT").arg(self.count);
        let (cursor, found): (String, Vec<Value>) = connection.run_on(node, &command).await?;
        self.cursor = (cursor != "0").then_some(cursor);
        let names = found.into_iter().step_by(step).filter_map(|name| match name {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            Value::SimpleString(text) => Some(text),
            _ => None,
        });
        Ok(Some(names.collect()))
    }
}
