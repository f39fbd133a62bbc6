//! Idle instances: messages on the wire, and processor time.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    LazyLayersCache, WireCodec,
    testing::{BusLink, SharedBus},
};

use super::processor_seconds;
use crate::{measure::block_on, report::Report};

const WATCHED: Duration = Duration::from_secs(10);
type Cache = LazyLayersCache<String, u32>;

pub(crate) fn run(report: &mut Report) {
    report.title("idle instances, 10 s, each of which has published once");
    let mut per_second = Vec::new();
    for instances in [1, 10, 50] {
        let (messages, percent) = block_on(idle(instances));
        report.line(&format!(
            "{instances:>2} instances: {messages:>5.1} messages/s in all, {:>6.3} % of a processor \
             for each",
            percent / instances as f64
        ));
        per_second.push(messages / instances as f64);
    }
    let most = per_second.iter().copied().fold(0.0, f64::max);
    report.check(&format!("at most {most:.2} messages/s by an instance, at most 2"), most <= 2.0);
    report.end();
}

/// Messages per second of all instances, and the share of one processor in percent.
async fn idle(instances: usize) -> (f64, f64) {
    let bus = SharedBus::new(1);
    let caches: Vec<Cache> = (0..instances).map(|_| build(&bus.link())).collect();
    for cache in &caches {
        cache.ready().await.expect("it listens");
        cache.delete("k").await.expect("it is open");
    }
    // Waits until the frequent beacons after a publication are over.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (before, used, begun) = (bus.published(), processor_seconds(), Instant::now());
    tokio::time::sleep(WATCHED).await;
    let seconds = begun.elapsed().as_secs_f64();
    let percent = (processor_seconds() - used) / seconds * 100.0;
    ((bus.published() - before) as f64 / seconds, percent)
}

fn build(link: &BusLink) -> Cache {
    let built = Cache::builder().name("bench").event_bus(link.clone(), WireCodec::new()).build();
    built.expect("valid options")
}
