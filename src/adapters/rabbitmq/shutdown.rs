//! Ends a subscription from elsewhere.

use std::sync::Arc;

use tokio::sync::watch;

/// Clones share one state, which is never reset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown(Arc<watch::Sender<bool>>);

impl Shutdown {
    pub(crate) fn trigger(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until any clone is triggered; for ever if none is. Cancel safe.
    pub(crate) async fn triggered(&self) {
        let _ = self.0.subscribe().wait_for(|is_triggered| *is_triggered).await;
    }
}
