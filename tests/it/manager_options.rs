//! The configuration file of a manager: sections over defaults, human sizes and times, errors that
//! say where and which name is nearest, and no secret in any text.

use lazy_layers_cache::{
    CacheManager, CacheOptions, FailSafe, L1Options, L2Options, ManagerOptions, testing::TokioClock,
};

use crate::support::ms;

fn read(text: &str) -> ManagerOptions {
    toml::from_str(text).unwrap()
}

fn refused(text: &str) -> String {
    toml::from_str::<ManagerOptions>(text).unwrap_err().to_string().trim().to_owned()
}

/// The options with which the builder of a cache begins.
fn options_of(manager: &CacheManager, name: &str) -> String {
    format!("{:?}", manager.memory_cache::<str, u32>(name))
}

fn expected(name: &str, options: CacheOptions) -> String {
    let options = options.name(name).instance_id("host-1");
    format!("{:?}", lazy_layers_cache::LazyLayersCache::<str, u32>::builder().options(options))
}

#[test]
fn a_section_replaces_only_what_it_names_in_nested_groups_too() {
    let options = read(
        r#"
        instance_id = "host-1"
        [defaults]
        ttl = "5m"
        ttl_jitter = 0.1
        l1 = { max_entries = 50_000, ttl = "30s" }
        fail_safe.enabled = true
        fail_safe.stale_ttl = "10m"
        event_bus.trust_timeout = "2s"
        [caches.users]
        ttl = "30s"
        l1.ttl = "5s"
        fail_safe.throttle = "1s"
        event_bus.outbox_max_bytes = "1MiB"
        l2.max_key_bytes = "2KiB"
        broadcast_set_max_bytes = "64kB"
        [caches.plain]
        fail_safe.enabled = false
        "#,
    );
    let manager = CacheManager::builder().options(options).build().unwrap();
    let mut defaults = CacheOptions::default()
        .ttl(ms(300_000))
        .ttl_jitter(0.1)
        .l1(L1Options::default().max_entries(50_000).ttl(ms(30_000)))
        .fail_safe(FailSafe::enabled().stale_ttl(ms(600_000)));
    defaults.event_bus.trust_timeout = ms(2_000);
    assert_eq!(options_of(&manager, "other"), expected("other", defaults.clone()));
    let mut plain = defaults.clone();
    plain.fail_safe.enabled = false;
    assert_eq!(options_of(&manager, "plain"), expected("plain", plain));
    let mut users = defaults.ttl(ms(30_000));
    users.l1.ttl = Some(ms(5_000));
    users.fail_safe.throttle = ms(1_000);
    users.event_bus.outbox_max_bytes = 1 << 20;
    users.l2 = L2Options::default().max_key_bytes(2 << 10);
    users.broadcast_set_max_bytes = Some(64_000);
    assert_eq!(options_of(&manager, "users"), expected("users", users));
    assert_eq!(manager.unused_sections(), ["plain", "users"], "no cache was built");
}

#[test]
fn a_value_equal_to_the_default_is_named_too() {
    let options = read(
        "[defaults]\nttl = \"5m\"\nl1.max_entries = 7\n[caches.users]\nttl = \"60s\"\n\
         l1.max_entries = 10_000\n",
    );
    let manager = CacheManager::builder().options(options).instance_id("host-1").build().unwrap();
    let users = CacheOptions::default().l1(L1Options::default().max_entries(10_000));
    assert_eq!(options_of(&manager, "users"), expected("users", users));
}

#[test]
fn an_empty_file_and_other_formats_are_read() {
    let empty = CacheManager::builder().options(read("")).instance_id("host-1").build().unwrap();
    assert_eq!(options_of(&empty, "a"), expected("a", CacheOptions::default()));
    // Environment variables are texts; JSON and YAML have a null.
    let json = r#"{ "instance_id": "host-1", "redis": null, "defaults": {
        "ttl": "5m", "ttl_jitter": "0.5", "negative_cache": { "enabled": "true", "ttl": "1s" },
        "l1": { "max_entries": "50_000", "ttl": "1s" },
        "l2_circuit_breaker": { "failure_threshold": " 7" } },
        "caches": { "a": { "l1": { "ttl": null }, "timeouts": {} }, "b": null } }"#;
    let options: ManagerOptions = serde_json::from_str(json).unwrap();
    let manager = CacheManager::builder().options(options).build().unwrap();
    let mut defaults = CacheOptions::default().ttl(ms(300_000)).ttl_jitter(0.5);
    defaults.l1 = L1Options::default().max_entries(50_000).ttl(ms(1_000));
    defaults.l2_circuit_breaker.failure_threshold = 7;
    defaults.negative_cache.enabled = true;
    defaults.negative_cache.ttl = ms(1_000);
    assert_eq!(options_of(&manager, "b"), expected("b", defaults.clone()));
    defaults.l1.ttl = None;
    assert_eq!(options_of(&manager, "a"), expected("a", defaults));
}

#[test]
fn an_error_says_where_it_is_and_which_name_is_nearest() {
    for (text, error) in [
        (
            "[caches.users]\ntll = \"5m\"",
            "[caches.users]: unknown option `tll`, did you mean `ttl`?",
        ),
        (
            "[defaults.l1]\nmaxEntries = 5",
            "[defaults.l1]: unknown option `maxEntries`, did you mean `max_entries`?",
        ),
        ("[cache.users]", "unknown section `cache`, did you mean `caches`?"),
        (
            "[redis]\nurll = \"redis://:secret@a\"",
            "[redis]: unknown option `urll`, did you mean `url`?",
        ),
        (
            "[bus]\ntransport = \"redis\"\nurl = \"redis://a\"\nchanel = \"x\"",
            "[bus]: unknown option `chanel`, did you mean `channel`?",
        ),
        (
            "[bus]\ntransport = \"nats\"\nconnection.server = \"nats://u:secret@a\"",
            "[bus.connection]: unknown option `server`, did you mean `servers`?",
        ),
        (
            "[caches.users]\nttl = \"soon\"",
            "caches.users.ttl: found string \"soon\", expected a duration such as \"30s\"",
        ),
        (
            "[caches.users]\nl1.max_entries = \"many\"",
            "caches.users.l1.max_entries: found string \"many\", expected usize",
        ),
        (
            "[defaults]\nl2.max_key_bytes = \"64M\"",
            "defaults.l2.max_key_bytes: found string \"64M\", expected a number of bytes, or a \
             text such as \"64MiB\"",
        ),
        ("[caches]\nusers = 7", "caches.users: expected a section with options"),
        (
            "[caches.users]\nname = \"users\"",
            "caches.users.name: a cache has the name of its section, [caches.<name>]",
        ),
        (
            "[defaults]\ninstance_id = \"a\"",
            "defaults.instance_id: write it at the top of the file, before the first section",
        ),
        (
            "[bus]\ntransport = \"kafka\"",
            "bus.transport: unknown value, write `redis`, `nats`, `jetstream` or `rabbitmq`",
        ),
        (
            "[bus]\ntransport = \"redis\"",
            "bus: neither this section nor [redis] says where Redis is: add `url`",
        ),
        (
            "[redis]\nurl = \"redis://a\"\nsentinel = [\"redis://b\"]",
            "redis: write one of `url`, `cluster`, or `sentinel` with `master`",
        ),
        (
            "[redis]\nurl = \"redis://a\"\ntls.ca_file = \"authority.pem\"",
            "redis.tls: no address of this section begins with `rediss://` or `valkeys://`, so \
             these files would not be used",
        ),
        (
            "[redis]\nurl = \"rediss://a\"\ntls.ca_files = \"authority.pem\"",
            "[redis.tls]: unknown option `ca_files`, did you mean `ca_file`?",
        ),
        (
            "[redis]\nurl = \"redis://a\"\ndelete_strategy = \"secret\"",
            "redis.delete_strategy: unknown value, write one of `unlink`, `del`",
        ),
    ] {
        assert_eq!(refused(text), error, "{text}");
    }
    let unknown = refused("[caches.users]\nweather = 1");
    assert!(
        unknown.starts_with("[caches.users]: unknown option `weather`; known are `name`, `ttl`")
    );
}

#[test]
fn no_text_has_a_secret() {
    let secrets = [
        "[redis]\nurl = \"redis://user:s3cret@127.0.0.1/\"\n[bus]\ntransport = \"redis\"",
        "[redis]\nsentinel = [\"redis://:s3cret@a\"]\nmaster = \"redis://:s3cret@main/0\"",
        "[redis]\ncluster = [\"redis://:s3cret@a\"]",
        "[bus]\ntransport = \"nats\"\nurl = \"nats://user:s3cret@localhost\"",
        "[bus]\ntransport = \"nats\"\nconnection = { user = \"a\", password = \"s3cret\" }",
        "[bus]\ntransport = \"jetstream\"\ndurable_name = \"a\"\nconnection.token = \"s3cret\"",
        "[bus]\ntransport = \"rabbitmq\"\nurl = \"amqp://user:s3cret@localhost\"",
    ];
    for text in secrets {
        let options = read(text);
        assert!(!format!("{options:?}").contains("s3cret"), "{text}");
        let builder = CacheManager::builder().options(options);
        assert!(!format!("{builder:?}").contains("s3cret"), "{text}");
        let manager = builder.build().unwrap();
        let cache = manager.cache::<u64, u32>("users");
        assert!(!format!("{manager:?} {cache:?}").contains("s3cret"), "{text}");
        let health = serde_json::to_string(&manager.health()).unwrap();
        assert!(!health.contains("s3cret"), "{text}");
    }
    // Wrong in any way, at reading or at building.
    for text in [
        "[redis]\nurl = [\"redis://:s3cret@a\"]",
        "[redis]\nsentinel = \"redis://:s3cret@a\"",
        "[redis]\ncluster = \"redis://:s3cret@a\"",
        "[redis]\nprefix = { s3cret = 1 }\nurl = 5",
        "[redis]\nurl = \"redis://:s3cret@a\"\nuse_index = \"redis://:s3cret@a\"",
        "[redis]\nurl = \"redis://:s3cret@a\"\nconnect_timeout = \"s3cret\"",
        "[redis]\nurl = \"redis://:s3cret@a:port\"",
        "[redis]\nurl = \"http://:s3cret@a\"",
        "[redis]\nurl = \"redis://:s3cret@a/s3cret\"",
        "[redis]\nurl = \"redis://:s3cret@[a\"",
        "[redis]\nurl = \"redis://:s3cret@a\"\nscan_count = 0",
        "[redis]\ncluster = [\"redis://:s3cret@a\", \"redis://:s3cret@b:port\"]",
        "[bus]\ntransport = { s3cret = 1 }",
        "[bus]\ntransport = \"s3cret\"",
        "[bus]\ntransport = \"nats\"\nurl = \"nats://user:s3cret@host:port\"",
        "[bus]\ntransport = \"nats\"\nconnection.servers = \"nats://user:s3cret@host\"",
        "[bus]\ntransport = \"nats\"\nconnection.password = [\"s3cret\"]",
        "[bus]\ntransport = \"nats\"\nconnection.password = \"s3cret\"",
        "[bus]\ntransport = \"rabbitmq\"\nurl = \"amqp://user:s3cret@host:port\"",
        "[bus]\ntransport = \"rabbitmq\"\nurl = \"amqp://user:s3cret@host\"\nprefetch = \"s3cret\"",
        "[bus]\ntransport = \"rabbitmq\"\nurl = \"amqp://user:s3cret@host?s=s3cret\"",
        "redis = \"s3cret\"",
        "bus = [\"s3cret\"]",
    ] {
        let error = match toml::from_str::<ManagerOptions>(text) {
            Err(error) => format!("{error} {error:?}"),
            Ok(options) => {
                let error = CacheManager::builder().options(options).build().unwrap_err();
                assert!(error.to_string().starts_with('['), "{error}");
                format!("{error} {error:?}")
            }
        };
        assert!(!error.contains("s3cret"), "{text}: {error}");
    }
}

#[test]
fn an_option_of_the_manager_in_a_section_is_refused_by_build() {
    for (option, text) in [
        ("instance_id", "instance_id = \"a\""),
        ("event_dedupe", "event_dedupe.max_entries = 10_000"),
        ("event_bus.trust_timeout", "event_bus.trust_timeout = \"3s\""),
        ("event_bus.publish_timeout", "event_bus = { publish_timeout = \"9s\" }"),
        ("event_bus_circuit_breaker", "event_bus_circuit_breaker.failure_threshold = 3"),
        ("l2_circuit_breaker", "l2_circuit_breaker = { cooldown = \"1s\" }"),
    ] {
        let options = read(&format!("[caches.users]\n{text}"));
        let error = CacheManager::builder().options(options).build().unwrap_err();
        assert_eq!(error.option(), option);
        let start = format!("[caches.users]: {option} is set for one cache");
        assert!(error.to_string().starts_with(&start), "{error}");
        assert!(error.to_string().contains("[defaults]"), "{error}");
        if option != "instance_id" {
            let options = read(&format!("[defaults]\n{text}"));
            CacheManager::builder().options(options).build().unwrap();
        }
    }
}

#[test]
fn wrong_values_are_refused_by_the_build_of_the_manager() {
    for (place, text) in [
        ("[defaults]: ttl", "[defaults]\nttl = \"0s\""),
        ("[caches.a]: ttl", "[caches.a]\nttl = \"0s\""),
        ("[caches.a:b]: name", "[caches.\"a:b\"]\nttl = \"1s\""),
        ("[caches.cache]: name", "[caches.cache]"),
        ("[redis]: redis.prefix", "[redis]\nurl = \"redis://a\"\nprefix = \"shop\""),
        (
            "[redis]: tls names a file that cannot be read, \"/no/such.pem\"",
            "[redis]\nurl = \"rediss://a\"\ntls.ca_file = \"/no/such.pem\"",
        ),
        (
            "[redis]: tls names a file that cannot be read, \"/no/such.pem\"",
            "[redis]\nurl = \"valkeys://a\"\ntls.ca_file = \"/no/such.pem\"",
        ),
        (
            "[redis]: tls names a file that cannot be read, \"/no/such.pem\"",
            "[redis]\nurl = \"REDISS://a\"\ntls.ca_file = \"/no/such.pem\"",
        ),
        (
            "[redis]: tls names a file that cannot be read, \"/no/such.pem\"",
            "[redis]\nsentinel = [\"redis://a\"]\nmaster = \"valkeys://b\"\ntls.ca_file = \
             \"/no/such.pem\"",
        ),
        (
            "[redis]: tls has only one of client_cert and client_key",
            "[redis]\nurl = \"rediss://a\"\ntls.client_cert = \"/no/such.pem\"",
        ),
        ("[bus]: durable_name", "[bus]\ntransport = \"jetstream\""),
        ("[bus]: url", "[bus]\ntransport = \"rabbitmq\""),
        ("[defaults]: instance_id", "instance_id = \"\""),
    ] {
        let error = CacheManager::builder().options(read(text)).build().unwrap_err();
        assert!(error.to_string().starts_with(place), "{error}");
    }
    // Only the builder of the cache has the weigher.
    let weighed = "[caches.a]\nl1.max_weight = 100";
    let manager = CacheManager::builder().options(read(weighed)).build().unwrap();
    manager.cache::<u64, u32>("a").weigher(|_, _| 1).build().unwrap();
    let error = manager.cache::<u64, u32>("b").weigher(|_, _| 1).build().unwrap_err();
    assert!(error.to_string().starts_with("cache `b`: l1.max_weight"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_file_can_be_part_of_that_of_a_service() {
    #[derive(serde::Deserialize)]
    struct Service {
        port: u16,
        #[serde(flatten)]
        caching: ManagerOptions,
    }
    #[derive(serde::Deserialize)]
    struct Other {
        cache: ManagerOptions,
    }
    let service: Service = toml::from_str("port = 80\n[caches.a]\nttl = \"1s\"").unwrap();
    let other: Other = toml::from_str("[cache.caches.a]\nttl = \"1s\"").unwrap();
    assert_eq!(service.port, 80);
    for options in [service.caching, other.cache] {
        let builder = CacheManager::builder().options(options).clock(TokioClock::new());
        let cache = builder.build().unwrap().cache::<str, u32>("a").build().unwrap();
        cache.set("k", 1).await.unwrap();
        tokio::time::sleep(ms(999)).await;
        assert!(cache.get("k").await.is_some());
        tokio::time::sleep(ms(1)).await;
        assert!(cache.get("k").await.is_none());
    }
}
