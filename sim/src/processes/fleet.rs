//! A fleet of processes: started, killed, frozen, cut off and started again from outside, and what
//! is known of it from there.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use super::{
    instance::InstanceConfig,
    monotonic_env::now,
    servers::{process::Process, proxy::Proxy},
};
use crate::history::{FaultWindow, Incarnation};

/// For an answer that is expected.
const PATIENCE: Duration = Duration::from_secs(120);

struct Child {
    process: Process,
    commands: ChildStdin,
    answers: Receiver<String>,
}

impl Child {
    fn start(config: &InstanceConfig) -> Self {
        let told = serde_json::to_string(config).expect("a configuration can be written");
        let errors = File::create(config.dir.join(format!("errors-{}", config.by)));
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args(["--live", &told])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.expect("a directory of our own"))
            .spawn()
            .expect("a process");
        let commands = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let all = lines.map_while(Result::ok);
            all.map(|slow_transport| sender.send(slow_transport))
                .take_while(Result::is_ok)
                .for_each(drop);
        });
        Self { process: Process::of(child), commands, answers }
    }
}

/// The ways of one instance that can be broken.
pub(super) struct Ways {
    pub(super) bus: Proxy,
    pub(super) level: Proxy,
}

pub(super) struct Fleet {
    /// What all have in common.
    config: InstanceConfig,
    children: Vec<Child>,
    /// By slot; `None`: straight.
    pub(super) ways: Vec<Option<Ways>>,
    pub(super) incarnations: Vec<Incarnation>,
    pub(super) fault_windows: Vec<FaultWindow>,
}

pub(super) const SLOTS: usize = 4;
/// Those of which ways can be broken: one whose deletes are confirmed, and one whose are not.
pub(super) const FAR: [usize; 2] = [1, 3];
/// Until a process listens that was just started.
const STARTS: u64 = 3_000;

impl Fleet {
    pub(super) fn start(config: InstanceConfig) -> Self {
        let origin = |slot| {
            let ways =
                || Ways { bus: Proxy::to(config.bus_port), level: Proxy::to(config.level_port) };
            FAR.contains(&slot).then(ways)
        };
        let ways = (0..SLOTS).map(origin).collect();
        let mut fleet = Self {
            config,
            children: Vec::new(),
            ways,
            incarnations: Vec::new(),
            fault_windows: Vec::new(),
        };
        for slot in 0..SLOTS {
            let child = fleet.begin(slot);
            fleet.children.push(child);
        }
        fleet
    }

    fn begin(&mut self, slot: usize) -> Child {
        let (by, began) = (self.incarnations.len(), self.now());
        let confirms = slot < SLOTS / 2;
        self.incarnations.push(Incarnation { slot, began, ended: None, confirms });
        let starting = FaultWindow::new(Some(slot), began, began + STARTS);
        self.fault_windows.push(FaultWindow { disconnected: true, ..starting });
        let mut config = InstanceConfig { by, slot, confirms, ..self.config.clone() };
        config.seed ^= (by as u64) << 40;
        if let Some(ways) = &self.ways[slot] {
            (config.bus_port, config.level_port) = (ways.bus.port(), ways.level.port());
        }
        Child::start(&config)
    }

    /// Milliseconds of the history.
    pub(super) fn now(&self) -> u64 {
        (now() - self.config.start) / 1_000_000
    }

    pub(super) fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// As it stands.
    pub(super) fn kill(&mut self, slot: usize) {
        let by = self.incarnations.iter().rposition(|it| it.slot == slot).expect("it lives");
        self.children[slot].process.kill();
        self.incarnations[by].ended = Some(self.now());
    }

    /// Starts another in the place of one that was killed.
    pub(super) fn replace(&mut self, slot: usize) {
        self.children[slot] = self.begin(slot);
    }

    pub(super) fn freeze(&self, slot: usize) {
        self.children[slot].process.freeze();
    }

    pub(super) fn thaw(&self, slot: usize) {
        self.children[slot].process.thaw();
    }

    /// Tells all of them, and waits until all have done so. Who died of it, if one did.
    pub(super) fn tell(&mut self, what: &str) -> Result<(), String> {
        for child in &mut self.children {
            // Whoever is gone does not answer either.
            let _ = writeln!(child.commands, "{what}");
        }
        for (slot, child) in self.children.iter().enumerate() {
            if child.answers.recv_timeout(PATIENCE).is_err() {
                return Err(format!("the process of slot {slot} does not {what}"));
            }
        }
        Ok(())
    }
}
