//! A flood of well-formed messages by thousands of publishers, over NATS: the memory of a cache
//! stays within its bounds, and its calls are answered at once. The cache is in a child process.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::{LazyLayersCache, NatsConnection, NatsOptions, NatsTransport, WireCodec};
use serde_json::json;

use crate::{
    nats_floods::{MAX_GROWTH, argument, report, status, subscribed, while_child_runs},
    support::{Broken, ms, nats::NatsServer},
};

type Cache = LazyLayersCache<String, String>;

const PUBLISHERS: usize = 3_000;
const FLOOD: Duration = Duration::from_secs(5);
/// The longest that 99 of 100 hits and loads may take, on a machine that runs them at once. Code
/// that is not optimised needs some 100 us for a message instead of a few. A load that waits for
/// its turn behind 64 messages, or for a lock under which thousands of publishers are looked at, is
/// late then. No call may wait until all messages are processed, which takes seconds.
const MAX_P99: [Duration; 2] =
    if cfg!(debug_assertions) { [ms(10), ms(250)] } else { [ms(10), ms(10)] };

/// How long calls took, and what the machine adds.
#[derive(Default)]
struct Times {
    hits: Vec<Duration>,
    loads: Vec<Duration>,
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Measures calls until `is_over`.
async fn call(cache: Cache, is_over: Arc<AtomicBool>) -> Times {
    let mut times = Times::default();
    for number in 0u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let load = || async { Ok::<_, Broken>("value".to_owned()) };
        for (key, times) in
            [("hot", &mut times.hits), (&*format!("cold:{number}"), &mut times.loads)]
        {
            let since = Instant::now();
            cache.get_or_set(key, load).await.unwrap();
            times.push(since.elapsed());
        }
        tokio::time::sleep(ms(1)).await;
    }
    times
}

/// How much longer than at best a thread needs for some milliseconds of work, in 99 of 100 cases:
/// what the machine adds to a call that is descheduled, or waits for a thread that is.
fn lateness(is_over: &AtomicBool) -> Duration {
    let mut times = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let since = Instant::now();
        black_box((0..100_000).fold(0u64, |sum, number| black_box(sum ^ number)));
        times.push(since.elapsed());
        std::thread::sleep(ms(5));
    }
    p99(&mut times).saturating_sub(times[0])
}

/// The child. In any other process it returns at once.
#[test]
fn flooded() {
    let Some(url) = argument() else { return };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let connection = NatsConnection::default().servers([url]);
    let transport = NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    let builder = Cache::builder().name("flooded").ttl(ms(600_000));
    let cache = builder.event_bus(transport, WireCodec::new()).build().unwrap();
    runtime.block_on(cache.ready()).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let calls = runtime.spawn(call(cache.clone(), Arc::clone(&is_over)));
    let machine = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || lateness(&is_over)
    });
    let before = status("VmRSS:");
    subscribed();
    is_over.store(true, Ordering::Relaxed);
    let mut times = runtime.block_on(calls).unwrap();
    let growth = status("VmHWM:").saturating_sub(before);
    let (count, received) = (times.hits.len(), cache.stats().events_received);
    let (hits, loads) = (p99(&mut times.hits), p99(&mut times.loads));
    let machine = machine.join().unwrap();
    let micros = [hits, loads, machine].map(|it| it.as_micros().to_string()).join(" ");
    report(&format!("{growth} {micros} {count} {received}"));
}

/// A delete, a `set` or a loaded value, with the next number of its publisher.
fn message(publisher: usize, seq: usize) -> Vec<u8> {
    let key = format!("key:{}", (publisher * 7 + seq * 13) % 20_000);
    let mut message = json!({
        "id": format!("{publisher}-{seq}"), "source": format!("source-{publisher}"), "ts": 1,
        "namespace": "flooded", "keys": [key], "inc": format!("incarnation-{publisher}"),
        "seq": seq, "due": 1_000, "idle": 5, "type": "del",
    });
    if !seq.is_multiple_of(3) {
        message["type"] = json!("set");
        message["value"] = json!("x".repeat(100));
        message["ttlMs"] = json!(60_000);
        message["prime"] = json!(seq % 3 == 2);
    }
    [b"HC1M".to_vec(), rmp_serde::to_vec(&message).unwrap()].concat()
}

/// Publishes as fast as one client can. Returns how many messages that were.
async fn flood(server: &NatsServer) -> usize {
    let client = async_nats::connect(server.url()).await.unwrap();
    let since = Instant::now();
    for number in 0.. {
        let message = message(number % PUBLISHERS, number / PUBLISHERS);
        client.publish("cache.invalidations", message.into()).await.unwrap();
        if number % 256 == 0 {
            client.flush().await.unwrap();
            if since.elapsed() > FLOOD {
                return number;
            }
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_publishers_leave_calls_fast_and_memory_bounded() {
    let server = NatsServer::start();
    let name = concat!(module_path!(), "::flooded").split_once("::").unwrap().1;
    let mut sent = 0;
    let flood = async { sent = flood(&server).await };
    let answer = while_child_runs(name, &server.url(), flood).await;
    let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().unwrap()).collect();
    let [growth, hits, loads, machine, count, received] = numbers[..] else { panic!("{answer}") };
    println!(
        "{sent} messages sent, {received} applied; memory grew by {} KiB; p99 of {count} hits \
         {hits} us, of loads {loads} us, of a thread that computes {machine} us late",
        growth >> 10,
    );
    assert!(growth < MAX_GROWTH, "{growth} bytes");
    assert!(sent > PUBLISHERS && received > 1_000, "{sent} sent, {received} applied");
    // A call is descheduled some times on a machine that runs other programs, and so is the thread
    // whose lock it waits for.
    for (p99, most) in [hits, loads].into_iter().zip(MAX_P99) {
        let most = most.as_micros() as u64 + 3 * machine;
        assert!(p99 <= most, "{hits} and {loads} us, machine {machine} us");
    }
}
