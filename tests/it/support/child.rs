//! Child processes of a test, which stand for caches on other machines. A child carries out
//! commands that its parent sends as lines.
//!
//! A child is this test binary, run for the one test [`child`], which returns at once in any other
//! process. So children run the code under test, and no further binary has to be built. The test
//! harness writes to stdout too, so answers begin with a mark.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use super::{instance::Instance, process::Process, slow_subscriber::SlowSubscriber};

const IN_A_CHILD: &str = "LAZY_LAYERS_CACHE_TEST_CHILD";
const MARK: &str = "child: ";
/// The limit for an expected answer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Child {
    process: Process,
    commands: ChildStdin,
    answers: Receiver<String>,
}

impl Child {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([concat!(module_path!(), "::child").split_once("::").unwrap().1, "--exact"])
            .args(["--nocapture", "--test-threads=1"])
            .env(IN_A_CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The harness does not end its own first line.
                if let Some((_, answer)) = line.split_once(MARK)
                    && sender.send(answer.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { process: Process::of(child), commands, answers }
    }

    /// Sends a line and waits for the answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.answer(PATIENCE).expect("the child answers")
    }

    /// Sends a line; [`answer`](Self::answer) returns its answer, if a test asks for it.
    pub(crate) fn send(&mut self, command: &str) {
        assert!(!command.contains('\n'), "a command is one line: {command:?}");
        writeln!(self.commands, "{command}").expect("the child listens");
    }

    /// Returns the next answer. The error distinguishes a timeout from the end of the child.
    pub(crate) fn answer(&mut self, patience: Duration) -> Result<String, RecvTimeoutError> {
        self.answers.recv_timeout(patience)
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }
}

/// The main loop of a child, until its parent closes the pipe or dies. In any other process it
/// returns at once.
#[test]
fn child() {
    if std::env::var_os(IN_A_CHILD).is_none() {
        return;
    }
    let (mut cache, mut subscriber) = (None, None);
    for line in std::io::stdin().lines().map_while(Result::ok) {
        println!("{MARK}{}", obey(&line, &mut cache, &mut subscriber));
    }
}

/// Carries out a command. `cache` holds the child's instance, `subscriber` its subscription.
fn obey(
    line: &str,
    cache: &mut Option<Instance>,
    subscriber: &mut Option<SlowSubscriber>,
) -> String {
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["ping"] => "pong".to_owned(),
        ["process"] => std::process::id().to_string(),
        ["cache", url, lock_ttl] => {
            *cache = Some(Instance::over(url, lock_ttl.parse().unwrap()));
            "ready".to_owned()
        }
        ["load", key, callers, takes] => {
            let (callers, takes) = (callers.parse().unwrap(), takes.parse().unwrap());
            cache.as_ref().unwrap().load(key, callers, takes)
        }
        ["join", url] => {
            *cache = Some(Instance::on_the_bus_of(url));
            "ready".to_owned()
        }
        ["read", from, to] => {
            cache.as_ref().unwrap().read(from.parse().unwrap(), to.parse().unwrap())
        }
        ["write", from, to] => {
            cache.as_ref().unwrap().write(from.parse().unwrap(), to.parse().unwrap())
        }
        ["subscribe", url] => {
            *subscriber = Some(SlowSubscriber::at(url));
            "ready".to_owned()
        }
        ["call"] => subscriber.as_ref().unwrap().call(),
        ["take"] => subscriber.as_mut().unwrap().take_all(),
        ["health"] => cache.as_ref().unwrap().health(),
        _ => format!("unknown command {line:?}"),
    }
}
