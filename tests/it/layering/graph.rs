//! The graph of imports between the files of a crate, read from their text.
//!
//! An arrow goes from the importing file to the file that defines the item: re-exports are followed
//! to their source, and are no arrows themselves unless the re-exporting file uses the item too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Each file (as in `bus/local.rs`), and the files that it imports from.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// The production code of a crate, by file name relative to `src`.
#[derive(Default)]
pub(crate) struct Sources {
    /// The file of each module (as in `bus::local`).
    files: BTreeMap<String, String>,
    code: BTreeMap<String, String>,
}

/// A path that a file imports or names, resolved to segments from the crate's root.
struct Import {
    path: Vec<String>,
    is_reexport: bool,
}

impl Sources {
    pub(crate) fn read(folder: &Path) -> Self {
        let mut sources = Self::default();
        sources.read_folder(folder, folder);
        sources
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.read_folder(root, &path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                self.add(&name, &fs::read_to_string(&path).unwrap());
            }
        }
    }

    /// Adds a file. Test modules are no production code and are left out.
    pub(crate) fn add(&mut self, file: &str, text: &str) {
        if file.ends_with("tests.rs") || file == "lib.rs" {
            return;
        }
        let module = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        // Two files may stand for one module: the `enabled.rs` and `disabled.rs` of a feature.
        self.files.insert(module, file.to_owned());
        let mut code = String::new();
        for line in text.lines() {
            if line.starts_with("#[cfg(test)]") {
                break;
            }
            if !line.trim_start().starts_with("//") {
                code.push_str(line.split(" // ").next().unwrap());
                code.push('\n');
            }
        }
        self.code.insert(file.to_owned(), code);
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.code.iter().map(|(file, code)| (&**file, &**code))
    }

    pub(crate) fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (module, file) in &self.files {
            let targets = graph.entry(file.clone()).or_default();
            for import in self.imports(module, file) {
                if import.is_reexport && !self.uses_what_it_reexports(file, &import.path) {
                    continue;
                }
                if let Some(target) = self.definition(&import.path, 0)
                    && target != *file
                {
                    targets.insert(target);
                }
            }
        }
        graph
    }

    fn uses_what_it_reexports(&self, file: &str, path: &[String]) -> bool {
        let name = path.last().map_or("", String::as_str);
        let mut is_in_use = false;
        let words = self.code[file].lines().filter(|line| {
            let line = line.trim_start();
            is_in_use |= line.starts_with("pub use ") || line.starts_with("pub(crate) use ");
            let counts = !is_in_use && !line.starts_with("use ");
            is_in_use &= !line.ends_with(';');
            counts
        });
        let is_separator = |c: char| !c.is_alphanumeric() && c != '_';
        words.flat_map(|line| line.split(is_separator)).any(|word| word == name)
    }

    /// The file that defines the item at the end of a path.
    fn definition(&self, path: &[String], depth: usize) -> Option<String> {
        let length = (1..=path.len())
            .rev()
            .find(|length| self.files.contains_key(&path[..*length].join("::")))?;
        let module = path[..length].join("::");
        let file = &self.files[&module];
        // Perhaps the module only passes on what another one defines.
        if let Some(item) = path.get(length).filter(|_| depth < 8) {
            for import in self.imports(&module, file) {
                if import.is_reexport && import.path.last() == Some(item) {
                    return self.definition(&import.path, depth + 1);
                }
            }
        }
        Some(file.clone())
    }

    fn imports(&self, module: &str, file: &str) -> Vec<Import> {
        let code = &self.code[file];
        let mut imports = Vec::new();
        for root in ["crate::", "super::", "self::"] {
            for (at, _) in code.match_indices(root) {
                let before = &code[..at];
                let is_inner = |c: char| c.is_alphanumeric() || "_:$".contains(c);
                if before.ends_with(is_inner) {
                    continue;
                }
                let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
                let is_reexport = line.starts_with("pub") && line.ends_with("use ");
                let mut paths = Vec::new();
                flatten(&mut code[at..].chars().peekable(), &mut Vec::new(), &mut paths);
                imports.extend(
                    paths
                        .into_iter()
                        .map(|path| Import { path: absolute(module, &path), is_reexport }),
                );
            }
        }
        imports
    }
}

/// All paths of a tree as in `use a::{b::C, d}`.
fn flatten(
    text: &mut std::iter::Peekable<std::str::Chars<'_>>,
    prefix: &mut Vec<String>,
    paths: &mut Vec<Vec<String>>,
) {
    let length = prefix.len();
    loop {
        while text.next_if(|c| c.is_whitespace()).is_some() {}
        if text.next_if_eq(&'{').is_some() {
            loop {
                while text.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
                if text.next_if_eq(&'}').is_some() || text.peek().is_none() {
                    break;
                }
                let before = text.clone().count();
                flatten(text, prefix, paths);
                if text.clone().count() == before {
                    break;
                }
            }
            prefix.truncate(length);
            return;
        }
        let mut segment = String::new();
        while let Some(c) = text.next_if(|c| c.is_alphanumeric() || *c == '_') {
            segment.push(c);
        }
        if segment.is_empty() {
            break;
        }
        prefix.push(segment);
        let mut ahead = text.clone();
        if ahead.next() == Some(':') && ahead.next() == Some(':') {
            *text = ahead;
        } else {
            break;
        }
    }
    paths.push(prefix.clone());
    prefix.truncate(length);
}

fn absolute(module: &str, path: &[String]) -> Vec<String> {
    let mut base: Vec<String> = module.split("::").map(str::to_owned).collect();
    let mut rest = path;
    if rest[0] == "crate" {
        base.clear();
        rest = &rest[1..];
    }
    while let Some(first) = rest.first() {
        match first.as_str() {
            "super" => drop(base.pop()),
            "self" => {}
            _ => break,
        }
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    base
}

/// Returns one circle of imports: each file imports from the next, the last from the first.
pub(crate) fn circle(graph: &Graph) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    graph.keys().find_map(|file| visit(graph, file, &mut Vec::new(), &mut done))
}

fn visit(
    graph: &Graph,
    file: &str,
    trail: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(at) = trail.iter().position(|earlier| earlier == file) {
        return Some(trail[at..].to_vec());
    }
    if done.contains(file) {
        return None;
    }
    trail.push(file.to_owned());
    let mut targets = graph.get(file).into_iter().flatten();
    let found = targets.find_map(|next| visit(graph, next, trail, done));
    trail.pop();
    done.insert(file.to_owned());
    found
}
