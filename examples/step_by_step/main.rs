//! Eight failures of a product page, each before and after the option that answers it.
//!
//!     cargo run --example step_by_step             # prints the table
//!     cargo run --example step_by_step -- --write  # and writes it, and the picture, into docs/
//!
//! docs/step-by-step.md explains the steps. The program needs no server: it has a database, a Redis
//! and a bus in memory, whose faults it chooses. It runs on tokio's paused clock, which jumps from
//! one event to the next. So a query of 100 ms takes 100 ms on that clock, computing takes no time,
//! ten minutes pass in a few seconds, and each run prints the same numbers.

mod picture;

use std::{
    env,
    error::Error,
    fmt::Display,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use lazy_layers_cache::{
    CacheOptions, CircuitBreaker, Coalescing, EventBusOptions, FailSafe, LazyLayersCache, Timeouts,
    WireCodec,
    testing::{BusLink, Chaos, ChaosStore, SharedBus, SharedStore, TokioClock},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::picture::Picture;

#[derive(Serialize, Deserialize)]
struct Product {
    cents: u64,
}

type Products = LazyLayersCache<u64, Product>;

/// Each failure, and the option that answers it.
const STEPS: [(&str, &str); 8] = [
    ("cold stampede", "inflight (default)"),
    ("expiry stampede", "ttl_jitter"),
    ("database down", "fail_safe"),
    ("database slow", "timeouts.soft"),
    ("new instance", "l2"),
    ("change elsewhere", "event_bus"),
    ("Redis hangs", "l2_circuit_breaker (default)"),
    ("bus down", "trust_timeout (default)"),
];

/// Whether the answer of a step does what docs/step-by-step.md says.
fn improves(step: usize, before: &Run, after: &Run) -> bool {
    match step {
        1 => after.queries == 1 && after.quantile(99) * 10 < before.quantile(99),
        2 => after.quantile(99) * 10 < before.quantile(99),
        3 => before.errors > 500 && after.errors == 0 && after.queries * 5 < before.queries,
        4 => after.quantile(100) * 10 < before.quantile(100),
        5 => before.queries > 100 && after.queries == 0,
        6 => before.old > 500 && after.old == 0,
        7 => after.quantile(50) * 5 < before.quantile(50),
        _ => before.old > 500 && after.old <= 10,
    }
}

/// The options of a service that has taken the answers of the first `steps` steps. Those that are
/// defaults are switched off before their step.
fn options(steps: usize) -> CacheOptions {
    let mut options = CacheOptions::default().name("products").ttl(seconds(300));
    if steps < 1 {
        options.inflight = Coalescing::disabled();
    }
    if steps >= 2 {
        options.ttl_jitter = 0.1;
    }
    if steps >= 3 {
        options.fail_safe = FailSafe::enabled();
    }
    if steps >= 4 {
        options.timeouts = Timeouts::none().soft(millis(50));
    }
    if steps < 7 {
        options.l2_circuit_breaker = CircuitBreaker::default().failure_threshold(u32::MAX);
    }
    if steps < 8 {
        options.event_bus = EventBusOptions::default().trust_timeout(seconds(3_600));
    }
    options
}

/// Plays the failure of a step, and returns what the visitors of the page saw.
async fn play(step: usize, world: &World) -> Result<Run, Box<dyn Error>> {
    let products = world.instance(&world.bus.link())?;
    let a_minute = Traffic { visits: 1_200, every: millis(50), products: 10 };
    let run = match step {
        // 200 visitors come for a product that is in no cache.
        1 => world.visit(&products, Traffic { visits: 200, every: millis(0), products: 1 }).await,
        // A job has filled the cache. Its 1,000 values expire after 300 s.
        2 => {
            fill(&products, 1_000).await?;
            let traffic = Traffic { visits: 12_000, every: millis(5), products: 1_000 };
            world.visit(&products, traffic).await
        }
        // The database refuses queries for a minute, in which the values expire.
        3 => {
            fill(&products, 10).await?;
            world.database.is_down.store(true, Relaxed);
            world.visit(&products, a_minute).await
        }
        // A query takes 2 s for a minute, in which the values expire.
        4 => {
            fill(&products, 10).await?;
            world.database.query_millis.store(2_000, Relaxed);
            world.visit(&products, a_minute).await
        }
        // An instance has loaded 600 products. Another one starts, with an empty memory.
        5 => {
            let traffic = Traffic { visits: 600, every: millis(50), products: 600 };
            world.visit(&products, traffic).await;
            world.visit(&world.instance(&world.bus.link())?, traffic).await
        }
        // Another instance changes all prices.
        6 => {
            let other = world.instance(&world.bus.link())?;
            world.visit(&products, a_minute).await;
            world.visit(&other, a_minute).await;
            world.change_prices(&other, 10).await?;
            world.visit(&products, a_minute).await
        }
        // Redis accepts requests and answers none, while visitors come for 600 products.
        7 => {
            products.ready().await?;
            world.redis.set(Chaos { hangs: 1.0, ..Chaos::default() });
            let traffic = Traffic { visits: 600, every: millis(100), products: 600 };
            world.visit(&products, traffic).await
        }
        // This instance is cut off from the bus. Another one changes all prices.
        _ => {
            let link = world.bus.link();
            let cut_off = world.instance(&link)?;
            products.ready().await?;
            cut_off.ready().await?;
            world.visit(&cut_off, a_minute).await;
            link.cut();
            world.change_prices(&products, 10).await?;
            world.visit(&cut_off, a_minute).await
        }
    };
    Ok(run)
}

/// Fills the cache, and waits until 5 s before the first value can expire.
async fn fill(products: &Products, count: u64) -> Result<(), Box<dyn Error>> {
    for id in 0..count {
        products.set(&id, Product { cents: FIRST_PRICE }).await?;
    }
    sleep(seconds(265)).await;
    Ok(())
}

const FIRST_PRICE: u64 = 995;

/// The parts that the instances of the service share.
struct World {
    steps: usize,
    clock: TokioClock,
    database: Arc<Database>,
    redis: ChaosStore<SharedStore>,
    bus: SharedBus,
}

/// A database with ten connections and 100 ms a query.
struct Database {
    connections: Semaphore,
    query_millis: AtomicU64,
    is_down: AtomicBool,
    cents: AtomicU64,
    queries: AtomicU64,
}

impl Database {
    async fn find(&self) -> Result<Product, &'static str> {
        self.queries.fetch_add(1, Relaxed);
        let _connection = self.connections.acquire().await.map_err(|_| "the database is closed")?;
        if self.is_down.load(Relaxed) {
            return Err("the database is down");
        }
        sleep(millis(self.query_millis.load(Relaxed))).await;
        Ok(Product { cents: self.cents.load(Relaxed) })
    }
}

/// How often visitors come; they ask for the products in turn.
#[derive(Clone, Copy)]
struct Traffic {
    visits: u32,
    every: Duration,
    products: u64,
}

impl World {
    fn new(steps: usize) -> Self {
        let clock = TokioClock::new();
        let redis = ChaosStore::new(SharedStore::new(clock.clone()), 1);
        redis.set(Chaos { delays: 1.0, longest_delay: millis(2), ..Chaos::default() });
        let database = Arc::new(Database {
            connections: Semaphore::new(10),
            query_millis: AtomicU64::new(100),
            is_down: AtomicBool::new(false),
            cents: AtomicU64::new(FIRST_PRICE),
            queries: AtomicU64::new(0),
        });
        Self { steps, clock, database, redis, bus: SharedBus::new(1) }
    }

    /// Starts an instance of the service, with the answers that the service has taken so far.
    fn instance(&self, link: &BusLink) -> Result<Products, Box<dyn Error>> {
        let mut builder =
            Products::builder().options(options(self.steps)).clock(self.clock.clone());
        if self.steps >= 5 {
            builder = builder.l2(self.redis.clone(), WireCodec::new());
        }
        if self.steps >= 6 {
            builder = builder.event_bus(link.clone(), WireCodec::new());
        }
        Ok(builder.build()?)
    }

    /// Commits new prices to the database, then deletes the cached ones.
    async fn change_prices(&self, by: &Products, count: u64) -> Result<(), Box<dyn Error>> {
        self.database.cents.store(FIRST_PRICE + 100, Relaxed);
        for id in 0..count {
            by.delete(&id).await?;
        }
        Ok(())
    }

    async fn visit(&self, products: &Products, traffic: Traffic) -> Run {
        let queries_before = self.database.queries.load(Relaxed);
        let (start, mut visitors) = (Instant::now(), JoinSet::new());
        for number in 0..traffic.visits {
            let (products, database) = (products.clone(), Arc::clone(&self.database));
            visitors.spawn(async move {
                sleep_until(start + traffic.every * number).await;
                let (begun, current) = (Instant::now(), database.cents.load(Relaxed));
                let id = u64::from(number) % traffic.products;
                let page = products.get_or_set(&id, move || async move { database.find().await });
                let answer = match page.await {
                    Ok(product) if product.cents == current => Answer::Current,
                    Ok(_) => Answer::Old,
                    Err(_) => Answer::Error,
                };
                (number, begun.elapsed().as_millis() as u64, answer)
            });
        }
        let mut visits = visitors.join_all().await;
        visits.sort_unstable_by_key(|(number, ..)| *number);
        let count = |wanted| visits.iter().filter(|(.., answer)| *answer == wanted).count();
        let (errors, old) = (count(Answer::Error), count(Answer::Old));
        let mut sorted: Vec<u64> = visits.iter().map(|(_, took, _)| *took).collect();
        sorted.sort_unstable();
        let queries = self.database.queries.load(Relaxed) - queries_before;
        Run { visits, sorted, queries, errors, old }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Current,
    Old,
    Error,
}

/// The visits in the order of their beginning, each with its number and milliseconds.
struct Run {
    visits: Vec<(u32, u64, Answer)>,
    sorted: Vec<u64>,
    queries: u64,
    errors: usize,
    old: usize,
}

impl Run {
    /// The milliseconds that a percentage of the visits took at most.
    fn quantile(&self, percent: usize) -> u64 {
        let rank = (self.sorted.len() * percent).div_ceil(100).saturating_sub(1);
        self.sorted.get(rank).copied().unwrap_or_default()
    }
}

/// Plays all steps, before and after their answers. Returns the table and the picture.
async fn play_all() -> Result<(String, Picture), Box<dyn Error>> {
    let columns = ["p50 ms", "p99 ms", "max ms", "queries", "errors", "old"];
    let mut table = row("", "", columns);
    let mut picture = Picture::new(STEPS.len());
    for (number, (failure, answer)) in (1..).zip(STEPS) {
        let failure = format!("{number} {failure}");
        let mut runs = Vec::new();
        for (steps, option) in [(number - 1, "before"), (number, answer)] {
            fastrand::seed(1);
            let run = Box::pin(play(number, &World::new(steps))).await?;
            let [p50, p99, max] = [50, 99, 100].map(|percent| run.quantile(percent));
            let (errors, old) = (run.errors as u64, run.old as u64);
            let first = if steps < number { &failure } else { "" };
            table += &row(first, option, [p50, p99, max, run.queries, errors, old]);
            runs.push(run);
        }
        let [before, after] = &*runs else { return Err("each step has two runs".into()) };
        assert!(improves(number, before, after), "{answer} does not answer its failure\n{table}");
        picture.add(&failure, answer, [before, after]);
    }
    Ok((table, picture))
}

fn row(failure: &str, option: &str, figures: [impl Display; 6]) -> String {
    let figures = figures.map(|it| format!("{it:>8}")).concat();
    format!("{failure:<20}{option:<29}{figures}\n")
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn Error>> {
    let (table, picture) = play_all().await?;
    print!("{table}");
    if env::args().any(|argument| argument == "--write") {
        fs::write("docs/figures/step-by-step.svg", picture.into_svg())?;
        let page = fs::read_to_string(PAGE)?;
        let (before, rest) = page.split_once("```text\n").ok_or("the page has no table")?;
        let (_, after) = rest.split_once("```").ok_or("the table has no end")?;
        fs::write(PAGE, format!("{before}```text\n{table}```{after}"))?;
    }
    Ok(())
}

const PAGE: &str = "docs/step-by-step.md";

#[cfg(test)]
#[tokio::test(start_paused = true)]
async fn each_option_answers_its_failure_as_the_page_says() {
    let (table, _) = play_all().await.unwrap();
    assert!(fs::read_to_string(PAGE).unwrap().contains(&table), "run it with --write\n{table}");
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
