//! The rooms of ARCHITECTURE.md: reads every `use` of our own modules and fails where a room
//! reaches for what it may not know.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each room and the rooms it may use. Upwards only; no stage uses a stage.
const ROOMS: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("sync", &[]),
    ("key", &[]),
    ("glob", &[]),
    ("error", &[]),
    ("entry", &["time"]),
    ("options", &["entry", "error"]),
    ("observe", &["error"]),
    ("resilience", &[]),
    ("msgpack", &[]),
    ("codec", &["error", "msgpack", "options", "resilience"]),
    ("l1", &["entry", "options", "glob"]),
    ("flight", &["resilience", "sync"]),
    ("l2", &["codec", "error", "observe", "options", "glob", "resilience", "time"]),
    ("load", &["error", "resilience"]),
    ("bus", &["error", "msgpack", "observe", "options", "resilience", "time"]),
    ("adapters", &["bus", "error", "glob", "l2", "options", "resilience", "time"]),
    (
        "cache",
        &[
            "bus",
            "codec",
            "entry",
            "error",
            "flight",
            "key",
            "l1",
            "l2",
            "load",
            "observe",
            "options",
            "glob",
            "resilience",
            "time",
        ],
    ),
    ("testing", &["bus", "error", "l2", "glob", "resilience", "time"]),
];

#[test]
fn no_room_uses_what_it_may_not() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).unwrap();
        let room = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        // Tests may look anywhere.
        if room == "lib" || file.ends_with("tests.rs") {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{} is in no room of the table", path.display()));
            continue;
        };
        seen.insert(room.to_owned());
        let code = fs::read_to_string(&file).unwrap();
        for used in rooms_used(&code) {
            if used != room && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} uses `{used}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen.len(), ROOMS.len(), "a room of the table does not exist: {seen:?}");
}

#[test]
fn features_are_asked_for_only_where_a_module_is_declared() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let code = fs::read_to_string(&file).unwrap();
        let mut lines = code.lines().peekable();
        while let Some(line) = lines.next() {
            let line = line.trim();
            if line.starts_with("//") || !line.contains("feature = ") {
                continue;
            }
            let derives = line.starts_with("#[cfg_attr(feature = \"serde\", ");
            let next = lines.peek().map_or("", |next| next.trim());
            let declares = line.starts_with("#[cfg")
                && ["mod ", "pub mod ", "#[cfg", "pub use "].iter().any(|it| next.starts_with(it));
            assert!(derives || declares, "{}: {line}", file.display());
        }
    }
}

/// The first segments of all paths that begin with `crate::`, in `use` trees and elsewhere.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let code: String = code
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut segment = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        rooms.insert(first_segment(&segment));
                        segment.clear();
                    }
                    _ if depth == 0 => segment.push(letter),
                    _ => {}
                }
            }
            rooms.insert(first_segment(&segment));
        } else {
            rooms.insert(first_segment(rest));
        }
    }
    rooms.remove("");
    // Types that the crate's root re-exports count as the room that defines them.
    rooms
        .iter()
        .map(|room| if room == "Error" { "error".to_owned() } else { room.clone() })
        .collect()
}

fn first_segment(path: &str) -> String {
    path.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
