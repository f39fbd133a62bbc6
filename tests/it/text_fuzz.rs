//! Builds from URLs and configuration files with random changes: each is accepted or refused, and
//! nothing panics. (globs.rs compares patterns with Redis.)

use lazy_layers_cache::{
    CacheOptions, LazyLayersCache, NatsConnection, NatsOptions, NatsTransport, RabbitMqOptions,
    RabbitMqTransport, RedisStore, RedisTransport,
};

const INPUTS: usize = 10_000;

const URLS: [&str; 9] = [
    "redis://user:p%40ss@127.0.0.1:6379/2",
    "redis://[::1]:6379/0?protocol=resp3",
    "redis+unix:///run/redis.sock?db=1&pass=x",
    "rediss://host:6380/#insecure",
    "redis://mymaster/",
    "nats://token@host:4222",
    "tls://user:pass@host:4222,nats://other",
    "amqp://user:pass@host:5672/%2fvhost?heartbeat=10&connection_timeout=10000",
    "amqps://host/%2f",
];

/// Characters with a meaning in a URL or a file, and characters without one.
const ODD: [char; 18] =
    ['%', '/', ':', '@', '[', ']', '?', '#', '&', '=', ',', '.', '-', '"', '\n', '\0', ' ', 'é'];

fn changed(text: &str, random: &mut fastrand::Rng) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..random.usize(0..4) {
        let at = random.usize(..=letters.len());
        match random.u8(..5) {
            0 => letters.truncate(at),
            1 => letters.insert(at, random.choice(ODD).unwrap()),
            2 => drop(letters.splice(at..at, "99999999999999999999".chars())),
            3 if at < letters.len() => drop(letters.remove(at)),
            _ if at < letters.len() => letters[at] = random.char(' '..='~'),
            _ => {}
        }
    }
    letters.into_iter().collect()
}

/// Returns how many of the builders accepted the URL.
fn try_all(url: &str, other: &str) -> usize {
    let nats = NatsOptions::default().connection(NatsConnection::default().servers([url, other]));
    let built = [
        RedisStore::at(url).build().is_ok(),
        RedisStore::sentinel([url], other).build().is_ok(),
        RedisStore::cluster([url, other]).build().is_ok(),
        RedisTransport::at(url).build().is_ok(),
        RedisTransport::sentinel([other], url).build().is_ok(),
        NatsTransport::new(nats).is_ok(),
        RabbitMqTransport::new(RabbitMqOptions::new(url)).is_ok(),
    ];
    built.into_iter().filter(|taken| *taken).count()
}

#[test]
fn no_url_makes_a_builder_panic() {
    let mut random = fastrand::Rng::with_seed(31);
    let mut taken = 0;
    for _ in 0..INPUTS {
        let mut url = || changed(random.choice(URLS).unwrap(), &mut random);
        let (url, other) = (url(), url());
        taken += try_all(&url, &other);
    }
    assert!((INPUTS / 2..6 * INPUTS).contains(&taken), "{taken}");
}

#[test]
fn no_configuration_file_makes_a_builder_panic() {
    let whole = toml::to_string(&CacheOptions::default()).unwrap();
    let mut random = fastrand::Rng::with_seed(32);
    let (mut read, mut built) = (0, 0);
    for _ in 0..INPUTS {
        let text = changed(&whole, &mut random);
        let Ok(options) = toml::from_str::<CacheOptions>(&text) else { continue };
        read += 1;
        let cache = LazyLayersCache::<String, u8>::builder().options(options).build();
        built += usize::from(cache.is_ok());
    }
    assert!(read > INPUTS / 10 && built > 0 && built <= read && read < INPUTS, "{read} {built}");
}
