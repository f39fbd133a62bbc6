//! The part of R4 that asks whether all agree: when all is well again, memory never has the one
//! and the shared level the other.

use crate::record::{Change, Record, Violation, Way, Write};

/// The first key of which one instance has this and another has that.
pub(crate) fn disagreement(record: &Record) -> Option<Violation> {
    let mut seen = vec![None; record.keys.len()];
    for read in record.reads.iter().filter(|read| read.last && !read.stale && record.agrees) {
        let Some(found) = read.found else { continue };
        let write = record.writes[found];
        let Some((other, before)) = seen[read.key].replace((write, *read)) else { continue };
        if other.version == write.version {
            continue;
        }
        let lesser = if other.version < write.version { other } else { write };
        if !is_half_done(record, lesser) && !is_lost(record, lesser) {
            let how =
                format!("{} of {read:?}\n  and {} of {before:?}", write.version, other.version);
            return Some(Violation { rule: "R4".into(), at: read.end.at, how });
        }
    }
    None
}

/// Whether the maker of a change after it was killed over that: it may have emptied the shared
/// level and told nobody, and where it had been quiet before, nobody misses it.
fn is_half_done(record: &Record, write: Write) -> bool {
    newer(record, write)
        .any(|change| !change.done && record.incarnations[change.by].ended.is_some())
}

/// Whether it is of a `set` that may stand after another change, and the shared level has lost it:
/// to something that was asked before, and given up, and happened afterwards. Nobody is told of
/// that, as nobody is of what Redis evicts.
fn is_lost(record: &Record, write: Write) -> bool {
    let Way::Set { change } = write.way else { return false };
    let set = record.changes[change];
    let ended = set.end.map_or(u64::MAX, |end| end.at);
    let overlaps = |other: &Change| set.end.is_none_or(|end| end.seq > other.begin.seq);
    let mut emptied = record.emptied.iter().filter(|it| it.key == write.key);
    newer(record, write).any(overlaps)
        && emptied.any(|it| it.asked <= ended && it.at >= set.begin.at)
}

fn newer(record: &Record, write: Write) -> impl Iterator<Item = &Change> {
    record.changes.iter().filter(move |it| it.key == write.key && it.version > write.version)
}
