//! The examples run, and say what their servers make possible. `cargo test` builds them.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use crate::support::{nats::NatsServer, process::free_port, rabbitmq::RabbitServer};

/// Runs an example to its end, with this variable in its environment.
fn run(name: &str, (variable, value): (&str, &str)) -> Output {
    let binary = binary(name);
    let output = Command::new(&binary).env(variable, value).output();
    output.unwrap_or_else(|error| {
        let build = "cargo build --all-features --examples";
        panic!("{} does not start ({error}): build it with `{build}`", binary.display())
    })
}

/// The program beside this test, in `target/debug/examples`.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn lines(output: &Output) -> Vec<&str> {
    let text = str::from_utf8(&output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().collect()
}

/// Asserts that the example ends with an error that says how to start a server.
fn fails_with(output: &Output, fix: &str) {
    let errors = str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(fix) && errors.lines().count() == 1, "{errors}");
    assert!(!errors.contains("s3cret"), "{errors}");
}

/// The lines of two instances on a bus, apart from the time that the delete took.
fn two_instances(output: &Output, bus: &str) {
    let lines = lines(output);
    assert_eq!(
        lines[..3],
        [
            "instances one and two are subscribed",
            "both have loaded user 7 from the database: Some(\"Ada\")",
            "one: the database now says Grace, so one deletes user 7 from the cache",
        ]
    );
    let deleted = format!("two: user 7 was deleted here too, over {bus}, ");
    assert!(lines[3].starts_with(&deleted), "{lines:?}");
    assert_eq!(lines[4..], ["two: loaded user 7 from the database: Grace"]);
}

#[test]
fn quickstart_loads_once_hits_and_loads_again_after_a_delete() {
    let output = run("quickstart", ("UNUSED", ""));
    assert_eq!(
        lines(&output),
        [
            "two callers got \"user 7\" and \"user 7\" from 1 load",
            "the next call got \"user 7\" from L1",
            "after the delete, the value came from Loader",
        ]
    );
}

#[test]
fn a_delete_reaches_the_other_instance_over_jetstream() {
    let server = NatsServer::start();
    two_instances(&run("jetstream", ("NATS_URL", &server.url())), "JetStream");
}

#[test]
fn a_delete_reaches_the_other_instance_over_rabbitmq() {
    let broker = RabbitServer::shared();
    two_instances(&run("rabbitmq", ("AMQP_URL", &broker.url())), "RabbitMQ");
}

#[test]
fn without_a_server_an_example_ends_with_the_fix() {
    let port = free_port();
    let url = format!("nats://user:s3cret@127.0.0.1:{port}");
    fails_with(&run("jetstream", ("NATS_URL", &url)), "`nats-server -js`");
    let url = format!("amqp://user:s3cret@127.0.0.1:{port}");
    fails_with(&run("rabbitmq", ("AMQP_URL", &url)), "`rabbitmq-server`");
    let server = NatsServer::start_without_jetstream();
    fails_with(&run("jetstream", ("NATS_URL", &server.url())), "`nats-server -js`");
}
