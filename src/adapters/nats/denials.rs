//! What the server has denied on one connection. It drops a message or a subscription that the user
//! has no permission for, and says so in an error that belongs to no request.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::watch;

/// Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Denials(Arc<watch::Sender<Log>>);

#[derive(Default)]
struct Log {
    count: u64,
    /// The number and the text of the last denials.
    last: VecDeque<(u64, String)>,
}

/// How many denials are remembered.
const MAX_REMEMBERED: usize = 32;

impl Denials {
    /// Records a denial. Returns false if the server's error is none.
    pub(crate) fn record(&self, error: &str) -> bool {
        let is_denial = error.starts_with("Permissions Violation");
        if is_denial {
            self.0.send_modify(|log| {
                log.count += 1;
                log.last.push_back((log.count, error.to_owned()));
                if log.last.len() > MAX_REMEMBERED {
                    log.last.pop_front();
                }
            });
        }
        is_denial
    }

    /// How many there have been. A later denial has a higher number.
    pub(crate) fn count(&self) -> u64 {
        self.0.borrow().count
    }

    /// Returns the text of a denial above this number that `is_wanted` accepts.
    pub(crate) fn find(&self, after: u64, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.0.borrow().find(after, &is_wanted)
    }

    /// Waits for such a denial. Cancel safe.
    pub(crate) async fn wait(&self, after: u64, is_wanted: impl Fn(&str) -> bool) -> String {
        let mut log = self.0.subscribe();
        loop {
            if let Some(text) = log.borrow_and_update().find(after, &is_wanted) {
                return text;
            }
            // The sender is ours, so it outlives this future.
            let _ = log.changed().await;
        }
    }
}

impl Log {
    fn find(&self, after: u64, is_wanted: &impl Fn(&str) -> bool) -> Option<String> {
        let mut later = self.last.iter().filter(|(number, _)| *number > after);
        later.find(|(_, text)| is_wanted(text)).map(|(_, text)| text.clone())
    }
}

pub(crate) fn is_publish_to(text: &str, subject: &str) -> bool {
    text.contains(&format!("Publish to \"{subject}\""))
}

/// Whether the denied subject begins with `prefix`.
pub(crate) fn is_publish_below(text: &str, prefix: &str) -> bool {
    text.contains(&format!("Publish to \"{prefix}"))
}

pub(crate) fn is_subscription_to(text: &str, subject: &str) -> bool {
    text.contains(&format!("Subscription to \"{subject}\""))
}
