//! A fleet of processes, which this process starts, kills, freezes, disconnects and restarts.

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

/// The limit for an expected answer.
const PATIENCE: Duration = Duration::from_secs(120);

struct Child {
    process: Process,
    commands: ChildStdin,
    answers: Receiver<String>,
}

impl Child {
    fn start(config: &InstanceConfig) -> Self {
        let config_text = serde_json::to_string(config).expect("a configuration can be written");
        let errors = File::create(config.dir.join(format!("errors-{}", config.by)));
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args(["--instance", &config_text])
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
            all.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Self { process: Process::of(child), commands, answers }
    }
}

/// The proxies between one instance and its servers.
pub(super) struct Proxies {
    pub(super) bus: Proxy,
    pub(super) redis: Proxy,
}

pub(super) struct Fleet {
    /// The common configuration.
    config: InstanceConfig,
    children: Vec<Child>,
    /// By slot; `None`: a direct connection.
    pub(super) proxies: Vec<Option<Proxies>>,
    pub(super) incarnations: Vec<Incarnation>,
    pub(super) fault_windows: Vec<FaultWindow>,
}

pub(super) const SLOTS: usize = 4;
/// The slots behind proxies: one with confirmed deletes, one without.
pub(super) const FAR: [usize; 2] = [1, 3];
/// The slots whose cache is one of a manager: one behind proxies, one not.
const MANAGED: [usize; 2] = [1, 2];
/// The time until a process that was just started has subscribed.
const START: u64 = 3_000;

impl Fleet {
    /// The slots with even numbers use the first port of the bus, the others the second.
    pub(super) fn start(config: InstanceConfig, bus_ports: [u16; 2]) -> Self {
        let proxies_of = |slot: usize| {
            let bus = bus_ports[slot % 2];
            let proxies = || Proxies { bus: Proxy::to(bus), redis: Proxy::to(config.redis_port) };
            FAR.contains(&slot).then(proxies)
        };
        let proxies = (0..SLOTS).map(proxies_of).collect();
        let mut fleet = Self {
            config,
            children: Vec::new(),
            proxies,
            incarnations: Vec::new(),
            fault_windows: Vec::new(),
        };
        for slot in 0..SLOTS {
            let child = fleet.start_slot(slot);
            fleet.children.push(child);
        }
        fleet
    }

    fn start_slot(&mut self, slot: usize) -> Child {
        let (by, began) = (self.incarnations.len(), self.now());
        let confirms = slot < SLOTS / 2;
        self.incarnations.push(Incarnation { slot, began, ended: None, confirms });
        let starting = FaultWindow::new(Some(slot), began, began + START);
        self.fault_windows.push(FaultWindow { disconnected: true, ..starting });
        let mut config = InstanceConfig { by, slot, confirms, ..self.config.clone() };
        config.seed ^= (by as u64) << 40;
        config.is_managed = MANAGED.contains(&slot);
        if let Some(proxies) = &self.proxies[slot] {
            (config.bus_port, config.redis_port) = (proxies.bus.port(), proxies.redis.port());
        }
        Child::start(&config)
    }

    /// Milliseconds since the start of the history.
    pub(super) fn now(&self) -> u64 {
        (now() - self.config.start) / 1_000_000
    }

    /// The name of the cache of all instances.
    pub(super) fn cache(&self) -> &str {
        &self.config.cache
    }

    pub(super) fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Kills a process without a goodbye.
    pub(super) fn kill(&mut self, slot: usize) {
        let by = self.incarnations.iter().rposition(|it| it.slot == slot).expect("it lives");
        self.children[slot].process.kill();
        self.incarnations[by].ended = Some(self.now());
    }

    /// Starts a process in the slot of a killed one.
    pub(super) fn replace(&mut self, slot: usize) {
        self.children[slot] = self.start_slot(slot);
    }

    pub(super) fn freeze(&self, slot: usize) {
        self.children[slot].process.freeze();
    }

    pub(super) fn thaw(&self, slot: usize) {
        self.children[slot].process.thaw();
    }

    /// Sends an order to all processes, and waits until all have carried it out. An error names the
    /// slot of a process that did not answer.
    pub(super) fn order(&mut self, order: &str) -> Result<(), String> {
        for child in &mut self.children {
            // A dead process does not answer below.
            let _ = writeln!(child.commands, "{order}");
        }
        for (slot, child) in self.children.iter().enumerate() {
            if child.answers.recv_timeout(PATIENCE).is_err() {
                return Err(format!("the process of slot {slot} does not {order}"));
            }
        }
        Ok(())
    }
}
