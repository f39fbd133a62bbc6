//! The keys that all processes use.

use std::ops::RangeInclusive;

use crate::environment::Names;

/// Few keys that change often.
pub(super) const HOT: RangeInclusive<usize> = 0..=3;
/// Many keys that change rarely.
pub(super) const COLD: RangeInclusive<usize> = 4..=123;

pub(super) fn names() -> Names {
    let hot = HOT.map(|key| format!("h{key}"));
    let keys: Vec<String> = hot.chain(COLD.map(|key| format!("c{key:03}"))).collect();
    let matching = |is_matched: &dyn Fn(&str) -> bool| {
        keys.iter()
            .enumerate()
            .filter(|(_, key)| is_matched(key))
            .map(|(number, _)| number)
            .collect()
    };
    let patterns = vec![
        ("h*".to_owned(), matching(&|key| key.starts_with('h'))),
        ("h[01]".to_owned(), matching(&|key| key == "h0" || key == "h1")),
        ("c??7".to_owned(), matching(&|key| key.starts_with('c') && key.ends_with('7'))),
        ("c11*".to_owned(), matching(&|key| key.starts_with("c11"))),
    ];
    Names { keys, patterns }
}
