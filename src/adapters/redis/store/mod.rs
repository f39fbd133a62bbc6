//! Redis as the level that instances share.

pub(crate) mod adaptive_read;
pub(crate) mod batch;
pub(crate) mod builder;
pub(crate) mod context;
pub(crate) mod keyspace;
pub(crate) mod options;
pub(crate) mod reads;
pub(crate) mod scan;
pub(crate) mod scripts;
pub(crate) mod writes;

use std::{fmt, sync::Arc, time::Duration};

use redis::{Cmd, FromRedisValue, RedisError, Value};

use self::{
    adaptive_read::Misses,
    batch::{Ask, Together},
    context::StoreContext,
    reads::{Beginning, Get, stored},
    scripts::{EXCLUSIVE, Script},
    writes::{Publication, Removal},
};
pub use self::{
    builder::RedisStoreBuilder,
    options::{DeleteStrategy, RedisOptions, RestartPolicy},
};
use super::{
    connection::{Fault, Request, classify, decode},
    supervisor::ConnectionHandle,
};
use crate::l2::store::{Lease, LeaseRequest, LeaseResponse, Store, StoreFuture, StoredValue};
use crate::{error::BoxError, time::millis};

/// A [`Store`] in Redis: a single server, a Cluster, or whatever server a Sentinel names.
///
/// ```no_run
/// use lazy_layers_cache::{LazyLayersCache, RedisStore, WireCodec};
///
/// # #[derive(serde::Serialize, serde::Deserialize)] struct User;
/// # fn main() -> Result<(), lazy_layers_cache::BuildError> {
/// let users = LazyLayersCache::<u64, User>::builder()
///     .l2(RedisStore::at("redis://127.0.0.1/").prefix("users:").build()?, WireCodec::new())
///     .build()?;
/// # Ok(()) }
/// ```
///
/// Nothing is connected before the first call, and nothing waits for Redis that need not: where it
/// is not there, the cache works without it, and with it as soon as it is there again. The
/// connection is watched and made anew by a task on the runtime of the first call, which ends with
/// the last clone of the store.
///
/// Needs Redis 5 or later, or what speaks like it. A hit and a delete take one round trip, a miss
/// with its write two, a `set` two. Where many ask at once and nearly all of them hit, a hit costs
/// half as much, and a miss takes one more.
///
/// # What is where
///
/// `{prefix}{key}` is a value, in the bytes of the codec. Names that begin with `{prefix}__` are
/// internal: the index, locks, the epochs by which loads are fenced. Keys that would have such
/// names are kept in memory only.
///
/// # What may be lost
///
/// A server that is restarted or replaced by its replica may lose what it had confirmed, deletes
/// too. It is noticed, and everything under the prefix is removed before any of it is served
/// again, see [`RestartPolicy`].
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) context: Arc<StoreContext>,
    pub(crate) link: ConnectionHandle,
    pub(crate) gets: Together<Get>,
    pub(crate) beginnings: Together<Beginning>,
    pub(crate) lately: Misses,
    pub(crate) publications: Together<Publication>,
    pub(crate) removals: Together<Removal>,
}

impl RedisStore {
    /// Creates a store that is not connected yet.
    pub(crate) fn new(context: StoreContext) -> Self {
        let context = Arc::new(context);
        Self(Arc::new(Inner {
            link: ConnectionHandle::new(Arc::clone(&context)),
            context,
            gets: Together::default(),
            beginnings: Together::default(),
            lately: Misses::default(),
            publications: Together::default(),
            removals: Together::default(),
        }))
    }
}

impl Inner {
    /// Asks on the connection there is; once more on the next if that breaks under it, as one does
    /// that was idle for too long. Says whether it was the second time.
    async fn ask_twice(self: &Arc<Self>, request: Request<'_>) -> (Result<Value, BoxError>, bool) {
        let (mut connection, number) = match self.link.connected() {
            Some(connected) => connected,
            None => match Box::pin(self.link.get()).await {
                Ok(connected) => connected,
                Err(error) => return (Err(error), false),
            },
        };
        let call = self.link.begin_call();
        let mut is_second = false;
        loop {
            match connection.send_owned(&request).await {
                Ok(answer) => {
                    call.disarm();
                    return (Ok(answer), is_second);
                }
                Err(error) => {
                    if let Some(fault) = classify(&error) {
                        self.link.report(fault);
                    }
                    if is_second || !error.is_connection_dropped() {
                        call.disarm();
                        return (Err(error.into()), is_second);
                    }
                    is_second = true;
                    (connection, _) = match Box::pin(self.link.wait_newer(number)).await {
                        Ok(connected) => connected,
                        Err(error) => return (Err(error), is_second),
                    };
                }
            }
        }
    }

    async fn ask<T: FromRedisValue>(self: &Arc<Self>, request: Request<'_>) -> Result<T, BoxError> {
        let (answer, _) = self.ask_twice(request).await;
        self.accept(answer?)
    }

    /// What an answer says, if it is no error: one of several may be.
    fn accept<T: FromRedisValue>(&self, answer: Value) -> Result<T, BoxError> {
        decode(answer).map_err(|error| {
            if let Some(fault) = classify(&error) {
                self.link.report(fault);
            }
            error.into()
        })
    }

    async fn read(self: &Arc<Self>, name: String) -> Result<Option<StoredValue>, BoxError> {
        let (value, remaining) = self.together(Get { name }).await?;
        let value: Vec<u8> = match self.accept(value) {
            Err(error) if is_of_wrong_type(&error) => return Ok(None),
            value => value?,
        };
        let remaining = self.accept(remaining)?;
        if value.is_empty() || value.len() > self.context.options.max_payload_bytes {
            return Ok(None);
        }
        Ok(stored(value, remaining))
    }

    /// The call of a script about one key, to which arguments can be added.
    fn on_key(&self, key: &str, script: &Script, bytes: usize) -> Cmd {
        let (name, epoch) = self.context.keys.value_and_lease(key);
        script.call([(&*name, &*epoch)].into_iter(), self.context.index_keys(), bytes)
    }

    fn removal(&self, key: &str) -> Removal {
        let (name, epoch) = self.context.keys.value_and_lease(key);
        Removal { name, epoch }
    }

    fn on_lock(&self, key: &str, owner: &str, script: &Script) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&script.hash).arg(1).arg(self.context.keys.lock(key)).arg(owner);
        call
    }

    fn check_length(&self, bytes: usize) -> Result<(), BoxError> {
        let most = self.context.options.max_payload_bytes;
        if bytes > most {
            return Err(format!("{bytes} bytes, redis.max_payload_bytes is {most}").into());
        }
        Ok(())
    }
}

impl Store for RedisStore {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<StoredValue>> {
        Box::pin(async move { self.0.read(self.0.context.keys.value(key)).await })
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        begin: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        Box::pin(self.0.look(key, begin))
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        value: Vec<u8>,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let (name, epoch) = self.0.context.keys.value_and_lease(key);
            self.0.check_length(value.len())?;
            let what = Publication {
                name,
                epoch,
                token: lease.token().to_owned(),
                value,
                lives: lifetime(ttl),
            };
            let (answer, is_second) = self.0.together(what).await?;
            match (self.0.accept::<bool>(answer)?, is_second) {
                // The first time may have been the one that used the lease up.
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
            let script = &self.0.context.scripts.acquire_write_lease;
            let mut call = self.0.on_key(key, script, 64);
            call.arg(format!("{EXCLUSIVE}{}", token())).arg(lifetime(lease_for));
            let planted: String = self.0.ask(Request::Script(script, call)).await?;
            Ok((!planted.is_empty()).then(|| Lease::new(planted)))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let answer = self.0.together(self.0.removal(key)).await?;
            self.0.accept(answer)
        })
    }

    fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            // In a Cluster they lie on different nodes.
            let at_once = if self.0.context.endpoint.is_cluster() { 1 } else { DELETED_AT_ONCE };
            for keys in keys.chunks(at_once) {
                let all: Vec<Removal> = keys.iter().map(|key| self.0.removal(key)).collect();
                let all: Vec<&Removal> = all.iter().collect();
                self.0.ask::<()>(Removal::request(&all, &self.0.context, false)).await?;
            }
            Ok(())
        })
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let (connection, _) = self.0.link.get().await?;
            let deleted = scan::delete_matching(&connection, &self.0.context, pattern).await;
            deleted.inspect_err(|_| self.0.link.report(Fault::Disconnected))
        })
    }

    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let script = &self.0.context.scripts.discard;
            let mut call = self.0.on_key(key, script, value.len());
            call.arg(value);
            self.0.ask(Request::Script(script, call)).await
        })
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let (connection, _) = self.0.link.get().await?;
            let size = scan::size(&connection, &self.0.context).await;
            size.inspect_err(|_| self.0.link.report(Fault::Disconnected))
        })
    }

    fn lock<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let script = &self.0.context.scripts.lock;
            let mut call = self.0.on_lock(key, owner, script);
            call.arg(lifetime(ttl));
            self.0.ask(Request::Script(script, call)).await
        })
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let script = &self.0.context.scripts.extend;
            let mut call = self.0.on_lock(key, owner, script);
            call.arg(lifetime(ttl));
            self.0.ask(Request::Script(script, call)).await
        })
    }

    fn unlock<'a>(&'a self, key: &'a str, owner: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let script = &self.0.context.scripts.unlock;
            let call = self.0.on_lock(key, owner, script);
            self.0.ask(Request::Script(script, call)).await
        })
    }

    fn reject_key(&self, key: &str) -> Option<BoxError> {
        let is_internal = key.starts_with(keyspace::INTERNAL);
        is_internal.then(|| "names that begin with `__` are internal in Redis".into())
    }

    fn connection_generation(&self) -> u64 {
        self.0.link.generation()
    }
}

/// Lua passes on some thousands of arguments at most, and a key has two names.
const DELETED_AT_ONCE: usize = 1_000;

/// Something of another kind is under the name, which is no value.
fn is_of_wrong_type(error: &BoxError) -> bool {
    error.downcast_ref::<RedisError>().is_some_and(|error| error.code() == Some("WRONGTYPE"))
}

/// 128 random bits.
fn token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// As Redis takes it: at least a millisecond, and no more than it can say.
fn lifetime(span: Duration) -> u64 {
    const LONGEST: u64 = 100 * 365 * 24 * 3_600 * 1_000;
    millis(span).clamp(1, LONGEST)
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("options", &self.0.context.options)
            .finish_non_exhaustive()
    }
}
