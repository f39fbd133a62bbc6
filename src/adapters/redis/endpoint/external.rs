//! Connections that the application made and lends to a store or a transport.

use redis::aio::ConnectionLike;

/// A connection whose type only the application knows.
pub(crate) trait ExternalConnection: Send + Sync {
    /// Returns a clone for one command: a command needs exclusive access to its connection.
    fn clone_boxed(&self) -> Box<dyn ConnectionLike + Send>;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> ExternalConnection for C {
    fn clone_boxed(&self) -> Box<dyn ConnectionLike + Send> {
        Box::new(self.clone())
    }
}
