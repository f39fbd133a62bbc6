//! Runs an action when a scope is left early: by an error, a panic, or a caller that drops the
//! future.

/// Runs its action when it is dropped, unless it was [disarmed](Self::disarm).
#[must_use]
pub(crate) struct DropGuard<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> DropGuard<F> {
    pub(crate) fn new(action: F) -> Self {
        Self(Some(action))
    }

    /// Ends the guard without running its action.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for DropGuard<F> {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_action_runs_on_drop_and_not_after_disarm() {
        let runs = Cell::new(0);
        drop(DropGuard::new(|| runs.set(runs.get() + 1)));
        assert_eq!(runs.get(), 1);
        DropGuard::new(|| runs.set(runs.get() + 1)).disarm();
        assert_eq!(runs.get(), 1);
    }
}
