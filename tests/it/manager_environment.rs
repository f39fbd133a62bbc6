//! Environment variables over the configuration file of a manager, by the crate `config`, as in
//! `examples/configured.rs`.

use config::{Config, Environment, File, FileFormat};
use lazy_layers_cache::{CacheManager, ManagerOptions};

use crate::support::ms;

fn read(file: &str, variables: &[(&str, &str)]) -> Result<ManagerOptions, String> {
    let variables =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let environment = Environment::with_prefix("SHOP").prefix_separator("__").separator("__");
    let sources = Config::builder()
        .add_source(File::from_str(file, FileFormat::Toml))
        .add_source(environment.source(Some(variables)))
        .build()
        .unwrap();
    sources.try_deserialize().map_err(|error| format!("{error} {error:?}"))
}

#[test]
fn variables_replace_single_options_whatever_their_type() {
    let file = include_str!("../../examples/configured.toml");
    let options = read(
        file,
        &[
            ("SHOP__INSTANCE_ID", "7"),
            ("SHOP__DEFAULTS__L2_CIRCUIT_BREAKER__FAILURE_THRESHOLD", "9"),
            ("SHOP__DEFAULTS__TTL_JITTER", "0.5"),
            ("SHOP__CACHES__USERS__TTL", "1m"),
            ("SHOP__CACHES__USERS__L1__MAX_ENTRIES", "123"),
            ("SHOP__CACHES__USERS__FAIL_SAFE__ENABLED", "false"),
            ("SHOP__CACHES__USERS__L2__MAX_KEY_BYTES", "2KiB"),
            ("SHOP__REDIS__URL", "redis://:0123@127.0.0.1/"),
            ("OTHER__DEFAULTS__TTL", "9s"),
            // Kubernetes sets such variables for a Service named `shop`.
            ("SHOP_PORT", "tcp://10.0.0.7:80"),
            ("SHOP_SERVICE_HOST", "10.0.0.7"),
        ],
    )
    .unwrap();
    assert_eq!(options.defaults().ttl, ms(300_000));
    assert_eq!(options.defaults().ttl_jitter, 0.5);
    assert_eq!(options.defaults().l2_circuit_breaker.failure_threshold, 9);
    let manager = CacheManager::builder().options(options).build().unwrap();
    assert_eq!(manager.health().instance_id, "7");
    let users = format!("{:?}", manager.cache::<u64, u32>("users"));
    for part in
        ["ttl: 60s", "max_entries: Some(123)", "FailSafe { enabled: false", "max_key_bytes: 2048"]
    {
        assert!(users.contains(part), "{part}: {users}");
    }
}

#[test]
fn an_unknown_variable_is_refused_with_its_path_and_no_error_has_a_secret() {
    let error = read("", &[("SHOP__CACHES__USERS__TLL", "5m")]).unwrap_err();
    assert!(error.contains("[caches.users]: unknown option `tll`, did you mean `ttl`?"), "{error}");
    for variable in ["SHOP__REDIS", "SHOP__REDIS__CLUSTER", "SHOP__REDIS__SCAN_COUNT", "SHOP__BUS"]
    {
        let error = read("", &[(variable, "redis://:s3cret@a")]).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
