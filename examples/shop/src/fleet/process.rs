//! A process of the shop: a copy of this program that reads commands and answers each, one line per
//! command and answer.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write, stdin},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use lazy_layers_cache::{L1Options, LazyLayersCache, RedisStore, Source, WireCodec};

use super::MEMORY;
use crate::{
    catalogue::PRODUCTS,
    database::{Database, Page},
    traffic::{Until, Zipf, read_as},
};

pub(crate) const CHILD: &str = "--process";
/// Stands for the URL of Redis if there is none.
pub(super) const ALONE: &str = "-";

type Answer<T> = Result<T, Box<dyn Error>>;

/// The measurements of one process.
pub(super) struct Report {
    pub(super) requests: u64,
    pub(super) loads: u64,
    pub(super) l1_hits: u64,
    pub(super) l2_hits: u64,
    /// In nanoseconds, as the next.
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) per_second: u64,
}

/// The parent's handle of a child process.
pub(super) struct Process {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    pub(super) fn start(folder: &Path, place: &str) -> Answer<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(folder)
            .arg(place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take().ok_or("the child has no stdin")?;
        let answers = BufReader::new(child.stdout.take().ok_or("the child has no stdout")?);
        Ok(Self { child, commands, answers })
    }

    pub(super) fn begin_to_read(&mut self, crowd: usize, requests: usize) -> Answer<()> {
        Ok(writeln!(self.commands, "read {crowd} {requests}")?)
    }

    pub(super) fn report(&mut self) -> Answer<Report> {
        let answer = self.answer()?;
        let numbers: Vec<u64> =
            answer.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|_| answer)?;
        let [requests, loads, l1_hits, l2_hits, p50, p99, per_second] = numbers[..] else {
            return Err("a report of another length".into());
        };
        Ok(Report { requests, loads, l1_hits, l2_hits, p50, p99, per_second })
    }

    pub(super) fn read(&mut self, crowd: usize, requests: usize) -> Answer<Report> {
        self.begin_to_read(crowd, requests)?;
        self.report()
    }

    /// The price of a product, and the source of the answer.
    pub(super) fn price(&mut self, product: u64) -> Answer<(u64, String)> {
        writeln!(self.commands, "price {product}")?;
        let answer = self.answer()?;
        let (price, source) = answer.split_once(' ').ok_or_else(|| answer.clone())?;
        Ok((price.parse()?, source.to_owned()))
    }

    pub(super) fn delete(&mut self, product: u64) -> Answer<()> {
        writeln!(self.commands, "delete {product}")?;
        self.answer().map(drop)
    }

    /// Reads the product anew and puts it into the cache.
    pub(super) fn set(&mut self, product: u64) -> Answer<()> {
        writeln!(self.commands, "set {product}")?;
        self.answer().map(drop)
    }

    /// Removes all entries and returns their number.
    pub(super) fn clear(&mut self) -> Answer<u64> {
        writeln!(self.commands, "clear")?;
        Ok(self.answer()?.parse()?)
    }

    fn answer(&mut self) -> Answer<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err("a process ended too early".into());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the child.
pub(crate) async fn child(folder: &str, place: &str) -> Answer<()> {
    let database = Database::open(Path::new(folder))?;
    let mut builder = LazyLayersCache::<u64, Page>::builder();
    if place != ALONE {
        let redis = RedisStore::at(place).prefix(prefix("shop", folder)).build()?;
        builder = builder.l2(redis, WireCodec::new());
    }
    // Prices have a cache of their own, whose L1 keeps them for one second only.
    let pages = builder.build()?;
    let prices = if place == ALONE { pages.clone() } else { prices(folder, place)? };
    let zipf = Zipf::new(PRODUCTS, 1.0);
    for line in stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["read", crowd, requests] => {
                let before = pages.stats();
                let until = Until::Requests(requests.parse()?);
                let (cache, origin) = (pages.clone(), database.clone());
                let seen = read_as(crowd.parse()?, &zipf, until, move |product| {
                    let (cache, origin) = (cache.clone(), origin.clone());
                    async move {
                        let load = move || async move { origin.page(product).await };
                        cache.get_or_set(&product, load).await.map(drop)
                    }
                })
                .await;
                let after = pages.stats();
                println!(
                    "{} {} {} {} {} {} {}",
                    seen.requests,
                    after.loads - before.loads,
                    after.l1_hits - before.l1_hits,
                    after.l2_hits - before.l2_hits,
                    seen.latency(0.5).as_nanos(),
                    seen.latency(0.99).as_nanos(),
                    seen.per_second(),
                );
            }
            ["price", product] => {
                let product = product.parse()?;
                let origin = database.clone();
                let load = move || async move { origin.page(product).await };
                let found = prices.get_or_set(&product, load).outcome().await?;
                let price = found.value.ok_or("no such product")?.price;
                let source = match found.source {
                    Source::L1 => "memory",
                    Source::L2 => "Redis",
                    _ => "database",
                };
                println!("{price} {source}");
            }
            ["delete", product] => {
                prices.delete(&product.parse()?).await?;
                println!("deleted");
            }
            ["set", product] => {
                let product = product.parse()?;
                let page = database.page(product).await?.ok_or("no such product")?;
                prices.set(&product, page).await?;
                println!("set");
            }
            ["clear"] => {
                let size = pages.size().await;
                pages.clear().await?;
                prices.clear().await?;
                println!("{size}");
            }
            _ => return Err(format!("unknown command `{line}`").into()),
        }
    }
    Ok(())
}

/// The name of the folder is new in each run, so the keys of runs do not collide.
fn prefix(name: &str, folder: &str) -> String {
    let run = Path::new(folder).file_name().unwrap_or_default();
    format!("{name}:{}:", run.to_string_lossy())
}

fn prices(folder: &str, place: &str) -> Answer<LazyLayersCache<u64, Page>> {
    let redis = RedisStore::at(place).prefix(prefix("prices", folder)).build()?;
    let builder = LazyLayersCache::builder().l1(L1Options::default().ttl(MEMORY));
    Ok(builder.l2(redis, WireCodec::new()).build()?)
}
