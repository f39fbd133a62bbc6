//! `docs/runbook.md` has a section for each line that the library can log, and for no other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const RUNBOOK: &str = include_str!("../../docs/runbook.md");
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| match path.is_dir() {
        true => rust_files(&path),
        false => vec![path],
    });
    files.filter(|path| path.extension().is_some_and(|it| it == "rs")).collect()
}

/// The code of a file, without comments.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The string literals of some code, with their escapes resolved.
fn literals(code: &str) -> Vec<String> {
    let (mut found, mut chars) = (Vec::new(), code.chars().peekable());
    while let Some(symbol) = chars.next() {
        if symbol != '"' {
            continue;
        }
        let mut literal = String::new();
        while let Some(symbol) = chars.next().filter(|it| *it != '"') {
            match (symbol, chars.peek()) {
                ('\\', Some('\n')) => while chars.next_if(|it| it.is_whitespace()).is_some() {},
                ('\\', _) => literal.extend(chars.next()),
                _ => literal.push(symbol),
            }
        }
        found.push(literal.replace("{{", "{").replace("}}", "}"));
    }
    found
}

/// The lines that some code can log, each behind its level.
fn logged_by(code: &str) -> Vec<String> {
    let mut logged = Vec::new();
    for level in LEVELS {
        let call = format!("{level}!(");
        for (at, _) in code.match_indices(&call) {
            let (before, arguments) = code.split_at(at);
            let arguments = arguments.split_once(");").expect("the end of the call").0;
            let message = literals(arguments).pop().expect("a message");
            // A message that is chosen before the call.
            let chosen = match message.contains(' ') {
                true => vec![message],
                false => literals(before.rsplit_once("\n}\n").expect("the function").1),
            };
            let level = level.to_uppercase();
            logged.extend(chosen.into_iter().map(|message| format!("{level} {message}")));
        }
    }
    logged
}

#[test]
fn the_runbook_has_each_line_that_the_library_can_log_and_no_other() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let logged: BTreeSet<String> =
        rust_files(&src).iter().flat_map(|path| logged_by(&code_of(path))).collect();
    assert!(logged.len() > 20, "{logged:?}");
    // Each section begins with its line, in a block of its own.
    let sections = RUNBOOK.split("\n### ").skip(1);
    let lines = sections.map(|section| {
        let block = section.split("```text\n").nth(1).expect(section);
        block.split_once("\n```").unwrap().0.to_owned()
    });
    let documented: Vec<String> = lines.collect();
    let unique: BTreeSet<String> = documented.iter().cloned().collect();
    assert_eq!(unique.len(), documented.len(), "two sections for one line");
    let without_section: Vec<_> = logged.difference(&unique).collect();
    let not_logged: Vec<_> = unique.difference(&logged).collect();
    assert!(without_section.is_empty(), "lines without a section: {without_section:#?}");
    assert!(not_logged.is_empty(), "sections of lines that are not logged: {not_logged:#?}");
}

#[test]
fn the_runbook_explains_each_reason() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let reasons = |file: &str| literals(&code_of(&src.join(file)));
    let of_gaps = reasons("bus/protocol/gap_detector/reason.rs");
    let of_options = reasons("cache/builder.rs").into_iter().filter(|it| it.contains("L1 is off"));
    let of_manager = reasons("manager/registry.rs");
    let of_manager = of_manager.into_iter().filter(|it| it.contains("the manager has this cache"));
    let all: Vec<String> = of_gaps.into_iter().chain(of_options).chain(of_manager).collect();
    assert!(all.len() >= 11, "{all:?}");
    let page = RUNBOOK.split_whitespace().collect::<Vec<_>>().join(" ");
    for reason in all {
        assert!(page.contains(&reason), "the runbook does not explain: {reason}");
    }
}

#[test]
fn messages_are_found_also_if_they_are_chosen_before_the_call_and_escaped() {
    let code = r#"
}
fn log(is_stuck: bool) {
    let next = if is_stuck { "one \
        line" } else { "another line" };
    tracing::warn!(target: "t", "{next}");
}
fn other() {
    tracing::info!(cause = %error, "a {{\"b\"}} of {error}",);
}
"#;
    let expected = ["INFO a {\"b\"} of {error}", "WARN one line", "WARN another line"];
    let mut logged = logged_by(code);
    logged.retain(|line| line != "WARN {next}");
    logged.sort_by_key(|line| expected.iter().position(|it| it == line));
    assert_eq!(logged, expected);
}
