//! The environment of a history of several processes: the machine's monotonic clock, which all
//! processes share; an origin in files; and a tape for each process. A process writes each event to
//! its tape at once, so that the tape of a killed process is complete.

use std::{
    fs::{File, OpenOptions, create_dir},
    io::{Seek, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    environment::{Environment, TapeEntry},
    history::Stamp,
};

/// Returns the clock's nanoseconds.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).expect("after the start of the machine");
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// The versions of keys, in one file per key. A commit appends one byte, which the kernel does in
/// one order for all processes, and which cannot be left half done.
pub(super) struct Origin(Vec<Mutex<File>>);

const THERE: u8 = b'+';
const MISSING: u8 = b'-';

impl Origin {
    /// Creates the origin in a directory; all keys exist.
    pub(super) fn make(dir: &Path, keys: usize) -> Self {
        create_dir(dir.join("origin")).expect("a directory of our own");
        let made = Self::open(dir, keys);
        for key in 0..keys {
            made.commit(key, true);
        }
        made
    }

    pub(super) fn open(dir: &Path, keys: usize) -> Self {
        let open = |key: usize| {
            let path = dir.join("origin").join(key.to_string());
            let file = OpenOptions::new().read(true).append(true).create(true).open(path);
            Mutex::new(file.expect("a directory of our own"))
        };
        Self((0..keys).map(open).collect())
    }

    fn commit(&self, key: usize, exists: bool) -> u32 {
        let mut file = self.0[key].lock();
        file.write_all(&[if exists { THERE } else { MISSING }]).expect("space on the disk");
        // After the append the position is at the end of this byte, whatever other processes have
        // appended since.
        version(file.stream_position().expect("a file"))
    }

    fn now(&self, key: usize) -> (u32, bool) {
        let file = self.0[key].lock();
        let length = file.metadata().expect("a file").len();
        let mut last = [0];
        file.read_exact_at(&mut last, length - 1).expect("a file that only grows");
        (version(length), last == [THERE])
    }

    fn versions(&self, key: usize) -> Vec<bool> {
        let file = self.0[key].lock();
        let length = file.metadata().expect("a file").len();
        let mut all = vec![0; usize::try_from(length).expect("a short history")];
        file.read_exact_at(&mut all, 0).expect("a file that only grows");
        all.iter().map(|it| *it == THERE).collect()
    }
}

fn version(length: u64) -> u32 {
    u32::try_from(length - 1).expect("few versions")
}

pub(super) struct MonotonicEnv {
    /// Nanoseconds of the clock.
    start: u64,
    origin: Origin,
    tape: Option<File>,
}

impl MonotonicEnv {
    pub(super) fn new(start: u64, origin: Origin, tape: Option<&Path>) -> Self {
        let tape = tape.map(|path| File::create_new(path).expect("a directory of our own"));
        Self { start, origin, tape }
    }
}

impl Environment for MonotonicEnv {
    fn now(&self) -> u64 {
        self.stamp().at
    }

    fn stamp(&self) -> Stamp {
        let seq = now() - self.start;
        Stamp { at: seq / 1_000_000, seq }
    }

    fn commit(&self, key: usize, exists: bool) -> u32 {
        self.origin.commit(key, exists)
    }

    fn origin(&self, key: usize) -> (u32, bool) {
        self.origin.now(key)
    }

    fn versions(&self) -> Vec<Vec<bool>> {
        (0..self.origin.0.len()).map(|key| self.origin.versions(key)).collect()
    }

    fn write(&self, entry: &dyn Fn() -> TapeEntry) {
        let Some(mut tape) = self.tape.as_ref() else { return };
        let mut line = serde_json::to_vec(&entry()).expect("an entry can be serialized");
        line.push(b'\n');
        // One write call, so that the line is there completely or not at all.
        tape.write_all(&line).expect("space on the disk");
    }
}

/// The path of an incarnation's tape.
pub(super) fn tape(dir: &Path, by: usize) -> PathBuf {
    dir.join(format!("tape-{by}"))
}
