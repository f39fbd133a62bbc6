//! The names of metrics and events in the manual are those of the library.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

const METRIC: &str = "lazy_layers_cache_";
const METRICS: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../docs/grafana-dashboard.json");
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

/// The metrics in their table, which a test of the library compares with the code.
fn table() -> BTreeSet<&'static str> {
    let rows = METRICS.lines().filter(|row| row.starts_with("| `lazy_layers_cache_"));
    rows.flat_map(|row| names(row, METRIC).into_iter().take(1)).collect()
}

/// The metric of a series: a histogram has three.
fn metric_of(name: &str) -> &str {
    let series = ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it));
    series.filter(|it| it.ends_with("_seconds")).unwrap_or(name)
}

#[test]
fn each_metric_in_the_manual_is_in_its_table_of_metrics() {
    let known = table();
    assert!(known.len() > 40, "{known:?}");
    let (mut used, mut unknown) = (BTreeSet::new(), Vec::new());
    for (page, text) in &pages() {
        for name in names(text, METRIC).into_iter().filter(|name| *name != METRIC) {
            let name = metric_of(name);
            used.insert(name.to_owned());
            if !known.contains(name) {
                unknown.push(format!("{page}: {name}"));
            }
        }
    }
    assert_eq!(unknown, [""; 0]);
    assert!(used.contains("lazy_layers_cache_l2_circuit_open"), "the manual is read");
}

/// With the test above: each metric of the dashboard exists in the code, and nearly each metric of
/// the code is on the dashboard.
#[test]
fn the_dashboard_of_grafana_shows_the_metrics() {
    const VARIABLES: [&str; 2] = ["datasource", "cache"];
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let version = dashboard["schemaVersion"].as_u64().unwrap();
    assert!((36..=41).contains(&version), "of Grafana 10 or 11: {version}");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables.iter().map(|it| &it["name"]).collect::<Vec<_>>(), VARIABLES);
    let metrics = table();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut shown = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_ne!(panel["description"].as_str().unwrap_or_default(), "", "{}", panel["title"]);
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            let query = target["expr"].as_str().unwrap();
            let used = names(query, METRIC);
            assert!(!used.is_empty(), "{query}");
            // Each series is filtered by the variable, and by no other label.
            assert_eq!(query.matches("{cache=~\"$cache\"}").count(), used.len(), "{query}");
            assert_eq!(query.matches('(').count(), query.matches(')').count(), "{query}");
            for name in used {
                let metric = metric_of(name);
                assert!(metrics.contains(metric), "{}: {name}", panel["title"]);
                shown.insert(metric);
            }
        }
    }
    let left_out: Vec<&&str> = metrics.difference(&shown).collect();
    assert_eq!(left_out, [&"lazy_layers_cache_closed"]);
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
