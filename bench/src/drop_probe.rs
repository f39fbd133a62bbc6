//! A value that reports when its last reference is dropped.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

#[derive(Serialize, Deserialize)]
pub(crate) struct Watched {
    #[serde(skip)]
    pub(crate) gone: Option<UnboundedSender<Instant>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(gone) = &self.gone {
            // The receiver may be gone.
            let _ = gone.send(Instant::now());
        }
    }
}
