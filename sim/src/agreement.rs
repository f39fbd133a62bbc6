//! The part of R4 that asks whether all agree: when all is well again, memory never has the one
//! and the shared level the other.

use crate::record::{Change, Record, Violation, Way, Write};

/// The first key of which one instance has this and another has that.
pub(crate) fn disagreement(record: &Record) -> Option<Violation> {
    let mut seen = vec![None; record.keys.len()];
    for read in record.reads.iter().filter(|read| read.last && !read.stale && record.agrees) {
        let Some(found) = read.found else { continue };
        let Some((other, before)) = seen[read.key].replace((found, *read)) else { continue };
        let version = |of: usize| record.writes[of].version;
        if version(other) == version(found) {
            continue;
        }
        let lesser = if version(other) < version(found) { other } else { found };
        if !is_half_done(record, lesser) && !was_last(record, lesser) {
            let how =
                format!("{} of {read:?}\n  and {} of {before:?}", version(found), version(other));
            return Some(Violation { rule: "R4".into(), at: read.end.at, how });
        }
    }
    None
}

/// Whether the maker of a change after it was killed over that: it may have emptied the shared
/// level and told nobody, and where it had been quiet before, nobody misses it.
fn is_half_done(record: &Record, found: usize) -> bool {
    newer(record, record.writes[found])
        .any(|change| !change.done && record.incarnations[change.by].ended.is_some())
}

/// Whether it is of a `set` that overlapped with newer changes and came last of them, as the shared
/// level saw it. Then whoever has it is right to, and need not be told when the level loses it
/// without a change: to an eviction, to something given up long ago that happens after all, or to
/// a load that was asked for though there was a value.
fn was_last(record: &Record, found: usize) -> bool {
    let write = record.writes[found];
    let Way::Set { change } = write.way else { return false };
    let set = record.changes[change];
    let overlaps = |other: &&Change| set.end.is_none_or(|end| end.seq > other.begin.seq);
    let mut all_over = set.end.map_or(0, |end| end.seq);
    let mut overlapped = false;
    for newer in newer(record, write).filter(overlaps) {
        // What is not done is made up for, and told, later.
        let Some(end) = newer.end.filter(|_| newer.done) else { return false };
        all_over = all_over.max(end.seq);
        overlapped = true;
    }
    let of_key = record.held.iter().filter(|it| it.key == write.key);
    let held = of_key.take_while(|it| it.since.seq < all_over).last();
    overlapped && held.is_some_and(|it| it.write == Some(found))
}

fn newer(record: &Record, write: Write) -> impl Iterator<Item = &Change> {
    record.changes.iter().filter(move |it| it.key == write.key && it.version > write.version)
}
