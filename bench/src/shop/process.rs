//! The parent's handle of a process of the shop: this program again, controlled by lines.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::{
    child::{CHILD, Histogram},
    workload::Changes,
};

pub(super) struct Process {
    child: Child,
    tell: ChildStdin,
    answers: BufReader<ChildStdout>,
}

pub(super) struct Answer {
    pub(super) requests: f64,
    pub(super) seconds: f64,
    pub(super) loads: f64,
    pub(super) failures: f64,
    pub(super) latencies: Histogram,
}

impl Process {
    pub(super) fn start(contender: usize, url: &str, number: usize, changes: Changes) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a path to this program"))
            .args([CHILD, &contender.to_string(), url, &number.to_string(), changes.say()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let tell = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, tell, answers }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its cache is warm.
    pub(super) fn ready(&mut self) {
        assert_eq!(self.answer(), "ready", "a child of the shop");
    }

    pub(super) fn open(&mut self) {
        writeln!(self.tell, "open").expect("the child lives");
    }

    pub(super) fn report(&mut self) -> Answer {
        let answer = self.answer();
        let mut words = answer.split(' ');
        let mut number = || -> f64 {
            let word = words.next().expect("a report of that length");
            word.parse().expect("a number")
        };
        let (requests, seconds, loads, failures) = (number(), number(), number(), number());
        Answer { requests, seconds, loads, failures, latencies: Histogram::said(words) }
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the child lives");
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
