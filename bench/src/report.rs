//! Prints tables and checks their limits, and writes both as a page with pictures.

use std::{path::Path, process::ExitCode};

use crate::plot::{self, Line};

/// Collects the tables, and the limits that were exceeded.
#[derive(Default)]
pub(crate) struct Report {
    missed: Vec<String>,
    tables: Vec<Table>,
}

#[derive(Default)]
struct Table {
    title: String,
    lines: Vec<String>,
    note: String,
    /// The bar of each row.
    bars: Vec<(String, f64)>,
    /// Names of files and their content.
    pictures: Vec<(String, String)>,
}

/// A figure that must not exceed a multiple of another.
pub(crate) struct AtMost {
    pub(crate) limit: f64,
    pub(crate) of: &'static str,
}

impl Report {
    pub(crate) fn title(&mut self, title: &str) {
        println!("{title}");
        self.tables.push(Table { title: title.to_owned(), ..Table::default() });
    }

    pub(crate) fn line(&mut self, text: &str) {
        println!("  {text}");
        self.table().lines.push(text.to_owned());
    }

    /// Prints one figure, its ratio to the base, and whether the ratio is within its limit.
    pub(crate) fn row(
        &mut self,
        name: &str,
        value: f64,
        unit: &str,
        ratio: f64,
        limit: Option<&AtMost>,
    ) {
        let verdict = limit.map_or(String::new(), |limit| {
            let kept = ratio <= limit.limit;
            if !kept {
                self.missed.push(format!("{name}: {ratio:.2}x {}, not {}x", limit.of, limit.limit));
            }
            let mark = if kept { "ok" } else { "MISSED" };
            format!("  at most {:.2}x {}: {mark}", limit.limit, limit.of)
        });
        self.line(&format!("{name:<44} {value:>9.1} {unit:<8} {ratio:>5.2}x{verdict}"));
        self.bar(name, value);
    }

    /// Adds a bar for a line that is no row.
    pub(crate) fn bar(&mut self, name: &str, value: f64) {
        self.table().bars.push((name.to_owned(), value));
    }

    /// Checks a limit that belongs to no row.
    pub(crate) fn check(&mut self, what: &str, kept: bool) {
        self.line(&format!("{what}: {}", if kept { "ok" } else { "MISSED" }));
        if !kept {
            self.missed.push(what.to_owned());
        }
    }

    /// Checks a ratio to another base than the table's.
    pub(crate) fn at_most(&mut self, what: &str, ratio: f64, limit: f64) {
        self.check(&format!("{what}: {ratio:.2}x, at most {limit:.2}x"), ratio <= limit);
    }

    pub(crate) fn at_least(&mut self, what: &str, ratio: f64, limit: f64) {
        self.check(&format!("{what}: {ratio:.2}x, at least {limit:.2}x"), ratio >= limit);
    }

    /// Prints the task of each contender, so that differences between them are visible.
    pub(crate) fn note(&mut self, text: &str) {
        println!("  ({text})");
        text.clone_into(&mut self.table().note);
    }

    /// Draws the rows of the table so far as bars.
    pub(crate) fn bars(&mut self, file: &str, unit: &str) {
        let table = self.table();
        let picture = plot::bars(&table.title, unit, &table.bars);
        table.pictures.push((file.to_owned(), picture));
    }

    /// Draws growth over two logarithmic axes.
    pub(crate) fn lines(&mut self, file: &str, x: &str, y: &str, lines: &[Line]) {
        let table = self.table();
        let picture = plot::lines(&table.title, x, y, lines);
        table.pictures.push((file.to_owned(), picture));
    }

    pub(crate) fn end(&self) {
        println!();
    }

    fn table(&mut self) -> &mut Table {
        if self.tables.is_empty() {
            self.tables.push(Table::default());
        }
        self.tables.last_mut().expect("there is one")
    }

    /// Writes the page beside the folder, and the pictures into it.
    pub(crate) fn write(&self, folder: &Path, preface: &str) {
        std::fs::create_dir_all(folder).expect("a folder to write to");
        let name = folder.file_name().expect("a folder's name").to_string_lossy();
        let mut page = format!("# Figures\n\n{preface}\n");
        for table in &self.tables {
            page += &format!("\n## {}\n\n", table.title);
            for (file, picture) in &table.pictures {
                let file = format!("{file}.svg");
                std::fs::write(folder.join(&file), picture).expect("a picture is written");
                page += &format!("![{}]({name}/{file})\n\n", table.title);
            }
            page += &format!("```text\n{}\n```\n", table.lines.join("\n"));
            if !table.note.is_empty() {
                page += &format!("\n{}\n", table.note);
            }
        }
        std::fs::write(folder.with_extension("md"), page).expect("the page is written");
    }

    pub(crate) fn verdict(self) -> ExitCode {
        if self.missed.is_empty() {
            println!("every limit holds");
            return ExitCode::SUCCESS;
        }
        println!("limits missed:");
        self.missed.iter().for_each(|missed| println!("  {missed}"));
        ExitCode::FAILURE
    }
}
