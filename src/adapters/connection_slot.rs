//! Shares one connection between all callers and replaces it once it is unusable.
//!
//! # Cancel safety
//!
//! The slot is empty while a caller connects. If that caller's future is dropped, or its time runs
//! out, the half-made connection is dropped with it, the lock is released, and the next caller
//! finds an empty slot and connects anew. A connection is put into the slot and handed out in the
//! same poll, so no caller can leave an unfinished one behind.

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::task::{runtime, timeout_named};
use crate::error::BoxError;

pub(crate) struct ConnectionSlot<C>(Mutex<Option<Arc<C>>>);

impl<C> ConnectionSlot<C> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns the current connection if `is_usable` accepts it, else runs `connect`. The limit
    /// covers the wait for another caller that is connecting, too.
    pub(crate) async fn get_or_connect<F>(
        &self,
        limit: Duration,
        is_usable: impl FnOnce(&C) -> bool,
        connect: impl FnOnce() -> F,
    ) -> Result<Arc<C>, BoxError>
    where
        F: Future<Output = Result<C, BoxError>>,
    {
        runtime()?;
        timeout_named(limit, "connect", async {
            let mut current = self.0.lock().await;
            if let Some(connection) = current.as_ref().filter(|connection| is_usable(connection)) {
                return Ok(Arc::clone(connection));
            }
            *current = None;
            // Boxed, because the futures of the clients are large, and most calls need none.
            let connection = Arc::new(Box::pin(connect()).await?);
            *current = Some(Arc::clone(&connection));
            Ok(connection)
        })
        .await
    }

    /// Empties the slot if `matches` accepts its connection: another caller may have replaced it.
    pub(crate) async fn take_if(&self, matches: impl FnOnce(&Arc<C>) -> bool) -> Option<Arc<C>> {
        self.0.lock().await.take_if(|current| matches(current))
    }
}
