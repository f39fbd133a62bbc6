//! The promises, asked of a history.
//!
//! The origin's versions of a key only rise, so the question is not what order explains the
//! history but merely whether an answer is too old: a search is not needed.
//!
//! | rule | an answer that began after a change was done is no older than it | by |
//! | --- | --- | --- |
//! | R1 | from the shared level or a load | no time at all |
//! | R2 | from the memory of another instance | the latency of the bus; in trouble the trust timeout, and a little |
//! | R3 | from the instance that made the change, stale copies included | no time at all |
//! | R4 | from anywhere, some seconds after all is well again, when all agree | no time at all |
//!
//! While it happens it is noticed that calls keep their deadlines (R6), that a key is loaded once
//! at a time (R7), and that nothing is left behind.
//!
//! Whether it happened in simulated weather or to real processes makes no difference but for how
//! late what may be: see [`Bounds`](crate::bounds::Bounds).
//!
//! A value that was given by a `set` which overlaps with another change may stand after it: either
//! order is one. And a load that has no lease, or does not know whether it was published or refused,
//! has only the bus to tell it of changes elsewhere, as memory has.

use crate::{
    convergence::disagreement,
    history::{
        Change, FaultWindow, History, Late, Read, ReadSource, Violation, Write, WriteOrigin,
    },
};

/// All promises that were not kept.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut all = history.violations.clone();
    let changes = changes(history);
    for read in &history.reads {
        let found = read.found.map(|found| history.writes[found]);
        if let Some(write) = found
            && (write.key != read.key || !history.origin[write.key][write.version as usize])
        {
            let how = format!("{read:?} found {write:?}, which it cannot be");
            all.push(Violation { rule: "R0".into(), at: read.end.at, how });
            continue;
        }
        for change in newer(history, &changes[read.key], found) {
            if let Some(rule) = breaks(history, read, found, change) {
                let found = found.map_or("nothing".to_owned(), |it| format!("{it:?}"));
                let how = format!(
                    "{} of {read:?}\n  found {found}\n  after {change:?}",
                    history.keys[read.key]
                );
                all.push(Violation { rule: rule.into(), at: read.end.at, how });
                break;
            }
        }
    }
    all.extend(history.late.iter().filter_map(|late| too_late(history, late)));
    all.extend(disagreement(history));
    all.sort_by_key(|violation| violation.at);
    all
}

/// By how much, in milliseconds, the oldest answer was behind what others could know of.
#[must_use]
pub fn oldest(history: &History) -> u64 {
    let changes = changes(history);
    let behind = |read: &Read| {
        let found = Some(history.writes[read.found?]);
        let behind = |change: &&Change| {
            let told = reaches(history, read, change).filter(|_| change.done && !read.stale)?;
            read.begin.at.checked_sub(told)
        };
        newer(history, &changes[read.key], found).filter_map(|change| behind(&change)).max()
    };
    history.reads.iter().filter_map(behind).max().unwrap_or_default()
}

/// By key, the newest version first.
fn changes(history: &History) -> Vec<Vec<Change>> {
    let mut changes = vec![Vec::new(); history.keys.len()];
    for change in &history.changes {
        changes[change.key].push(*change);
    }
    changes.iter_mut().for_each(|of_key| of_key.sort_by_key(|it| std::cmp::Reverse(it.version)));
    changes
}

/// The changes after what was found.
fn newer<'a>(
    history: &'a History,
    changes: &'a [Change],
    found: Option<Write>,
) -> impl Iterator<Item = &'a Change> {
    changes.iter().take_while(move |change| match found {
        Some(write) => write.version < change.version,
        // Nothing is no older than the last time that there was nothing.
        None => !nothing_since(history, change.key, change.version),
    })
}

/// A call that ended too late, and not because its instance stood still.
fn too_late(history: &History, late: &Late) -> Option<Violation> {
    let Late { by, what, begin, end, limit } = late;
    let slot = Some(history.incarnations[*by].slot);
    let standing = history.fault_windows.iter().filter(|it| it.frozen && it.slot == slot);
    let stood: u64 = standing.map(|it| it.to.min(*end).saturating_sub(it.from.max(*begin))).sum();
    let check_deadline = end - begin - stood;
    let how = || format!("{what} of instance {by} took {check_deadline} ms, not {limit}");
    (check_deadline > limit + history.bounds.slack).then(|| Violation {
        rule: "R6".into(),
        at: *end,
        how: how(),
    })
}

fn nothing_since(history: &History, key: usize, version: u32) -> bool {
    history.origin[key].iter().skip(version as usize).any(|exists| !exists)
}

/// The rule that an answer breaks which is older than a change.
fn breaks(
    history: &History,
    read: &Read,
    found: Option<Write>,
    change: &Change,
) -> Option<&'static str> {
    let end = change.end?;
    if let Some(Write { origin: WriteOrigin::Set { change: set }, .. }) = found {
        let set = &history.changes[set];
        // A set that is not done may have happened at any time up to its end.
        if set.end.is_none_or(|end| end.seq > change.begin.seq) {
            return None;
        }
    }
    // Where the owner of a lock was killed, a stale copy serves until the lock's time is over.
    if read.last && !read.stale {
        let is_owed = change.done || history.incarnations[change.by].ended.is_none();
        return (is_owed && reaches(history, read, change).is_some()).then_some("R4");
    }
    if !change.done || end.seq >= read.begin.seq {
        return None;
    }
    if change.by == read.by {
        return Some("R3");
    }
    if read.stale {
        return None;
    }
    let (is_sure, check_deadline) = match found.map(|it| it.origin) {
        Some(WriteOrigin::Load { leased, published, called, ended }) => {
            let check_deadline = ended.map_or(0, |ended| ended.at - called.at);
            (leased && published.is_some(), check_deadline)
        }
        _ => (true, 0),
    };
    match read.source {
        ReadSource::L2 | ReadSource::Loader => return Some("R1"),
        ReadSource::Joined if is_sure && found.is_some() => return Some("R1"),
        ReadSource::Joined | ReadSource::JoinedL2 | ReadSource::L1 => {}
    }
    let told = reaches(history, read, change)?;
    let slot = Some(history.incarnations[read.by].slot);
    let of_reader = |of: Option<usize>| of.is_none() || of == slot;
    let bounds = history.bounds;
    let mut bound = bounds.latency;
    for window in &history.fault_windows {
        let overlaps = window.from <= read.begin.at && window.to + 1_000 >= end.at;
        if of_reader(window.slot) && overlaps {
            bound = bound.max(bounds.trust + bounds.gap_check);
            if window.disconnected || window.slot.is_some() {
                // What is loaded meanwhile is believed for as long again.
                let unsure = if is_sure { 0 } else { check_deadline + 1_000 };
                bound = bound.max(bounds.trust + bounds.gap_check + 1_000 + unsure);
            }
        }
    }
    (read.begin.at > told + bound).then_some("R2")
}

/// When others can know of a change; `None` if they may never.
fn reaches(history: &History, read: &Read, change: &Change) -> Option<u64> {
    let bounds = history.bounds;
    let by = history.incarnations[change.by];
    let is_confirmed = change.done && by.confirms;
    let mut told = change.end?.at;
    // Even what returned before it began may have been under way.
    let meets = |it: &FaultWindow, at: u64| it.from <= at + bounds.send;
    let missed = |gone: u64| gone + bounds.trust + bounds.gap_check;
    let mut stood = history.fault_windows.iter().filter(|it| it.frozen && it.slot == Some(by.slot));
    if let Some(it) = stood.find(|it| !is_confirmed && meets(it, told) && told <= it.to) {
        told = missed(it.from).min(it.to + bounds.republish);
    } else if !is_confirmed {
        // Who is cut off as well does not believe what it has, whatever it is told.
        let is_down = |at: u64| {
            let mut down = history.fault_windows.iter().filter(|window| window.bus_down);
            down.any(|it| meets(it, at) && at <= it.to && read.begin.at <= it.to)
        };
        for window in &history.fault_windows {
            // Not what the one before it in its slot went through.
            let of_teller = window.slot.is_none_or(|slot| slot == by.slot) && window.to > by.began;
            let to = window.to + bounds.republish;
            if window.delays_publish
                && of_teller
                && meets(window, told)
                && to > told
                && !is_down(told)
            {
                told = to;
            }
        }
    }
    let Some(ended) = by.ended else { return Some(told) };
    if is_confirmed && history.bus_keeps_confirmed {
        return Some(told);
    }
    // Who was busy had promised to be heard again.
    let missed = history.never_idle.then_some(missed(ended));
    if ended <= told + bounds.flush {
        return missed;
    }
    // Who was quiet, and dies before it could say again what was lost.
    let reader = history.incarnations[read.by].slot;
    let is_lost = history.fault_windows.iter().any(|window| {
        window.slot.is_none_or(|slot| slot == reader)
            && window.from <= ended
            && window.to >= change.begin.at
    });
    if is_lost && ended < told + bounds.beacons { missed } else { Some(told) }
}
