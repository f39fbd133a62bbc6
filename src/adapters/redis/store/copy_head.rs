//! The head of a stale copy, which says of which value it is: see [`scripts`](super::scripts).

use std::time::Duration;

use redis::Value;

use super::scripts::COPY_HEAD;

/// Two commands of one plain read see the same value if they differ by at most this number of
/// milliseconds of expiry: the commands are not one step.
pub(crate) const MAX_EXPIRY_DIFFERENCE: u64 = 5;

/// Returns the window of a value in milliseconds, if the copy with this head is of that value. Both
/// expire by the same clock, and the copy does so later by the window: so no time of the server is
/// needed. The arguments but the head are those of the value, and the copy's remaining
/// milliseconds.
pub(crate) fn window_of(head: &Value, value_len: usize, ttl: i64, copy_ttl: i64) -> Option<i64> {
    let Value::BulkString(head) = head else { return None };
    let window = i64::try_from(number(head, 14, 26)?).ok()?;
    let is_of = number(head, 26, COPY_HEAD)? == u64::try_from(value_len).ok()?
        && copy_ttl.saturating_sub(ttl).abs_diff(window) <= MAX_EXPIRY_DIFFERENCE;
    is_of.then_some(window)
}

/// Returns how long a copy with this head may be served, if its value has expired and takes at most
/// `max` bytes. `left` is the rest of the copy's time. Until the value expires it is longer than
/// the window: so no time of the server is needed.
pub(crate) fn stale_left(head: &[u8], left: Duration, max: usize) -> Option<Duration> {
    let window = Duration::from_millis(number(head, 14, 26)?);
    let fits = usize::try_from(number(head, 26, COPY_HEAD)?).is_ok_and(|bytes| bytes <= max);
    let is_stale = left <= window + Duration::from_millis(MAX_EXPIRY_DIFFERENCE);
    (head.starts_with(b"1") && fits && is_stale).then_some(left)
}

fn number(head: &[u8], from: usize, to: usize) -> Option<u64> {
    std::str::from_utf8(head.get(from..to)?).ok()?.parse().ok()
}

#[derive(Debug, PartialEq)]
pub(crate) struct CopyHead {
    /// Milliseconds from the read to the expiry of the value.
    expires_in: i64,
    pub(crate) window: Duration,
    value_len: usize,
}

impl CopyHead {
    /// `time` is the reply to `TIME`. `None`: there is no copy.
    pub(crate) fn decode(head: &Value, time: &Value) -> Option<Self> {
        let (Value::BulkString(head), Value::Array(time)) = (head, time) else { return None };
        let part = |at: usize| match time.get(at)? {
            Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
            _ => None,
        };
        let now = part(0)? * 1_000 + part(1)? / 1_000;
        Some(Self {
            expires_in: i64::try_from(number(head, 1, 14)?).ok()? - i64::try_from(now).ok()?,
            window: Duration::from_millis(number(head, 14, 26)?),
            value_len: usize::try_from(number(head, 26, COPY_HEAD)?).ok()?,
        })
    }

    /// Whether the value of the copy has expired.
    pub(crate) fn has_expired(&self) -> bool {
        self.expires_in <= 0
    }

    /// Whether the copy belongs to a value of this length and remaining milliseconds.
    pub(crate) fn is_of(&self, value_len: usize, ttl: i64) -> bool {
        self.value_len == value_len && self.expires_in.abs_diff(ttl) <= MAX_EXPIRY_DIFFERENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiries_of_a_value_and_its_copy_differ_by_its_window() {
        let head = Value::BulkString(b"117959027122500000003000000000000007".to_vec());
        for (len, ttl, copy_ttl, window) in [
            (7, 1_000, 301_000, Some(300_000)),
            (7, 1_000, 301_005, Some(300_000)),
            (7, 1_000, 301_006, None),
            (8, 1_000, 301_000, None),
            (7, 1_000, -1, None),
            (7, -2, 301_000, None),
        ] {
            assert_eq!(window_of(&head, len, ttl, copy_ttl), window, "{len} {ttl} {copy_ttl}");
        }
        assert_eq!(window_of(&Value::BulkString(Vec::new()), 7, 1_000, 301_000), None);
    }

    #[test]
    fn a_copy_is_stale_once_its_rest_is_within_its_window() {
        let head = b"117959027122500000003000000000000007";
        for (left, max, is_stale) in [
            (299_999, 7, true),
            (300_000, 7, true),
            (300_006, 7, false),
            (299_999, 6, false),
            (1_000_000, 7, false),
        ] {
            let left = Duration::from_millis(left);
            assert_eq!(stale_left(head, left, max), is_stale.then_some(left), "{left:?} {max}");
        }
        for none in [&b""[..], b"1", b"217959027122500000003000000000000007"] {
            assert_eq!(stale_left(none, Duration::from_millis(1), 7), None);
        }
    }

    #[test]
    fn a_head_says_of_which_value_the_copy_is() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let time = Value::Array(vec![text("1795902711"), text("250999")]);
        let head = CopyHead::decode(&text("117959027122500000003000000000000007"), &time).unwrap();
        assert_eq!(head.window, Duration::from_secs(300));
        for (len, ttl, is_of) in
            [(7, 1_000, true), (7, 995, true), (7, 1_006, false), (8, 1_000, false), (7, -2, false)]
        {
            assert_eq!(head.is_of(len, ttl), is_of, "{len} {ttl}");
        }
        for none in ["", "1", "1x79590271225000000300000000000000007"] {
            assert_eq!(CopyHead::decode(&text(none), &time), None);
        }
    }
}
