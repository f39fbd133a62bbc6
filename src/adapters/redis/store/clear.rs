//! Removes everything under several prefixes of one Redis, after a restart that may have brought
//! deleted values back.
//!
//! A prefix with a complete index is cleared by that. All others share one walk over the keys of
//! the server, in the three steps of a [delete by pattern](super::scan): fifty caches cost as many
//! `SCAN`s as one.

use redis::RedisResult;

use super::{
    context::StoreContext,
    keyspace::{KeySpace, Kind},
    rounds::Rounds,
    scan::Scanner,
};
use crate::{adapters::redis::connection::Connection, error::BoxError, l2::PatternCursor};

/// Removes everything under each prefix. Returns a result for each: a prefix that fails, because
/// the user has no rights to it say, does not keep the others from being cleared.
pub(crate) async fn clear(
    connection: &Connection,
    prefixes: &[&StoreContext],
) -> Vec<Result<(), BoxError>> {
    let mut results: Vec<Result<(), BoxError>> = Vec::with_capacity(prefixes.len());
    let mut walked = Vec::new();
    for (number, context) in prefixes.iter().enumerate() {
        let scanner = Scanner { connection, context };
        // mutant walk-for-all: if true
        if scanner.has_complete_index().await {
            results.push(scanner.delete_matching("*", false, &PatternCursor::new()).await);
        } else {
            results.push(Ok(()));
            walked.push(Walked { number, context, failure: None });
        }
    }
    let walk = walk(connection, &mut walked).await;
    for prefix in walked {
        if let Some(result) = results.get_mut(prefix.number) {
            *result = match (&walk, prefix.failure) {
                (Ok(()), None) => Ok(()),
                (Ok(()), Some(failure)) => Err(failure),
                (Err(error), _) => Err(error.to_string().into()),
            };
        }
    }
    results
}

/// A prefix that a walk clears.
struct Walked<'a> {
    number: usize,
    context: &'a StoreContext,
    failure: Option<BoxError>,
}

async fn walk(connection: &Connection, prefixes: &mut [Walked<'_>]) -> Result<(), BoxError> {
    let Some(first) = prefixes.first().map(|prefix| prefix.context) else { return Ok(()) };
    let glob = common_start(prefixes.iter().map(|prefix| &prefix.context.keys)).glob("*");
    let scanner = Scanner { connection, context: first };
    let mut rounds = Rounds::begin(connection).await?;
    loop {
        for kind in [Kind::Lease, Kind::Value, Kind::Copy] {
            for node in rounds.slots.nodes() {
                let mut steps = scanner.steps(node, &glob);
                while let Some(names) = steps.next().await? {
                    for prefix in prefixes.iter_mut().filter(|it| it.failure.is_none()) {
                        let result = delete(connection, prefix.context, kind, &names).await;
                        prefix.failure = result.err().map(Into::into);
                    }
                    if prefixes.iter().all(|prefix| prefix.failure.is_some()) {
                        return Ok(());
                    }
                }
            }
        }
        if rounds.end().await? {
            return Ok(());
        }
    }
}

/// Deletes those of the names that hold something of this kind under the prefix.
async fn delete(
    connection: &Connection,
    context: &StoreContext,
    kind: Kind,
    names: &[String],
) -> RedisResult<()> {
    let is_ours = |name: &&String| context.keys.parse(name).is_some_and(|(it, _)| it == kind);
    let ours: Vec<String> = names.iter().filter(is_ours).cloned().collect();
    for names in ours.chunks(context.options.batch_size.max(1)) {
        Scanner { connection, context }.delete_all(names).await?;
    }
    Ok(())
}

/// Returns the names that begin as all these prefixes do.
fn common_start<'a>(mut prefixes: impl Iterator<Item = &'a KeySpace>) -> KeySpace {
    let mut common = prefixes.next().map(KeySpace::prefix).unwrap_or_default();
    for prefix in prefixes.map(KeySpace::prefix) {
        let alike = |((at, a), b): ((usize, char), char)| (a == b).then_some(at + a.len_utf8());
        let len = common.char_indices().zip(prefix.chars()).map_while(alike).last();
        common = common.get(..len.unwrap_or_default()).unwrap_or_default();
    }
    KeySpace::new(common.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_start_of_prefixes_is_whole_characters() {
        for (prefixes, common) in [
            (&["users:cache:"][..], "users:cache:"),
            (&["shop:users:", "shop:mails:", "shop:prices:"], "shop:"),
            (&["users:", "mails:"], ""),
            (&["é:", "è:"], ""),
            (&["a:", "a:b:"], "a:"),
        ] {
            let spaces: Vec<_> = prefixes.iter().map(|it| KeySpace::new((*it).into())).collect();
            assert_eq!(common_start(spaces.iter()).prefix(), common);
        }
    }
}
