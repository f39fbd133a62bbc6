//! A burst of 100,000 deletes, one message each, for one instance: messages applied per second on
//! one thread, and the memory of the queued messages, in a process of its own.

use std::time::{Duration, Instant};

use lazy_layers_cache::{Codec, LazyLayersCache, LocalTransport, Transport, WireCodec};
use serde::{Deserialize, Serialize};

use crate::{
    measure::{block_on, in_a_process, median, resident},
    report::Report,
};

/// The measure of a child process: one round. Its argument is the number of the round.
pub(crate) const BURST: &str = "--burst";

const NAME: &str = "bench";
const EVENTS: usize = 100_000;
const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(30);
const MIB: f64 = (1 << 20) as f64;

/// A message as another instance encodes it.
#[derive(Serialize, Deserialize)]
struct Delete {
    id: String,
    namespace: String,
    source: String,
    ts: u64,
    inc: String,
    seq: u64,
    #[serde(rename = "type")]
    kind: String,
    keys: Vec<String>,
}

pub(crate) fn run(report: &mut Report) {
    report.title("100,000 events at once, local transport, one thread");
    let mut rates = Vec::new();
    let mut most_grown = 0f64;
    for round in 0..ROUNDS {
        let figures = in_a_process(BURST, &round.to_string());
        rates.push(figures[0]);
        most_grown = most_grown.max(figures[1]);
    }
    let rate = median(rates);
    report.check(&format!("{rate:>9.0} events/s applied, at least 200,000"), rate >= 200_000.0);
    let grown = most_grown / MIB;
    report.check(&format!("{grown:>9.1} MiB more memory, at most 64"), grown <= 64.0);
    report.end();
}

/// Messages per second, and the growth of memory in bytes while all of them were queued.
pub(crate) fn burst(round: &str) -> Vec<f64> {
    block_on(one_round(round)).into()
}

async fn one_round(round: &str) -> [f64; 2] {
    let transport = LocalTransport::with_capacity(2 * EVENTS);
    let cache = LazyLayersCache::<String, u32>::builder()
        .name(NAME)
        .event_bus(transport.clone(), WireCodec::new())
        .build()
        .expect("valid options");
    cache.ready().await.expect("it listens");
    for key in 0..10_000 {
        cache.set(&key.to_string(), 7u32).await.expect("it is open");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let events: Vec<Vec<u8>> = (0..EVENTS).map(|number| event(round, number)).collect();
    let before = (resident(), cache.stats().events_received);
    for event in &events {
        transport.publish(event).await.expect("it takes all");
    }
    let begun = Instant::now();
    let mut most = resident();
    while cache.stats().events_received - before.1 < EVENTS as u64 {
        most = most.max(resident());
        assert!(begun.elapsed() < LIMIT, "some events were not applied: {:?}", cache.stats());
        tokio::task::yield_now().await;
    }
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(cache.stats().bus_gaps, 0, "nothing was lost");
    cache.close().await;
    [EVENTS as f64 / took, most - before.0]
}

fn event(round: &str, number: usize) -> Vec<u8> {
    let event = Delete {
        id: format!("{round}:{number}"),
        namespace: NAME.into(),
        source: "another".into(),
        ts: 1_800_000_000_000,
        inc: format!("incarnation{round}"),
        seq: number as u64,
        kind: "del".into(),
        keys: vec![format!("{}", number % 20_000)],
    };
    WireCodec::new().encode(&event).expect("it can be said")
}
