//! Tables in Markdown that are readable as they are, and numbers in them.

use std::fmt::Write;

/// Lines of cells, the first being the heading.
#[derive(Debug)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new<S: Into<String>>(heading: impl IntoIterator<Item = S>) -> Self {
        Self(vec![heading.into_iter().map(Into::into).collect()])
    }

    pub fn push(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    pub fn write(&self, text: &mut String) {
        let Self(lines) = self;
        let wide = |at: usize| lines.iter().map(|line| line[at].chars().count()).max();
        let widths: Vec<_> = (0..lines[0].len()).map(|at| wide(at).unwrap_or(0)).collect();
        for (at, line) in lines.iter().enumerate() {
            text.push('|');
            for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                // Names are left, numbers right.
                let (left, right) = if at == 0 { ("", pad.as_str()) } else { (pad.as_str(), "") };
                let _ = write!(text, " {left}{cell}{right} |");
            }
            text.push('\n');
            if at == 0 {
                text.push('|');
                for (at, width) in widths.iter().enumerate() {
                    text.push_str(&"-".repeat(width + 1));
                    text.push_str(if at == 0 { "-|" } else { ":|" });
                }
                text.push('\n');
            }
        }
        text.push('\n');
    }
}

/// A rate, as short as it can be read.
pub fn rate(value: f64) -> String {
    match value {
        1e7.. => format!("{:.1} M", value / 1e6),
        1e6.. => format!("{:.2} M", value / 1e6),
        1e5.. => format!("{:.0} k", value / 1e3),
        1e3.. => format!("{:.1} k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

pub fn number(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".into(), show)
}

/// Four significant digits.
pub fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let places = (3 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.places$}");
    if places == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').into() }
}
