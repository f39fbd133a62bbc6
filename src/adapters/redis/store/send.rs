//! Sends requests to Redis, with one retry, and reports faults to the supervisor task.

use std::sync::Arc;

use redis::{FromRedisValue, RedisError, Value};

use super::context::StoreContext;
use crate::{
    adapters::redis::{
        connection::{Request, decode},
        supervisor::ConnectionHandle,
    },
    error::BoxError,
};

/// The connection of a store, as the requests about one prefix use it.
pub(crate) struct RequestSender {
    pub(crate) context: Arc<StoreContext>,
    pub(crate) handle: Arc<ConnectionHandle>,
}

impl RequestSender {
    pub(crate) fn new(context: StoreContext) -> Self {
        let handle = Arc::new(ConnectionHandle::new(&context));
        Self { handle, context: Arc::new(context) }
    }

    /// Returns a sender for another prefix over the same connection.
    pub(crate) fn with_context(&self, context: StoreContext) -> Self {
        Self { handle: Arc::clone(&self.handle), context: Arc::new(context) }
    }

    /// Sends a request over the current connection. If that connection breaks before the reply,
    /// as a connection may that was idle for long, sends the request once more over the next one.
    ///
    /// `is_retry` is false at first, and becomes true before the second attempt: from then on Redis
    /// may have executed the request twice.
    pub(crate) async fn send_with_retry(
        &self,
        request: Request<'_>,
        is_retry: &mut bool,
    ) -> Result<Value, BoxError> {
        let (mut connection, generation) = match self.handle.connected(&self.context) {
            Some(connected) => connected,
            None => Box::pin(self.handle.get(&self.context, 0)).await?,
        };
        let call = self.handle.begin_call();
        loop {
            let reply = connection.send_owned(&request).await;
            let reply = reply.inspect_err(|error| self.handle.report(error));
            let is_broken = reply.as_ref().is_err_and(RedisError::is_connection_dropped);
            if *is_retry || !is_broken {
                call.disarm();
                return Ok(reply?);
            }
            *is_retry = true;
            (connection, _) = Box::pin(self.handle.get(&self.context, generation)).await?;
        }
    }

    /// Sends a request and decodes its reply.
    pub(crate) async fn send<T: FromRedisValue>(
        &self,
        request: Request<'_>,
    ) -> Result<T, BoxError> {
        self.decode(self.send_with_retry(request, &mut false).await?)
    }

    /// Decodes a reply. A reply to a batch can contain errors of Redis for some of its requests;
    /// such an error is returned, and reported like one of the whole batch.
    pub(crate) fn decode<T: FromRedisValue>(&self, reply: Value) -> Result<T, BoxError> {
        Ok(decode(reply).inspect_err(|error| self.handle.report(error))?)
    }
}

/// Returns the code of an error of Redis, such as `WRONGTYPE`.
pub(crate) fn error_code(error: &BoxError) -> Option<&str> {
    error.downcast_ref::<RedisError>().and_then(RedisError::code)
}
