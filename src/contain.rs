//! Contains the panics of foreign code: of loaders, weighers, codecs and handlers, and of the
//! `Drop` of values and errors.
//!
//! A panic in a `Drop` would end the load or the task that drops the item last; and a second one
//! while the first unwinds, of two values that L1 evicts at once, say, would abort the process. So
//! the cache owns each foreign item by itself, in a [`QuietDrop`].

use std::{
    any::Any,
    fmt, mem,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Runs foreign code. Returns an error if it panics; the panic hook has reported that by then.
pub(crate) fn contain<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| Panicked(QuietDrop::new(payload)))
}

/// The payload of a panic.
pub(crate) struct Panicked(QuietDrop<Box<dyn Any + Send>>);

impl Panicked {
    pub(crate) fn message(&self) -> String {
        let payload: &(dyn Any + Send) = &**self.0;
        payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "(a panic without a message)".to_owned())
    }
}

/// Owns a foreign item, and contains a panic in its `Drop`.
pub(crate) struct QuietDrop<T>(Option<T>);

/// A value of the user. The cache may be its last owner.
pub(crate) type Held<V> = QuietDrop<Arc<V>>;

impl<T> QuietDrop<T> {
    pub(crate) fn new(item: T) -> Self {
        Self(Some(item))
    }

    #[inline]
    #[expect(clippy::expect_used, reason = "only this method takes it, and consumes the owner")]
    pub(crate) fn into_inner(mut self) -> T {
        self.0.take().expect("the item is there")
    }
}

impl<T> Drop for QuietDrop<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(item) = self.0.take() {
            drop_quietly(item);
        }
    }
}

/// Not inlined: a hit, which drops nothing, must not carry the code.
#[inline(never)]
fn drop_quietly<T>(item: T) {
    // mutant quiet-drop: => drop(item); let panicked: Result<(), Box<dyn Any + Send>> = Ok(());
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(item)));
    if let Err(payload) = panicked
        && let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        // The payload of a panic in the `Drop` of a payload. There may be no end to that.
        mem::forget(next);
    }
}

impl<T> Deref for QuietDrop<T> {
    type Target = T;

    #[inline]
    #[expect(clippy::expect_used, reason = "`into_inner` consumes the owner")]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("the item is there")
    }
}

impl<T: Clone> Clone for QuietDrop<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for QuietDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Panics when it is dropped, with another one as its payload.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_any(Self(self.0 + 1));
        }
    }

    #[test]
    fn panics_in_a_drop_and_in_the_drop_of_their_payload_are_contained() {
        drop((QuietDrop::new(Bomb(0)), QuietDrop::new(Bomb(0))));
        drop(contain(|| panic_any(Bomb(0))).err());
        let panicked = contain(|| panic!("on {}", "purpose")).map_err(|it: Panicked| it.message());
        assert_eq!(panicked, Err::<(), _>("on purpose".to_owned()));
        let shared = QuietDrop::new(Arc::new(7));
        assert_eq!((**shared.clone(), *shared.into_inner()), (7, 7));
    }

    #[test]
    fn an_owner_is_no_larger_than_its_item() {
        assert_eq!(size_of::<Held<u8>>(), size_of::<Arc<u8>>());
    }
}
