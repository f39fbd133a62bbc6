//! The floor: two tiers without promises, made of quick_cache, the bare client and Pub/Sub. Every
//! caller loads for itself, a load may bring back a deleted value, a lost message is lost, and a
//! slow or absent Redis fails the shop. It does not batch, so a cache that does may be below this
//! floor.

use std::sync::Arc;

use futures_util::StreamExt;
use quick_cache::sync::Cache;
use tokio::task::JoinHandle;

use super::{bare::Bare, workload::Page};

const CHANNEL: &str = "deleted";

#[derive(Clone)]
pub(super) struct Floor {
    memory: Arc<Cache<String, Arc<Page>>>,
    redis: Bare,
    _listener: Arc<Listener>,
}

/// Aborts the subscriber when the last handle is dropped.
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Floor {
    pub(super) async fn open(url: &str, in_memory: usize) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let redis = Bare::open(&client).await;
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
        let page = Arc::new(self.redis.page(key).await);
        self.memory.insert(key.to_owned(), Arc::clone(&page));
        page
    }

    pub(super) async fn changed(&self, key: &str) -> bool {
        self.memory.remove(key);
        let mut both = redis::pipe();
        both.cmd("DEL").arg(key).cmd("PUBLISH").arg(CHANNEL).arg(key);
        both.exec_async(&mut self.redis.connection()).await.is_ok()
    }
}
