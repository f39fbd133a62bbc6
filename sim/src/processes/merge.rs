//! The tapes of all processes, put together to one history.

use std::{collections::HashMap, path::Path};

use crate::{
    ground::Fact,
    record::{Record, Stamp, Violation, Way},
};

/// What one incarnation heard of the deletes that are told once, and what it deleted so itself.
#[derive(Default)]
pub(super) struct Hearing {
    /// When its first subscription began.
    pub(super) listens: Option<Stamp>,
    pub(super) keys: Vec<String>,
    pub(super) all: Vec<Stamp>,
    pub(super) told: Vec<(String, Stamp, bool)>,
}

/// Where in the record what has which number in the whole history.
#[derive(Default)]
struct Places {
    changes: HashMap<usize, usize>,
    writes: HashMap<usize, usize>,
}

/// Adds what is on the tapes of these incarnations.
pub(super) fn merge(record: &mut Record, dir: &Path, incarnations: usize) -> Vec<Hearing> {
    let mut places = Places::default();
    let hearings = (0..incarnations).map(|by| {
        let tape = std::fs::read_to_string(super::machine::tape(dir, by)).unwrap_or_default();
        let mut hearing = Hearing::default();
        // What is last may be half a line.
        for fact in tape.lines().map_while(|line| serde_json::from_str(line).ok()) {
            add(record, &mut places, &mut hearing, fact);
        }
        hearing
    });
    let hearings = hearings.collect();
    for write in &mut record.writes {
        if let Way::Set { change } = &mut write.way {
            *change = places.changes[change];
        }
    }
    for read in &mut record.reads {
        read.found = read.found.map(|found| {
            *places.writes.get(&found).unwrap_or_else(|| panic!("nobody wrote {read:?}"))
        });
    }
    hearings
}

fn add(record: &mut Record, places: &mut Places, hearing: &mut Hearing, fact: Fact) {
    match fact {
        Fact::Changes(number, change) => {
            places.changes.insert(number, record.changes.len());
            record.changes.push(change);
        }
        Fact::Changed(number, end, done) => {
            let change = &mut record.changes[places.changes[&number]];
            (change.end, change.done) = (Some(end), done);
        }
        Fact::Writes(number, write) => {
            places.writes.insert(number, record.writes.len());
            record.writes.push(write);
        }
        Fact::Loads(number, version) => {
            record.writes[places.writes[&number]].version = version;
        }
        Fact::Published(number, answer) => {
            if let Way::Load { published, .. } = &mut record.writes[places.writes[&number]].way {
                *published = Some(answer);
            }
        }
        Fact::Loaded(number, at) => {
            if let Way::Load { ended, .. } = &mut record.writes[places.writes[&number]].way {
                *ended = Some(at);
            }
        }
        Fact::Read(read) => record.reads.push(read),
        Fact::Late(late) => record.late.push(late),
        Fact::Violated(rule, at, how) => {
            record.violations.push(Violation { rule: rule.into(), at, how });
        }
        Fact::Call => record.calls += 1,
        Fact::Listens(at) => hearing.listens = hearing.listens.or(Some(at)),
        Fact::Told { key, begin, done } => hearing.told.push((key, begin, done)),
        Fact::Heard(key) => hearing.keys.push(key),
        Fact::HeardAll(at) => hearing.all.push(at),
    }
}
