//! Looking at everything: deletes by pattern, and counting.
//!
//! A delete by pattern walks twice, over the epochs first and over the values then. With one walk
//! over both a load could publish where the walk has been, and use its epoch up before the walk
//! comes to it. After the first walk no load that began before can publish any more, and what is
//! there when the second begins is found by it.

use redis::{RedisResult, Value};

use super::context::StoreContext;
use crate::adapters::redis::{
    cluster::SlotMap,
    connection::{Connection, Node, Request, decode},
    info::info_field,
};
use crate::{error::BoxError, glob::Pattern};

/// How often a Cluster is walked over whose slots move meanwhile.
const MOST_ROUNDS: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Epochs,
    Values,
}

pub(crate) async fn delete_matching(
    connection: &Connection,
    context: &StoreContext,
    glob: &str,
) -> Result<(), BoxError> {
    let pattern = Pattern::new(glob);
    let with_index = context.has_index() && is_index_kept(connection).await;
    let mut slots = SlotMap::read(connection).await?;
    let mut is_second = false;
    for _ in 0..MOST_ROUNDS {
        // mutant one-walk: s/] {/].into_iter().rev() {/
        for kind in [Kind::Epochs, Kind::Values] {
            if with_index {
                sweep_index(connection, context, kind, &pattern).await?;
            } else {
                for node in slots.nodes() {
                    sweep(connection, context, node, kind, glob, &pattern).await?;
                }
            }
        }
        let later = SlotMap::read(connection).await?;
        // A key that moved from a node not yet walked over to one already walked over was missed.
        // It does so once, so the next round finds it.
        let was_still = slots == later && (!later.is_moving || is_second);
        if was_still {
            return Ok(());
        }
        is_second = slots.is_moving || later.is_moving;
        slots = later;
    }
    Err("the slots of the Cluster kept moving while it was walked over".into())
}

pub(crate) async fn size(connection: &Connection, context: &StoreContext) -> Result<u64, BoxError> {
    if context.has_index() && is_index_kept(connection).await {
        return Ok(size_by_index(connection, context).await?);
    }
    let all = Pattern::new("*");
    let glob = context.keys.glob("*");
    let mut size = 0;
    for node in SlotMap::read(connection).await?.nodes() {
        let mut walk = Walk::scan(&glob, context.options.scan_count);
        while let Some(names) = walk.next(connection, node).await? {
            size += names.iter().filter(|name| context.keys.is_value_of(name, &all)).count() as u64;
        }
    }
    Ok(size)
}

/// The index has no time to live, so it is lost only where a full server removes any key it likes.
/// Then it must not be believed.
async fn is_index_kept(connection: &Connection) -> bool {
    let info = redis::cmd("INFO").arg("memory").to_owned();
    let Ok(info) = connection.run::<String>(&info).await else { return false };
    let is_bounded = info_field(&info, "maxmemory").is_none_or(|bytes| bytes != "0");
    let policy = info_field(&info, "maxmemory_policy").unwrap_or_default();
    !is_bounded || policy == "noeviction" || policy.starts_with("volatile")
}

async fn sweep(
    connection: &Connection,
    context: &StoreContext,
    node: Option<&Node>,
    kind: Kind,
    glob: &str,
    pattern: &Pattern,
) -> RedisResult<()> {
    let glob = match kind {
        Kind::Epochs => context.keys.epochs_glob(),
        Kind::Values => context.keys.glob(glob),
    };
    let mut walk = Walk::scan(&glob, context.options.scan_count);
    while let Some(names) = walk.next(connection, node).await? {
        let names = matching(context, kind, pattern, names);
        for names in names.chunks(context.options.batch_size.max(1)) {
            remove(connection, context, names).await?;
        }
    }
    Ok(())
}

async fn sweep_index(
    connection: &Connection,
    context: &StoreContext,
    kind: Kind,
    pattern: &Pattern,
) -> RedisResult<()> {
    let set = match kind {
        Kind::Epochs => context.keys.lease_set(),
        Kind::Values => context.keys.index(),
    };
    let mut walk = Walk::set(set, context.options.scan_count);
    while let Some(names) = walk.next(connection, None).await? {
        let names = matching(context, kind, pattern, names);
        for names in names.chunks(context.options.batch_size.max(1)) {
            let remove = &context.scripts.remove;
            let mut call = redis::cmd("EVALSHA");
            call.arg(&remove.hash).arg(names.len() + 1).arg(set).arg(names);
            call.arg(context.options.delete_strategy.command());
            decode::<()>(connection.send(&Request::Script(remove, call)).await?)?;
        }
    }
    Ok(())
}

fn matching(
    context: &StoreContext,
    kind: Kind,
    pattern: &Pattern,
    names: Vec<String>,
) -> Vec<String> {
    let is_meant = |name: &String| match kind {
        Kind::Epochs => context.keys.is_epoch_of(name, pattern),
        Kind::Values => context.keys.is_value_of(name, pattern),
    };
    names.into_iter().filter(is_meant).collect()
}

/// In a Cluster one at a time, for they lie in different slots.
async fn remove(
    connection: &Connection,
    context: &StoreContext,
    names: &[String],
) -> RedisResult<()> {
    let command = context.options.delete_strategy.command();
    if !connection.is_cluster() {
        return connection.run(redis::cmd(command).arg(names)).await;
    }
    for name in names {
        connection.run::<()>(redis::cmd(command).arg(name)).await?;
    }
    Ok(())
}

/// By rank, so that nothing is counted twice. What is not there any more leaves the index.
async fn size_by_index(connection: &Connection, context: &StoreContext) -> RedisResult<u64> {
    let index = context.keys.index();
    let clean = &context.scripts.clean;
    let mut size: u64 = 0;
    loop {
        let to = size + context.options.scan_count as u64 - 1;
        let range = redis::cmd("ZRANGE").arg(index).arg(size).arg(to).to_owned();
        let names: Vec<Vec<u8>> = connection.run(&range).await?;
        if names.is_empty() {
            return Ok(size);
        }
        let mut call = redis::cmd("EVALSHA");
        call.arg(&clean.hash).arg(1).arg(index).arg(&names);
        size += decode::<u64>(connection.send(&Request::Script(clean, call)).await?)?;
    }
}

/// A walk with a cursor, over the names of a node or over a sorted set.
struct Walk<'a> {
    over: Over<'a>,
    count: usize,
    cursor: Option<String>,
}

enum Over<'a> {
    Names { glob: &'a str },
    Set { name: &'a str },
}

impl<'a> Walk<'a> {
    fn scan(glob: &'a str, count: usize) -> Self {
        Self { over: Over::Names { glob }, count, cursor: Some("0".to_owned()) }
    }

    fn set(name: &'a str, count: usize) -> Self {
        Self { over: Over::Set { name }, count, cursor: Some("0".to_owned()) }
    }

    /// The names of one step, perhaps none. `None` at the end. Names that are no text are not
    /// ours.
    async fn next(
        &mut self,
        connection: &Connection,
        node: Option<&Node>,
    ) -> RedisResult<Option<Vec<String>>> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let command = match self.over {
            Over::Names { glob } => {
                redis::cmd("SCAN").arg(cursor).arg("MATCH").arg(glob).to_owned()
            }
            Over::Set { name } => redis::cmd("ZSCAN").arg(name).arg(cursor).to_owned(),
        };
        let command = command.clone().arg("COUNT").arg(self.count).to_owned();
        let (cursor, found): (String, Vec<Value>) = connection.run_on(node, &command).await?;
        self.cursor = (cursor != "0").then_some(cursor);
        // A sorted set brings a score after each name.
        let step = if matches!(self.over, Over::Set { .. }) { 2 } else { 1 };
        let names = found.into_iter().step_by(step).filter_map(|name| match name {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            Value::SimpleString(text) => Some(text),
            _ => None,
        });
        Ok(Some(names.collect()))
    }
}
