//! Keys as text: one form for L1, L2, the bus and patterns.

use std::{borrow::Cow, fmt, ops::Deref, sync::Arc};

/// A type whose values can be keys of a cache.
///
/// Two keys are the same entry exactly when their texts are equal, so the text must contain
/// everything that distinguishes keys. Strings are their own text and cost nothing; numbers are
/// written without an allocation.
///
/// ```
/// use lazy_layers_cache::{CacheKey, KeyText};
///
/// struct ProductPage { product: u64, locale: &'static str }
///
/// impl CacheKey for ProductPage {
///     fn key_text(&self) -> KeyText<'_> {
///         KeyText::display(&format_args!("product:{}:{}", self.product, self.locale))
///     }
/// }
///
/// let key = ProductPage { product: 7, locale: "en" };
/// assert_eq!(&*key.key_text(), "product:7:en");
/// ```
pub trait CacheKey {
    /// Returns the text of this key.
    fn key_text(&self) -> KeyText<'_>;
}

/// The text of a key: borrowed, or written into a buffer.
#[derive(Clone)]
pub struct KeyText<'a>(Text<'a>);

#[derive(Clone)]
enum Text<'a> {
    Borrowed(&'a str),
    Inline(Inline),
    Owned(String),
}

/// Bytes of the inline buffer: enough for every integer and for a UUID.
const INLINE: usize = 40;

#[derive(Clone, Copy)]
struct Inline {
    bytes: [u8; INLINE],
    len: usize,
}

impl<'a> KeyText<'a> {
    /// Borrows a text. Costs nothing.
    #[inline]
    #[must_use]
    pub const fn borrowed(text: &'a str) -> Self {
        Self(Text::Borrowed(text))
    }

    /// Writes `value` by its `Display`. Texts of at most 40 bytes need no allocation.
    #[must_use]
    pub fn display(value: &impl fmt::Display) -> Self {
        let mut text = Text::Inline(Inline { bytes: [0; INLINE], len: 0 });
        // If a `Display` fails, its text so far remains: this function returns no error, and
        // `to_string` of std would panic.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{value}"));
        Self(text)
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if let Text::Inline(inline) = self
            && let Some(room) = inline.bytes.get_mut(inline.len..inline.len + more.len())
        {
            room.copy_from_slice(more.as_bytes());
            inline.len += more.len();
            return Ok(());
        }
        let mut longer = String::from(self.as_str());
        longer.push_str(more);
        *self = Text::Owned(longer);
        Ok(())
    }
}

impl Text<'_> {
    #[inline]
    fn as_str(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            // The buffer only receives whole strings, so it is UTF-8.
            Text::Inline(inline) => inline
                .bytes
                .get(..inline.len)
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .unwrap_or_default(),
            Text::Owned(text) => text,
        }
    }
}

impl Deref for KeyText<'_> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: CacheKey + ?Sized> CacheKey for &T {
    #[inline]
    fn key_text(&self) -> KeyText<'_> {
        (**self).key_text()
    }
}

macro_rules! keys {
    ($write:path: $($key:ty),*) => {$(
        impl CacheKey for $key {
            #[inline]
            fn key_text(&self) -> KeyText<'_> {
                $write(self)
            }
        }
    )*};
}
keys!(KeyText::borrowed: str, String, Arc<str>, Cow<'_, str>);
keys!(KeyText::display: u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        assert_eq!(&*42u64.key_text(), "42");
        assert_eq!(&*i128::MIN.key_text(), i128::MIN.to_string());
        assert_eq!(&*u128::MAX.key_text(), u128::MAX.to_string());
    }

    #[test]
    fn a_text_of_any_length_is_kept_whole() {
        for len in [0, 1, 39, 40, 41, 500] {
            let (left, right) = ("é".repeat(len / 2), "x".repeat(len % 2 + 3));
            let text = KeyText::display(&format_args!("{left}:{right}"));
            assert_eq!(&*text, format!("{left}:{right}"));
        }
    }
}
