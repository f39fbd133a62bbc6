//! The head of a stale copy, which says of which value it is: see [`scripts`](super::scripts).

use std::time::Duration;

use redis::Value;

use super::scripts::COPY_HEAD;

/// Two commands of one plain read see the same value if they differ by at most this number of
/// milliseconds of expiry: the commands are not one step.
pub(crate) const MAX_EXPIRY_DIFFERENCE: u64 = 5;

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
        let number = |from, to| std::str::from_utf8(head.get(from..to)?).ok()?.parse::<u64>().ok();
        let part = |at: usize| match time.get(at)? {
            Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
            _ => None,
        };
        let now = part(0)? * 1_000 + part(1)? / 1_000;
        Some(Self {
            expires_in: i64::try_from(number(1, 14)?).ok()? - i64::try_from(now).ok()?,
            window: Duration::from_millis(number(14, 26)?),
            value_len: usize::try_from(number(26, COPY_HEAD)?).ok()?,
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
