//! Sends requests to Redis, with one retry, and reports faults to the supervisor task.

use std::sync::Arc;

use redis::{FromRedisValue, RedisError, Value};
use tokio::runtime::Handle;

use super::context::StoreContext;
use crate::{
    adapters::redis::{
        connection::{Connection, Fault, Request, classify, decode},
        supervisor::ConnectionHandle,
    },
    error::BoxError,
};

/// The connection of one store, as its requests use it.
pub(crate) struct RequestSender {
    pub(crate) context: Arc<StoreContext>,
    handle: ConnectionHandle,
}

impl RequestSender {
    pub(crate) fn new(context: StoreContext) -> Self {
        let context = Arc::new(context);
        Self { handle: ConnectionHandle::new(Arc::clone(&context)), context }
    }

    /// Returns the current connection, or waits for the one that the supervisor is making.
    pub(crate) async fn connection(&self) -> Result<Connection, BoxError> {
        let (connection, _) = self.handle.get().await?;
        Ok(connection)
    }

    /// Returns the number of the current connection, see
    /// [`Store::connection_generation`](crate::l2::store::Store::connection_generation).
    pub(crate) fn connection_generation(&self) -> u64 {
        self.handle.generation()
    }

    /// Returns the runtime of the supervisor task. `None` before the first connection.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.handle.runtime()
    }

    /// Sends a request over the current connection. If that connection breaks before the reply,
    /// as a connection may that was idle for long, sends the request once more over the next one.
    ///
    /// Also returns whether the outcome is that of the second attempt: then Redis may have
    /// executed the request twice.
    pub(crate) async fn send_with_retry(
        &self,
        request: Request<'_>,
    ) -> (Result<Value, BoxError>, bool) {
        let (mut connection, generation) = match self.handle.connected() {
            Some(connected) => connected,
            None => match Box::pin(self.handle.get()).await {
                Ok(connected) => connected,
                Err(error) => return (Err(error), false),
            },
        };
        let call = self.handle.begin_call();
        let mut is_retry = false;
        loop {
            match connection.send_owned(&request).await {
                Ok(reply) => {
                    call.disarm();
                    return (Ok(reply), is_retry);
                }
                Err(error) => {
                    self.report(&error);
                    if is_retry || !error.is_connection_dropped() {
                        call.disarm();
                        return (Err(error.into()), is_retry);
                    }
                    is_retry = true;
                    let next = Box::pin(self.handle.wait_newer(generation)).await;
                    (connection, _) = match next {
                        Ok(connected) => connected,
                        Err(error) => return (Err(error), is_retry),
                    };
                }
            }
        }
    }

    /// Sends a request and decodes its reply.
    pub(crate) async fn send<T: FromRedisValue>(
        &self,
        request: Request<'_>,
    ) -> Result<T, BoxError> {
        let (reply, _) = self.send_with_retry(request).await;
        self.decode(reply?)
    }

    /// Decodes a reply. A reply to a batch can contain errors of Redis for some of its requests;
    /// such an error is returned, and reported like one of the whole batch.
    pub(crate) fn decode<T: FromRedisValue>(&self, reply: Value) -> Result<T, BoxError> {
        decode(reply).map_err(|error| {
            self.report(&error);
            error.into()
        })
    }

    /// Reports an error to the supervisor task if it is one of the connection or of the server.
    pub(crate) fn report(&self, error: &RedisError) {
        if let Some(fault) = classify(error) {
            self.handle.report(fault);
        }
    }

    /// Asks the supervisor task to check the connection now.
    pub(crate) fn report_broken(&self) {
        self.handle.report(Fault::Disconnected);
    }
}
