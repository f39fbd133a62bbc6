//! A proxy to a Redis that stops a client between two of its commands, so that a test can do what
//! another client might do there.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::redis::RedisServer;

/// Calls a function between two commands of its client.
pub(crate) struct Interrupter {
    pub(crate) port: u16,
    /// The number of commands that still pass before the function is called.
    passing: Arc<AtomicUsize>,
}

const NEVER: usize = usize::MAX;

impl Interrupter {
    /// Counts commands of this name only, or all if it is empty.
    pub(crate) fn to(
        server: &RedisServer,
        name: &'static str,
        interrupt: impl Fn() + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, redis) = (listener.local_addr().unwrap().port(), server.port());
        let passing = Arc::new(AtomicUsize::new(NEVER));
        let counter = Arc::clone(&passing);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", redis)) else { return };
                let (replies, caller) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || copy(replies, caller, |_| None, || ()));
                let (counter, interrupt) = (Arc::clone(&counter), interrupt.clone());
                std::thread::spawn(move || {
                    copy(client, server, |bytes| next_stop(bytes, name, &counter), interrupt);
                });
            }
        });
        Self { port, passing }
    }

    pub(crate) fn interrupt_after(&self, commands: usize) {
        self.passing.store(commands, Ordering::SeqCst);
    }

    /// Returns true if the client was interrupted: it sent more than the commands that pass.
    pub(crate) fn has_interrupted(&self) -> bool {
        self.passing.swap(NEVER, Ordering::SeqCst) == NEVER
    }
}

/// Counts the commands in these bytes, and returns where the one begins that must wait.
fn next_stop(bytes: &[u8], name: &str, passing: &AtomicUsize) -> Option<usize> {
    let is_start = |at: &usize| bytes[*at] == b'*' && (*at == 0 || bytes[at - 1] == b'\n');
    let is_named = |at: &usize| {
        let third_line = bytes[*at..].split(|byte| *byte == b'\n').nth(2);
        third_line.is_some_and(|line| line.starts_with(name.as_bytes()))
    };
    (0..bytes.len()).filter(is_start).filter(is_named).find(|_| {
        let left = passing.load(Ordering::SeqCst);
        // 0 becomes NEVER.
        passing.store(if left == NEVER { NEVER } else { left.wrapping_sub(1) }, Ordering::SeqCst);
        left == 0
    })
}

/// Copies bytes, and calls the function where `stop` says.
fn copy(
    mut from: TcpStream,
    mut to: TcpStream,
    stop: impl Fn(&[u8]) -> Option<usize>,
    interrupt: impl Fn(),
) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..length];
        let (before, after) = bytes.split_at(stop(bytes).unwrap_or(length));
        if to.write_all(before).is_err() {
            break;
        }
        if !after.is_empty() {
            interrupt();
        }
        if to.write_all(after).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
