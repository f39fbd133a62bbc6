//! Keys as text: one form for L1, L2, the bus and patterns.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZero,
    ops::Deref,
    sync::Arc,
};

/// A type whose values can be keys of a cache.
///
/// Two keys are the same entry exactly when their texts are equal, so the text must contain
/// everything that distinguishes keys. Strings are their own text and cost nothing; numbers are
/// written without an allocation.
///
/// | type | text |
/// | --- | --- |
/// | `str`, `String`, `Cow<str>`, and any key behind `&`, `Box` or `Arc` | the text itself |
/// | integers, also `NonZero`; `bool`; `char`; IP addresses | as `Display` writes them |
/// | tuples of two to four keys | the texts of the parts, with a colon between: `7:en` |
///
/// A colon or a backslash within a part of a tuple has a backslash before it, so that different
/// tuples have different texts: `("a:b", "c")` is `a\:b:c`.
///
/// For a type of your own, implement this trait:
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a cache",
    label = "this type does not implement `CacheKey`",
    note = "implement it: `impl CacheKey for ..` with `fn key_text(&self) -> KeyText<'_> \
            {{ KeyText::display(&self.id) }}`",
    note = "strings, integers, `bool`, `char`, IP addresses, tuples of keys, and keys behind `&`, \
            `Box` or `Arc` are keys already; wrap a type of another crate in one of yours"
)]
pub trait CacheKey {
    /// Returns the text of this key.
    fn key_text(&self) -> KeyText<'_>;
}

/// The text of a key: borrowed, or written into a buffer.
///
/// ```
/// use lazy_layers_cache::{CacheKey, KeyText};
///
/// let text: KeyText<'_> = 42_u64.key_text();
/// assert_eq!(&*text, "42");
/// ```
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
    ///
    /// ```
    /// use lazy_layers_cache::{CacheKey, KeyText};
    ///
    /// struct Slug(String);
    ///
    /// impl CacheKey for Slug {
    ///     fn key_text(&self) -> KeyText<'_> {
    ///         KeyText::borrowed(&self.0)
    ///     }
    /// }
    ///
    /// assert_eq!(&*Slug("about-us".to_owned()).key_text(), "about-us");
    /// ```
    #[inline]
    #[must_use]
    pub const fn borrowed(text: &'a str) -> Self {
        Self(Text::Borrowed(text))
    }

    /// Writes `value` by its `Display`. Texts of at most 40 bytes need no allocation.
    ///
    /// ```
    /// use lazy_layers_cache::{CacheKey, KeyText};
    ///
    /// struct OrderId(u64);
    ///
    /// impl CacheKey for OrderId {
    ///     fn key_text(&self) -> KeyText<'_> {
    ///         KeyText::display(&self.0)
    ///     }
    /// }
    ///
    /// assert_eq!(&*OrderId(7).key_text(), "7");
    /// ```
    #[must_use]
    pub fn display(value: &impl fmt::Display) -> Self {
        let mut text = Text::EMPTY;
        // If a `Display` fails, its text so far remains: this function returns no error, and
        // `to_string` of std would panic.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{value}"));
        Self(text)
    }
}

/// The texts of the parts of a tuple, with a colon between them. Escaped, so that the parts follow
/// from the text.
fn joined<const N: usize>(parts: &[KeyText<'_>; N]) -> KeyText<'static> {
    let mut text = Text::EMPTY;
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            text.push(":");
        }
        let mut rest = &**part;
        while let Some(at) = rest.find([':', '\\']) {
            let (before, special) = rest.split_at(at);
            // Both characters are one byte long.
            let (special, after) = special.split_at(1);
            text.push(before);
            text.push("\\");
            text.push(special);
            rest = after;
        }
        text.push(rest);
    }
    KeyText(text)
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.push(more);
        Ok(())
    }
}

impl Text<'_> {
    const EMPTY: Self = Text::Inline(Inline { bytes: [0; INLINE], len: 0 });

    fn push(&mut self, more: &str) {
        if let Text::Inline(inline) = self
            && let Some(room) = inline.bytes.get_mut(inline.len..inline.len + more.len())
        {
            room.copy_from_slice(more.as_bytes());
            inline.len += more.len();
            return;
        }
        let mut longer = String::from(self.as_str());
        longer.push_str(more);
        *self = Text::Owned(longer);
    }

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

macro_rules! pointers {
    ($($key:ty),*) => {$(
        impl<T: CacheKey + ?Sized> CacheKey for $key {
            #[inline]
            fn key_text(&self) -> KeyText<'_> {
                (**self).key_text()
            }
        }
    )*};
}
pointers!(&T, Box<T>, Arc<T>);

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
keys!(KeyText::borrowed: str, String, Cow<'_, str>);
keys!(KeyText::display: u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);
keys!(KeyText::display: NonZero<u8>, NonZero<u16>, NonZero<u32>, NonZero<u64>, NonZero<u128>);
keys!(KeyText::display: NonZero<i8>, NonZero<i16>, NonZero<i32>, NonZero<i64>, NonZero<i128>);
keys!(KeyText::display: NonZero<usize>, NonZero<isize>);
keys!(KeyText::display: bool, char, IpAddr, Ipv4Addr, Ipv6Addr);

macro_rules! tuples {
    ($(($($key:ident $part:ident),+);)*) => {$(
        impl<$($key: CacheKey),+> CacheKey for ($($key,)+) {
            fn key_text(&self) -> KeyText<'_> {
                let ($($part,)+) = self;
                joined(&[$($part.key_text()),+])
            }
        }
    )*};
}
tuples! {
    (A a, B b);
    (A a, B b, C c);
    (A a, B b, C c, D d);
}

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

    #[test]
    fn pointers_bools_characters_and_addresses_are_keys() {
        assert_eq!(&*Arc::new("a".to_owned()).key_text(), "a");
        assert_eq!(&*Arc::<str>::from("a").key_text(), "a");
        assert_eq!(&*Box::<str>::from("a").key_text(), "a");
        assert_eq!(&*true.key_text(), "true");
        assert_eq!(&*'é'.key_text(), "é");
        assert_eq!(&*NonZero::<u64>::MAX.key_text(), u64::MAX.to_string());
        assert_eq!(&*IpAddr::from([127, 0, 0, 1]).key_text(), "127.0.0.1");
        let longest = Ipv6Addr::from([0xffff_u16; 8]);
        assert_eq!(&*longest.key_text(), longest.to_string());
    }

    #[test]
    fn different_tuples_have_different_texts() {
        assert_eq!(&*(7_u64, "en").key_text(), "7:en");
        assert_eq!(&*("a:b", "c").key_text(), "a\\:b:c");
        assert_eq!(&*(("a", "b"), "c").key_text(), "a\\:b:c");
        // All texts of at most three characters, of which some need a backslash.
        let mut texts = vec![String::new()];
        for start in 0..40 {
            texts.extend([":", "\\", "x"].map(|more| format!("{}{more}", texts[start])));
        }
        let mut seen = std::collections::HashMap::new();
        for a in &texts {
            for b in &texts {
                let text = (a, b).key_text().to_string();
                let other = seen.insert(text, (a, b));
                assert!(other.is_none(), "{:?} and {other:?}", (a, b));
            }
        }
        let long = "é:".repeat(30);
        let text = (1_u8, &long, true, "x").key_text().to_string();
        assert_eq!(text, format!("1:{}:true:x", "é\\:".repeat(30)));
    }
}
