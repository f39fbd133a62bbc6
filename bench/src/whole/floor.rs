//! What two tiers cost that promise nothing: memory, the bare client and Pub/Sub. Everyone loads for
//! itself, a load may bring back what was deleted meanwhile, a lost message is lost, and Redis that
//! is slow or down is so for the shop. It does not batch either, so it is a floor for comparison and
//! not for everyone.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use quick_cache::sync::Cache;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;

use super::shop::{Page, TTL, load};

const CHANNEL: &str = "deleted";

#[derive(Clone)]
pub(super) struct Floor {
    memory: Arc<Cache<String, Arc<Page>>>,
    redis: MultiplexedConnection,
    _listener: Arc<Listener>,
}

/// Ends with the last handle.
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Floor {
    pub(super) async fn open(url: &str, in_memory: usize) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        let mut redis = connection.expect("it answers");
        redis.set_response_timeout(Duration::from_secs(20));
        let memory = Arc::new(Cache::new(in_memory));
        let mut bus = client.get_async_pubsub().await.expect("it answers");
        bus.subscribe(CHANNEL).await.expect("a subscription");
        let own: Arc<Cache<String, Arc<Page>>> = Arc::clone(&memory);
        let listener = tokio::spawn(async move {
            let mut deleted = bus.into_on_message();
            while let Some(message) = deleted.next().await {
                own.remove(&message.get_payload::<String>().expect("a key"));
            }
        });
        Self { memory, redis, _listener: Arc::new(Listener(listener)) }
    }

    pub(super) async fn page(&self, key: &str) -> Arc<Page> {
        if let Some(page) = self.memory.get(key) {
            return page;
        }
        let mut redis = self.redis.clone();
        let found: Option<Vec<u8>> =
            redis::cmd("GET").arg(key).query_async(&mut redis).await.expect("GET");
        let page = match found {
            Some(bytes) => rmp_serde::from_slice(&bytes).expect("a page"),
            None => {
                let page = load().await;
                let bytes = rmp_serde::to_vec(&page).expect("bytes");
                let mut set = redis::cmd("SET");
                set.arg(key).arg(bytes).arg("PX").arg(TTL.as_millis() as u64);
                set.exec_async(&mut redis).await.expect("SET");
                page
            }
        };
        let page = Arc::new(page);
        self.memory.insert(key.to_owned(), Arc::clone(&page));
        page
    }

    pub(super) async fn changed(&self, key: &str) -> bool {
        self.memory.remove(key);
        let mut both = redis::pipe();
        both.cmd("DEL").arg(key).cmd("PUBLISH").arg(CHANNEL).arg(key);
        both.exec_async(&mut self.redis.clone()).await.is_ok()
    }
}
