//! Floods on the NATS subject: the memory of an instance with a slow subscriber stays bounded, and
//! its other tasks go on. The instance is a child process, so that its memory can be measured.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    Delivery, JetStreamOptions, JetStreamStorage, JetStreamTransport, NatsConnection, NatsOptions,
    NatsTransport, Transport,
};

use tokio::time::timeout;

use crate::support::{
    ms,
    nats::NatsServer,
    process::Process,
    transports::{loss, next, retry},
};

/// The transport and the server of a child.
const IN_A_CHILD: &str = "LAZY_LAYERS_CACHE_FLOODED";
const MARK: &str = "flooded: ";
/// The default of `queue_max_bytes`, and what all else may take.
pub(crate) const MAX_GROWTH: u64 = (32 + 64) << 20;
const MEGABYTE: usize = 1 << 20;

#[derive(Debug)]
struct Report {
    /// How much the memory had grown at its peak, in bytes.
    growth: u64,
    /// How late a timer was at most.
    late: Duration,
    first: String,
}

fn transport(kind: &str, url: &str) -> Box<dyn Transport> {
    let connection = NatsConnection::default().servers([url]);
    if kind == "jetstream" {
        let options = JetStreamOptions::durable("flooded").connection(connection);
        let options = options.storage(JetStreamStorage::Memory).max_messages(400);
        Box::new(JetStreamTransport::new(options).unwrap())
    } else {
        Box::new(NatsTransport::new(NatsOptions::default().connection(connection)).unwrap())
    }
}

/// Runs a child while `flood` runs, and returns its report.
async fn while_flooded(kind: &str, server: &NatsServer, flood: impl Future<Output = ()>) -> Report {
    let name = concat!(module_path!(), "::flooded").split_once("::").unwrap().1;
    let argument = format!("{kind} {}", server.url());
    let answer = while_child_runs(name, &argument, Box::pin(flood)).await;
    let [growth, late, first] = answer.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{answer}")
    };
    let (growth, late) = (growth.parse().unwrap(), ms(late.parse().unwrap()));
    Report { growth, late, first: first.to_owned() }
}

/// Runs a test in a child with this argument. Runs `flood` once the child is [`subscribed`], and
/// returns the child's report.
pub(crate) async fn while_child_runs(
    test: &str,
    argument: &str,
    flood: impl Future<Output = ()>,
) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(IN_A_CHILD, argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut commands = child.stdin.take().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut answers = lines.filter_map(|it| it.split_once(MARK).map(|(_, it)| it.to_owned()));
    let _child = Process::of(child);
    assert_eq!(answers.next().unwrap(), "subscribed");
    flood.await;
    commands.write_all(b"report\n").unwrap();
    answers.next().unwrap()
}

/// The argument of a child. `None` in any other process.
pub(crate) fn argument() -> Option<String> {
    std::env::var(IN_A_CHILD).ok()
}

/// A child is subscribed. Returns when its parent asks for the report.
pub(crate) fn subscribed() {
    println!("{MARK}subscribed");
    std::io::stdin().lines().next().unwrap().unwrap();
}

pub(crate) fn report(report: &str) {
    println!("{MARK}{report}");
}

/// The child. In any other process it returns at once.
#[test]
fn flooded() {
    let Some(at) = argument() else { return };
    let (kind, url) = at.split_once(' ').unwrap();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let late = Arc::new(AtomicU64::new(0));
    runtime.spawn({
        let late = Arc::clone(&late);
        async move {
            loop {
                let since = Instant::now();
                tokio::time::sleep(ms(5)).await;
                let took = since.elapsed().saturating_sub(ms(5));
                late.fetch_max(took.as_millis() as u64, Ordering::Relaxed);
            }
        }
    });
    if kind == "blocked" {
        // A handler of the application that blocks its thread all the time.
        runtime.spawn(async {
            loop {
                std::thread::sleep(ms(300));
                tokio::task::yield_now().await;
            }
        });
    }
    let transport = transport(kind, url);
    let mut messages = runtime.block_on(transport.subscribe()).unwrap().messages;
    // The first poll requests messages of JetStream.
    let _ = runtime.block_on(async { timeout(ms(100), messages.next()).await });
    let before = status("VmRSS:");
    subscribed();
    // What the server has for us has arrived once it answers.
    runtime.block_on(retry(async || transport.ping().await));
    let growth = status("VmHWM:").saturating_sub(before);
    let first = runtime.block_on(next(&mut *messages));
    let first = match first {
        Delivery::Message(_) => "message".to_owned(),
        other => format!("{other:?}"),
    };
    report(&format!("{growth} {} {first}", late.load(Ordering::Relaxed)));
    // Another end of the process would not leave the parent waiting either.
    drop(messages);
}

/// Memory of this process in bytes, now (`VmRSS:`) or at its peak (`VmHWM:`).
pub(crate) fn status(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

async fn flood(server: &NatsServer, count: usize, size: usize) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let message = bytes(size);
    for index in 0..count {
        client.publish("cache.invalidations", message.clone().into()).await.unwrap();
        if index % 64 == 0 {
            client.flush().await.unwrap();
        }
    }
    // An answer: the server has processed all of it.
    let mut inbox = client.subscribe("flood.end").await.unwrap();
    client.publish("flood.end", "".into()).await.unwrap();
    futures_util::StreamExt::next(&mut inbox).await.unwrap();
}

fn bytes(size: usize) -> Vec<u8> {
    vec![b'x'; size]
}

fn large_messages() -> usize {
    std::env::var("FLOOD").map_or(600, |count| count.parse().unwrap())
}

#[tokio::test]
async fn large_messages_and_a_slow_subscriber_of_nats_core() {
    let server = NatsServer::start();
    for kind in ["core", "blocked"] {
        let flood = flood(&server, large_messages(), MEGABYTE);
        let report = while_flooded(kind, &server, flood).await;
        eprintln!("{kind}: {report:?}");
        // The server disconnects a client that reads too slowly, on a busy machine.
        assert!(["Gap", "Closed"].contains(&&*report.first), "{kind}: {report:?}");
        assert!(report.growth < MAX_GROWTH, "{kind}: {report:?}");
        assert!(report.late < ms(5_000), "{kind}: {report:?}");
    }
}

#[tokio::test]
async fn many_small_messages_and_a_slow_subscriber_of_nats_core() {
    let server = NatsServer::start();
    for kind in ["core", "blocked"] {
        let flood = flood(&server, 300_000, 120);
        let report = while_flooded(kind, &server, flood).await;
        eprintln!("{kind}: {report:?}");
        // The server disconnects a client that reads too slowly, on a busy machine.
        assert!(["Gap", "Closed"].contains(&&*report.first), "{kind}: {report:?}");
        assert!(report.growth < MAX_GROWTH, "{kind}: {report:?}");
        assert!(report.late < ms(5_000), "{kind}: {report:?}");
    }
}

#[tokio::test]
async fn large_messages_and_a_slow_subscriber_of_jetstream() {
    let server = NatsServer::start();
    let publisher = transport("jetstream", &server.url());
    let largest = bytes(MEGABYTE);
    let report = while_flooded("jetstream", &server, async {
        for _ in 0..400 {
            publisher.publish(&largest).await.unwrap();
        }
    })
    .await;
    eprintln!("{report:?}");
    assert_eq!(report.first, "message", "{report:?}");
    assert!(report.growth < MAX_GROWTH, "{report:?}");
    assert!(report.late < ms(5_000), "{report:?}");
}

/// The bound on the bytes of a request keeps no message from its subscriber.
#[tokio::test]
async fn the_largest_messages_arrive_over_jetstream_with_a_small_queue() {
    let server = NatsServer::start();
    let options = JetStreamOptions::durable("a").queue_max_bytes(1);
    let connection = NatsConnection::default().servers([server.url()]);
    let transport = JetStreamTransport::new(options.connection(connection)).unwrap();
    let mut messages = transport.subscribe().await.unwrap().messages;
    for size in [MEGABYTE, 10, MEGABYTE, MEGABYTE - 1, MEGABYTE, 0, MEGABYTE] {
        transport.publish(&bytes(size)).await.unwrap();
    }
    for size in [MEGABYTE, 10, MEGABYTE, MEGABYTE - 1, MEGABYTE, 0, MEGABYTE] {
        let Delivery::Message(message) = next(&mut *messages).await else { panic!("no message") };
        assert_eq!(message.len(), size);
    }
}

#[tokio::test]
async fn a_message_beyond_the_bytes_of_the_queue_becomes_a_gap() {
    let server = NatsServer::start();
    let options = NatsOptions::default().queue_max_bytes(1_000);
    let connection = NatsConnection::default().servers([server.url()]);
    let transport = NatsTransport::new(options.connection(connection)).unwrap();
    let mut messages = transport.subscribe().await.unwrap().messages;
    transport.publish(&bytes(1_000)).await.unwrap();
    assert_eq!(next(&mut *messages).await, Delivery::Message(bytes(1_000)));
    transport.publish(&bytes(1_001)).await.unwrap();
    assert_eq!(loss(&mut *messages).await.0, Delivery::Gap);
    transport.publish(&bytes(1)).await.unwrap();
    assert_eq!(next(&mut *messages).await, Delivery::Message(bytes(1)));
}
