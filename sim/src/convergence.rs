//! The part of rule R4 that compares instances: after recovery, the L1 of one instance never holds
//! another version of a key than the L1 of another instance or the store.

use crate::history::{Change, History, Violation, Write, WriteOrigin};

/// Returns the first key of which two instances read different versions after recovery.
pub(crate) fn disagreement(history: &History) -> Option<Violation> {
    let mut seen = vec![None; history.keys.len()];
    for read in
        history.reads.iter().filter(|read| read.last && !read.stale && history.l2_is_complete)
    {
        let Some(found) = read.found else { continue };
        let Some((other, before)) = seen[read.key].replace((found, *read)) else { continue };
        let version = |of: usize| history.writes[of].version;
        if version(other) == version(found) {
            continue;
        }
        let lesser = if version(other) < version(found) { other } else { found };
        if !is_half_done(history, lesser) && !was_last(history, lesser) {
            let how =
                format!("{} of {read:?}\n  and {} of {before:?}", version(found), version(other));
            return Some(Violation { rule: "R4".into(), at: read.end.at, how });
        }
    }
    None
}

/// Whether a newer change did not end because its instance was killed. The instance may have
/// removed the value from the store without publishing an event, and if it was idle before, no peer
/// notices that it is gone.
fn is_half_done(history: &History, found: usize) -> bool {
    newer(history, history.writes[found])
        .any(|change| !change.done && history.incarnations[change.by].ended.is_some())
}

/// Whether the value is of a `set` that overlapped with newer changes and was the last of them to
/// reach the store. An instance may keep such a value, and gets no event when the store loses it
/// without a change: by an eviction, by an abandoned request that happens late, or by a forced
/// refresh.
fn was_last(history: &History, found: usize) -> bool {
    let write = history.writes[found];
    let WriteOrigin::Set { change } = write.origin else { return false };
    let set = history.changes[change];
    let overlaps = |other: &&Change| set.end.is_none_or(|end| end.seq > other.begin.seq);
    let mut all_over = set.end.map_or(0, |end| end.seq);
    let mut overlapped = false;
    for newer in newer(history, write).filter(overlaps) {
        // An unacknowledged change is retried and broadcast later.
        let Some(end) = newer.end.filter(|_| newer.done) else { return false };
        all_over = all_over.max(end.seq);
        overlapped = true;
    }
    let of_key = history.held.iter().filter(|it| it.key == write.key);
    let held = of_key.take_while(|it| it.since.seq < all_over).last();
    overlapped && held.is_some_and(|it| it.write == Some(found))
}

fn newer(history: &History, write: Write) -> impl Iterator<Item = &Change> {
    history.changes.iter().filter(move |it| it.key == write.key && it.version > write.version)
}
