//! What the outbox does with a message that the broker would refuse again: it publishes less at
//! once, or an invalidation that covers more keys, never the same bytes.
//!
//! | refused | next |
//! | --- | --- |
//! | several deletes | two messages with half of them each |
//! | a value | a delete of its key; of a value that was loaded, a delete of no key |
//! | the delete of one key | the pattern with the first half of the key |
//! | a pattern | the pattern with the first half of its literal beginning, at last `*` |
//! | `*`, or a delete of no key | the same again, after a pause: the outbox is stuck |
//!
//! The first part keeps the number of the refused message, and the others get the next numbers. A
//! peer may have received the refused message all the same, by an earlier attempt whose outcome is
//! not known, and then ignores the first part: so the message of a number only ever covers what
//! remains to be done of the one before it, or more. The other parts are sent even after a `*`
//! under that number, because such a peer ignores the `*` too.
//!
//! After a refusal the next messages, and the other parts, are smaller too. Their size rises again
//! by a thirty-second with each message that the broker accepts.

use std::sync::Arc;

use super::{ALL, BATCH_BYTES, Batch, Change, Outbox, Reduction, prefix_glob};

const REFUSED: &str = "the broker refuses the message";

/// What follows a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterRefusal {
    /// Another message was queued in place of the refused one.
    Replaced,
    /// There is no message that asks less of the broker.
    Stuck,
}

impl Outbox {
    /// Replaces the message in flight, which the broker would refuse again.
    pub(crate) fn on_refused(&mut self) -> AfterRefusal {
        let Some(batch) = &mut self.in_flight else { return AfterRefusal::Replaced };
        if let Some(key) = batch.drop_value() {
            self.reductions.push(Reduction::ValueDropped { key, reason: REFUSED });
            return AfterRefusal::Replaced;
        }
        // mutant refused-split: s/batch.changes.len()/0/
        if let Some(rest) = batch.split(batch.changes.len() / 2) {
            self.batch_bytes = self.batch_bytes.min(batch.bytes());
            self.parts.push(rest);
            return AfterRefusal::Replaced;
        }
        let Some(pattern) = batch.widen() else {
            self.is_stuck = true;
            return AfterRefusal::Stuck;
        };
        self.reductions.push(Reduction::Widened { pattern, reason: REFUSED });
        AfterRefusal::Replaced
    }

    /// Whether the broker refuses even the widest invalidation.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    pub(super) fn on_accepted(&mut self) {
        self.is_stuck = false;
        let more = self.batch_bytes / 32 + 4;
        self.batch_bytes = BATCH_BYTES.min(self.batch_bytes + more);
    }

    /// Takes the next part of a refused message, at most as large as other messages now.
    pub(super) fn pop_part(&mut self) -> Option<Batch> {
        let mut part = self.parts.pop()?;
        let mut bytes = 0;
        let fitting = part.changes.iter().take_while(|(_, change)| {
            bytes += change.text().len();
            bytes <= self.batch_bytes
        });
        let fitting = fitting.count().max(1);
        self.parts.extend(part.split(fitting));
        Some(part)
    }
}

impl Batch {
    /// Splits off the changes from this one on. `None` if either part would be empty.
    fn split(&mut self, at: usize) -> Option<Self> {
        let (position, _) = self.changes.get(at).filter(|_| at > 0)?;
        let position = *position;
        Some(Self { changes: self.changes.split_off(at), position, in_l2: self.in_l2 })
    }

    /// Bytes of keys.
    fn bytes(&self) -> usize {
        self.changes.iter().map(|(_, change)| change.text().len()).sum()
    }

    /// Replaces one delete or pattern by a pattern that covers more keys; `None` if none does.
    fn widen(&mut self) -> Option<Arc<str>> {
        let [(_, change)] = &mut self.changes[..] else { return None };
        let literal = match change {
            Change::Pattern(pattern) if **pattern == *ALL => return None,
            // A `?` stands for one byte and may be cut off like one.
            Change::Pattern(pattern) => pattern.find(['*', '[', '\\']).unwrap_or(pattern.len()),
            Change::Delete(key) | Change::Value { key, .. } => key.len(),
        };
        let pattern = prefix_glob(change.text(), literal / 2);
        *change = Change::Pattern(Arc::clone(&pattern));
        Some(pattern)
    }
}
