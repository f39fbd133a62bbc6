//! Merges the tapes of all processes into one history.

use std::{collections::HashMap, path::Path};

use crate::{
    environment::TapeEntry,
    history::{History, Stamp, Violation, WriteOrigin},
};

/// The deletes of keys that are deleted once: the received ones and the own ones of an incarnation.
#[derive(Default)]
pub(super) struct Received {
    /// When the first subscription began.
    pub(super) listens: Option<Stamp>,
    pub(super) keys: Vec<String>,
    pub(super) all: Vec<Stamp>,
    pub(super) deletes: Vec<(String, Stamp, bool)>,
}

/// The index in the merged history of each change and write, by its number.
#[derive(Default)]
struct Indices {
    changes: HashMap<usize, usize>,
    writes: HashMap<usize, usize>,
}

/// Adds the tapes of these incarnations, and returns the deletes that each received.
pub(super) fn merge(history: &mut History, dir: &Path, incarnations: usize) -> Vec<Received> {
    let mut indices = Indices::default();
    let received = (0..incarnations).map(|by| {
        let tape = std::fs::read_to_string(super::monotonic_env::tape(dir, by)).unwrap_or_default();
        let mut received = Received::default();
        // The last line may be incomplete.
        for fact in tape.lines().map_while(|line| serde_json::from_str(line).ok()) {
            add(history, &mut indices, &mut received, fact);
        }
        received
    });
    let received = received.collect();
    for write in &mut history.writes {
        if let WriteOrigin::Set { change } = &mut write.origin {
            *change = indices.changes[change];
        }
    }
    for read in &mut history.reads {
        read.found = read.found.map(|found| {
            *indices.writes.get(&found).unwrap_or_else(|| panic!("nobody wrote {read:?}"))
        });
    }
    received
}

fn add(history: &mut History, indices: &mut Indices, received: &mut Received, fact: TapeEntry) {
    match fact {
        TapeEntry::ChangeBegan(number, change) => {
            indices.changes.insert(number, history.changes.len());
            history.changes.push(change);
        }
        TapeEntry::ChangeEnded(number, end, done, pending) => {
            let change = &mut history.changes[indices.changes[&number]];
            (change.end, change.done, change.pending) = (Some(end), done, pending);
        }
        TapeEntry::Write(number, write) => {
            indices.writes.insert(number, history.writes.len());
            history.writes.push(write);
        }
        TapeEntry::LoaderRead(number, version) => {
            history.writes[indices.writes[&number]].version = version;
        }
        TapeEntry::Published(number, answer) => {
            if let WriteOrigin::Load { published, .. } =
                &mut history.writes[indices.writes[&number]].origin
            {
                *published = Some(answer);
            }
        }
        TapeEntry::LoaderEnded(number, at) => {
            if let WriteOrigin::Load { ended, .. } =
                &mut history.writes[indices.writes[&number]].origin
            {
                *ended = Some(at);
            }
        }
        TapeEntry::Read(read) => history.reads.push(read),
        TapeEntry::Late(late) => history.late.push(late),
        TapeEntry::Violation(rule, at, how) => {
            history.violations.push(Violation { rule: rule.into(), at, how });
        }
        TapeEntry::CallEnded => history.calls += 1,
        TapeEntry::Subscribed(at) => received.listens = received.listens.or(Some(at)),
        TapeEntry::DeletedOnce { key, begin, done } => received.deletes.push((key, begin, done)),
        TapeEntry::DeleteReceived(key) => received.keys.push(key),
        TapeEntry::ClearReceived(at) => received.all.push(at),
    }
}
