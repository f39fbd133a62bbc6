//! Redis alone: the bare client, which coalesces nothing and has no memory.

use std::time::Duration;

use redis::{Client, aio::MultiplexedConnection};

use super::workload::{Page, TTL, load};

#[derive(Clone)]
pub(super) struct Bare(MultiplexedConnection);

impl Bare {
    pub(super) async fn open(client: &Client) -> Self {
        let connection = client.get_multiplexed_async_connection().await;
        let mut connection = connection.expect("it answers");
        // The default of half a second is too short on a busy machine.
        connection.set_response_timeout(Duration::from_secs(20));
        Self(connection)
    }

    pub(super) async fn page(&self, key: &str) -> Page {
        let mut redis = self.connection();
        let found: Option<Vec<u8>> =
            redis::cmd("GET").arg(key).query_async(&mut redis).await.expect("GET");
        if let Some(bytes) = found {
            return rmp_serde::from_slice(&bytes).expect("a page");
        }
        let page = load().await;
        let bytes = rmp_serde::to_vec(&page).expect("bytes");
        let mut set = redis::cmd("SET");
        set.arg(key).arg(bytes).arg("PX").arg(TTL.as_millis() as u64);
        set.exec_async(&mut redis).await.expect("SET");
        page
    }

    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.0.clone()
    }
}
