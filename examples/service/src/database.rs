//! The database: products in a SQLite file, which all processes of the service share.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use serde::{Deserialize, Serialize};

/// What a client sends, and what the table has beside the number of the product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) name: String,
    pub(crate) category: String,
    pub(crate) price: f64,
}

/// A handle; clones share one connection. (A busy service has a pool.)
#[derive(Clone)]
pub(crate) struct Database(Arc<Mutex<Connection>>);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS product (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL, price REAL NOT NULL);
    CREATE INDEX IF NOT EXISTS product_of_category ON product (category);
    INSERT OR IGNORE INTO product VALUES
        (1, 'Green tea', 'tea', 3.5), (2, 'Black tea', 'tea', 2.5), (3, 'Kettle', 'kitchen', 25.0);
";

impl Database {
    /// Opens the file, and creates it with three products if it does not exist.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    pub(crate) async fn product(&self, id: u64) -> Result<Option<Product>> {
        self.run(move |connection| select(connection, id)).await
    }

    /// The numbers of the products of a category.
    pub(crate) async fn products_of(&self, category: String) -> Result<Vec<u64>> {
        self.run(move |connection| {
            let query = "SELECT id FROM product WHERE category = ? ORDER BY id";
            let mut query = connection.prepare_cached(query)?;
            query.query_map([category], |row| row.get(0))?.collect()
        })
        .await
    }

    /// The average price of the products of a category; `None` if it has none.
    pub(crate) async fn average_price(&self, category: String) -> Result<Option<f64>> {
        self.run(move |connection| {
            let query = "SELECT avg(price) FROM product WHERE category = ?";
            connection.prepare_cached(query)?.query_row([category], |row| row.get(0))
        })
        .await
    }

    /// Commits a product, and returns the one that it replaces.
    pub(crate) async fn save(&self, id: u64, product: Product) -> Result<Option<Product>> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let old = select(&transaction, id)?;
            transaction.execute(
                "INSERT OR REPLACE INTO product VALUES (?, ?, ?, ?)",
                params![id, product.name, product.category, product.price],
            )?;
            transaction.commit()?;
            Ok(old)
        })
        .await
    }

    /// Runs a query on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.0);
        let query = move || query(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        let task = tokio::task::spawn_blocking(query);
        task.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }
}

fn select(connection: &Connection, id: u64) -> Result<Option<Product>> {
    let query = "SELECT name, category, price FROM product WHERE id = ?";
    let product = |row: &Row<'_>| {
        Ok(Product { name: row.get(0)?, category: row.get(1)?, price: row.get(2)? })
    };
    connection.prepare_cached(query)?.query_row([id], product).optional()
}
