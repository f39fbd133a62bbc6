//! [`RedisStore`]: the store contract, as commands and scripts of Redis.

use std::{fmt, sync::Arc, time::Duration};

use redis::Cmd;

use super::{
    adaptive_read::AdaptiveRead,
    batch::{BatchRequest, Batcher},
    context::StoreContext,
    inspect::inspect,
    keyspace::{INTERNAL, Keys},
    requests::{DeleteRequest, PublishRequest, token_start, ttl_millis},
    scan::Scanner,
    scripts::{
        EXCLUSIVE, Script,
        locks::{EXTEND_LOCK, LOCK, UNLOCK},
        values::{ACQUIRE_WRITE_LEASE, DELETE_IF_EQUALS, EXTEND_LEASE},
    },
    send::RequestSender,
};
use crate::{
    adapters::redis::{connection::Request, refusal::is_write_refusal},
    error::BoxError,
    l2::{
        Inspection, PatternCursor,
        store::{Store, StoreFuture},
        store_types::{
            Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, Publication, StoredValue,
        },
    },
};

/// Maximum number of keys that one request deletes. Lua passes a few thousand arguments at most,
/// and each key has three names in Redis.
const MAX_DELETE: usize = 1_000;

/// A [`Store`] in Redis: a single server, a Cluster, or the master that Sentinels name.
///
/// ```no_run
/// use lazy_layers_cache::{LazyLayersCache, RedisStore, WireCodec};
///
/// # #[derive(serde::Serialize, serde::Deserialize)] struct User;
/// # fn main() -> Result<(), lazy_layers_cache::BuildError> {
/// let users = LazyLayersCache::<u64, User>::builder()
///     .name("users")
///     .l2(RedisStore::at("redis://127.0.0.1/").build()?, WireCodec::new())
///     .build()?;
/// # Ok(()) }
/// ```
///
/// The store connects on the first call. While Redis is unreachable the cache works without it,
/// and uses it again as soon as it answers. A supervisor task, on the runtime of the first call,
/// watches the connection and replaces it; the task ends with the last clone of the store.
///
/// Requires Redis 6.2 or later, Valkey, or a compatible server. A server that reports an older
/// version is refused.
///
/// A hit and a delete take one round trip; a miss and its write take two, as does a `set`. Under
/// concurrent load with a hit rate above 7/8, values are read with plain commands, which take half
/// the server time of the script; a miss then takes three round trips.
///
/// # Keys
///
/// All names begin with a [prefix](crate::RedisOptions::prefix). By default it contains the name of
/// the cache (`users:cache:`), so several named caches can use one store: they share its connection
/// and see nothing of each other. [`with_prefix`](Self::with_prefix) lends a store by hand. A store
/// with a prefix of its own belongs to the caches of one name: `build()` of another one fails.
///
/// `{prefix}{key}` holds a value, as the codec encoded it, for exactly its ttl. Names that begin
/// with `{prefix}__` are internal: the index, locks, leases, negative entries, stale copies. So
/// keys that begin with `__` are kept in L1 only: no instance shares them, and an `l2:refused`
/// event reports each.
///
/// A value with a stale window is stored twice, so that its copy can be served after its ttl: it
/// takes twice the memory. A server that evicts may evict a copy before its value. Fail-safe can be
/// kept out of Redis with [`FailSafe::in_l2`](crate::FailSafe).
///
/// # Lost writes
///
/// A server that restarts, or that is replaced by its replica, may lose acknowledged writes,
/// deletes too. The store detects this and removes everything under the prefix before it serves
/// any of it, see [`RestartPolicy`](crate::RestartPolicy). It does so too when it connects to a
/// server with an `allkeys` eviction policy that has no run id under the prefix, because the server
/// may have evicted it before a restart. A server that does not offer `INFO`
/// (renamed, unknown to a proxy, or forbidden to the user) is used all the same, but then the
/// store notices no restart; without `ROLE` it notices only at the first write that a server has
/// become a replica.
///
/// A server that takes no writes for the moment, because it is full, has too few replicas or cannot
/// save its data, is still read. If it has restarted, its keys must be removed first.
#[derive(Clone)]
pub struct RedisStore {
    sender: Arc<RequestSender>,
    reads: Arc<AdaptiveRead>,
    publishes: Arc<Batcher<PublishRequest>>,
    deletes: Arc<Batcher<DeleteRequest>>,
}

impl RedisStore {
    pub(crate) fn new(context: StoreContext) -> Self {
        Self::over_sender(RequestSender::new(context))
    }

    /// Returns a store of this context over the same connection.
    pub(crate) fn view(&self, context: StoreContext) -> Self {
        Self::over_sender(self.sender.with_context(context))
    }

    pub(crate) fn context(&self) -> &StoreContext {
        &self.sender.context
    }

    fn over_sender(sender: RequestSender) -> Self {
        let sender = Arc::new(sender);
        Self {
            reads: Arc::new(AdaptiveRead::new(&sender)),
            publishes: Batcher::new(&sender),
            deletes: Batcher::new(&sender),
            sender,
        }
    }

    /// Starts the call of a script about one key; `bytes` is the size of the arguments to come.
    fn call(&self, script: &Script, key: &str, bytes: usize) -> Cmd {
        let context = &self.sender.context;
        script.call([&context.keys.of(key)].into_iter(), context.index_keys(), bytes)
    }

    /// The number of keys that one request deletes. The keys of a Cluster are on different nodes.
    fn max_delete(&self) -> usize {
        if self.sender.context.endpoint.is_cluster() { 1 } else { MAX_DELETE }
    }

    /// Starts the call of a script about the lock of a key.
    fn lock_call(&self, script: &Script, key: &str, owner: &str) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&script.hash).arg(1).arg(self.sender.context.keys.lock(key)).arg(owner);
        call
    }
}

/// How a released lock shows the end of its load, see [`UNLOCK`].
const MISSING: &str = "=missing:";
const FAILED: &str = "=failed";

impl Store for RedisStore {
    fn get<'a>(&'a self, key: &'a str, with_window: bool) -> StoreFuture<'a, Option<StoredValue>> {
        Box::pin(self.reads.get(key, with_window))
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        Box::pin(self.reads.get_or_lease(key, request))
    }

    fn extend_lease<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        lease_for: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let context = &self.sender.context;
            let keys = context.keys.without_copy(key);
            let mut call = EXTEND_LEASE.call([&keys].into_iter(), context.index_keys(), 64);
            call.arg(lease.token()).arg(ttl_millis(lease_for)).arg(context.keys.prefix_len());
            self.sender.send(Request::Script(&EXTEND_LEASE, call)).await
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            if let Publication::Value { value, .. } = &result
                && let Some(error) = self.reject_value(value.len())
            {
                return Err(error);
            }
            let (keys, token) = (self.sender.context.keys.of(key), lease.token().to_owned());
            let request = PublishRequest { keys, token, result };
            let (published, was_sent_twice) = self.publishes.send(request).await?;
            match (self.sender.decode(published)?, was_sent_twice) {
                // The first copy of the request may have used up the lease.
                (false, true) => Err("it is not known whether the value was written".into()),
                (published, _) => Ok(published),
            }
        })
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        Box::pin(async move {
            let mut call = self.call(&ACQUIRE_WRITE_LEASE, key, 64);
            call.arg(format!("{EXCLUSIVE}{}", token_start())).arg(ttl_millis(lease_for));
            call.arg(self.sender.context.keys.prefix_len());
            let token: String =
                self.sender.send(Request::Script(&ACQUIRE_WRITE_LEASE, call)).await?;
            Ok((!token.is_empty()).then(|| Lease::new(token)))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let keys = self.sender.context.keys.of(key);
            self.sender.decode(self.deletes.send(DeleteRequest(keys)).await?)
        })
    }

    fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let context = &self.sender.context;
            for keys in keys.chunks(self.max_delete()) {
                let requests = keys.iter().map(|key| DeleteRequest(context.keys.of(key)));
                let requests: Vec<_> = requests.collect();
                let batch: Vec<_> = requests.iter().collect();
                self.sender.send::<()>(DeleteRequest::encode(&batch, context, false)).await?;
            }
            Ok(())
        })
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(
            async move { self.delete_matching_from(pattern, false, &PatternCursor::new()).await },
        )
    }

    fn delete_matching_from<'a>(
        &'a self,
        pattern: &'a str,
        sidecars_only: bool,
        cursor: &'a PatternCursor,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let RequestSender { context, handle } = &*self.sender;
            let (connection, _) = &handle.get(context, 0).await?;
            let scanner = Scanner { connection, context };
            let deleted = scanner.delete_matching(pattern, sidecars_only, cursor).await;
            deleted.inspect_err(|_| handle.report_failure())
        })
    }

    fn delete_sidecars<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let context = &self.sender.context;
            let command = context.options.delete_strategy.command();
            for keys in keys.chunks(self.max_delete()) {
                let mut delete = redis::cmd(command);
                for Keys { lease, copy, .. } in keys.iter().map(|key| context.keys.of(key)) {
                    delete.arg(lease).arg(copy);
                }
                self.sender.send::<()>(Request::Command(delete)).await?;
            }
            Ok(())
        })
    }

    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut call = self.call(&DELETE_IF_EQUALS, key, value.len());
            call.arg(value);
            self.sender.send(Request::Script(&DELETE_IF_EQUALS, call)).await
        })
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let RequestSender { context, handle } = &*self.sender;
            let (connection, _) = &handle.get(context, 0).await?;
            let call = handle.begin_call();
            let size = Scanner { connection, context }.size().await;
            call.disarm();
            size.inspect_err(|_| handle.report_failure())
        })
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        ttl: Duration,
        waited_for: Option<&'a str>,
    ) -> StoreFuture<'a, LockResponse> {
        Box::pin(async move {
            let mut call = self.lock_call(&LOCK, key, owner);
            call.arg(ttl_millis(ttl)).arg(waited_for.unwrap_or_default());
            let held: String = self.sender.send(Request::Script(&LOCK, call)).await?;
            Ok(match held.strip_prefix(MISSING) {
                Some(token) => LockResponse::Released(LoadEnd::Missing(Lease::new(token))),
                None if held == FAILED => LockResponse::Released(LoadEnd::Failed),
                None if held.is_empty() => LockResponse::Acquired,
                None => LockResponse::HeldBy(held),
            })
        })
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut call = self.lock_call(&EXTEND_LOCK, key, owner);
            call.arg(ttl_millis(ttl));
            self.sender.send(Request::Script(&EXTEND_LOCK, call)).await
        })
    }

    fn unlock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        end: Option<LoadEnd>,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut call = self.lock_call(&UNLOCK, key, owner);
            call.arg(match end {
                Some(LoadEnd::Missing(lease)) => format!("{MISSING}{}", lease.token()),
                Some(LoadEnd::Failed) => FAILED.to_owned(),
                None => String::new(),
            });
            self.sender.send(Request::Script(&UNLOCK, call)).await
        })
    }

    fn inspect<'a>(&'a self, key: &'a str, lock: &'a str) -> StoreFuture<'a, Option<Inspection>> {
        Box::pin(async move { inspect(&self.sender, key, lock).await.map(Some) })
    }

    fn reject_key(&self, key: &str) -> Option<BoxError> {
        let is_internal = key.starts_with(INTERNAL);
        is_internal.then(|| "keys that begin with `__` are internal in Redis".into())
    }

    fn reject_value(&self, bytes: usize) -> Option<BoxError> {
        let max = self.sender.context.options.max_payload_bytes;
        let text = || format!("a value of {bytes} bytes, redis.max_payload_bytes is {max}").into();
        (bytes > max).then(text)
    }

    fn is_write_refusal(&self, error: &BoxError) -> bool {
        error.downcast_ref().is_some_and(is_write_refusal)
    }

    fn for_cache(&self, name: &str) -> Option<Arc<dyn Store>> {
        let context = &self.sender.context;
        // mutant shared-prefix: => return None;
        if context.options.prefix.is_some() {
            return None;
        }
        Some(Arc::new(self.view(context.with_prefix(format!("{name}:cache:")))))
    }

    fn claim(&self, cache: Option<&str>) -> Result<(), BoxError> {
        // mutant claimed-prefix: remove
        self.sender.context.claim(cache)?;
        if let Some(name) = cache {
            self.sender.handle.client_name().add(name);
        }
        Ok(())
    }

    fn connection_generation(&self) -> u64 {
        self.sender.handle.generation()
    }

    fn times_emptied(&self) -> u64 {
        self.sender.context.prefix_state.emptied()
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.sender.context.options;
        f.debug_struct("RedisStore").field("options", options).finish_non_exhaustive()
    }
}
