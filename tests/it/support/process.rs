//! Parts that the servers of the tests share: a process that can be killed and frozen, a free port,
//! a temporary directory, and waiting with a deadline.

use std::{
    ffi::OsString,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

/// A process that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program whose Debian package is `package`.
    pub(crate) fn start(command: &mut Command, package: &str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "{} does not start ({error}): these tests need it; install it with \
                 `apt-get install {package}`, or run scripts/test",
                command.get_program().display()
            )
        });
        Self(child)
    }

    /// Takes over a child with its pipes.
    pub(crate) fn of(child: Child) -> Self {
        Self(child)
    }

    pub(crate) fn exited(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Kills the process at once: it cannot save its data, and the kernel closes its sockets.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Stops the process, while the kernel still accepts connections and bytes for it.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        // The signal is only a request. `waitid` reports when the last thread has stopped.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        wait_for("a process at rest", Duration::from_secs(10), || {
            waitid(WaitId::Pid(Pid::from_child(&self.0)), stopped).expect("the process runs")
        });
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks the process to read its configuration again.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("the process runs");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that is deleted with its owner.
pub(crate) fn own_dir() -> TempDir {
    tempfile::Builder::new().prefix("lazy-layers-cache-").tempdir().unwrap()
}

/// Returns a loopback port that is free now, and likely to stay free while its server is down: it
/// is below the range from which the kernel takes ports for outgoing connections, and is never
/// returned twice.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at the same time begin far apart.
    let start = (std::process::id() as u16).wrapping_mul(3_001);
    loop {
        let step = NEXT.fetch_add(1, Ordering::SeqCst);
        assert!(step < COUNT, "no port is free");
        let port = FIRST + start.wrapping_add(step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Calls `ask` until it returns an answer; panics after `patience`.
pub(crate) fn wait_for<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns `PATH` with these directories first.
pub(crate) fn path_with(dirs: &[&str]) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = dirs.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    std::env::join_paths(dirs).unwrap()
}
