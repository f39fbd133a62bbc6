//! The names of metrics and events in the manual are those of the library.

use std::{collections::BTreeSet, fs, path::Path};

const METRIC: &str = "lazy_layers_cache_";
const METRICS: &str = include_str!("../../docs/metrics.md");
const EVENTS: &str = include_str!("../../src/observe/event.rs");

/// The pages of the manual, with their names.
fn pages() -> Vec<(String, String)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let paths = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|it| it == "md"));
    pages.map(|it| (it.display().to_string(), fs::read_to_string(&it).unwrap())).collect()
}

/// The names in a text that begin so.
fn names<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    let is_of_name = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
    let starts = text.match_indices(start).map(|(at, _)| &text[at..]);
    starts.map(|rest| &rest[..rest.find(|it| !is_of_name(it)).unwrap_or(rest.len())]).collect()
}

#[test]
fn each_metric_in_the_manual_is_in_its_table_of_metrics() {
    let rows = METRICS.lines().filter(|row| row.starts_with("| `lazy_layers_cache_"));
    let known = rows.flat_map(|row| names(row, METRIC).into_iter().take(1));
    let known: BTreeSet<&str> = known.collect();
    assert!(known.len() > 40, "{known:?}");
    let (mut used, mut unknown) = (BTreeSet::new(), Vec::new());
    for (page, text) in &pages() {
        for name in names(text, METRIC).into_iter().filter(|name| *name != METRIC) {
            let series = ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it));
            let name = series.filter(|it| it.ends_with("_seconds")).unwrap_or(name);
            used.insert(name.to_owned());
            if !known.contains(name) {
                unknown.push(format!("{page}: {name}"));
            }
        }
    }
    assert_eq!(unknown, [""; 0]);
    assert!(used.contains("lazy_layers_cache_l2_circuit_open"), "the manual is read");
}

#[test]
fn each_event_in_the_manual_is_one() {
    let parts = ["event-bus", "l2", "invalidation", "set", "loader", "load", "stale", "lock"];
    let mut unknown = Vec::new();
    for (page, text) in &pages() {
        let spans = text.split('`').skip(1).step_by(2);
        for name in spans.filter(|it| !it.contains(char::is_whitespace)) {
            let is_event = name.split_once(':').is_some_and(|(part, rest)| {
                parts.contains(&part) && rest.starts_with(|it: char| it.is_ascii_lowercase())
            });
            if is_event && !EVENTS.contains(&format!("\"{name}\"")) {
                unknown.push(format!("{page}: {name}"));
            }
        }
    }
    assert_eq!(unknown, [""; 0]);
}
