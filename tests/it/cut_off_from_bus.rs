//! Instances that are cut off from the bus, or behind it, while L2 and the origin are not: how old
//! the values are that their peers and they themselves serve.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use lazy_layers_cache::{
    CacheBuilder, WireCodec,
    testing::{BusLink, SharedBus, SharedStore, TokioClock},
};
use tokio::time::{Instant, sleep};

use crate::support::{Broken, Cache, Log, ms, on_tokio_time};

const TRUST: Duration = ms(3_000);
/// The check for gaps, the interval of the reads, and the way of a message.
const SLACK: Duration = ms(350);

fn on(link: &BusLink) -> CacheBuilder<String, u32> {
    on_tokio_time().name("cut-off").ttl(ms(600_000)).event_bus(link.clone(), WireCodec::new())
}

/// The origin: the versions of one key, with the time from which each was replaced everywhere.
#[derive(Clone, Default)]
struct Truth(Arc<Mutex<(u32, Vec<Instant>)>>);

impl Truth {
    /// Commits a change, then deletes the key.
    async fn change(&self, by: &Cache) {
        self.0.lock().unwrap().0 += 1;
        by.delete("k").await.unwrap();
        self.0.lock().unwrap().1.push(Instant::now());
    }

    /// Reads the key, and returns for how long the value had been replaced.
    async fn age(&self, by: &Cache) -> Duration {
        let truth = self.clone();
        let load = move || async move { Ok::<_, Broken>(truth.0.lock().unwrap().0) };
        let asked = Instant::now();
        let version = *by.get_or_set("k", load).await.unwrap();
        let replaced = self.0.lock().unwrap().1.get(version as usize).copied();
        replaced.map_or(Duration::ZERO, |at| asked.saturating_duration_since(at))
    }

    /// Lets the writer change the key now and then, and all readers read it all the time. Returns
    /// the age of the oldest answer.
    async fn oldest(&self, writer: &Cache, readers: &[&Cache], lasts: Duration) -> Duration {
        let (end, mut oldest) = (Instant::now() + lasts, Duration::ZERO);
        let mut next_change = Instant::now();
        while Instant::now() < end {
            if next_change <= Instant::now() {
                self.change(writer).await;
                next_change = Instant::now() + ms(fastrand::u64(50..2_500));
            }
            for reader in readers {
                oldest = oldest.max(self.age(reader).await);
            }
            sleep(ms(50)).await;
        }
        oldest
    }
}

struct Fleet {
    bus: SharedBus,
    links: Vec<BusLink>,
    caches: Vec<Cache>,
    truth: Truth,
}

impl Fleet {
    async fn of(size: usize, with_l2: bool) -> Self {
        let bus = SharedBus::new(7);
        let store = SharedStore::new(TokioClock::new());
        let links: Vec<BusLink> = (0..size).map(|_| bus.link()).collect();
        let build = |link| match with_l2 {
            true => on(link).l2(store.clone(), WireCodec::new()).build().unwrap(),
            false => on(link).build().unwrap(),
        };
        let caches: Vec<Cache> = links.iter().map(build).collect();
        for cache in &caches {
            cache.ready().await.unwrap();
        }
        // Each has heard each: one beacon suffices.
        sleep(ms(1_100)).await;
        Self { bus, links, caches, truth: Truth::default() }
    }

    /// Within 45 s: a call that hangs is given up after 20 s, and the fault may have begun two.
    async fn all_are_trusted(&self) {
        let until = Instant::now() + ms(45_000);
        while self.caches.iter().any(|it| !it.health().event_bus.unwrap().trusted) {
            assert!(Instant::now() < until);
            sleep(ms(100)).await;
        }
        let readers: Vec<&Cache> = self.caches.iter().collect();
        assert!(self.truth.oldest(&self.caches[0], &readers, ms(5_000)).await <= ms(50));
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_writer_is_cut_off_from_the_bus_its_peers_are_behind_by_the_trust_timeout() {
    for with_l2 in [true, false] {
        for (fault, has_written) in [(BusLink::cut as fn(&_), true), (BusLink::freeze, false)] {
            let fleet = Fleet::of(4, with_l2).await;
            let [writer, readers @ ..] = &fleet.caches[..] else { unreachable!() };
            let readers: Vec<&Cache> = readers.iter().collect();
            if has_written {
                fleet.truth.change(writer).await;
            }
            fault(&fleet.links[0]);
            let oldest = fleet.truth.oldest(writer, &readers, ms(30_000)).await;
            assert!(oldest > ms(1_000), "the fault does nothing: {oldest:?}");
            assert!(oldest <= TRUST + SLACK, "{oldest:?} behind, with L2: {with_l2}");
            assert!(!readers[0].health().event_bus.unwrap().trusted);
            fleet.links[0].restore();
            fleet.all_are_trusted().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_bus_is_split_in_two_each_side_is_behind_the_other_by_the_trust_timeout() {
    let fleet = Fleet::of(4, true).await;
    fleet.bus.split(&[&fleet.links[0], &fleet.links[1]]);
    let [writer, same_side, others @ ..] = &fleet.caches[..] else { unreachable!() };
    let others: Vec<&Cache> = others.iter().collect();
    let oldest = fleet.truth.oldest(writer, &others, ms(30_000)).await;
    assert!(oldest > ms(1_000) && oldest <= TRUST + SLACK, "{oldest:?} behind");
    assert!(fleet.truth.oldest(writer, &[same_side], ms(5_000)).await <= ms(50));
    fleet.bus.split(&[]);
    fleet.all_are_trusted().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_falls_behind_by_seconds_knows_it() {
    for lag in [2_000, 3_500, 5_500, 12_000] {
        let fleet = Fleet::of(3, true).await;
        let [writer, reader, _] = &fleet.caches[..] else { unreachable!() };
        let log = Log::of(reader);
        fleet.links[1].lag(ms(lag));
        let oldest = fleet.truth.oldest(writer, &[reader], ms(30_000)).await;
        assert!(oldest > ms(500) && oldest <= TRUST + SLACK, "{oldest:?} behind");
        let is_trusted = reader.health().event_bus.unwrap().trusted;
        assert!(!is_trusted || lag <= 2_000, "{lag} ms behind");
        fleet.links[1].restore();
        sleep(ms(lag + 100)).await;
        fleet.all_are_trusted().await;
        let gaps: Vec<String> = log.take().into_iter().filter(|it| it == "event-bus:gap").collect();
        assert!(gaps.len() <= 3, "nothing was lost, and there were {} gaps", gaps.len());
    }
}

/// Values of peers travel with the messages: they are as late, and no deletes of them are behind.
#[tokio::test(start_paused = true)]
async fn a_value_that_was_late_is_served_for_the_rest_of_the_trust_timeout() {
    for lag in [2_000, 3_500, 5_500, 12_000] {
        let fleet = Fleet::of(2, true).await;
        let [writer, reader] = &fleet.caches[..] else { unreachable!() };
        sleep(ms(4_000)).await;
        fleet.links[1].lag(ms(lag));
        let mut set_at = vec![Instant::now()];
        let (mut oldest, mut seen) = (Duration::ZERO, 0);
        for version in 1..200u32 {
            writer.set("k", version).await.unwrap();
            set_at.push(Instant::now());
            for _ in 0..10 {
                sleep(ms(15)).await;
                let Some(known) = reader.get_l1("k") else { continue };
                seen += 1;
                let replaced = set_at.get(*known as usize + 1);
                oldest = replaced.map_or(oldest, |at| oldest.max(at.elapsed()));
            }
        }
        println!("{lag} ms behind: {seen} reads, the oldest value was replaced {oldest:?} ago");
        assert!(oldest <= TRUST + SLACK, "{oldest:?}, {lag} ms behind");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dies_makes_l1_uncertain_for_a_minute_and_one_that_closes_does_not() {
    for closes in [true, false] {
        let fleet = Fleet::of(2, false).await;
        let [peer, cache] = &fleet.caches[..] else { unreachable!() };
        if closes {
            peer.close().await;
        } else {
            fleet.links[0].cut();
        }
        cache.set("k", 1u32).await.unwrap();
        sleep(ms(3_500)).await;
        let is_trusted = || cache.health().event_bus.unwrap().trusted;
        assert_eq!((is_trusted(), cache.get_l1("k").is_some()), (closes, closes));
        sleep(ms(55_000)).await;
        assert_eq!((is_trusted(), cache.stats().bus_gaps), (closes, u64::from(!closes)));
        sleep(ms(2_000)).await;
        assert!(is_trusted());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_set_after_ready_is_kept_also_in_a_busy_fleet_and_after_a_resubscription() {
    let fleet = Fleet::of(2, false).await;
    let busy = fleet.caches.clone();
    let traffic = tokio::spawn(async move {
        for number in 0..4_000 {
            busy[number % 2].delete(&number.to_string()).await.unwrap();
            sleep(ms(5)).await;
        }
    });
    let link = fleet.bus.link();
    let cache = on(&link).build().unwrap();
    for _ in 0..2 {
        cache.ready().await.unwrap();
        let gaps = cache.stats().bus_gaps;
        for key in ["a", "b"] {
            cache.set(key, 1u32).await.unwrap();
            sleep(ms(fastrand::u64(1..700))).await;
            assert!(cache.get_l1(key).is_some());
        }
        sleep(ms(4_000)).await;
        assert!(cache.get_l1("a").is_some() && cache.get_l1("b").is_some());
        assert_eq!(cache.stats().bus_gaps, gaps);
        link.cut();
        sleep(ms(100)).await;
        link.restore();
    }
    traffic.abort();
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_joins_a_busy_fleet_is_primed_after_the_trust_timeout() {
    let fleet = Fleet::of(2, false).await;
    let writer = fleet.caches[1].clone();
    let traffic = tokio::spawn(async move {
        for number in 0u64.. {
            writer.delete(&number.to_string()).await.unwrap();
            sleep(ms(2)).await;
        }
    });
    let cache = on(&fleet.bus.link()).build().unwrap();
    cache.ready().await.unwrap();
    sleep(TRUST + ms(10)).await;
    fleet.truth.age(&fleet.caches[0]).await;
    sleep(ms(10)).await;
    assert!(cache.get_l1("k").is_some());
    traffic.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rolling_deploy_of_instances_that_close_makes_no_peer_uncertain() {
    let Fleet { bus, caches, .. } = Fleet::of(8, true).await;
    let watched = caches[7].clone();
    watched.set("k", 1u32).await.unwrap();
    let mut running: Vec<Cache> = caches.into_iter().take(7).collect();
    for round in 0..14 {
        let old = running.remove(0);
        old.delete(&round.to_string()).await.unwrap();
        // The old instance ends before the new one starts, or after it.
        if round % 2 == 0 {
            old.close().await;
        }
        let new = on(&bus.link()).build().unwrap();
        new.ready().await.unwrap();
        // The last handle says goodbye, too.
        drop(old);
        running.push(new);
        for _ in 0..50 {
            sleep(ms(100)).await;
            assert!(watched.health().event_bus.unwrap().trusted, "round {round}");
            assert!(watched.get_l1("k").is_some(), "round {round}");
        }
    }
    sleep(ms(70_000)).await;
    assert_eq!(watched.stats().bus_gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn instances_that_are_killed_cost_a_lookup_per_key_and_trust_timeout_for_a_minute() {
    let fleet = Fleet::of(6, true).await;
    let cache = fleet.caches[5].clone();
    let load = || async { Ok::<_, Broken>(1u32) };
    cache.get_or_set("k", load).await.unwrap();
    let hits = cache.stats().l2_hits;
    let log = Log::of(&cache);
    let mut uncertain = 0;
    for step in 0..1_000 {
        // Five are killed within three seconds.
        if step % 6 == 0 && step / 6 < 5 {
            fleet.links[step / 6].freeze();
        }
        sleep(ms(100)).await;
        uncertain += u32::from(!cache.health().event_bus.unwrap().trusted);
        for _ in 0..20 {
            cache.get_or_set("k", load).await.unwrap();
        }
    }
    assert!((550..=620).contains(&uncertain), "uncertain for {uncertain} times 100 ms");
    let lookups = cache.stats().l2_hits - hits;
    assert!((15..=23).contains(&lookups), "{lookups} lookups in L2");
    let gaps = log.take().into_iter().filter(|it| it == "event-bus:gap").count();
    assert_eq!(gaps, 2, "one silence begins, of which the others are part, and the last one ends");
}
