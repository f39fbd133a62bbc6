//! Checks of two caches over any bus, one per kind of message or fault: one cache alone, and one of
//! a manager with another cache. A third transport publishes messages that no cache would.

use std::{
    ops::AsyncFn,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    CacheManager, CacheOptions, Delivery, Event, EventBus, EventBusOptions, HandlerGuard,
    LazyLayersCache, MessageStream, Subscribed, Transport, TransportFuture, WireCodec,
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Broken, broker::BrokerTransport, ms};

type Cache = LazyLayersCache<String, String>;

/// Longer than any step takes. A check that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Short, because after each undecodable message the caches refuse values for this time.
const TRUST: Duration = ms(1_000);

/// Runs every check. The transports belong to three instances, are new, and alone on their bus.
pub(crate) async fn check_all(
    name: &'static str,
    one: BrokerTransport,
    other: BrokerTransport,
    raw: BrokerTransport,
) {
    let world = World::new(name, one, other, raw).await;
    world.deletes().await;
    world.patterns().await;
    world.clears().await;
    world.sets().await;
    world.primes().await;
    world.duplicates().await;
    world.echoes().await;
    world.reordering().await;
    world.oversized().await;
    world.poison().await;
    world.unknown_type().await;
    world.wrong_namespace().await;
    world.left.close().await;
    world.manager.close().await;
}

struct World {
    name: &'static str,
    left: Cache,
    right: Cache,
    /// The manager of `right`, and its other cache.
    manager: CacheManager,
    _neighbour: Cache,
    /// The events of each cache, as `<event> <key or pattern>`.
    log: [EventLog; 2],
    held: Held,
    raw: BrokerTransport,
    tap: Mutex<Vec<Vec<u8>>>,
    tapped: tokio::sync::Mutex<Box<dyn MessageStream>>,
}

impl World {
    async fn new(
        name: &'static str,
        one: BrokerTransport,
        other: BrokerTransport,
        raw: BrokerTransport,
    ) -> Self {
        let held = Held(Arc::new(Holding { transport: one, hold: Mutex::default() }));
        let (left, manager) = (cache(held.clone()), manager(other));
        let right = manager.cache("ours").build().unwrap();
        let _neighbour = manager.cache("neighbour").build().unwrap();
        let tapped = raw.subscribe().await.unwrap().messages;
        let log = [EventLog::of(&left), EventLog::of(&right)];
        left.ready().await.unwrap();
        right.ready().await.unwrap();
        let (tap, tapped) = (Mutex::default(), tokio::sync::Mutex::new(tapped));
        Self { name, left, right, manager, _neighbour, log, held, raw, tap, tapped }
    }

    /// Repeats a failed attempt if a cache had a gap meanwhile: on a machine that stalls for a
    /// second the caches report a gap, and then refuse values for a while.
    async fn undisturbed(&self, cell: &str, attempt: impl AsyncFn(String) -> Result<(), String>) {
        let since = Instant::now();
        for count in 0.. {
            let gaps = || (self.left.stats().bus_gaps, self.right.stats().bus_gaps);
            let before = gaps();
            match attempt(format!("{cell}:{count}")).await {
                Ok(()) => return,
                Err(_) if gaps() != before => {}
                // Both caches have been caught up for long enough.
                Err(error) if since.elapsed() > PATIENCE / 2 => {
                    panic!("{}, {cell}: {error}", self.name)
                }
                Err(_) => sleep(TRUST / 4).await,
            }
            assert!(since.elapsed() < PATIENCE, "{}, {cell}: one gap after another", self.name);
        }
    }

    async fn right_receives(&self, cell: &str, what: &str) {
        let what = what.to_owned();
        self.until(cell, &what, || self.log[1].has(&what)).await;
    }

    async fn until(&self, cell: &str, what: &str, is: impl Fn() -> bool) {
        let since = Instant::now();
        while !is() {
            let log = self.log[1].0.lock().unwrap().clone();
            assert!(since.elapsed() < PATIENCE, "{}, {cell}: no {what:?} in {log:?}", self.name);
            sleep(ms(2)).await;
        }
    }

    async fn deletes(&self) {
        self.undisturbed("delete", async |key| {
            put(&self.right, &key, "old").await;
            self.left.delete(&*key).await.unwrap();
            self.right_receives("delete", &format!("invalidation:received {key}")).await;
            self.is_gone_from_right(&key).await
        })
        .await;
    }

    async fn patterns(&self) {
        self.undisturbed("pattern", async |key| {
            put(&self.right, &key, "old").await;
            put(&self.right, "untouched", "kept").await;
            self.left.delete_by_pattern(&format!("{key}*")).await.unwrap();
            self.right_receives("pattern", &format!("invalidation:received {key}*")).await;
            self.is_gone_from_right(&key).await?;
            kept(&self.right, "untouched", "kept")
        })
        .await;
    }

    async fn clears(&self) {
        self.undisturbed("clear", async |key| {
            put(&self.right, &key, "old").await;
            self.log[1].0.lock().unwrap().clear();
            self.left.clear().await.unwrap();
            self.right_receives("clear", "invalidation:received *").await;
            self.is_gone_from_right(&key).await
        })
        .await;
    }

    async fn sets(&self) {
        self.undisturbed("set", async |key| {
            self.right_puts_old("set", &key).await;
            put(&self.left, &key, "new").await;
            within(ms(500), || self.right.get_l1(&*key).as_deref().is_none_or(|it| it == "new"))
                .await
                .map_err(|()| "still old".to_owned())?;
            within(ms(500), || kept(&self.right, &key, "new").is_ok())
                .await
                .map_err(|()| format!("not set: {:?}", self.log[1].about(&key)))
        })
        .await;
    }

    async fn primes(&self) {
        self.undisturbed("prime", async |key| {
            load(&self.left, &key, "loaded").await;
            within(ms(500), || kept(&self.right, &key, "loaded").is_ok())
                .await
                .map_err(|()| format!("not primed: {:?}", self.log[1].about(&key)))
        })
        .await;
    }

    async fn duplicates(&self) {
        self.undisturbed("duplicate", async |key| {
            self.left.delete(&*key).await.unwrap();
            self.right_receives("duplicate", &format!("invalidation:received {key}")).await;
            let event = self.event_about("duplicate", &key).await;
            put(&self.right, &key, "kept").await;
            let before = self.right.stats().events_duplicate;
            for _ in 0..3 {
                self.raw.publish(&event).await.unwrap();
            }
            let twice = || self.right.stats().events_duplicate >= before + 3;
            self.until("duplicate", "three duplicates", twice).await;
            kept(&self.right, &key, "kept")
        })
        .await;
    }

    async fn echoes(&self) {
        self.undisturbed("echo", async |key| {
            put(&self.left, &key, "own").await;
            let event = self.event_about("echo", &key).await;
            let before = self.left.stats();
            // Published again by the third, so that it arrives after all messages of left.
            self.raw.publish(&event).await.unwrap();
            self.marked("echo").await;
            let after = self.left.stats();
            kept(&self.left, &key, "own")?;
            assert_eq!(
                self.log[0].about(&key),
                [""; 0],
                "{}: its own message is no event",
                self.name
            );
            assert_eq!(after.events_duplicate, before.events_duplicate, "{}, echo", self.name);
            Ok(())
        })
        .await;
    }

    async fn reordering(&self) {
        // A delete overtakes an older value.
        self.undisturbed("reorder", async |key| {
            self.held.hold(&key);
            load(&self.left, &key, "old").await;
            self.until("reorder", "a value on hold", || self.held.holds()).await;
            self.left.delete(&*key).await.unwrap();
            self.right_receives("reorder", &format!("invalidation:received {key}")).await;
            self.held.release().await;
            self.right_receives("reorder", &format!("invalidation:stale {key}")).await;
            self.is_gone_from_right(&key).await
        })
        .await;
        // A later value overtakes a delete. Right may keep it or nothing, but not the old value.
        self.undisturbed("reorder", async |key| {
            self.right_puts_old("reorder", &key).await;
            self.held.hold(&key);
            self.left.delete(&*key).await.unwrap();
            self.until("reorder", "a delete on hold", || self.held.holds()).await;
            put(&self.left, &key, "new").await;
            let is_old = || kept(&self.right, &key, "old").is_ok();
            let overtaken = within(ms(500), || !is_old()).await;
            self.held.release().await;
            overtaken.map_err(|()| "the value that was set does not arrive".to_owned())?;
            self.right_receives("reorder", &format!("invalidation:received {key}")).await;
            if is_old() { Err("old again".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    async fn oversized(&self) {
        let big = "x".repeat(2 << 20);
        self.undisturbed("oversized", async |key| {
            put(&self.right, &key, "old").await;
            put(&self.left, &key, &big).await;
            let changed = || self.right.get_l1(&*key).is_none_or(|it| *it != "old");
            self.until("oversized", "the old value to be replaced", changed).await;
            self.left.delete(&*format!("{key}:after")).await.unwrap();
            self.right_receives("oversized", &format!("invalidation:received {key}:after")).await;
            let health = self.left.health().event_bus.unwrap();
            assert!(
                !health.publishing_skipped,
                "{}: one oversized value opens no circuit",
                self.name
            );
            Ok(())
        })
        .await;
    }

    async fn poison(&self) {
        let poison: [&[u8]; 4] = [b"\xff\xfe\xfd", b"HC1M\x93\x01", b"HC1G\x1f\x8b\x08", b"HC1?"];
        for bytes in poison {
            self.is_refused("poison", bytes).await;
        }
    }

    async fn unknown_type(&self) {
        let event = json!({
            "id": "u", "type": "rename", "source": "them", "ts": 1, "namespace": "ours",
            "keys": ["k"],
        });
        self.is_refused("unknown type", &packed(&event)).await;
    }

    /// Both caches refuse the message, treat it as a gap, and receive later messages.
    async fn is_refused(&self, cell: &str, bytes: &[u8]) {
        put(&self.left, "suspect", "mine").await;
        let before = [self.left.stats(), self.right.stats()];
        self.raw.publish(bytes).await.unwrap();
        for (cache, before) in [&self.left, &self.right].into_iter().zip(before) {
            let refused = || cache.stats().events_refused > before.events_refused;
            self.until(cell, "refusal", refused).await;
            let gap = || cache.stats().bus_gaps > before.bus_gaps;
            self.until(cell, "gap", gap).await;
        }
        assert_eq!(self.left.get_l1("suspect"), None, "{}, {cell}", self.name);
        self.marked(cell).await;
    }

    async fn wrong_namespace(&self) {
        self.undisturbed("wrong namespace", async |key| {
            put(&self.right, &key, "kept").await;
            let before = self.right.stats().events_refused;
            for (id, kind) in [("a", "del"), ("b", "rename")] {
                let theirs = json!({
                    "id": format!("{key}{id}"), "type": kind, "source": "them", "ts": 1,
                    "namespace": "theirs", "keys": [key],
                });
                self.raw.publish(&packed(&theirs)).await.unwrap();
            }
            self.marked("wrong namespace").await;
            assert_eq!(
                self.right.stats().events_refused,
                before,
                "{}: other namespaces count as no refusal",
                self.name
            );
            kept(&self.right, &key, "kept")
        })
        .await;
    }

    /// Waits until both caches have received a new message of the third transport, and so all that
    /// it published before.
    async fn marked(&self, cell: &str) {
        let mark = format!("mark:{:x}", fastrand::u64(..));
        let event = json!({
            "id": mark, "type": "del", "source": "them", "ts": 1, "namespace": "ours",
            "keys": [mark],
        });
        self.raw.publish(&packed(&event)).await.unwrap();
        for log in &self.log {
            let what = format!("invalidation:received {mark}");
            self.until(cell, &what, || log.has(&what)).await;
        }
    }

    /// Sets "old" on the right, and waits until left has received it: of two concurrent sets
    /// neither cache takes the other's value.
    async fn right_puts_old(&self, cell: &str, key: &str) {
        let report = self.right.set(key, "old".to_owned()).await.unwrap();
        // A broker may deliver the message before it confirms it, and until then `right` refuses
        // values of the key.
        assert!(report.settled(PATIENCE).await, "{}, {cell}: no confirmation", self.name);
        let what = format!("invalidation:received {key}");
        self.until(cell, &what, || self.log[0].has(&what)).await;
    }

    async fn is_gone_from_right(&self, key: &str) -> Result<(), String> {
        // The event is emitted a moment before the entry is removed.
        let gone = within(ms(500), || self.right.get_l1(key).is_none()).await;
        gone.map_err(|()| format!("{key} is still there"))
    }

    /// Returns the message that named the key.
    async fn event_about(&self, cell: &str, key: &str) -> Vec<u8> {
        let names = |event: &Vec<u8>| contains(event, key);
        let mut tapped = self.tapped.lock().await;
        loop {
            if let Some(event) = self.tap.lock().unwrap().iter().find(|it| names(it)) {
                return event.clone();
            }
            match timeout(PATIENCE, tapped.next()).await.expect("a message") {
                Delivery::Message(event) => self.tap.lock().unwrap().push(event),
                other => panic!("{}, {cell}: {other:?} on a bus that works", self.name),
            }
        }
    }
}

fn options() -> CacheOptions {
    let bus = EventBusOptions::default().trust_timeout(TRUST);
    CacheOptions::default().ttl(ms(600_000)).event_bus(bus)
}

fn cache(transport: impl Transport) -> Cache {
    let builder = Cache::builder().options(options()).name("ours");
    builder.event_bus(transport, WireCodec::new()).build().unwrap()
}

fn manager(transport: impl Transport) -> CacheManager {
    let builder = CacheManager::builder().options(options());
    builder.event_bus(EventBus::new(transport)).build().unwrap()
}

fn kept(cache: &Cache, key: &str, value: &str) -> Result<(), String> {
    let held = cache.get_l1(key);
    if held.as_deref().is_some_and(|held| held == value) {
        return Ok(());
    }
    let brief = |held: Arc<String>| held.chars().take(20).collect::<String>();
    Err(format!("{key} is {:?}, not {value:?}", held.map(brief)))
}

async fn put(cache: &Cache, key: &str, value: &str) {
    cache.set(key, value.to_owned()).await.unwrap();
}

async fn load(cache: &Cache, key: &str, value: &'static str) {
    let loader = move || async move { Ok::<_, Broken>(value.to_owned()) };
    cache.get_or_set(key, loader).await.unwrap();
}

fn packed(event: &serde_json::Value) -> Vec<u8> {
    [b"HC1M".to_vec(), rmp_serde::to_vec(event).unwrap()].concat()
}

fn contains(event: &[u8], key: &str) -> bool {
    // In MessagePack the byte after a text is not text, so a key cannot match a longer key.
    let at = event.windows(key.len()).position(|window| window == key.as_bytes());
    at.is_some()
}

async fn within(limit: Duration, is: impl Fn() -> bool) -> Result<(), ()> {
    let since = Instant::now();
    while !is() {
        if since.elapsed() > limit {
            return Err(());
        }
        sleep(ms(2)).await;
    }
    Ok(())
}

struct EventLog(Arc<Mutex<Vec<String>>>, #[expect(dead_code, reason = "held")] HandlerGuard);

impl EventLog {
    fn of(cache: &Cache) -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&lines);
        let subscription = cache.on(move |event| {
            let name = event.name();
            let mut log = log.lock().unwrap();
            match event {
                Event::InvalidationReceived { keys, pattern, .. } => {
                    log.extend(keys.iter().chain(pattern).map(|it| format!("{name} {it}")));
                }
                Event::SetReceived { key, .. } | Event::InvalidationStale { key, .. } => {
                    log.push(format!("{name} {key}"));
                }
                _ => {}
            }
        });
        Self(lines, subscription)
    }

    fn has(&self, what: &str) -> bool {
        self.0.lock().unwrap().iter().any(|it| it == what)
    }

    fn about(&self, key: &str) -> Vec<String> {
        let is_about = |line: &&String| line.split_once(' ').is_some_and(|(_, it)| it == key);
        self.0.lock().unwrap().iter().filter(is_about).cloned().collect()
    }
}

/// A transport that can hold back one message, so that others overtake it.
#[derive(Clone)]
struct Held(Arc<Holding>);

struct Holding {
    transport: BrokerTransport,
    hold: Mutex<Hold>,
}

#[derive(Default)]
struct Hold {
    /// The key that the next message to hold back names.
    about: Option<String>,
    event: Option<Vec<u8>>,
}

impl Held {
    fn hold(&self, about: &str) {
        *self.0.hold.lock().unwrap() = Hold { about: Some(about.to_owned()), event: None };
    }

    fn holds(&self) -> bool {
        self.0.hold.lock().unwrap().event.is_some()
    }

    async fn release(&self) {
        let event = std::mem::take(&mut *self.0.hold.lock().unwrap()).event.expect("an event");
        self.0.transport.publish(&event).await.unwrap();
    }
}

impl Transport for Held {
    fn name(&self) -> &'static str {
        self.0.transport.name()
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        {
            let mut hold = self.0.hold.lock().unwrap();
            if hold.about.as_ref().is_some_and(|about| contains(event, about)) {
                *hold = Hold { about: None, event: Some(event.to_vec()) };
                return Box::pin(async { Ok(()) });
            }
        }
        self.0.transport.publish(event)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.transport.announce(beacon)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        self.0.transport.subscribe()
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.0.transport.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.0.transport.disconnect()
    }
}
