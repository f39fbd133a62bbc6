//! Makes calls whose instructions are counted, a figure that other load of the machine does not
//! change: `scripts/instructions` runs this program under callgrind twice and takes the difference.
//!
//! `instructions hit|miss quick_cache|get_l1|get_or_set <calls> [system-clock|fifty]`
//!
//! The cache reads a clock that stands still. A run under callgrind takes many steps of the clock
//! of the system, and at each step a hit compares two clocks, so that the figure would change with
//! the speed of the machine. `system-clock` counts those steps too. With `fifty`, the cache is one
//! of fifty of a manager.

#![expect(clippy::expect_used, clippy::panic, reason = "a bench that cannot run may stop")]

use std::{hint::black_box, sync::Arc};

use instructions::{Quick, ROOM, StandingClock, fifty, ours};

/// A key of its own for each call, so that all calls are misses.
const MOST_CALLS: usize = 60_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, what, calls, cache @ ..] = &*arguments else { panic!("three arguments") };
    let calls: usize = calls.parse().expect("how many calls");
    assert!(calls <= MOST_CALLS, "more calls than keys");
    let is_hit = kind == "hit";
    let keys = if is_hit { ROOM / 2 } else { MOST_CALLS };
    let keys: Vec<String> = (0..keys).map(|number| format!("product:{number:08}")).collect();
    let value = Arc::new([7_u8; 100]);
    let quick = Quick::new(ROOM);
    let (_manager, mut caches) = fifty();
    let ours = match cache.first().map(String::as_str) {
        None => ours().clock(StandingClock).build().expect("valid options"),
        Some("system-clock") => ours().build().expect("valid options"),
        Some(_) => caches.swap_remove(25),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for key in keys.iter().take(if is_hit { keys.len() } else { 0 }) {
            quick.insert(key.clone(), Arc::clone(&value));
            ours.set(key, Arc::clone(&value)).await.expect("open");
        }
        for key in keys.iter().map(String::as_str).cycle().take(calls) {
            match what.as_str() {
                "quick_cache" => {
                    let held = quick.get(key);
                    black_box(held.unwrap_or_else(|| {
                        quick.insert(key.to_owned(), Arc::clone(&value));
                        Arc::clone(&value)
                    }));
                }
                "get_l1" => {
                    black_box(ours.get_l1(key));
                }
                "get_or_set" => {
                    let value = Arc::clone(&value);
                    let load = || async move { Ok::<_, &str>(value) };
                    black_box(ours.get_or_set(key, load).await.expect("a value"));
                }
                other => panic!("{other}: nothing to be counted"),
            }
        }
    });
}
