//! The scenes, in the order in which they are played.

pub(crate) mod busy_day;
pub(crate) mod memory;
pub(crate) mod missing;
pub(crate) mod outage;
pub(crate) mod slow_day;
pub(crate) mod stampede;

use lazy_layers_cache::LazyLayersCache;

use crate::database::Page;

/// Pages by product number.
pub(crate) type Pages = LazyLayersCache<u64, Page>;

pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;
