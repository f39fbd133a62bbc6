//! Promises of Cargo.toml: the oldest Rust, and few dependencies for a cache in memory.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// What `cargo` resolves for the library with these arguments, without what only tests use.
fn resolved(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
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
fn a_cache_in_memory_pulls_few_crates() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--no-default-features",
        ])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let crates: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!((5..=20).contains(&crates.len()), "{}: {crates:?}", crates.len());
}
