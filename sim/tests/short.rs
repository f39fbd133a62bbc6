//! The processes, for as long as a test may take: killed, and frozen, over Redis alone.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may")]

use std::process::Command;

/// Two seconds of it, and of a bus that needs no other server.
fn breaks_no_promise(fault: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_processes"))
        .args(["--seconds", "2", "redis", "--fault", fault])
        .output()
        .expect("a process");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    let history = said.lines().find(|line| line.starts_with("redis ")).expect("a row");
    let figures: Vec<&str> = history.split_whitespace().collect();
    let [_, _, _, _, calls, reads, confirmed, ..] = *figures else { panic!("{said}") };
    let much = |figure: &str| figure.parse::<u32>().is_ok_and(|it| it > 50);
    assert!(much(calls) && much(reads) && much(confirmed), "{said}");
}

#[test]
fn processes_that_are_killed_break_no_promise() {
    breaks_no_promise("kill-process");
}

#[test]
fn processes_that_are_frozen_break_no_promise() {
    breaks_no_promise("freeze-process");
}
