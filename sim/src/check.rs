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
//! A value that was given by a `set` which overlaps with another change may stand after it: either
//! order is one. And a load that has no lease, or does not know whether it was published or refused,
//! has only the bus to tell it of changes elsewhere, as memory has.

use crate::{
    history::{Change, Place, Read, Record, Violation, Way, Write},
    plan::KEYS,
};

/// Milliseconds in which a change is heard of in fair weather.
const LATENCY: u64 = 50;
/// The trust timeout: how soon it is noticed that something was lost.
const TRUST: u64 = 3_000;
/// How often that is asked, and what an answer of the shared level may be late.
const NOTICED: u64 = 250 + 500;
/// What is published again after the bus was away: the attempt that hangs, a pause, another.
const HELD_UP: u64 = 4_000;
/// Five beats tell of a last event.
const BEATS: u64 = 4_500;

/// All promises that were not kept.
#[must_use]
pub fn check(record: &Record) -> Vec<Violation> {
    let mut all = record.violations.clone();
    // By key, the newest version first.
    let mut changes = vec![Vec::new(); KEYS.len()];
    for change in &record.changes {
        changes[change.key].push(*change);
    }
    changes.iter_mut().for_each(|of_key| of_key.sort_by_key(|it| std::cmp::Reverse(it.version)));
    for read in &record.reads {
        let found = read.found.map(|found| record.writes[found]);
        if let Some(write) = found
            && (write.key != read.key || !record.origin[write.key][write.version as usize])
        {
            let how = format!("{read:?} found {write:?}, which it cannot be");
            all.push(Violation { rule: "R0", at: read.end.at, how });
            continue;
        }
        for change in &changes[read.key] {
            let is_older = match found {
                Some(write) => write.version < change.version,
                // Nothing is no older than the last time that there was nothing.
                None => !nothing_since(record, read.key, change.version),
            };
            if !is_older {
                break;
            }
            if let Some(rule) = breaks(record, read, found, change) {
                let found = found.map_or("nothing".to_owned(), |it| format!("{it:?}"));
                let how =
                    format!("{} of {read:?}\n  found {found}\n  after {change:?}", KEYS[read.key]);
                all.push(Violation { rule, at: read.end.at, how });
                break;
            }
        }
    }
    all.extend(disagreement(record));
    all.sort_by_key(|violation| violation.at);
    all
}

/// When all is well again, memory never has the one and the shared level the other.
fn disagreement(record: &Record) -> Option<Violation> {
    let mut seen = vec![None; KEYS.len()];
    for read in record.reads.iter().filter(|read| read.last && !read.stale && record.agrees) {
        let Some(found) = read.found else { continue };
        let version = record.writes[found].version;
        match seen[read.key].replace((version, *read)) {
            Some((other, before)) if other != version => {
                let how = format!("{version} of {read:?}\n  and {other} of {before:?}");
                return Some(Violation { rule: "R4", at: read.end.at, how });
            }
            _ => {}
        }
    }
    None
}

fn nothing_since(record: &Record, key: usize, version: u32) -> bool {
    record.origin[key].iter().skip(version as usize).any(|exists| !exists)
}

/// The rule that an answer breaks which is older than a change.
fn breaks(
    record: &Record,
    read: &Read,
    found: Option<Write>,
    change: &Change,
) -> Option<&'static str> {
    let end = change.end?;
    if let Some(Write { way: Way::Set { change: set }, .. }) = found {
        let set = &record.changes[set];
        // A set that is not done may have happened at any time up to its end.
        if set.end.is_none_or(|end| end.seq > change.begin.seq) {
            return None;
        }
    }
    // Where the owner of a lock was killed, a stale copy serves until the lock's time is over.
    if read.last && !read.stale {
        let is_owed = change.done || record.incarnations[change.by].ended.is_none();
        return (is_owed && reaches(record, read, change).is_some()).then_some("R4");
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
    let (is_sure, took) = match found.map(|it| it.way) {
        Some(Way::Load { leased, published, called, ended }) => {
            let took = ended.map_or(0, |ended| ended.at - called.at);
            (leased && published.is_some(), took)
        }
        _ => (true, 0),
    };
    match read.place {
        Place::Level | Place::Loader => return Some("R1"),
        Place::Joined if is_sure && found.is_some() => return Some("R1"),
        Place::Joined | Place::JoinedLevel | Place::Memory => {}
    }
    let told = reaches(record, read, change)?;
    let slot = Some(record.incarnations[read.by].slot);
    let of_reader = |of: Option<usize>| of.is_none() || of == slot;
    let mut bound = LATENCY;
    for trouble in &record.troubles {
        let overlaps = trouble.from <= read.begin.at && trouble.to + 1_000 >= end.at;
        if of_reader(trouble.slot) && overlaps {
            bound = bound.max(TRUST + NOTICED);
            if trouble.cut || trouble.slot.is_some() {
                // What is loaded meanwhile is believed for as long again.
                let unsure = if is_sure { 0 } else { took + 1_000 };
                bound = bound.max(TRUST + NOTICED + 1_000 + unsure);
            }
        }
    }
    (read.begin.at > told + bound).then_some("R2")
}

/// When others can know of a change; `None` if they may never.
fn reaches(record: &Record, read: &Read, change: &Change) -> Option<u64> {
    let by = record.incarnations[change.by];
    let mut told = change.end?.at;
    if !change.done || !record.confirms {
        for trouble in &record.troubles {
            let of_teller = trouble.slot.is_none_or(|slot| slot == by.slot);
            if trouble.holds_up && of_teller && trouble.from <= told && trouble.to + HELD_UP > told
            {
                told = trouble.to + HELD_UP;
            }
        }
    }
    let Some(ended) = by.ended else { return Some(told) };
    if ended <= told + 5 {
        return None;
    }
    // Who was quiet, and dies before it could say again what was lost.
    let reader = record.incarnations[read.by].slot;
    let is_lost = record.troubles.iter().any(|trouble| {
        trouble.slot.is_none_or(|slot| slot == reader)
            && trouble.from <= ended
            && trouble.to >= change.begin.at
    });
    if is_lost && ended < told + BEATS { None } else { Some(told) }
}
