//! The manual in `docs/`: its tables name what the code has, its links lead somewhere, and GitHub
//! and the documentation show the same code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use lazy_layers_cache::{
    CacheOptions, JetStreamOptions, NatsOptions, RabbitMqOptions, RedisOptions,
    RedisTransportOptions, Stats,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The files in a folder and below it with this ending, by their paths from the root.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The text between each pair of backticks.
fn codes(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of all tables whose first cell begins with code, as their cells.
fn rows(page: &str) -> Vec<Vec<String>> {
    let is_row = |line: &&str| line.starts_with("| `");
    let cells = |row: &str| -> Vec<String> {
        let row = row.replace("\\|", "\u{1}");
        row.trim_matches('|').split('|').map(|it| it.trim().replace('\u{1}', "|")).collect()
    };
    page.lines().filter(is_row).map(cells).collect()
}

/// The part of a page from the heading that contains this text to the next of the same rank.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let sections: Vec<&str> = page.split("\n## ").collect();
    let found = sections.iter().find(|it| it.lines().next().unwrap().contains(heading));
    found.unwrap_or_else(|| panic!("no section about {heading}"))
}

#[test]
fn each_event_and_its_counter_are_documented() {
    let source = read("src/observe/event.rs");
    let (_, table) = source.split_once("\nevents! {").unwrap();
    let name_of = |line: &'static str| line.trim().strip_prefix('"')?.split('"').next();
    let table: &'static str = Box::leak(table.to_owned().into_boxed_str());
    let mut known: BTreeSet<&str> = table.lines().filter_map(name_of).collect();
    assert!(known.insert("event-bus:disconnected") && known.len() > 30, "{known:?}");

    let page = read("docs/events.md");
    let counters: BTreeSet<&str> = Stats::default().iter().map(|(name, _)| name).collect();
    let mut documented = Vec::new();
    for row in rows(&page) {
        for counter in codes(row.last().unwrap()) {
            assert!(counters.contains(counter), "no counter {counter} of {}", row[0]);
        }
        documented.push(row[0].trim_matches('`').to_owned());
    }
    let set: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
    assert_eq!((&set, documented.len()), (&known, set.len()));
}

/// The options of a group by their paths, as in `l1.ttl`.
fn leaves(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(group) => {
            for (name, value) in group {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(value, &format!("{path}{dot}{name}"), found);
            }
        }
        value => drop(found.insert(path.to_owned(), value.clone())),
    }
}

/// The default that a cell states, in the form of a configuration file; `None` for an option that
/// has none.
fn default_in(cell: &str, actual: &Value) -> Option<Value> {
    let plain = cell.trim_matches('`').trim_matches('"');
    let text = || Value::String(if plain == "empty" { String::new() } else { plain.to_owned() });
    match actual {
        Value::Null => None,
        Value::Bool(_) => Some(Value::Bool(cell.parse().ok()?)),
        Value::Number(_) => {
            let number = cell.replace(',', "");
            Some(serde_json::from_str(&number).unwrap_or(Value::String(number)))
        }
        Value::Array(_) => Some(Value::Array(vec![text()])),
        _ => Some(text()),
    }
}

fn set(options: &mut Value, path: &str, value: Value) {
    let pointer = format!("/{}", path.replace('.', "/"));
    *options.pointer_mut(&pointer).unwrap() = value;
}

/// Checks that the section names all options of a group, no other ones, and their defaults.
fn check_options<T>(heading: &str)
where
    T: Serialize + DeserializeOwned + Default + PartialEq + fmt::Debug,
{
    let page = read("docs/options.md");
    let defaults = serde_json::to_value(T::default()).unwrap();
    let (mut known, mut documented) = (BTreeMap::new(), BTreeSet::new());
    leaves(&defaults, "", &mut known);
    let mut stated = defaults.clone();
    for row in rows(section(&page, heading)) {
        for path in codes(&row[0]).into_iter().filter(|it| !it.contains('(')) {
            let Some(actual) = known.get(path) else {
                // A group that another section describes.
                let group = format!("{path}.");
                assert!(known.keys().any(|it| it.starts_with(&group)), "{heading}: {path}");
                known.retain(|it, _| !it.starts_with(&group));
                continue;
            };
            if let Some(value) = default_in(&row[2], actual).filter(|_| !row[2].is_empty()) {
                set(&mut stated, path, value);
            }
            documented.insert(path.to_owned());
        }
    }
    let known: BTreeSet<String> = known.into_keys().collect();
    assert_eq!(documented, known, "{heading}");
    let stated: T = serde_json::from_value(stated).unwrap_or_else(|it| panic!("{heading}: {it}"));
    assert_eq!(stated, T::default(), "{heading}: a default");
}

#[test]
fn each_option_and_its_default_are_documented() {
    check_options::<CacheOptions>("CacheOptions");
    check_options::<RedisOptions>("RedisOptions");
    check_options::<RedisTransportOptions>("RedisTransportOptions");
    check_options::<NatsOptions>("NatsOptions");
    check_options::<JetStreamOptions>("JetStreamOptions");
    check_options::<RabbitMqOptions>("RabbitMqOptions");
}

#[test]
fn each_feature_is_documented() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let features = manifest["features"].as_table().unwrap().keys().map(String::as_str);
    let features: BTreeSet<&str> = features.filter(|it| *it != "default").collect();
    let page = read("docs/options.md");
    let rows = rows(section(&page, "Cargo features"));
    let documented: BTreeSet<&str> = rows.iter().flat_map(|row| codes(&row[0])).collect();
    assert_eq!(documented, features);
}

/// The options that `build()` refuses: in the source each stands before the problem, which is a
/// text or a `format!`.
fn refused_options() -> BTreeSet<String> {
    let is_option = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'))
    };
    let begins_problem = |rest: &str| {
        let rest = rest.trim_start().strip_prefix(',').map(str::trim_start);
        let words = ["is ", "has ", "needs ", "names ", "and ", "does ", "contains ", "("];
        rest.is_some_and(|rest| {
            rest.starts_with("format!(")
                || words
                    .iter()
                    .any(|word| rest.strip_prefix('"').is_some_and(|it| it.starts_with(word)))
        })
    };
    let mut options = BTreeSet::new();
    for file in files("src", ".rs") {
        let source = read(&file);
        let code = source.split("#[cfg(test)]").next().unwrap();
        if !code.contains("BuildError") {
            continue;
        }
        for (at, _) in code.match_indices('"') {
            if let Some((text, rest)) = code[at + 1..].split_once('"')
                && is_option(text)
                && begins_problem(rest)
            {
                options.insert(text.to_owned());
            }
        }
    }
    options
}

#[test]
fn each_error_is_documented() {
    let source = read("src/error.rs");
    let (_, kinds) = source.split_once("pub enum ErrorKind {").unwrap();
    let kinds = kinds.split("\n}").next().unwrap().lines().map(str::trim);
    let kinds: BTreeSet<&str> = kinds.filter_map(|line| line.strip_suffix(',')).collect();
    assert!(kinds.contains("Loader") && kinds.len() > 5, "{kinds:?}");

    let page = read("docs/errors.md");
    let headings = page.lines().filter_map(|line| line.strip_prefix("### `"));
    let headings: BTreeSet<&str> = headings.filter_map(|line| line.strip_suffix('`')).collect();
    assert_eq!(headings, kinds);

    let options = refused_options();
    assert!(options.len() > 50, "{}: {options:?}", options.len());
    let named: BTreeSet<String> =
        rows(&page).iter().flat_map(|row| codes(&row[0])).map(str::to_owned).collect();
    let missing: Vec<&String> = options.difference(&named).collect();
    assert!(missing.is_empty(), "docs/errors.md does not name {missing:?}");
}

/// The lines of a page that are neither code nor a fence, with inline code taken out.
fn prose(page: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    prose
}

/// The anchors that GitHub gives to the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let (mut is_code, mut found) = (false, BTreeSet::new());
    for line in page.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let text = line.trim_start_matches('#');
        if is_code || text.len() == line.len() || !text.starts_with(' ') {
            continue;
        }
        let kept = text.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String =
            kept.flat_map(char::to_lowercase).collect::<String>().replace(' ', "-");
        let repeated = (1..).map(|number| format!("{anchor}-{number}"));
        let free = [anchor.clone()].into_iter().chain(repeated).find(|it| !found.contains(it));
        found.extend(free);
    }
    found
}

/// The links of a page: the targets, and the labels that have no definition.
fn links(page: &str) -> (Vec<String>, Vec<String>) {
    let prose = prose(page);
    let definitions: BTreeMap<&str, &str> = prose
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
        .map(|(label, target)| (label, target.trim()))
        .collect();
    let mut targets: Vec<String> = definitions.values().map(|it| (*it).to_owned()).collect();
    let inline = prose.split("](").skip(1).filter_map(|it| it.split(')').next());
    targets.extend(inline.map(str::to_owned));
    let used = prose.split("][").skip(1).filter_map(|it| it.split(']').next());
    let undefined = used.filter(|it| !definitions.contains_key(it)).map(str::to_owned).collect();
    (targets, undefined)
}

#[test]
fn each_link_leads_to_a_file_and_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = files("docs", ".md");
    let others = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md", "llms.txt"];
    pages.extend(others.map(str::to_owned).into_iter().filter(|it| root.join(it).exists()));
    let (mut broken, mut checked) = (Vec::new(), 0);
    for page in &pages {
        let text = read(page);
        let (targets, undefined) = links(&text);
        broken.extend(undefined.into_iter().map(|label| format!("{page}: [{label}]")));
        for target in targets.iter().filter(|it| !it.contains("://")) {
            checked += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = root.join(page).parent().unwrap().to_owned();
            let file: PathBuf = if file.is_empty() { root.join(page) } else { folder.join(file) };
            let text = if file.is_dir() { Ok(String::new()) } else { fs::read_to_string(&file) };
            let is_found = text.is_ok_and(|it| anchor.is_empty() || anchors(&it).contains(anchor));
            if !is_found {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(checked > 20, "{checked}");
}

#[test]
fn each_block_of_code_is_complete_for_readers_of_the_file() {
    let mut blocks = 0;
    for page in files("docs", ".md").into_iter().chain(["README.md".to_owned()]) {
        let text = read(&page);
        let mut language: Option<&str> = None;
        for line in text.lines() {
            if let Some(tag) = line.trim_start().strip_prefix("```") {
                language = if language.is_some() { None } else { Some(tag) };
                assert!(language != Some(""), "{page}: a block without a language");
                assert!(!tag.contains("ignore"), "{page}: {line}");
                blocks += usize::from(language.is_some_and(|it| it.starts_with("rust")));
            } else if language.is_some_and(|it| it.starts_with("rust")) {
                let code = line.trim();
                assert!(code != "#" && !code.starts_with("# "), "{page}: hidden line {line}");
            }
        }
    }
    assert!(blocks > 5, "{blocks}");
}

/// The pages that a list links to, in its order.
fn listed(list: &str, start: &str) -> Vec<String> {
    let (targets, _) = links(list);
    let pages = targets.iter().filter_map(|it| it.strip_prefix(start));
    pages.filter(|it| it.ends_with(".md") && !it.contains('/')).map(str::to_owned).collect()
}

#[test]
fn each_page_is_in_both_indexes_and_in_the_documentation() {
    let sorted = |mut pages: Vec<String>| {
        pages.sort();
        pages
    };
    let pages = files("docs", ".md").into_iter();
    let pages: Vec<String> = pages
        .filter_map(|it| it.strip_prefix("docs/").map(str::to_owned))
        .filter(|it| it != "README.md")
        .collect();
    let index = read("docs/README.md");
    assert_eq!(sorted(listed(&index, "")), pages, "docs/README.md");
    assert_eq!(sorted(listed(&read("llms.txt"), "docs/")), pages, "llms.txt");

    // The figures are images beside the page, which the documentation does not have.
    let source = read("src/manual.rs");
    let (_, table) = source.split_once("\npages! {").unwrap();
    let rows: Vec<(&str, &str)> =
        table.lines().filter_map(|line| line.trim().split_once(": ")).collect();
    let modules: Vec<String> =
        rows.iter().map(|(_, file)| file.trim_matches(['"', ',']).to_owned()).collect();
    let expected: Vec<String> = pages.into_iter().filter(|it| it != "figures.md").collect();
    assert_eq!(sorted(modules.clone()), expected, "src/manual.rs");
    for ((module, _), file) in rows.iter().zip(&modules) {
        assert_eq!(*module, file.trim_end_matches(".md").replace('-', "_"));
    }

    // In the order of the index.
    let prose = prose(&index);
    let labels: Vec<&str> =
        prose.split("][").skip(1).filter_map(|it| it.split(']').next()).collect();
    let order = |file: &String| {
        let label = file.trim_end_matches(".md").replace('-', "_");
        labels.iter().rposition(|it| *it == label)
    };
    assert!(modules.iter().map(order).is_sorted(), "{modules:?} is not in the order of {labels:?}");
}
