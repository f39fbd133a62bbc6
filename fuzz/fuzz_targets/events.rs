//! Fuzzes the messages of the bus: no panic, bounded memory, and the subscription goes on. An input
//! is a list of messages, each after its length in two bytes.
//!
//!     cargo +nightly fuzz run events -- -rss_limit_mb=512

#![no_main]

use std::time::Duration;

use lazy_layers_cache::{
    EventBusOptions, FailSafe, L2Options, LazyLayersCache, WireCodec,
    testing::{SharedBus, SharedStore, TokioClock},
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tokio::{runtime::Builder, time::sleep};

fuzz_target!(|bytes: &[u8]| {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (bus, clock) = (SharedBus::new(1), TokioClock::new());
        let cache = LazyLayersCache::<String, Value>::builder()
            .clock(clock.clone())
            .fail_safe(FailSafe::enabled())
            .l2(SharedStore::new(clock), WireCodec::new())
            .l2_options(L2Options::default().versioning(true))
            .event_bus(bus.link(), WireCodec::new())
            .event_bus_options(EventBusOptions::default().accept_unnamed(true))
            .build()
            .expect("valid options");
        cache.ready().await.expect("there is a bus");
        // From then on, values of peers are accepted.
        sleep(Duration::from_secs(4)).await;
        let mut rest = bytes;
        while let [high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
            let (message, next) = after.split_at(length);
            bus.inject(message);
            sleep(Duration::from_millis(1)).await;
            rest = next;
        }
        cache.set("own", json!(1)).await.expect("L2 answers");
        cache.delete("own").await.expect("L2 answers");
        assert!(cache.get("own").await.is_none());
        assert!(cache.health().event_bus.expect("there is a bus").subscribed);
    });
});
