//! Without the feature `metrics` a cache exports nothing.

pub(super) trait ExportMetrics {}

impl<T: ?Sized> ExportMetrics for T {}
