//! The processes, for as long as a test may take: killed, and frozen, over Redis alone.

use std::process::Command;

#[test]
fn processes_that_are_killed_and_frozen_break_no_promise() {
    let output = Command::new(env!("CARGO_BIN_EXE_processes"))
        .args(["--seconds", "2", "redis", "--fault", "kill-process", "--fault", "freeze-process"])
        .output()
        .expect("a process");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    let histories: Vec<Vec<&str>> = said
        .lines()
        .filter(|line| line.starts_with("redis "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(histories.len(), 2, "{said}");
    for history in histories {
        let [_, _, _, calls, reads, confirmed, ..] = history.as_slice() else { panic!("{said}") };
        let much = |figure: &str| figure.parse::<u32>().is_ok_and(|it| it > 100);
        assert!(much(calls) && much(reads) && much(confirmed), "{said}");
    }
}
