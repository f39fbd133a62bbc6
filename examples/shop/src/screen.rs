//! The terminal: headings, tables of at most 100 columns, progress on one line.

use std::{
    io::{IsTerminal, Write, stdout},
    time::Duration,
};

pub(crate) fn banner(text: &str) {
    println!("\n{text}\n{}", "=".repeat(text.chars().count()));
}

/// Prints the title of a scene, and its subject in one sentence.
pub(crate) fn scene(number: usize, title: &str, what: &str) {
    println!("\n{number}. {title}");
    println!("   {what}");
}

/// Prints the current step on a line that the next output overwrites. Prints nothing if the output
/// is not a terminal.
pub(crate) fn progress(text: &str) {
    if stdout().is_terminal() {
        print!("\r\x1b[2K   ... {text}");
        let _ = stdout().flush();
    }
}

/// A table with a header; columns are as wide as they need to be, numbers to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    if stdout().is_terminal() {
        print!("\r\x1b[2K");
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let title = header.get(column).map_or(0, |title| title.chars().count());
        cells.map(|cell| cell.chars().count()).fold(title, usize::max)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::from("  ");
        for (column, (cell, width)) in cells.zip(&widths).enumerate() {
            let padded =
                if column == 0 { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") };
            line.push_str(&padded);
        }
        println!("{}", line.trim_end());
    };
    println!();
    line(&mut header.iter().copied());
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(&mut rule.iter().map(String::as_str));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// 1234567 as "1,234,567".
pub(crate) fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// A duration in a readable unit.
pub(crate) fn time(time: Duration) -> String {
    match time.as_nanos() {
        0..1_000 => format!("{} ns", time.as_nanos()),
        1_000..1_000_000 => format!("{:.1} us", time.as_secs_f64() * 1e6),
        1_000_000..1_000_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}
