//! Checks the promises against a history.
//!
//! The origin's versions of a key only rise. So the checker does not search for an order that
//! explains the history: it only asks of each answer whether it is too old.
//!
//! | rule | the answer of a call that began after a change was acknowledged is no older than the change | within |
//! | --- | --- | --- |
//! | R1 | if it came from L2 or from a load | 0 ms |
//! | R2 | if it came from L1 of another instance | the latency of the bus; during a fault, the trust timeout and the gap check |
//! | R3 | if it came from the instance that made the change, stale copies included | 0 ms |
//! | R4 | wherever it came from, once all faults have ended and the instances have recovered | 0 ms |
//!
//! | rule | the answer of a call that began after a change returned *that the store has not got it* is no older than the change | within |
//! | --- | --- | --- |
//! | R5 | wherever it came from, of the instance that made the change; of another one that certainly received its message | 0 ms; the latency of the bus |
//!
//! The recorder itself reports calls that exceed their deadline (R6), keys that an instance loads
//! twice at the same time although nothing was deleted, or three times (R7), and tasks or entries
//! that remain after the end.
//!
//! Simulated and real histories differ only in the upper bounds of delays: see
//! [`Bounds`](crate::bounds::Bounds).
//!
//! Two exceptions: a value of a `set` that overlaps with another change may remain after that
//! change, because either order is correct. And a load without a lease, or whose publication has no
//! known result, learns of changes of other instances from the bus only, as L1 does.

use crate::{
    convergence::disagreement,
    history::{
        Change, FaultWindow, History, Late, Read, ReadSource, Violation, Write, WriteOrigin,
    },
};

/// Returns all broken promises.
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
            if let Some(rule) = broken_rule(history, read, found, change) {
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

/// Returns the age of the oldest answer in milliseconds: the time since peers could know of a newer
/// change.
#[must_use]
pub fn oldest(history: &History) -> u64 {
    let changes = changes(history);
    let behind = |read: &Read| {
        let found = Some(history.writes[read.found?]);
        let behind = |change: &&Change| {
            let known = known_to_peers(history, read, found, change)
                .filter(|_| change.done && !read.stale)?;
            read.begin.at.checked_sub(known)
        };
        newer(history, &changes[read.key], found).filter_map(|change| behind(&change)).max()
    };
    history.reads.iter().filter_map(behind).max().unwrap_or_default()
}

/// Returns the changes by key, the newest version first.
fn changes(history: &History) -> Vec<Vec<Change>> {
    let mut changes = vec![Vec::new(); history.keys.len()];
    for change in &history.changes {
        changes[change.key].push(*change);
    }
    changes.iter_mut().for_each(|of_key| of_key.sort_by_key(|it| std::cmp::Reverse(it.version)));
    changes
}

/// Returns the changes that are newer than the value found.
fn newer<'a>(
    history: &'a History,
    changes: &'a [Change],
    found: Option<Write>,
) -> impl Iterator<Item = &'a Change> {
    changes.iter().take_while(move |change| match found {
        Some(write) => write.version < change.version,
        // The answer "no value" is as old as the last time at which the key had no value.
        None => !nothing_since(history, change.key, change.version),
    })
}

/// Returns a violation if the call ended too late, not counting the time in which its instance was
/// frozen.
fn too_late(history: &History, late: &Late) -> Option<Violation> {
    let Late { by, what, begin, end, limit } = late;
    let slot = Some(history.incarnations[*by].slot);
    let standing = history.fault_windows.iter().filter(|it| it.frozen && it.slot == slot);
    let stood: u64 = standing.map(|it| it.to.min(*end).saturating_sub(it.from.max(*begin))).sum();
    let took = end - begin - stood;
    let how = || format!("{what} of instance {by} took {took} ms, not {limit}");
    (took > limit + history.bounds.slack).then(|| Violation {
        rule: "R6".into(),
        at: *end,
        how: how(),
    })
}

fn nothing_since(history: &History, key: usize, version: u32) -> bool {
    history.origin[key].iter().skip(version as usize).any(|exists| !exists)
}

/// Returns the rule that an answer breaks by being older than a change.
fn broken_rule(
    history: &History,
    read: &Read,
    found: Option<Write>,
    change: &Change,
) -> Option<&'static str> {
    let end = change.end?;
    if let Some(Write { origin: WriteOrigin::Set { change: set }, .. }) = found {
        let set = &history.changes[set];
        // An unacknowledged set may have happened at any time up to its end.
        if set.end.is_none_or(|end| end.seq > change.begin.seq) {
            return None;
        }
    }
    // If the owner of a lock was killed, a stale copy is served until the lock's ttl has ended.
    if read.last && !read.stale {
        let is_owed = change.done || history.incarnations[change.by].ended.is_none();
        return (is_owed && known_to_peers(history, read, found, change).is_some()).then_some("R4");
    }
    if change.pending && !read.stale {
        let knows = match change.by == read.by {
            true => read.begin.seq > end.seq,
            false => has_received(history, read, change),
        };
        return knows.then_some("R5");
    }
    let is_own = change.by == read.by;
    // The instance itself keeps its promise also while the store has not got the change.
    if !(change.done || change.pending && is_own) || end.seq >= read.begin.seq {
        return None;
    }
    if is_own {
        return Some("R3");
    }
    if read.stale {
        return None;
    }
    let unsure = unsure(found);
    match read.source {
        ReadSource::L2 | ReadSource::Loader => return Some("R1"),
        ReadSource::Joined if unsure == 0 && found.is_some() => return Some("R1"),
        ReadSource::Joined | ReadSource::JoinedL2 | ReadSource::L1 => {}
    }
    // Whatever the faults: a peer that was heard and is heard no more is known to be silent.
    let limit = missed(history, end.at) + history.bounds.latency + unsure;
    if read.begin.at > limit && had_heard(history, read, change) {
        return Some("R2");
    }
    let known = known_to_peers(history, read, found, change)?;
    let slot = Some(history.incarnations[read.by].slot);
    // What a publisher that is cut off does to its peers is in `known` already.
    let of_reader = |it: &FaultWindow| it.slot == slot || it.slot.is_none() && !it.cut_off;
    let bounds = history.bounds;
    let mut bound = bounds.latency;
    for window in &history.fault_windows {
        let overlaps = window.from <= read.begin.at && window.to + 1_000 >= end.at;
        if of_reader(window) && overlaps {
            bound = bound.max(bounds.trust + bounds.gap_check);
            if window.disconnected || window.slot.is_some() {
                // A value that is loaded meanwhile is trusted for that time again.
                bound = bound.max(bounds.trust + bounds.gap_check + 1_000 + unsure);
            }
        }
    }
    (read.begin.at > known + bound).then_some("R2")
}

/// The time by which a loss of events, or the silence of their publisher, is noticed.
fn missed(history: &History, gone: u64) -> u64 {
    gone + history.bounds.trust + history.bounds.gap_check
}

/// Whether the instance that reads had certainly heard the instance that made the change, in the
/// minute before: for long enough there was no fault near either of the two.
fn had_heard(history: &History, read: &Read, change: &Change) -> bool {
    /// From the start of an instance, or the end of a fault, to the next beacon.
    const BEACON: u64 = 2_000;
    /// A silent peer is forgotten after a minute.
    const REMEMBERED: u64 = 50_000;
    let (reader, by) = (history.incarnations[read.by], history.incarnations[change.by]);
    let is_near = |it: &&FaultWindow| {
        it.slot.is_none_or(|slot| slot == reader.slot || slot == by.slot)
            && (it.split.is_none() || it.parts(reader.slot, by.slot))
    };
    let until = change.begin.at;
    let mut calm_since = reader.began.max(by.began).max(until.saturating_sub(REMEMBERED));
    // The windows are in the order of their beginnings.
    for window in history.fault_windows.iter().filter(is_near) {
        if window.from >= calm_since + BEACON {
            break;
        }
        calm_since = calm_since.max(window.to);
    }
    calm_since + BEACON <= until
}

/// How much longer a value may be served that was loaded without a lease, or whose publication has
/// no known result: it may be stored after the change.
fn unsure(found: Option<Write>) -> u64 {
    match found.map(|it| it.origin) {
        Some(WriteOrigin::Load { leased, published, called, ended })
            if !leased || published.is_none() =>
        {
            ended.map_or(0, |ended| ended.at - called.at) + 1_000
        }
        _ => 0,
    }
}

/// Whether another instance certainly received the message of a change before a call began: it was
/// subscribed, and no fault of the bus was near.
fn has_received(history: &History, read: &Read, change: &Change) -> bool {
    let bounds = history.bounds;
    let (publisher, reader) = (history.incarnations[change.by], history.incarnations[read.by]);
    let Some(end) = change.end else { return false };
    let sent = end.at + bounds.latency;
    let is_near = |window: &FaultWindow| {
        let after = if window.delays_publish { bounds.republish } else { 1_000 };
        window.slot.is_none_or(|slot| slot == publisher.slot || slot == reader.slot)
            && window.from <= sent
            && window.to + after >= change.begin.at
    };
    read.begin.at > sent
        && reader.began < change.begin.at
        && publisher.ended.is_none_or(|ended| ended > sent)
        && !history.fault_windows.iter().any(is_near)
}

/// Returns the time from which peers can know of a change; `None` if they may never know of it.
fn known_to_peers(
    history: &History,
    read: &Read,
    found: Option<Write>,
    change: &Change,
) -> Option<u64> {
    let bounds = history.bounds;
    let by = history.incarnations[change.by];
    let reader = history.incarnations[read.by];
    let is_confirmed = change.done && by.confirms;
    let mut known = change.end?.at;
    // An event of a call that returned before the fault began may not have been sent yet.
    let meets = |it: &FaultWindow, at: u64| it.from <= at + bounds.send;
    let missed = |gone: u64| missed(history, gone);
    // The reader has certainly heard the publisher before the fault, and notices its silence.
    let is_missed =
        |it: &FaultWindow| it.cut_off && by.began.max(reader.began) + bounds.heard < it.from;
    let back = |it: &FaultWindow, known: u64| {
        let noticed = missed(known.max(it.from)) + unsure(found);
        let back = it.to + bounds.republish;
        if is_missed(it) { back.min(noticed) } else { back }
    };
    let mut stood = history.fault_windows.iter().filter(|it| it.frozen && it.slot == Some(by.slot));
    if let Some(it) = stood.find(|it| !is_confirmed && meets(it, known) && known <= it.to) {
        known = missed(it.from).min(it.to + bounds.republish);
    } else if !is_confirmed {
        // A reader that is disconnected too trusts nothing in its L1, whatever the publisher sends.
        let is_down = |at: u64| {
            let mut down = history.fault_windows.iter().filter(|window| window.bus_down);
            down.any(|it| meets(it, at) && at <= it.to && read.begin.at <= it.to)
        };
        for window in &history.fault_windows {
            // Only the faults of this incarnation, not those of an earlier one in its slot.
            let of_publisher = window.slot.is_none_or(|slot| slot == by.slot)
                && (window.split.is_none() || window.parts(by.slot, reader.slot))
                && window.to > by.began;
            let to = back(window, known);
            if window.delays_publish
                && of_publisher
                && meets(window, known)
                && to > known
                && !is_down(known)
            {
                known = to;
            }
        }
    }
    if is_confirmed {
        let parts = |it: &&FaultWindow| it.parts(by.slot, reader.slot) && it.to > by.began;
        for window in history.fault_windows.iter().filter(parts) {
            if meets(window, known) && known <= window.to {
                known = back(window, known);
            }
        }
    }
    let Some(ended) = by.ended else { return Some(known) };
    if is_confirmed && history.bus_keeps_confirmed {
        return Some(known);
    }
    // A publisher that was heard has announced when its next message comes.
    let is_missed = history.never_idle || had_heard(history, read, change);
    let missed = is_missed.then_some(missed(ended));
    if ended <= known + bounds.flush {
        return missed;
    }
    // The publisher was idle, and was killed before its beacons could announce the lost event.
    let is_lost = history.fault_windows.iter().any(|window| {
        window.slot.is_none_or(|slot| slot == reader.slot)
            && window.from <= ended
            && window.to >= change.begin.at
    });
    if is_lost && ended < known + bounds.beacons { missed } else { Some(known) }
}
