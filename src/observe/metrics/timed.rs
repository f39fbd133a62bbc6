//! The steps whose duration is a metric.

/// A step of the cache whose duration is a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timed {
    /// From the start of a loader to its end.
    Load,
    /// A call of the store.
    L2Call,
    /// An attempt to publish a message.
    Publication,
}
