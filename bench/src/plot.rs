//! Draws tables as SVG, readable on a light and on a dark page.

use std::fmt::Write;

/// One line of a picture of lines: its name and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
/// Ours stands out; the others differ in lightness too.
const OURS: &str = "#d9480f";
const OTHERS: [&str; 6] = ["#4c8bd6", "#2f9e6e", "#8a63d2", "#b8860b", "#6b7885", "#c2528b"];

/// Readable on white and on near black: the ink follows the browser's colour scheme.
const STYLE: &str = "<style>\
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}\
.title{font-size:14px;font-weight:600}.quiet{fill:#59636e}\
.grid{stroke:#8c959f;stroke-opacity:.35;stroke-width:1;fill:none}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}}\
</style>";

/// Horizontal bars; the longest takes the full width.
pub(crate) fn bars(title: &str, unit: &str, bars: &[(String, f64)]) -> String {
    const ROW: f64 = 24.0;
    const LABELS: f64 = 290.0;
    const FIGURES: f64 = 140.0;
    let height = 48.0 + ROW * bars.len() as f64;
    let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = open(height, title);
    for (row, (name, value)) in bars.iter().enumerate() {
        let (y, long) = (38.0 + ROW * row as f64, value / longest * (WIDTH - LABELS - FIGURES));
        let (text, bar) = (y + 14.0, LABELS + 8.0);
        let (label, figure) = (escaped(name), number(*value));
        let colour = if is_ours(name) { OURS } else { OTHERS[4] };
        let after = bar + long.max(1.0) + 6.0;
        let _ = write!(
            svg,
            "<text x=\"{LABELS}\" y=\"{text:.0}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{bar}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"18\" rx=\"2\" \
             fill=\"{colour}\"/>\
             <text x=\"{after:.1}\" y=\"{text:.0}\" class=\"quiet\">{figure} {unit}</text>",
            long.max(1.0),
        );
    }
    svg + "</svg>\n"
}

/// Lines over two logarithmic axes.
pub(crate) fn lines(title: &str, x: &str, y: &str, lines: &[Line]) -> String {
    const TOP: f64 = 44.0;
    const LEFT: f64 = 80.0;
    const WIDE: f64 = 450.0;
    const HIGH: f64 = 250.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let across = Axis::of(points().map(|point| point.0));
    let up = Axis::of(points().map(|point| point.1));
    let at = |(x, y): (f64, f64)| (LEFT + across.share(x) * WIDE, TOP + HIGH - up.share(y) * HIGH);
    let mut svg = open(TOP + HIGH + 56.0, title);
    let (bottom, right) = (TOP + HIGH, LEFT + WIDE);
    for power in across.powers() {
        let (x, _) = at((power, 1.0));
        let (below, said) = (bottom + 18.0, number(power));
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
             <text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\" class=\"quiet\">{said}</text>"
        );
    }
    for power in up.powers() {
        let (_, y) = at((1.0, power));
        let (before, base, said) = (LEFT - 8.0, y + 4.0, number(power));
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
             <text x=\"{before}\" y=\"{base:.1}\" text-anchor=\"end\" class=\"quiet\">{said}</text>"
        );
    }
    let mut others = OTHERS.iter().cycle();
    for (row, line) in lines.iter().enumerate() {
        let colour =
            if is_ours(&line.name) { OURS } else { others.next().copied().unwrap_or(OURS) };
        let mut path = String::new();
        for (step, &point) in line.points.iter().enumerate() {
            let (x, y) = at(point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if step == 0 { 'M' } else { 'L' });
            let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let (key, name) = (TOP + 10.0 + 22.0 * row as f64, escaped(&line.name));
        let _ = write!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <path d=\"M{} {key}h18\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            right + 14.0,
            right + 38.0,
            key + 4.0,
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" class=\"quiet\">{}</text>\
         <text x=\"{LEFT}\" y=\"{}\" text-anchor=\"end\" class=\"quiet\">{}</text>",
        LEFT + WIDE / 2.0,
        bottom + 42.0,
        escaped(x),
        TOP - 8.0,
        escaped(y),
    );
    svg + "</svg>\n"
}

/// A logarithmic axis between powers of ten.
struct Axis {
    least: f64,
    most: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values
            .map(f64::log10)
            .fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        Self { least: least.floor(), most: most.ceil().max(least.floor() + 1.0) }
    }

    /// The position of a value, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        (value.log10() - self.least) / (self.most - self.least)
    }

    fn powers(&self) -> impl Iterator<Item = f64> {
        (self.least as i32..=self.most as i32).map(|power| 10f64.powi(power))
    }
}

fn open(height: f64, title: &str) -> String {
    let title = escaped(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\"><title>{title}</title>{STYLE}\
         <text x=\"8\" y=\"20\" class=\"title\">{title}</text>"
    )
}

fn is_ours(name: &str) -> bool {
    name.contains("lazy-layers")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Formats a value with its significant digits: 0.35, 61, 1.2k, 3M.
fn number(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let digits = usize::from(value < 10.0 && (value - value.round()).abs() > 0.05);
        format!("{value:.digits$}{unit}")
    };
    match value {
        1e9.. => short(value / 1e9, "G"),
        1e6.. => short(value / 1e6, "M"),
        1e4.. => short(value / 1e3, "k"),
        1.0.. => short(value, ""),
        _ => format!("{value:.2}"),
    }
}
