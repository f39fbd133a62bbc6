//! A connection that the application has.

use redis::aio::ConnectionLike;

/// A connection whose type only the user knows. A clone is made for each command, as commands
/// need it for themselves.
pub(crate) trait Given: Send + Sync {
    fn another(&self) -> Box<dyn ConnectionLike + Send>;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Given for C {
    fn another(&self) -> Box<dyn ConnectionLike + Send> {
        Box::new(self.clone())
    }
}
