//! Round trips, counted by the server: its reads from the client, and its commands, including those
//! in scripts.

use std::cell::RefCell;

use lazy_layers_cache::{DistributedLock, L2Options, LazyLayersCache, WireCodec};
use redis::Connection;

use crate::{measure::block_on, redis_process::Server, report::Report};

type Cache = LazyLayersCache<String, String>;

const TIMES: usize = 100;

pub(crate) fn run(report: &mut Report) {
    let server = Server::start();
    let counters = RefCell::new(Counters(server.connect()));
    report.title("what the server counts for one call: round trips, commands");
    block_on(async {
        let builder = || Cache::builder().without_l1().l2(server.store(), WireCodec::new());
        let cache = builder().build().expect("valid options");
        let locking =
            builder().distributed_lock(DistributedLock::enabled()).build().expect("valid options");
        let versioned = builder().l2_options(L2Options::default().versioning(true));
        let versioned = versioned.build().expect("valid options");
        // Warm up: hits hit, deletes find their key, and the server has the scripts.
        for cache in [&cache, &locking, &versioned] {
            for number in 0..TIMES {
                let load = || async { Ok::<_, std::fmt::Error>(String::from("x")) };
                cache.get_or_set(&format!("hit:{number}"), load).await.expect("it loads");
            }
            cache.set("warm", String::new()).await.expect("it answers");
            cache.delete("warm").await.expect("it answers");
        }
        let hit = async |cache: &Cache, number| {
            assert!(cache.get(&format!("hit:{number}")).await.is_some());
        };
        let hit_or_load = async |cache: &Cache, number| {
            let load = || async { Err::<String, _>(std::fmt::Error) };
            cache.get_or_set(&format!("hit:{number}"), load).await.expect("a hit");
        };
        let miss = async |cache: &Cache, number| {
            let load = || async { Ok::<_, std::fmt::Error>(String::from("x")) };
            cache.get_or_set(&format!("miss:{number}"), load).await.expect("it loads");
        };
        let set = async |cache: &Cache, number| {
            cache.set(&format!("set:{number}"), String::from("x")).await.expect("it answers");
        };
        let delete = async |cache: &Cache, number| {
            cache.delete(&format!("hit:{number}")).await.expect("it answers");
        };
        macro_rules! row {
            ($name:literal, $cache:expr, $call:expr, $limit:expr) => {
                let before = counters.borrow_mut().read();
                for number in 0..TIMES {
                    $call(&$cache, number).await;
                }
                let after = counters.borrow_mut().read();
                // The server counts the read of INFO before it answers, and the command after.
                let each = |now: u64, then: u64| (now - then - 1) as f64 / TIMES as f64;
                let trips = each(after.0, before.0);
                let commands = each(after.1, before.1);
                report.check(
                    &format!("{:<34} {trips:>5.2} {commands:>7.2}  at most {}", $name, $limit),
                    // One in a hundred may belong to the release of the call before.
                    trips <= f64::from($limit) + 0.05,
                );
            };
        }
        row!("get, a hit", cache, hit, 1);
        row!("get_or_set, a hit", cache, hit_or_load, 1);
        row!("get_or_set, a miss with its write", cache, miss, 2);
        row!("set", cache, set, 2);
        row!("delete", cache, delete, 1);
        row!(
            "the same miss with the lock on",
            locking,
            async |cache: &Cache, number| {
                miss(cache, TIMES + number).await;
            },
            5
        );
        row!("versioned: get, a hit", versioned, hit, 1);
        row!("versioned: set", versioned, set, 3);
        row!("versioned: delete", versioned, delete, 1);
    });
    report.end();
}

struct Counters(Connection);

impl Counters {
    /// Reads from clients, and commands.
    fn read(&mut self) -> (u64, u64) {
        let stats: String = redis::cmd("INFO").arg("stats").query(&mut self.0).expect("it answers");
        let field = |name: &str| {
            let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|number| number.parse().ok()).expect("a counter")
        };
        (field("total_reads_processed"), field("total_commands_processed"))
    }
}
