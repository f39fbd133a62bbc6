//! A delete with 2 to 16 instances: the time until the last L1 has applied it, and the work and the
//! bytes of the server.

use std::time::Instant;

use lazy_layers_cache::{LazyLayersCache, RedisTransport, WireCodec};
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    drop_probe::Watched,
    measure::{median, workers},
    plot::Line,
    redis_process::Server,
    report::Report,
    server_counters::Counted,
};

const TIMES: usize = 200;

pub(super) fn run(report: &mut Report) {
    let runtime = workers(2);
    let mut lines = ["lazy-layers: us to the last", "commands, per delete", "bytes, per delete"]
        .map(|name| Line { name: name.to_owned(), points: Vec::new() });
    report.title("a delete among 2 to 16 instances over Redis Pub/Sub");
    for instances in [2, 4, 8, 16] {
        let (micros, commands, bytes) = runtime.block_on(fleet(instances));
        for (line, figure) in lines.iter_mut().zip([micros, commands, bytes]) {
            line.points.push((f64::from(instances), figure));
        }
        report.line(&format!(
            "{instances:>2} instances: {micros:>7.0} us until the last has dropped it, \
             {commands:>5.2} commands and {bytes:>6.0} bytes at the server"
        ));
    }
    let bytes = &lines[2].points;
    let (few, many) = (bytes[0].1 / bytes[0].0, bytes[3].1 / bytes[3].0);
    report.at_most("bytes per delete and instance, 16 to 2 instances", many / few, 1.25);
    report.lines("growth-instances", "instances", "", &lines);
    report.note(
        "All instances in one process, each with its own connections; no L2, so that a \
         delete is its event alone. Heartbeats are among what is counted.",
    );
    report.end();
}

async fn fleet(instances: u32) -> (f64, f64, f64) {
    let server = Server::start();
    let build = |_| {
        let transport = RedisTransport::at(server.url()).build().expect("valid options");
        LazyLayersCache::<String, Watched>::builder()
            .broadcast_set(false)
            .name("bench")
            .event_bus(transport, WireCodec::new())
            .build()
            .expect("valid options")
    };
    let caches: Vec<_> = (0..instances).map(build).collect();
    for cache in &caches {
        cache.ready().await.expect("it listens");
    }
    let (sender, mut gone) = unbounded_channel();
    let mut lags = Vec::new();
    let before = Counted::at(&server);
    let mut filled = before.commands;
    let mut bytes = before.bytes;
    let (mut commands_of_deletes, mut bytes_of_deletes) = (0.0, 0.0);
    for number in 0..TIMES {
        let key = format!("product:{number}");
        for cache in &caches[1..] {
            let watched = Watched { gone: Some(sender.clone()) };
            let load = || async { Ok::<_, std::fmt::Error>(watched) };
            drop(cache.get_or_set(&key, load).await.expect("it loads"));
        }
        if number == 0 {
            let now = Counted::at(&server);
            (filled, bytes) = (now.commands, now.bytes);
        }
        let begun = Instant::now();
        caches[0].delete(&key).await.expect("open");
        let mut last = begun;
        for _ in 1..instances {
            last = last.max(gone.recv().await.expect("it goes"));
        }
        lags.push(last.duration_since(begun).as_secs_f64() * 1e6);
    }
    let after = Counted::at(&server);
    commands_of_deletes += after.commands - filled;
    bytes_of_deletes += after.bytes - bytes;
    for cache in &caches {
        cache.close().await;
    }
    let each = |all: f64| all / TIMES as f64;
    (median(lags), each(commands_of_deletes), each(bytes_of_deletes))
}
