//! The layers of ARCHITECTURE.md: fails on an import against their order, and on any circle of
//! imports between files.

mod graph;

use std::{collections::BTreeSet, fs, path::Path};

use self::graph::{Graph, Sources, circle};

/// The layers from the lowest to the highest, and their modules. A module may import from the
/// layers below its own. Within its layer it may import from modules that stand before it, but
/// for the stages, which know only themselves.
const LAYERS: &[(&str, &[&str])] = &[
    ("vocabulary", &["contain", "sync", "time", "key", "glob", "error", "entry", "options"]),
    ("tools", &["observe", "resilience", "msgpack", "codec"]),
    ("stages", &["l1", "flight", "load", "l2", "bus"]),
    ("adapters", &["adapters"]),
    ("front door", &["cache", "manager", "testing", "manual"]),
];

/// All that adapters may use of the stages: the contracts that they fulfil, and the inbox of a
/// subscription.
const CONTRACTS: &[&str] =
    &["l2/store.rs", "l2/store_types.rs", "l2/inspection.rs", "bus/transport.rs", "bus/inbox.rs"];

/// The folders of vendors, which do not know each other.
const VENDORS: &[&str] = &["adapters/nats/", "adapters/rabbitmq/", "adapters/redis/"];

#[test]
fn imports_follow_the_order_of_the_layers() {
    let graph = sources().graph();
    let wrong = arrows_against_the_order(&graph);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let seen: BTreeSet<&str> = graph.keys().map(|file| module_of(file)).collect();
    let listed: BTreeSet<&str> = LAYERS.iter().flat_map(|(_, modules)| *modules).copied().collect();
    assert_eq!(seen, listed, "the table and the folders differ");
}

#[test]
fn no_files_import_from_each_other_in_a_circle() {
    let circle = circle(&sources().graph());
    assert!(circle.is_none(), "{} and back", circle.unwrap_or_default().join(" -> "));
}

#[test]
fn the_protocol_of_the_bus_is_pure_and_only_its_client_uses_it() {
    let sources = sources();
    for (file, code) in sources.files() {
        if file.starts_with("bus/protocol/") {
            for impure in ["tokio", "parking_lot", "std::time::Instant", "fastrand"] {
                assert!(!code.contains(impure), "{file} uses {impure}");
            }
        }
    }
    for (file, targets) in sources.graph() {
        let may = file.starts_with("bus/protocol/") || file.starts_with("bus/client/");
        let uses = targets.iter().any(|target| target.starts_with("bus/protocol/"));
        assert!(may || !uses, "{file} uses the protocol past its client");
    }
}

#[test]
fn planted_faults_are_found() {
    let mut planted = sources();
    planted.add("l1/planted.rs", "use crate::flight::table::FlightTable;\n");
    planted.add("time/planted.rs", "fn now() -> u64 { crate::cache::state::now() }\n");
    planted.add("l2/planted_a.rs", "use super::planted_b::B;\n");
    let reexport = "pub(super) use super::planted_c::{self, C as D, B};";
    planted.add("l2/planted_b.rs", &format!("{reexport}\nfn b(_: B) {{}}\n"));
    let nested = "use crate::{\n    error::Error,\n    l2::{planted_a, store::Store},\n};\n";
    planted.add("l2/planted_c.rs", nested);
    let graph = planted.graph();
    let wrong = arrows_against_the_order(&graph);
    assert_eq!(
        wrong,
        [
            "l1/planted.rs (stages) imports from flight/table.rs (stages)",
            "time/planted.rs (vocabulary) imports from cache/state.rs (front door)",
        ]
    );
    let mut circle = circle(&graph).expect("the planted circle");
    circle.sort();
    assert_eq!(circle, ["l2/planted_a.rs", "l2/planted_c.rs"], "by the file that defines the item");
}

#[test]
fn features_are_asked_for_only_where_a_module_is_declared() {
    for (file, _) in sources().files() {
        let code = fs::read_to_string(source_folder().join(file)).unwrap();
        let mut lines = code.lines().peekable();
        while let Some(line) = lines.next() {
            let line = line.trim();
            if line.starts_with("//") || !line.contains("feature = ") {
                continue;
            }
            let derives = line.starts_with("#[cfg_attr(feature = \"serde\", ");
            let next = lines.peek().map_or("", |next| next.trim());
            let declares = line.starts_with("#[cfg")
                && ["mod ", "pub mod ", "pub(crate) mod ", "#[cfg", "pub use ", "pub(crate) use "]
                    .iter()
                    .any(|it| next.starts_with(it));
            assert!(derives || declares, "{file}: {line}");
        }
    }
}

#[test]
fn no_file_is_longer_than_400_lines() {
    for (file, _) in sources().files() {
        let lines = fs::read_to_string(source_folder().join(file)).unwrap().lines().count();
        assert!(lines <= 400, "{file} has {lines} lines");
    }
}

#[test]
fn documents_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "docs/guarantees.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let is_path = |quoted: &&str| {
            (quoted.ends_with(".rs") || quoted.ends_with('/')) && !quoted.contains("://")
        };
        for path in text.split('`').skip(1).step_by(2).filter(is_path) {
            let exists =
                ["", "src", "src/options", "src/bus/protocol", "src/adapters/redis", "tests/it"]
                    .iter()
                    .any(|folder| root.join(folder).join(path).exists());
            assert!(exists, "{document} names {path}");
        }
    }
}

fn source_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

fn sources() -> Sources {
    Sources::read(source_folder())
}

fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The number of a file's layer and of its module within it.
fn place(file: &str) -> (usize, usize) {
    let module = module_of(file);
    let place = LAYERS.iter().enumerate().find_map(|(layer, (_, modules))| {
        Some((layer, modules.iter().position(|listed| *listed == module)?))
    });
    place.unwrap_or_else(|| panic!("{file} is in no layer of the table"))
}

fn arrows_against_the_order(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, targets) in graph {
        for target in targets.iter().filter(|target| !may_import(file, target)) {
            let [from, to] = [file, target].map(|it| LAYERS[place(it).0].0);
            wrong.push(format!("{file} ({from}) imports from {target} ({to})"));
        }
    }
    wrong
}

fn may_import(file: &str, target: &str) -> bool {
    let ((layer, module), (target_layer, target_module)) = (place(file), place(target));
    let name = LAYERS[layer].0;
    if layer == target_layer {
        let vendor = |file: &str| VENDORS.iter().find(|vendor| file.starts_with(**vendor)).copied();
        return match name {
            "stages" => module == target_module,
            "adapters" => vendor(target).is_none() || vendor(file) == vendor(target),
            _ => target_module <= module,
        };
    }
    let is_stage = LAYERS[target_layer].0 == "stages";
    target_layer < layer && (name != "adapters" || !is_stage || CONTRACTS.contains(&target))
}
