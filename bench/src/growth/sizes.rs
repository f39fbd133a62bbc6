//! Values of 16 bytes to 10 MB: a hit in L1, and a hit in Redis beside the bare client.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use lazy_layers_cache::{L2Timeouts, LazyLayersCache, WireCodec};

use crate::{
    measure::{Numbers, median, ratio, workers},
    plot::Line,
    redis_process::Server,
    report::Report,
};

type Cache = LazyLayersCache<String, String>;

const ROUNDS: usize = 9;
const SIZES: [(usize, usize); 7] = [
    (16, 300),
    (256, 300),
    (4 << 10, 300),
    (64 << 10, 100),
    (1 << 20, 10),
    (4 << 20, 4),
    (10_000_000, 2),
];

pub(super) fn run(report: &mut Report) {
    let server = Server::start();
    let runtime = workers(1);
    let mut lines =
        ["lazy-layers, in memory", "bare client, GET and PTTL", "lazy-layers, in Redis"]
            .map(|name| Line { name: name.to_owned(), points: Vec::new() });
    report.title("values of 16 bytes to 10 MB: us until one is here");
    for (size, times) in SIZES {
        let samples = runtime.block_on(one_size(&server, size, times));
        let medians = samples.each_ref().map(|row| median(row.clone()));
        for (line, median) in lines.iter_mut().zip(medians) {
            line.points.push((size as f64, median));
        }
        report.line(&format!(
            "{size:>9} bytes: in memory {:>7.3} us; bare client {:>9.1} us, in Redis {:>9.1} us, \
             {:>5.2}x",
            medians[0],
            medians[1],
            medians[2],
            ratio(&samples[2], &samples[1]),
        ));
    }
    report.lines("growth-sizes", "bytes of a value", "us", &lines);
    report.note(
        "Text without compression, one call after the other. The bare client hands out bytes; ours \
         decodes MessagePack, copies the text out of it, and decodes what is heavy on another \
         thread.",
    );
    report.end();
}

/// Microseconds of each contender in each round.
async fn one_size(server: &Server, size: usize, times: usize) -> [Vec<f64>; 3] {
    let mut numbers = Numbers::new(size);
    let text: String = (0..size).map(|_| char::from(b'a' + numbers.below(26) as u8)).collect();
    let patient =
        L2Timeouts::default().read(Duration::from_secs(20)).write(Duration::from_secs(20));
    let memory = Cache::builder().build().expect("valid options");
    let redis = Cache::builder()
        .without_l1()
        .l2(server.store(), WireCodec::new().gzip_from(usize::MAX))
        .l2_timeouts(patient)
        .build()
        .expect("valid options");
    memory.set("key", text.clone()).await.expect("open");
    redis.set("key", text).await.expect("it answers");
    let mut bare = server.client().get_multiplexed_async_connection().await.expect("it answers");
    bare.set_response_timeout(Duration::from_secs(20));
    let mut samples = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let mut took = [0.0; 3];
        let begun = Instant::now();
        for _ in 0..1_000 {
            black_box(memory.get_l1("key").expect("resident"));
        }
        took[0] = begun.elapsed().as_secs_f64() * 1e6 / 1e3;
        let begun = Instant::now();
        for _ in 0..times {
            let mut pipeline = redis::pipe();
            pipeline.cmd("GET").arg("cache:key").cmd("PTTL").arg("cache:key");
            let answer: (Vec<u8>, i64) = pipeline.query_async(&mut bare).await.expect("it answers");
            assert!(answer.0.len() >= size, "all of it");
        }
        took[1] = begun.elapsed().as_secs_f64() * 1e6 / times as f64;
        let begun = Instant::now();
        for _ in 0..times {
            assert_eq!(redis.get("key").await.map(|text| text.len()), Some(size));
        }
        took[2] = begun.elapsed().as_secs_f64() * 1e6 / times as f64;
        // The first round warms up.
        if round > 0 {
            samples.iter_mut().zip(took).for_each(|(row, took)| row.push(took));
        }
    }
    samples
}
