//! The instance in JavaScript, tests/fixtures/wire/peer.mjs: told what to do line by line.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use super::process::Process;

/// For an answer that is expected.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct JavaScript {
    expressions: ChildStdin,
    results: Receiver<String>,
    _process: Process,
}

impl JavaScript {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(url: &str) -> Self {
        let mut child = Command::new("node")
            .args(["peer.mjs", url])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("node does not start ({error}): run scripts/mixed"));
        let expressions = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, results) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let peer = Self { expressions, results, _process: Process::of(child) };
        let greeting = peer.results.recv_timeout(PATIENCE);
        assert_eq!(greeting.as_deref(), Ok("ready"), "without its packages? run scripts/mixed");
        peer
    }

    /// What an expression about `peer` comes to, as `util.inspect` shows it.
    pub(crate) fn ask(&mut self, expression: &str) -> String {
        writeln!(self.expressions, "{expression}").unwrap();
        let result = self.results.recv_timeout(PATIENCE).expect(expression);
        assert!(!result.starts_with("! "), "{expression}: {result}");
        result
    }

    pub(crate) fn is(&mut self, expression: &str) -> bool {
        match self.ask(expression).as_str() {
            "true" => true,
            "false" => false,
            other => panic!("{expression} is {other}"),
        }
    }
}
