//! Tables on the terminal, and what became of the limits in them.

use std::process::ExitCode;

/// Collects the limits that did not hold.
#[derive(Default)]
pub(crate) struct Report {
    missed: Vec<String>,
}

/// A figure that must not exceed a multiple of another.
pub(crate) struct AtMost {
    pub(crate) limit: f64,
    pub(crate) of: &'static str,
}

impl Report {
    pub(crate) fn title(&self, title: &str) {
        println!("{title}");
    }

    pub(crate) fn line(&self, text: &str) {
        println!("  {text}");
    }

    /// One figure, its ratio to the base, and whether the ratio keeps to its limit.
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
        println!("  {name:<44} {value:>9.1} {unit:<8} {ratio:>5.2}x{verdict}");
    }

    /// A limit that is not a ratio.
    pub(crate) fn check(&mut self, what: &str, kept: bool) {
        println!("  {what}: {}", if kept { "ok" } else { "MISSED" });
        if !kept {
            self.missed.push(what.to_owned());
        }
    }

    pub(crate) fn end(&self) {
        println!();
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
