//! The workload of all contenders: the product page, the database behind it, and the changes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// Processes of the shop.
pub(super) const PROCESSES: usize = 3;
pub(super) const TTL: Duration = Duration::from_secs(60);
/// Duration of a query, and of a change.
const QUERY: Duration = Duration::from_millis(2);
pub(super) const CHANGE: Duration = Duration::from_millis(2);

/// The database counts its queries.
pub(super) static LOADS: AtomicU64 = AtomicU64::new(0);
/// Changes whose delete failed, because the machine was too busy for the deadlines.
pub(super) static FAILURES: AtomicU64 = AtomicU64::new(0);

#[derive(Serialize, Deserialize, Clone)]
pub(super) struct Page {
    name: String,
    vendor: String,
    category: String,
    pub(super) price: u64,
    stars: f64,
    reviews: Vec<String>,
}

pub(super) async fn load() -> Page {
    LOADS.fetch_add(1, Ordering::Relaxed);
    sleep(QUERY).await;
    Page {
        name: "a sturdy lamp".to_owned(),
        vendor: "Vendor 17, Portugal".to_owned(),
        category: "bright things".to_owned(),
        price: 1_999,
        stars: 4.3,
        reviews: vec!["A quiet lamp, and a handy one. I would buy it again, and again.".into(); 5],
    }
}

/// Which products change.
#[derive(Clone, Copy)]
pub(super) enum Changes {
    /// Any product, as in a shop whose keeper edits the catalogue.
    Any,
    /// Popular products more often, as in a shop where every sale changes its product: the most
    /// requested keys are then missing most of the time.
    Popular,
}

impl Changes {
    pub(super) fn say(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Popular => "popular",
        }
    }

    pub(super) fn said(word: &str) -> Self {
        if word == "any" { Self::Any } else { Self::Popular }
    }
}
