//! Options: `build()` refuses wrong ones, and a configuration file can carry them.

use lazy_layers_cache::{
    CacheBuilder, CacheOptions, CircuitBreaker, Coalescing, DeleteAck, DistributedLock,
    EventBusOptions, FailSafe, L1Options, L2Options, L2Timeouts, LocalTransport, NegativeCache,
    Timeouts, WireCodec,
    testing::{SharedStore, TokioClock},
};

use crate::support::{Cache, ms};

#[test]
fn wrong_options_are_refused_by_name_and_with_the_fix() {
    type Build = CacheBuilder<String, u32>;
    type Wrong = fn(Build) -> Build;
    let refused: [(&str, Wrong); 32] = [
        ("ttl", |it| it.ttl(ms(0))),
        ("ttl_jitter", |it| it.ttl_jitter(1.0)),
        ("ttl_jitter", |it| it.ttl_jitter(-0.1)),
        ("ttl_jitter", |it| it.ttl_jitter(f64::NAN)),
        ("l1.max_entries", |it| it.l1(L1Options::default().max_entries(0))),
        ("l1.max_weight", |it| it.l1(L1Options::default().max_weight(0)).weigher(|_, _| 1)),
        ("l1.max_weight", |it| it.l1(L1Options::default().max_weight(5))),
        ("l1.max_weight", |it| it.weigher(|_, _| 1)),
        ("l1.ttl", |it| it.l1(L1Options::default().ttl(ms(0)))),
        ("inflight.ttl", |it| it.inflight(Coalescing::default().ttl(ms(0)))),
        ("negative_cache.ttl", |it| it.negative_cache(NegativeCache::enabled().ttl(ms(0)))),
        ("negative_cache.max_entries", |it| {
            it.negative_cache(NegativeCache::enabled().max_entries(0))
        }),
        ("fail_safe.stale_ttl", |it| it.fail_safe(FailSafe::enabled().stale_ttl(ms(0)))),
        ("l2.ttl", |it| it.l2_options(L2Options::default().ttl(ms(0)))),
        ("l2_timeouts.read", |it| it.l2_timeouts(L2Timeouts::default().read(ms(0)))),
        ("l2_timeouts.write", |it| it.l2_timeouts(L2Timeouts::default().write(ms(0)))),
        ("l2_timeouts.pattern", |it| it.l2_timeouts(L2Timeouts::default().pattern(ms(0)))),
        ("l2_circuit_breaker.failure_threshold", |it| {
            it.l2_circuit_breaker(CircuitBreaker::default().failure_threshold(0))
        }),
        ("distributed_lock.ttl", |it| it.distributed_lock(DistributedLock::enabled().ttl(ms(29)))),
        ("distributed_lock.poll", |it| it.distributed_lock(DistributedLock::enabled().poll(ms(0)))),
        ("event_bus_circuit_breaker.failure_threshold", |it| {
            it.event_bus_circuit_breaker(CircuitBreaker::default().failure_threshold(0))
        }),
        ("instance_id", |it| it.instance_id("")),
        ("instance_id", |it| it.instance_id("x".repeat(1_025))),
        ("event_bus.trust_timeout", |it| {
            it.event_bus_options(EventBusOptions::default().trust_timeout(ms(299)))
        }),
        ("event_bus.publish_timeout", |it| {
            it.event_bus_options(EventBusOptions::default().publish_timeout(ms(0)))
        }),
        ("name", |it| it.name("")),
        ("name", |it| it.name("cache")),
        ("name", |it| it.name("a:b")),
        ("name", |it| it.name("x".repeat(65))),
        ("name", |it| it.event_bus(LocalTransport::new(), WireCodec::new())),
        ("timeouts.hard", |it| it.timeouts(Timeouts::none().hard(ms(0)))),
        ("timeouts.soft", |it| it.timeouts(Timeouts::none().soft(ms(2)).hard(ms(1)))),
    ];
    for (option, wrong) in refused {
        let error = wrong(Cache::builder()).build().unwrap_err();
        assert_eq!(error.option(), option);
        let text = error.to_string();
        assert!(text.starts_with(option) && text.contains("; "), "{text}");
    }
}

#[test]
fn options_that_are_off_are_not_checked() {
    let mut options = CacheOptions::default();
    options.inflight.enabled = false;
    options.inflight.ttl = ms(0);
    options.negative_cache.ttl = ms(0);
    options.fail_safe.stale_ttl = ms(0);
    Cache::builder().options(options).build().unwrap();
    // A switch outside of the program must not stop a service by turning L1 off.
    for l1 in [
        L1Options::default().max_entries(0),
        L1Options::default().max_weight(0),
        L1Options::default().max_weight(7),
        L1Options::default().ttl(ms(0)),
    ] {
        let builder = Cache::builder().l1(l1).without_l1();
        builder.negative_cache(NegativeCache::enabled()).build().unwrap();
    }
    Cache::builder().weigher(|_, _| 1).without_l1().build().unwrap();
}

#[test]
fn the_defaults_are_as_documented() {
    let options = CacheOptions::default();
    assert!(options.name.is_none() && !options.event_bus.accept_unnamed);
    assert_eq!(options.ttl, ms(60_000));
    assert_eq!(options.ttl_jitter, 0.0);
    assert!(options.l1.enabled && options.l1.max_entries.is_none() && options.l1.ttl.is_none());
    assert!(options.inflight.enabled);
    assert_eq!((options.inflight.ttl, options.inflight.max_entries), (ms(5_000), 10_000));
    assert!(!options.negative_cache.enabled && !options.fail_safe.enabled);
    let negative = &options.negative_cache;
    assert_eq!((negative.ttl, negative.max_entries), (ms(5_000), 10_000));
    let fail_safe = &options.fail_safe;
    assert_eq!((fail_safe.stale_ttl, fail_safe.throttle), (ms(300_000), ms(5_000)));
    assert_eq!(options.timeouts, Timeouts::none());
    assert!(options.instance_id.is_none() && options.subscribe_to_events && options.broadcast_set);
    assert_eq!(options.broadcast_set_max_bytes, None);
    let dedupe = &options.event_dedupe;
    assert_eq!((dedupe.max_entries, dedupe.ttl), (10_000, ms(300_000)));
    for breaker in [&options.l2_circuit_breaker, &options.event_bus_circuit_breaker] {
        assert_eq!((breaker.failure_threshold, breaker.cooldown), (3, ms(30_000)));
    }
    let lock = &options.distributed_lock;
    assert_eq!((lock.enabled, lock.ttl), (false, ms(10_000)));
    assert_eq!((lock.wait_timeout, lock.poll), (ms(2_000), ms(50)));
    assert_eq!((options.l2_timeouts.read, options.l2_timeouts.write), (ms(500), ms(1_000)));
    let bus = &options.event_bus;
    assert_eq!((bus.trust_timeout, bus.publish_timeout), (ms(3_000), ms(1_000)));
    assert_eq!((bus.outbox_max_entries, bus.confirm_deletes), (10_000, false));
}

#[tokio::test]
async fn ten_thousand_entries_are_the_default_bound() {
    let cache = Cache::builder().build().unwrap();
    for number in 0..15_000 {
        cache.set(&number.to_string(), number).await.unwrap();
    }
    assert!((9_900..=10_000).contains(&cache.size().await), "{}", cache.size().await);
}

#[test]
fn a_configuration_file_may_carry_any_option_and_nothing_else() {
    let options: CacheOptions = toml::from_str(
        r#"
        name = "users"
        ttl = "5m"
        ttl_jitter = 0.1
        close_timeout = "1s"
        [l1]
        max_entries = 50_000
        ttl = "30s"
        [inflight]
        ttl = "3s"
        max_entries = 100
        max_followers = 1_000
        [negative_cache]
        enabled = true
        ttl = "2s"
        [fail_safe]
        enabled = true
        stale_ttl = "10m"
        throttle = "1s"
        [timeouts]
        soft = "50ms"
        hard = "2s"
        "#,
    )
    .unwrap();
    let mut expected = CacheOptions::default();
    expected.name = Some("users".to_owned());
    expected.ttl = ms(300_000);
    expected.ttl_jitter = 0.1;
    expected.close_timeout = ms(1_000);
    expected.l1 = L1Options::default().max_entries(50_000).ttl(ms(30_000));
    expected.inflight = Coalescing::default().ttl(ms(3_000)).max_entries(100).max_followers(1_000);
    expected.negative_cache = NegativeCache::enabled().ttl(ms(2_000));
    expected.fail_safe = FailSafe::enabled().stale_ttl(ms(600_000)).throttle(ms(1_000));
    expected.timeouts = Timeouts::none().soft(ms(50)).hard(ms(2_000));
    assert_eq!(options, expected);
    assert_eq!(
        toml::from_str::<CacheOptions>(&toml::to_string(&options).unwrap()).unwrap(),
        options
    );

    for wrong in ["tll = \"5m\"", "ttl = 5", "[l1]\nmax = 7", "[timeouts]\nsoft = \"soon\""] {
        toml::from_str::<CacheOptions>(wrong).unwrap_err();
    }
    assert_eq!(toml::from_str::<CacheOptions>("").unwrap(), CacheOptions::default());
}

#[tokio::test]
async fn guarantees_follow_from_the_options() {
    let alone = Cache::builder().build().unwrap().guarantees();
    assert_eq!((alone.max_staleness, alone.l2_fenced), (None, false));
    assert_eq!(alone.delete_ack, DeleteAck::Local);
    let shared = || {
        let store = SharedStore::new(TokioClock::new());
        Cache::builder()
            .l2(store, WireCodec::new())
            .distributed_lock(DistributedLock::enabled())
            .fail_safe(FailSafe::enabled())
    };
    let with_l2 = shared().build().unwrap().guarantees();
    assert!(with_l2.l2_fenced && with_l2.one_load_across_instances);
    assert_eq!(with_l2.delete_ack, DeleteAck::L2);
    let told = || shared().name("test").event_bus(LocalTransport::new(), WireCodec::new());
    let with_bus = told().build().unwrap().guarantees();
    assert_eq!(with_bus.max_staleness, Some(ms(3_000)));
    assert_eq!(with_bus.delete_ack, DeleteAck::Queued);
    let deaf = told().subscribe_to_events(false).build().unwrap().guarantees();
    assert_eq!(deaf.max_staleness, None);
    let confirmed = EventBusOptions::default().confirm_deletes(true);
    let confirmed = told().event_bus_options(confirmed).build().unwrap().guarantees();
    assert_eq!(confirmed.delete_ack, DeleteAck::Confirmed);
    assert!(confirmed.to_string().contains("at most 3s behind"));
    assert_eq!(told().without_l1().build().unwrap().guarantees().max_staleness, Some(ms(0)));
}
