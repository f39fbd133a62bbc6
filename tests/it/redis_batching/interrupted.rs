//! Reads between whose commands another client changes the keys: Redis executes the commands of a
//! pipeline as they arrive, and a packet may end between any two of them.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lazy_layers_cache::Publication;

use super::*;

const KEYS: [&str; 3] = ["a", "b", "c"];
const NEVER: usize = usize::MAX;

/// A proxy to a Redis, which calls a function between two commands of its client.
struct Interrupter {
    port: u16,
    /// The number of commands that still pass before the function is called.
    passing: Arc<AtomicUsize>,
}

impl Interrupter {
    fn to(server: &RedisServer, interrupt: impl Fn() + Clone + Send + 'static) -> Self {
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
                    copy(client, server, |bytes| next_stop(bytes, &counter), interrupt);
                });
            }
        });
        Self { port, passing }
    }

    fn interrupt_after(&self, commands: usize) {
        self.passing.store(commands, Ordering::SeqCst);
    }

    /// Returns true if the client was interrupted: it sent more than the commands that pass.
    fn has_interrupted(&self) -> bool {
        self.passing.swap(NEVER, Ordering::SeqCst) == NEVER
    }
}

/// Counts the commands in these bytes, and returns where the one begins that must wait.
fn next_stop(bytes: &[u8], passing: &AtomicUsize) -> Option<usize> {
    let is_start = |at: &usize| bytes[*at] == b'*' && (*at == 0 || bytes[at - 1] == b'\n');
    (0..bytes.len()).filter(is_start).find(|_| {
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

/// Another client replaces every value between two commands of a read, whichever two: a value never
/// gets more time than it was written with.
#[tokio::test]
async fn a_value_that_is_replaced_during_a_read_gets_no_more_time_than_its_own() {
    let server = RedisServer::start();
    let direct = store(&server);
    for (old, new) in [(60_000, 900), (900, 60_000)] {
        for with_window in [false, true] {
            for callers in 1..=KEYS.len() {
                let url = server.url();
                let proxy = Interrupter::to(&server, move || {
                    let mut redis = redis::Client::open(&*url).unwrap().get_connection().unwrap();
                    for key in KEYS {
                        let mut set = redis::cmd("SET");
                        set.arg(format!("cache:{key}")).arg("new").arg("PX").arg(new);
                        set.exec(&mut redis).unwrap();
                    }
                });
                let url = format!("redis://127.0.0.1:{}/", proxy.port);
                let reader = RedisStore::at(url).build().unwrap();
                assert_eq!(reader.get("other", with_window).await.unwrap(), None, "connected");
                let mut passing = 0;
                loop {
                    for key in KEYS {
                        let lease = direct.acquire_write_lease(key, ms(5_000)).await.unwrap();
                        let (value, ttl, stale_for) = (b"old".to_vec(), ms(old), ms(50_000));
                        let value = Publication::Value { value, ttl, stale_for };
                        assert!(direct.publish(key, &lease.unwrap(), value).await.unwrap());
                    }
                    proxy.interrupt_after(passing);
                    let reads = KEYS.into_iter().take(callers).map(|key| {
                        let reader = reader.clone();
                        async move { reader.get(key, with_window).await.unwrap() }
                    });
                    for found in at_once(&server, reads).await {
                        let StoredValue { value, ttl, .. } = found.expect("there is a value");
                        let written_with = if value == b"old" { old } else { new };
                        assert!(
                            ttl.is_some_and(|ttl| ttl <= ms(written_with)),
                            "{ttl:?} instead of {written_with} ms, window: {with_window}, before \
                             command {passing} of {callers} callers"
                        );
                    }
                    if !proxy.has_interrupted() {
                        break;
                    }
                    passing += 1;
                }
                assert!(passing >= 2 * callers, "{passing} commands of {callers} callers");
            }
        }
    }
}
