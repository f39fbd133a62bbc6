//! Child processes of a test execute its commands independently.

use std::{sync::mpsc::RecvTimeoutError, time::Duration};

use crate::support::{child::Child, ms};

#[test]
fn a_child_answers_from_a_process_of_its_own() {
    let (mut one, mut other) = (Child::start(), Child::start());
    assert_eq!(one.ask("ping"), "pong");
    assert_eq!(other.ask("ping"), "pong");
    let processes = [one.ask("process"), other.ask("process"), std::process::id().to_string()];
    assert_ne!(processes[0], processes[1]);
    assert_ne!(processes[0], processes[2]);
    assert_eq!(one.ask("nonsense now"), "unknown command \"nonsense now\"");
}

#[test]
fn a_killed_child_answers_no_more() {
    let mut child = Child::start();
    child.ask("ping");
    child.kill();
    let answer = child.answer(Duration::from_secs(10));
    assert_eq!(answer, Err(RecvTimeoutError::Disconnected));
}

#[test]
fn a_frozen_child_answers_when_it_thaws() {
    let (mut frozen, mut other) = (Child::start(), Child::start());
    frozen.ask("ping");
    frozen.freeze();
    frozen.send("ping");
    assert_eq!(other.ask("ping"), "pong");
    assert_eq!(frozen.answer(ms(100)), Err(RecvTimeoutError::Timeout));
    frozen.thaw();
    assert_eq!(frozen.answer(Duration::from_secs(10)), Ok("pong".to_owned()));
}
