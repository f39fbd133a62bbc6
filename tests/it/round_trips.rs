//! Values that cannot be decoded from their own bytes stay in L1, and the log says so once. A codec
//! reads no payload as a value that its writer did not encode.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use lazy_layers_cache::{
    BoxError, Codec, Event, EventBus, L2Effect, LazyLayersCache, LocalTransport, WireCodec,
    testing::{SharedStore, TokioClock},
};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{Layer, layer::Context};

use crate::support::{log::listen, ms};

/// Serde buffers the content, and its buffer has no integers of 128 bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Wide {
    Small { number: u8 },
    Key { map: BTreeMap<u128, u8> },
    Value { number: i128 },
}

fn wide_key() -> Wide {
    Wide::Key { map: BTreeMap::from([(7, 1)]) }
}

type Cache = LazyLayersCache<String, Wide>;

fn cache(store: &SharedStore) -> Cache {
    let builder = Cache::builder().clock(TokioClock::new());
    builder.l2(store.clone(), WireCodec::new()).build().unwrap()
}

async fn load(cache: &Cache, value: Wide) -> Arc<Wide> {
    cache.get_or_set("k", || async { Ok::<_, std::fmt::Error>(value) }).await.unwrap()
}

/// Keeps the errors of `l2:refused` and the names of the other events.
fn events(cache: &Cache) -> (Arc<Mutex<Vec<String>>>, lazy_layers_cache::HandlerGuard) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let guard = cache.on(move |event| {
        log.lock().unwrap().push(match event {
            Event::L2Refused { error, .. } => format!("l2:refused {error}"),
            other => other.name().to_owned(),
        });
    });
    (events, guard)
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_read_again_stays_in_l1_and_the_error_names_its_type() {
    for value in [wide_key(), Wide::Value { number: -1 }] {
        let store = SharedStore::new(TokioClock::new());
        let cache = cache(&store);
        let (events, _guard) = events(&cache);
        assert_eq!(*load(&cache, value.clone()).await, value);
        assert_eq!(store.peek("k"), None, "no peer finds it unreadable and deletes it");
        assert_eq!(cache.get_l1("k").as_deref(), Some(&value));
        let refused = |text: &String| {
            let names_type = text.contains("round_trips::Wide");
            text.starts_with("l2:refused") && names_type && text.contains("128")
        };
        assert!(events.lock().unwrap().iter().any(refused), "{:?}", events.lock().unwrap());
        // A `set` also removes the old value, which would be read.
        cache.set("k", Wide::Small { number: 1 }).await.unwrap();
        assert!(store.peek("k").is_some(), "a value that can be read is written");
        cache.set("k", value.clone()).await.unwrap();
        assert_eq!(store.peek("k"), None);
        assert_eq!(cache.get_l1("k").as_deref(), Some(&value));
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_written_unchecked_is_found_when_it_is_read() {
    let store = SharedStore::new(TokioClock::new());
    let writer = cache(&store);
    for number in 0..100 {
        writer.set(&number.to_string(), Wide::Small { number }).await.unwrap();
    }
    writer.set("k", wide_key()).await.unwrap();
    assert!(store.peek("k").is_some(), "only the first values are checked");
    // The reader removes the value, loads it, and does not write it again.
    let reader = cache(&store);
    for number in 0..100 {
        reader.set(&number.to_string(), Wide::Small { number }).await.unwrap();
    }
    assert_eq!(*load(&reader, wide_key()).await, wide_key());
    assert_eq!(store.peek("k"), None);
    assert_eq!(reader.get_l1("k").as_deref(), Some(&wide_key()));
}

#[tokio::test(start_paused = true)]
async fn the_log_names_the_type_once() {
    /// A type of this test alone: the log names each type once per process.
    #[derive(Debug, Clone, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Unlogged {
        Map(BTreeMap<i128, u8>),
    }
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);
    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().level().to_string());
        }
    }
    let lines = Lines::default();
    let _default = listen(lines.clone());
    let store = SharedStore::new(TokioClock::new());
    for _ in 0..2 {
        let builder = LazyLayersCache::<String, Unlogged>::builder().clock(TokioClock::new());
        let cache = builder.l2(store.clone(), WireCodec::new()).build().unwrap();
        for key in ["a", "b", "c"] {
            cache.set(key, Unlogged::Map(BTreeMap::from([(1, 1)]))).await.unwrap();
        }
    }
    assert_eq!(*lines.0.lock().unwrap(), ["WARN"]);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_peers_cannot_read_is_not_sent_to_them() {
    let bus = EventBus::new(LocalTransport::new());
    let builder = Cache::builder().clock(TokioClock::new());
    let cache = builder.name("test").event_bus(bus, WireCodec::new()).build().unwrap();
    cache.ready().await.unwrap();
    let (events, _guard) = events(&cache);
    let broadcast = || {
        let events = std::mem::take(&mut *events.lock().unwrap());
        events.into_iter().filter(|event| event.starts_with("set:broadcast")).collect::<Vec<_>>()
    };
    for _ in 0..20 {
        cache.set("k", wide_key()).await.unwrap();
        assert_eq!(broadcast(), ["set:broadcast-skipped"]);
    }
    cache.set("k", Wide::Small { number: 1 }).await.unwrap();
    assert_eq!(broadcast(), ["set:broadcast"]);
}

#[tokio::test(start_paused = true)]
async fn values_of_any_codec_are_checked_and_a_panic_in_decode_is_a_refusal() {
    struct WriteOnly;
    impl Codec<u8> for WriteOnly {
        fn encode(&self, value: &u8) -> Result<Vec<u8>, BoxError> {
            Ok(vec![*value])
        }
        fn decode(&self, bytes: &[u8]) -> Result<u8, BoxError> {
            assert!(bytes == [1], "as the test wants");
            Ok(1)
        }
    }
    let store = SharedStore::new(TokioClock::new());
    let builder = LazyLayersCache::<String, u8>::builder().clock(TokioClock::new());
    let cache = builder.l2(store.clone(), WriteOnly).build().unwrap();
    for number in 1..100 {
        cache.set(&number.to_string(), number).await.unwrap();
    }
    assert!(store.peek("1").is_some());
    assert!((2..100).all(|number| store.peek(&number.to_string()).is_none()));
}

/// A cache over the store whose codec writes JSON.
fn in_json<V>(store: &SharedStore) -> LazyLayersCache<String, V>
where
    V: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let builder = LazyLayersCache::builder().clock(TokioClock::new());
    builder.l2(store.clone(), WireCodec::new().json()).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_number_that_json_cannot_write_stays_in_l1_and_the_store_has_no_older_one() {
    let store = SharedStore::new(TokioClock::new());
    let (cache, peer) = (in_json::<Vec<f64>>(&store), in_json::<Vec<f64>>(&store));
    for number in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        cache.set("k", vec![1.0]).await.unwrap();
        assert!(store.peek("k").is_some());
        let report = cache.set("k", vec![1.0, number]).await.unwrap();
        let L2Effect::NotStored(reason) = &report.l2 else { panic!("{report:?}") };
        assert!(reason.contains("infinity"), "{reason}");
        assert_eq!(store.peek("k"), None);
        assert!(cache.get("k").await.unwrap()[1].total_cmp(&number).is_eq());
        assert_eq!(peer.get("k").await, None, "no other number");
        let load = move || async move { Ok::<_, std::fmt::Error>(vec![number]) };
        assert!(peer.get_or_set("k", load).await.unwrap()[0].total_cmp(&number).is_eq());
        assert_eq!(store.peek("k"), None);
        peer.delete("k").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_digit_of_an_old_release_which_may_be_json_or_messagepack_is_a_miss() {
    let store = SharedStore::new(TokioClock::new());
    for digit in b'0'..=b'9' {
        store.insert_raw("k", [digit], ms(60_000));
        let builder = LazyLayersCache::<String, u8>::builder().clock(TokioClock::new());
        let cache = builder.l2(store.clone(), WireCodec::new()).build().unwrap();
        assert_eq!(cache.get("k").await, None);
        let load = || async { Ok::<_, std::fmt::Error>(200) };
        assert_eq!(*cache.get_or_set("k", load).await.unwrap(), 200);
        let peer = in_json::<u8>(&store);
        assert_eq!(peer.get("k").await.as_deref(), Some(&200), "the loaded value replaces it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_null_within_an_option_is_read_as_the_outer_none() {
    let store = SharedStore::new(TokioClock::new());
    let (cache, peer) = (in_json::<Option<Option<u8>>>(&store), in_json(&store));
    for (value, read) in [(Some(None), None), (Some(Some(7)), Some(Some(7))), (None, None)] {
        cache.set("k", value).await.unwrap();
        assert_eq!(peer.get("k").await.as_deref(), Some(&read));
        peer.delete("k").await.unwrap();
    }
}
