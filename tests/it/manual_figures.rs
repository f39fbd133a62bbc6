//! Figures that are repeated elsewhere are those of `docs/figures.md`, which a command makes.

use std::collections::BTreeSet;

const FIGURES: &str = include_str!("../../docs/figures.md");
const README: &str = include_str!("../../README.md");
const BUSES: &str = include_str!("../../docs/choosing-a-bus.md");

/// The numbers with a decimal point in a text: those without one are mostly numbers of tasks.
fn figures(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !it.is_ascii_digit() && it != '.');
    words.map(|word| word.trim_matches('.')).filter(|word| word.contains('.')).collect()
}

fn check(page: &str, text: &str, at_least: usize) {
    let repeated = figures(text);
    assert!(repeated.len() >= at_least, "{page}: {repeated:?}");
    let unknown: Vec<_> = repeated.difference(&figures(FIGURES)).copied().collect();
    assert_eq!(unknown, [""; 0], "{page}: not in docs/figures.md");
}

#[test]
fn the_readme_repeats_figures_of_their_page() {
    let (_, section) = README.split_once("## Speed\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    // A paragraph about instructions, which another command counts.
    let paragraphs = section.split("\n\n").filter(|it| !it.starts_with("`scripts/instructions`"));
    check("README.md", &paragraphs.collect::<Vec<_>>().join("\n\n"), 25);
}

#[test]
fn the_page_about_buses_repeats_figures_of_their_page() {
    let row = BUSES.lines().find(|row| row.starts_with("| Publish to a peer's memory")).unwrap();
    check("choosing-a-bus.md", row, 5);
}
