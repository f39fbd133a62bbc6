//! The guarantees of each configuration, word by word.

use std::time::Duration;

use lazy_layers_cache::{
    CacheBuilder, Coalescing, DistributedLock, EventBusOptions, FailSafe, Guarantees, L1Options,
    L2Options, WireCodec,
    testing::{SharedBus, SharedStore, TokioClock},
};
use tokio::time::sleep;

use crate::support::{Cache, ms, on_tokio_time};

type Builder = CacheBuilder<String, u32>;

const HERE: &str = "after a delete has returned, this instance serves no older value";
const UNTIL_TTL: &str = "its L1 may serve a value that a peer deleted until its ttl ends";
const CUT_OFF: &str = "also if a peer that it heard is cut off from the bus for up to a minute";
const QUIET: &str = "unless an idle peer is cut off from the bus: more than 64 instances are known";
const FENCED: &str = "a load that began before a delete, on any instance, never fills L2";
const ONE_LOAD: &str = "one load serves all callers of this instance";
const ONE_LOAD_IN_ALL: &str =
    "one load serves all callers of all instances, while L2 answers in time";
const NEVER_STALE: &str =
    "a value is served after its ttl only if its call or its loader gave it a stale window";

fn ack(extent: &str) -> String {
    format!("a delete whose report is complete {extent}")
}

fn behind(limit: &str) -> String {
    format!("its L1 is at most {limit} behind the deletes of peers")
}

fn lines<const N: usize>(of: Builder, expected: [&str; N]) -> Guarantees {
    let guarantees = of.build().unwrap().guarantees();
    let text = guarantees.to_string();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    guarantees
}

fn with_l2() -> Builder {
    on_tokio_time().l2(SharedStore::new(TokioClock::new()), WireCodec::new())
}

fn with_bus(builder: Builder) -> Builder {
    builder.name("test").event_bus(SharedBus::new(1).link(), WireCodec::new())
}

#[tokio::test(start_paused = true)]
async fn without_a_bus() {
    let local = ack("is complete");
    lines(on_tokio_time(), [HERE, UNTIL_TTL, ONE_LOAD, &local, NEVER_STALE]);
    let (in_l2, bound) = (ack("is in L2"), behind("5s"));
    lines(with_l2(), [HERE, UNTIL_TTL, FENCED, ONE_LOAD, &in_l2, NEVER_STALE]);
    let l1 = L1Options::default().ttl(ms(5_000));
    lines(with_l2().l1(l1), [HERE, &bound, FENCED, ONE_LOAD, &in_l2, NEVER_STALE]);
    let no_l1 = "it has no L1 that could be behind";
    lines(with_l2().without_l1(), [HERE, no_l1, FENCED, ONE_LOAD, &in_l2, NEVER_STALE]);
    let locked = with_l2().distributed_lock(DistributedLock::enabled());
    lines(locked, [HERE, UNTIL_TTL, FENCED, ONE_LOAD_IN_ALL, &in_l2, NEVER_STALE]);
    let each = "each caller loads for itself";
    let single = on_tokio_time().inflight(Coalescing::disabled());
    lines(single, [HERE, UNTIL_TTL, each, &local, NEVER_STALE]);
    let stale = "a value is served for 60s after its ttl if its load fails or is slow";
    let fail_safe = FailSafe::enabled().stale_ttl(ms(60_000));
    lines(on_tokio_time().fail_safe(fail_safe), [HERE, UNTIL_TTL, ONE_LOAD, &local, stale]);
    let versioned = with_l2().l2_options(L2Options::default().versioning(true));
    let versioned = lines(versioned, [HERE, UNTIL_TTL, ONE_LOAD, &in_l2, NEVER_STALE]);
    assert!(!versioned.l2_fenced);
}

#[tokio::test(start_paused = true)]
async fn with_a_bus() {
    let queued = ack("is in L2, if there is one, and queued for the bus");
    let confirmed = ack("is in L2, if there is one, and confirmed by the bus");
    let (trust, short, zero) = (behind("3s"), behind("1s"), "it has no L1 that could be behind");
    let on_bus = || with_bus(on_tokio_time());
    lines(on_bus(), [HERE, &trust, CUT_OFF, ONE_LOAD, &queued, NEVER_STALE]);
    let both = || with_bus(with_l2());
    lines(both(), [HERE, &trust, CUT_OFF, FENCED, ONE_LOAD, &queued, NEVER_STALE]);
    let confirms = both().event_bus_options(EventBusOptions::default().confirm_deletes(true));
    lines(confirms, [HERE, &trust, CUT_OFF, FENCED, ONE_LOAD, &confirmed, NEVER_STALE]);
    let deaf = lines(
        both().subscribe_to_events(false),
        [HERE, UNTIL_TTL, FENCED, ONE_LOAD, &queued, NEVER_STALE],
    );
    assert!(!deaf.receives_messages && !deaf.notices_silent_peers);
    // The bus can only shorten the ttl of L1.
    let bounded = both().l1(L1Options::default().ttl(ms(1_000)));
    lines(bounded, [HERE, &short, FENCED, ONE_LOAD, &queued, NEVER_STALE]);
    let without = both().without_l1();
    lines(without, [HERE, zero, FENCED, ONE_LOAD, &queued, NEVER_STALE]);
    let versioned = both().l2_options(L2Options::default().versioning(true));
    lines(versioned, [HERE, &trust, CUT_OFF, ONE_LOAD, &queued, NEVER_STALE]);
}

#[tokio::test(start_paused = true)]
async fn among_more_than_64_instances() {
    let bus = SharedBus::new(1);
    let instance = || on_tokio_time().name("test").event_bus(bus.link(), WireCodec::new());
    let caches: Vec<Cache> = (0..70).map(|_| instance().build().unwrap()).collect();
    for cache in &caches {
        cache.ready().await.unwrap();
    }
    sleep(Duration::from_secs(10)).await;
    let bounded = instance().l1(L1Options::default().ttl(ms(1_000))).build().unwrap();
    bounded.ready().await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let guarantees = caches[0].guarantees();
    assert!(guarantees.receives_messages && !guarantees.notices_silent_peers);
    let text = guarantees.to_string();
    assert!(text.contains(QUIET) && !text.contains(CUT_OFF), "{text}");
    let text = bounded.guarantees().to_string();
    assert!(!text.contains(QUIET) && !text.contains(CUT_OFF), "{text}");
}

/// The sentence about stale copies: a call gives its value a window, though fail-safe is off.
#[tokio::test(start_paused = true)]
async fn a_call_gives_a_value_a_window() {
    let cache = on_tokio_time().ttl(ms(100)).build().unwrap();
    cache.set("k", 1u32).stale_for(ms(1_000)).await.unwrap();
    sleep(ms(200)).await;
    assert_eq!(cache.get("k").await, None);
    let fails = || async { Err::<u32, _>("the origin is down") };
    assert_eq!(*cache.get_or_set("k", fails).await.unwrap(), 1);
    sleep(ms(1_000)).await;
    cache.get_or_set("k", fails).await.unwrap_err();
}

/// The missing sentence of versioned keys: a load that began before deletes of a peer fills L2 for
/// its own instance, if no message tells it of them.
#[tokio::test(start_paused = true)]
async fn with_versioned_keys_a_load_may_fill_l2_for_its_own_instance() {
    for is_versioned in [false, true] {
        let store = SharedStore::new(TokioClock::new());
        let instance = || {
            let options = L2Options::default().versioning(is_versioned);
            let builder = on_tokio_time().l2(store.clone(), WireCodec::new()).l2_options(options);
            builder.without_l1().build().unwrap()
        };
        let (reader, writer) = (instance(), instance());
        reader.delete("k").await.unwrap();
        for _ in 0..20 {
            writer.delete("k").await.unwrap();
        }
        let load = reader.get_or_set("k", || async {
            sleep(ms(100)).await;
            Ok::<_, &str>(1u32)
        });
        let delete = async {
            sleep(ms(10)).await;
            writer.delete("k").await.unwrap();
        };
        let (loaded, ()) = tokio::join!(load.into_future(), delete);
        assert_eq!(*loaded.unwrap(), 1);
        assert_eq!(reader.get("k").await.is_some(), is_versioned);
        assert_eq!(reader.guarantees().l2_fenced, !is_versioned);
        assert_eq!(writer.get("k").await, None);
    }
}
