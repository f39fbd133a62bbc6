//! Finds the name that was probably meant by a misspelt one.

/// Returns the candidate that is nearest to `name`, if at most a third of its letters differ.
/// Case, `-` and `_` do not count.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = plain(name);
    let limit = (name.len() / 3).max(1);
    let near = candidates.into_iter().map(|it| (distance(&name, &plain(it)), it));
    near.filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, it)| it)
}

fn plain(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// The number of letters to insert, remove, replace or swap with their neighbours.
fn distance(one: &[char], other: &[char]) -> usize {
    // Three rows of the table: distances of the beginnings of `one` to all beginnings of `other`.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut best =
                (at(&last, j) + usize::from(a != b)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let is_swap =
                i > 0 && j > 0 && one.get(i - 1) == Some(b) && other.get(j - 1) == Some(a);
            if is_swap {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(one.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised_and_another_word_is_not() {
        let known = ["ttl", "ttl_jitter", "l1", "max_entries", "users", "orders"];
        for (wrong, meant) in [
            ("tll", "ttl"),
            ("tlt", "ttl"),
            ("TTL", "ttl"),
            ("ttl-jitter", "ttl_jitter"),
            ("ttljiter", "ttl_jitter"),
            ("maxEntries", "max_entries"),
            ("usres", "users"),
            ("user", "users"),
        ] {
            assert_eq!(nearest(wrong, known), Some(meant), "{wrong}");
        }
        for other in ["", "weigher", "products", "xyz"] {
            assert_eq!(nearest(other, known), None, "{other}");
        }
    }
}
