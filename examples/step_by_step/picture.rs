//! Draws the runs as SVG, readable on a light and on a dark page.

use std::fmt::Write as _;

use crate::{Answer, Run};

/// A row for each failure: the response times of all visits, before and after the answer.
pub(crate) struct Picture {
    svg: String,
    rows: usize,
}

impl Picture {
    const HEAD: usize = 66;
    const ROW: usize = 64;
    const BARS: usize = 60;
    const TITLE: &str = "Response times of a product page, before and after each option";

    pub(crate) fn new(rows: usize) -> Self {
        let (title, height) = (Self::TITLE, Self::HEAD + Self::ROW * rows);
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" width=\"760\" \
             height=\"{height}\" role=\"img\"><title>{title}</title><style>\
             text{{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}}\
             .title{{font-size:14px;font-weight:600}}.quiet{{fill:#59636e;font-size:12px}}\
             @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.quiet{{fill:#9198a1}}}}\
             </style><text x=\"8\" y=\"20\" class=\"title\">{title}</text>\
             <text x=\"8\" y=\"40\" class=\"quiet\">A bar is the slowest of a sixtieth of the \
             visits, in their order; a mark below it: errors or old prices.</text>\
             <text x=\"200\" y=\"64\">before</text><text x=\"484\" y=\"64\">after</text>"
        );
        Self { svg, rows: 0 }
    }

    pub(crate) fn add(&mut self, failure: &str, answer: &str, runs: [&Run; 2]) {
        let top = Self::HEAD + Self::ROW * self.rows;
        self.rows += 1;
        let _ = write!(
            self.svg,
            "<text x=\"8\" y=\"{}\">{failure}</text><text x=\"8\" y=\"{}\" class=\"quiet\">{answer}\
             </text>",
            top + 24,
            top + 42,
        );
        let longest = runs.map(|run| run.quantile(100)).into_iter().fold(100, u64::max) as f64;
        for ((left, colour), run) in [(200, "#6b7885"), (484, "#d9480f")].into_iter().zip(runs) {
            let base = top + 50;
            let (mut bars, mut marks) = (String::new(), String::new());
            for (at, part) in run.visits.chunks(run.visits.len().div_ceil(Self::BARS)).enumerate() {
                let slowest = part.iter().map(|(_, took, _)| *took).max().unwrap_or_default();
                let (x, height) = (left + 4 * at, slowest as f64 / longest * 32.0);
                let _ = write!(bars, "M{x} {base}v-{:.1}", height.max(0.5));
                if part.iter().any(|(.., answer)| *answer != Answer::Current) {
                    let _ = write!(marks, "M{x} {}v4", base + 2);
                }
            }
            let mut said = format!("max {} ms, {} queries", run.quantile(100), run.queries);
            for (count, what) in [(run.errors, "errors"), (run.old, "old prices")] {
                if count > 0 {
                    let _ = write!(said, ", {count} {what}");
                }
            }
            let _ = write!(
                self.svg,
                "<path d=\"{bars}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
                 <path d=\"M0 0{marks}\" stroke=\"#c2528b\" stroke-width=\"3\"/>\
                 <text x=\"{left}\" y=\"{}\" class=\"quiet\">{said}</text>",
                top + 14,
            );
        }
    }

    pub(crate) fn into_svg(self) -> String {
        self.svg + "</svg>\n"
    }
}
