//! The readers: several tasks that request products, popular products more often.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Chooses the next product: Zipf-distributed, as in real shops.
pub(crate) struct Zipf {
    /// The share of all requests that goes to products up to each rank.
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(products: u64, exponent: f64) -> Arc<Self> {
        let weights = (1..=products).map(|rank| (rank as f64).powf(-exponent));
        let mut sum = 0.0;
        let cumulative = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Arc::new(Self { cumulative })
    }

    fn next(&self, random: &mut fastrand::Rng) -> u64 {
        let sum = self.cumulative.last().copied().unwrap_or_default();
        let at = random.f64() * sum;
        let rank = self.cumulative.partition_point(|&upto| upto < at) as u64;
        // Shuffled, so that popular products are not neighbours in the file.
        rank * 7_919 % self.cumulative.len() as u64
    }
}

/// The condition on which readers stop.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Requests(usize),
    Elapsed(Duration),
}

/// The measurements of the readers.
pub(crate) struct Seen {
    pub(crate) requests: usize,
    pub(crate) errors: usize,
    pub(crate) took: Duration,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Seen {
    pub(crate) fn per_second(&self) -> u64 {
        (self.requests as f64 / self.took.as_secs_f64()) as u64
    }

    /// The response time that this share of the requests did not exceed.
    pub(crate) fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

pub(crate) const READERS: usize = 8;

/// Runs the readers to their end. Their requests are the same in each run.
pub(crate) async fn read<F, Fut, E>(zipf: &Arc<Zipf>, until: Until, get: F) -> Seen
where
    F: Fn(u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
{
    read_as(0, zipf, until, get).await
}

/// As [`read`], with another sequence of requests of the same distribution.
pub(crate) async fn read_as<F, Fut, E>(crowd: usize, zipf: &Arc<Zipf>, until: Until, get: F) -> Seen
where
    F: Fn(u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
{
    let begun = Instant::now();
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let (zipf, get) = (Arc::clone(zipf), get.clone());
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed((crowd * READERS + reader) as u64);
                let mut latencies = Vec::new();
                let mut errors = 0;
                while match until {
                    Until::Requests(all) => latencies.len() < all / READERS,
                    Until::Elapsed(limit) => begun.elapsed() < limit,
                } {
                    let product = zipf.next(&mut random);
                    let asked = Instant::now();
                    errors += usize::from(get(product).await.is_err());
                    latencies.push(asked.elapsed());
                    // A server also yields to its other tasks between two requests.
                    tokio::task::yield_now().await;
                }
                (latencies, errors)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    let mut errors = 0;
    for reader in readers {
        // The panic hook has reported a reader that panicked.
        let Ok((own, failed)) = reader.await else { continue };
        latencies.extend(own);
        errors += failed;
    }
    let took = begun.elapsed();
    latencies.sort_unstable();
    Seen { requests: latencies.len(), errors, took, latencies }
}
