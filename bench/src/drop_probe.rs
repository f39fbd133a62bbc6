//! A value that says when nobody has it any more.

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
            // Who has stopped watching does not want to know.
            let _ = gone.send(Instant::now());
        }
    }
}
