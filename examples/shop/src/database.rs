//! The shop's database: a SQLite file, a few connections, and a count of the queries.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{catalogue, screen};

/// The content of a product page.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) vendor: String,
    pub(crate) category: String,
    pub(crate) price: u64,
    pub(crate) stars: f64,
    pub(crate) reviews: Vec<String>,
}

impl Page {
    /// The approximate size in memory, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let texts = [&self.name, &self.vendor, &self.category].map(String::len);
        let reviews: usize = self.reviews.iter().map(|text| text.len() + size_of::<String>()).sum();
        (texts.iter().sum::<usize>() + reviews + size_of::<Self>()) as u64
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, vendor, category, price, stars, reviews } = self;
        let (whole, cents) = (price / 100, price % 100);
        write!(f, "{name} by {vendor} ({category}), {whole}.{cents:02}, {stars:.1} stars")?;
        write!(f, " in {} reviews", reviews.len())
    }
}

/// A handle; clones refer to the same database.
#[derive(Clone)]
pub(crate) struct Database(Arc<Inner>);

struct Inner {
    path: PathBuf,
    connections: Vec<Arc<Mutex<Connection>>>,
    next: AtomicU64,
    queries: AtomicU64,
}

const CONNECTIONS: usize = 4;
const FILE: &str = "shop.sqlite";

const PAGE: &str = "
    SELECT product.name, vendor.name || ', ' || vendor.country, category.name, product.price,
           (SELECT avg(stars) FROM review WHERE review.product = product.id)
    FROM product JOIN vendor ON vendor.id = product.vendor
                 JOIN category ON category.id = product.category
    WHERE product.id = ?";
const REVIEWS: &str = "SELECT words FROM review WHERE product = ? ORDER BY stars DESC LIMIT 5";

impl Database {
    pub(crate) fn create(folder: &Path) -> Result<Self, rusqlite::Error> {
        let begun = Instant::now();
        let path = folder.join(FILE);
        let mut connection = Connection::open(&path)?;
        // With a rollback journal a writer's lock blocks readers: the tour uses it as its outage.
        connection.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF;")?;
        catalogue::fill(&mut connection, |products| {
            screen::progress(&format!("writing products: {}", screen::count(products)));
        })?;
        let rows: u64 = connection.query_row(
            "SELECT (SELECT count(*) FROM product) + (SELECT count(*) FROM review)
                  + (SELECT count(*) FROM vendor) + (SELECT count(*) FROM category)",
            [],
            |row| row.get(0),
        )?;
        screen::table(
            &["the database", ""],
            &[
                vec!["products".into(), screen::count(catalogue::PRODUCTS)],
                vec!["rows in all tables".into(), screen::count(rows)],
                vec!["written in".into(), screen::time(begun.elapsed())],
            ],
        );
        Self::open(folder)
    }

    /// Opens the database that another process has created.
    pub(crate) fn open(folder: &Path) -> Result<Self, rusqlite::Error> {
        let path = folder.join(FILE);
        let open = |_| Ok(Arc::new(Mutex::new(Connection::open(&path)?)));
        let connections = (0..CONNECTIONS).map(open).collect::<Result<_, rusqlite::Error>>()?;
        Ok(Self(Arc::new(Inner {
            path,
            connections,
            next: AtomicU64::new(0),
            queries: AtomicU64::new(0),
        })))
    }

    /// Reads a product page; `None` if the product does not exist.
    pub(crate) async fn page(&self, product: u64) -> Result<Option<Page>, rusqlite::Error> {
        self.0.queries.fetch_add(1, Ordering::Relaxed);
        let connection = self.connection().await;
        let query = tokio::task::spawn_blocking(move || read_page(&connection, product));
        query.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// Changes the price of a product.
    pub(crate) async fn reprice(&self, product: u64, price: u64) -> Result<(), rusqlite::Error> {
        let connection = self.connection().await;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute("UPDATE product SET price = ? WHERE id = ?", [price, product])?;
        Ok(())
    }

    /// Returns the number of queries since the last call.
    pub(crate) fn take_queries(&self) -> u64 {
        self.0.queries.swap(0, Ordering::Relaxed)
    }

    /// Sets the time that a query waits for a lock before it fails.
    pub(crate) async fn wait_for_locks(&self, limit: Duration) -> Result<(), rusqlite::Error> {
        for connection in &self.0.connections {
            connection.lock().await.busy_timeout(limit)?;
        }
        Ok(())
    }

    /// Locks the whole database against readers, as a migration would, until the lock is dropped.
    pub(crate) fn lock(&self) -> Result<Lock, rusqlite::Error> {
        let connection = Connection::open(&self.0.path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("BEGIN EXCLUSIVE")?;
        Ok(Lock { _connection: connection })
    }

    async fn connection(&self) -> OwnedMutexGuard<Connection> {
        let next = self.0.next.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(next).unwrap_or(0) % self.0.connections.len();
        #[expect(clippy::indexing_slicing, reason = "a remainder is below the length")]
        Arc::clone(&self.0.connections[at]).lock_owned().await
    }
}

/// Closing the connection ends its transaction and with it the lock.
pub(crate) struct Lock {
    _connection: Connection,
}

fn read_page(connection: &Connection, product: u64) -> Result<Option<Page>, rusqlite::Error> {
    let mut page = connection.prepare_cached(PAGE)?;
    let page = page.query_row([product], |row| {
        Ok(Page {
            name: row.get(0)?,
            vendor: row.get(1)?,
            category: row.get(2)?,
            price: row.get(3)?,
            stars: row.get(4)?,
            reviews: Vec::new(),
        })
    });
    let Some(mut page) = page.optional()? else { return Ok(None) };
    let mut reviews = connection.prepare_cached(REVIEWS)?;
    page.reviews = reviews.query_map([product], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(Some(page))
}
