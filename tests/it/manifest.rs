//! Promises of Cargo.toml: the oldest Rust, few dependencies, and a package that is complete.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// What `cargo` resolves for the library with these arguments, without what only tests use.
fn resolved(arguments: &[&str]) -> Vec<Value> {
    let metadata = ["metadata", "--format-version", "1", "--locked"];
    let metadata: Value = serde_json::from_str(&cargo(&[&metadata, arguments].concat())).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let node = |id: &Value| nodes.iter().find(|node| node["id"] == *id).unwrap();
    let package = |id: &Value| {
        let packages = metadata["packages"].as_array().unwrap();
        packages.iter().find(|package| package["id"] == *id).unwrap().clone()
    };
    let ours = nodes.iter().find(|node| package(&node["id"])["name"] == "lazy-layers-cache");
    let mut seen = BTreeSet::new();
    let mut waiting = vec![ours.unwrap()["id"].clone()];
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.to_string()) {
            continue;
        }
        for dependency in node(&id)["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"] != "dev") {
                waiting.push(dependency["pkg"].clone());
            }
        }
    }
    nodes
        .iter()
        .filter(|node| seen.contains(&node["id"].to_string()))
        .map(|node| package(&node["id"]))
        .collect()
}

#[test]
fn no_dependency_needs_a_newer_rust_than_we_promise() {
    let number = |version: &str| -> Vec<u32> {
        version.split('.').map(|part| part.parse().unwrap()).chain([0]).take(3).collect()
    };
    let ours = number(env!("CARGO_PKG_RUST_VERSION"));
    for package in resolved(&["--all-features"]) {
        if let Some(needs) = package["rust_version"].as_str() {
            assert!(number(needs) <= ours, "{} needs Rust {needs}", package["name"]);
        }
    }
}

#[test]
fn a_cache_pulls_few_crates() {
    for (feature, most) in [("default", 20), ("redis", 88)] {
        let crates = crates_with(feature);
        assert!((5..=most).contains(&crates.len()), "{feature}, {}: {crates:?}", crates.len());
    }
}

#[test]
fn the_package_has_the_library_and_the_pages_that_it_includes() {
    let files = cargo(&["package", "--list", "--allow-dirty", "--locked"]);
    let files: BTreeSet<&str> = files.lines().collect();
    for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT", "src/lib.rs"] {
        assert!(files.contains(file), "{file}: {files:?}");
    }
    for page in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap() {
        let page = page.unwrap().file_name().into_string().unwrap();
        let is_page = page.ends_with(".md") || page == "grafana-dashboard.json";
        assert_eq!(files.contains(&*format!("docs/{page}")), is_page, "{page}: {files:?}");
    }
    let is_ours = |file: &&str| !file.contains('/') || file.starts_with("src/");
    assert!(files.iter().all(|file| is_ours(file) || file.starts_with("docs/")), "{files:?}");
}

/// The crates, with their versions, that are built for the library with this feature, itself
/// included.
fn crates_with(feature: &str) -> BTreeSet<String> {
    let text = cargo(&[
        "tree",
        "--locked",
        "--edges=normal,build",
        "--prefix=none",
        "--target=x86_64-unknown-linux-gnu",
        "--no-default-features",
        "--features",
        feature,
    ]);
    let name_and_version =
        |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    text.lines().map(name_and_version).collect()
}

/// Runs cargo for the library and returns its output.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
