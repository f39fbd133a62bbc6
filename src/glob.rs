//! Glob patterns over keys, with the rules of Redis, on unsigned bytes.
//!
//! This matcher alone decides, so that a pattern means the same in L1, on the bus and in L2. Redis
//! itself compares the ends of a range as signed bytes on some machines and as unsigned ones on
//! others, and so is only asked for the names that begin with the literal part of a pattern.
//!
//! Redis matches by backtracking, which takes exponential time for a hostile pattern (quadratic
//! since Redis 7). This module runs a pattern as a bit-parallel automaton (Baeza-Yates and Gonnet,
//! "A new approach to text searching", CACM 35(10), 1992, extended with self-loops for `*`): one
//! step per byte of the key for any pattern, and it stops at the first byte after which the key
//! cannot match.

/// A compiled pattern.
///
/// | written | matches |
/// | --- | --- |
/// | `*` | any number of bytes, also none |
/// | `?` | one byte (not one character: `é` is two) |
/// | `[a-c]`, `[abc]` | one of these bytes; `[c-a]` is the same range |
/// | `[^x]` | one byte except these |
/// | `\*` | the byte after the backslash itself, also inside brackets |
///
/// A bracket that is not closed ends with the pattern; `[]` matches no byte and `[^]` any byte.
///
/// A pattern compares at most [`MAX_STEPS`] bytes of a key, not counting those that a `*` matches.
/// What follows in a longer pattern counts as `*`. So a pattern takes at most 134 kB, and a long
/// pattern matches more keys than were written, never fewer: an invalidation may do that.
///
/// Alternatives considered: an error for a long pattern. Refused: a delete fails only when the
/// cache is closed, and a peer that refused a pattern would serve the values that it deletes.
pub(crate) struct Pattern {
    /// Number of states less one: the number of bytes that a match of only empty `*` has.
    steps: usize,
    /// For each byte, the states that accept it: bit `i` of row `b` is set if the `i`-th step of
    /// the pattern accepts byte `b`. Each row has `words` words.
    accepts: Vec<u64>,
    /// The states after a `*`: they stay alive over any byte.
    loops: Vec<u64>,
    words: usize,
}

/// Maximum number of bytes that a match is made of, not counting those that a `*` matches.
const MAX_STEPS: usize = 4_096;

impl Pattern {
    pub(crate) fn new(glob: &str) -> Self {
        let (steps, stars) = parse(glob.as_bytes());
        let words = steps.len() / 64 + 1;
        let mut accepts = vec![0u64; 256 * words];
        for (state, set) in steps.iter().enumerate() {
            for (byte, row) in accepts.chunks_exact_mut(words).enumerate() {
                if has_bit(set, byte) {
                    set_bit(row, state);
                }
            }
        }
        let mut loops = vec![0u64; words];
        for state in stars {
            set_bit(&mut loops, state);
        }
        Self { steps: steps.len(), accepts, loops, words }
    }

    /// Returns whether the pattern matches the whole key. Takes one operation on a machine word per
    /// byte of the key and per 64 steps of the pattern.
    pub(crate) fn matches(&self, key: &str) -> bool {
        if key.len() < self.steps {
            return false;
        }
        if self.words == 1 { self.matches_in_a_word(key) } else { self.matches_in_words(key) }
    }

    fn matches_in_a_word(&self, key: &str) -> bool {
        let loops = self.loops.first().copied().unwrap_or(0);
        let mut alive = 1u64;
        for byte in key.bytes() {
            let accepts = self.accepts.get(usize::from(byte)).copied().unwrap_or(0);
            alive = ((alive & accepts) << 1) | (alive & loops);
            if alive == 0 {
                return false;
            }
        }
        alive >> self.steps & 1 == 1
    }

    fn matches_in_words(&self, key: &str) -> bool {
        let mut alive = vec![0u64; self.words];
        if let Some(first) = alive.first_mut() {
            *first = 1;
        }
        for byte in key.bytes() {
            let row = self.accepts.chunks_exact(self.words).nth(usize::from(byte));
            let mut carry = 0;
            let mut any = 0;
            for ((word, accepts), loops) in
                alive.iter_mut().zip(row.unwrap_or_default()).zip(&self.loops)
            {
                let passed = *word & accepts;
                *word = (passed << 1) | carry | (*word & loops);
                carry = passed >> 63;
                any |= *word;
            }
            if any == 0 {
                return false;
            }
        }
        has_bit(&alive, self.steps)
    }
}

/// The bytes that one step accepts, one bit each.
type Bytes = [u64; 4];

fn set_bit(words: &mut [u64], bit: usize) {
    if let Some(word) = words.get_mut(bit / 64) {
        *word |= 1 << (bit % 64);
    }
}

fn has_bit(words: &[u64], bit: usize) -> bool {
    words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
}

/// Returns the steps of a pattern, and the indices of the steps after a `*` (the end counts as one
/// more step).
fn parse(mut rest: &[u8]) -> (Vec<Bytes>, Vec<usize>) {
    let (mut steps, mut stars) = (Vec::new(), Vec::new());
    loop {
        let (set, after) = match rest {
            [] => return (steps, stars),
            [b'*', after @ ..] => {
                stars.push(steps.len());
                rest = after;
                continue;
            }
            _ if steps.len() == MAX_STEPS => {
                stars.push(MAX_STEPS);
                return (steps, stars);
            }
            [b'?', after @ ..] => ([u64::MAX; 4], after),
            [b'[', after @ ..] => parse_bracket(after),
            // A backslash at the very end stands for itself.
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                let mut set = Bytes::default();
                set_bit(&mut set, usize::from(*byte));
                (set, after)
            }
        };
        steps.push(set);
        rest = after;
    }
}

fn parse_bracket(rest: &[u8]) -> (Bytes, &[u8]) {
    let (negated, mut rest) = match rest {
        [b'^', after @ ..] => (true, after),
        _ => (false, rest),
    };
    let mut set = Bytes::default();
    loop {
        let (from, to, after) = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', byte, after @ ..] => (byte, byte, after),
            [from, b'-', to, after @ ..] => (from.min(to), from.max(to), after),
            [byte, after @ ..] => (byte, byte, after),
        };
        (*from..=*to).for_each(|byte| set_bit(&mut set, usize::from(byte)));
        rest = after;
    }
    (if negated { set.map(|word| !word) } else { set }, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_matches_as_redis_documents_it() {
        for (glob, yes, no) in [
            ("user:*", &["user:", "user:1"][..], &["user", "users:1"][..]),
            ("h?llo", &["hello", "hxllo"], &["hllo", "heello", "héllo"]),
            ("h[a-c]t", &["hat", "hct"], &["hdt", "ht"]),
            ("h[c-a]t", &["hat", "hbt"], &["hdt"]),
            ("h[^a]t", &["hbt"], &["hat", "ht"]),
            (r"a\*b", &["a*b"], &["axb", "ab"]),
            (r"[\]]", &["]"], &["\\"]),
            ("[]", &[], &["", "[", "[]"]),
            ("[^]", &["x"], &["", "xx"]),
            ("[ab", &["a", "b"], &["c", "[ab"]),
            ("[a-é]", &["z", "\u{7f}"], &["A", "é"]),
            ("[a-é]?", &["z1", "é"], &["A1"]),
            ("*", &["", "anything"], &[]),
            ("", &[""], &["a"]),
            ("a*b*c", &["abc", "a--b--c", "abbbcc"], &["ab", "acb"]),
        ] {
            for key in yes {
                assert!(Pattern::new(glob).matches(key), "{glob} should match {key}");
            }
            for key in no {
                assert!(!Pattern::new(glob).matches(key), "{glob} should not match {key}");
            }
        }
    }

    #[test]
    fn patterns_of_any_length_agree_with_short_ones() {
        for len in [62, 63, 64, 65, 127, 128, 200] {
            let key = "k".repeat(len);
            assert!(Pattern::new(&key).matches(&key));
            assert!(!Pattern::new(&key).matches(&key[1..]));
            assert!(Pattern::new(&format!("*{key}*")).matches(&format!("x{key}y")));
            assert!(!Pattern::new(&format!("{key}?")).matches(&key));
        }
    }

    #[test]
    fn what_follows_the_maximum_of_steps_counts_as_a_star() {
        let whole = "k".repeat(MAX_STEPS);
        let (key, end) = (whole.clone() + "end", whole.clone() + "*");
        assert!(Pattern::new(&whole).matches(&whole) && !Pattern::new(&whole).matches(&key));
        assert!(!Pattern::new(&(end.clone() + "**")).matches(&whole[1..]));
        for more in ["end", "other", "e*d", "[a-e]nd", "e", "\\", "["] {
            let pattern = Pattern::new(&(whole.clone() + more));
            assert!(pattern.matches(&key) && !pattern.matches(&whole[1..]), "{more}");
            assert!(!pattern.matches(&key[1..].replace('k', "l")), "{more}");
        }
        // The bytes that a message may have at most.
        for hostile in ["?", "a", "*a", "[^a]", "é"] {
            let pattern = Pattern::new(&hostile.repeat((64 << 10) / hostile.len()));
            assert!(pattern.accepts.len() * 8 <= 134_000, "{hostile}: {}", pattern.accepts.len());
            assert!(!pattern.matches("short"), "{hostile}");
        }
    }

    #[test]
    fn a_pattern_that_is_exponential_for_backtracking_takes_less_than_a_second() {
        let glob = "*a".repeat(32) + "b";
        let key = "a".repeat(64 * 1024);
        let begun = std::time::Instant::now();
        assert!(!Pattern::new(&glob).matches(&key));
        assert!(begun.elapsed().as_secs() < 1);
    }
}
