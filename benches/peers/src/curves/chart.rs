//! Small charts beside each other, as SVG: marks, and lines through them.

use plotters::coord::Shift;
use plotters::prelude::*;
use sluicedb_bench_peers::Result;
use std::path::Path;

const WIDTH: u32 = 980;
const HEIGHT: u32 = 250;
const HEAD: u32 = 34;
const COLUMNS: usize = 3;
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(140, 86, 75),
];
/// Free space beside the points, as a share of all.
const AROUND: f64 = 0.08;

/// Points of one kind.
#[derive(Debug)]
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// What is drawn as a line, through them or near them.
    pub line: Vec<(f64, f64)>,
}

#[derive(Debug)]
pub struct Panel {
    pub title: String,
    pub series: Vec<Series>,
}

/// The axis that all panels have below them. It is logarithmic.
#[derive(Clone, Copy)]
pub struct Axis {
    pub base: f64,
    pub name: &'static str,
    /// A whole power of the base, as text.
    pub label: fn(f64) -> String,
}

pub fn draw(file: &Path, caption: &str, axis: Axis, panels: &[Panel]) -> Result<()> {
    let lines = panels.len().div_ceil(COLUMNS);
    let area = SVGBackend::new(file, (WIDTH, HEAD + HEIGHT * lines as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.titled(caption, ("sans-serif", 18))?;
    for (panel, place) in panels.iter().zip(area.split_evenly((lines, COLUMNS))) {
        one(&place, axis, panel)?;
    }
    area.present()?;
    Ok(())
}

fn one(area: &DrawingArea<SVGBackend<'_>, Shift>, axis: Axis, panel: &Panel) -> Result<()> {
    let all = || panel.series.iter().flat_map(|series| &series.points);
    let place = |x: f64| x.log(axis.base);
    let first = all().map(|(x, _)| place(*x)).fold(f64::INFINITY, f64::min);
    let last = all().map(|(x, _)| place(*x)).fold(f64::NEG_INFINITY, f64::max);
    let most = all().map(|(_, y)| *y).fold(0.0, f64::max) * (1.0 + 2.0 * AROUND);
    if !(first.is_finite() && most > 0.0) {
        return Ok(());
    }
    let around = ((last - first) * AROUND).max(AROUND);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(46)
        .build_cartesian_2d(first - around..last + around, 0.0..most)?;
    let label = |x: &f64| {
        if (x - x.round()).abs() < 1e-6 { (axis.label)(axis.base.powf(*x)) } else { String::new() }
    };
    chart
        .configure_mesh()
        .x_label_formatter(&label)
        .x_labels(8)
        .y_label_formatter(&|y| short(*y))
        .y_labels(5)
        .x_desc(axis.name)
        .max_light_lines(0)
        .draw()?;
    for (series, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        let line: Vec<_> = series.line.iter().map(|(x, y)| (place(*x), y.max(0.0))).collect();
        chart.draw_series(std::iter::once(PathElement::new(line, colour.mix(0.6))))?;
        let style = colour.filled();
        let points = series.points.iter().map(|(x, y)| Circle::new((place(*x), *y), 3, style));
        chart
            .draw_series(points)?
            .label(&series.name)
            .legend(move |(x, y)| Circle::new((x + 10, y), 3, style));
    }
    if panel.series.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    Ok(())
}

/// A number on an axis.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", value / 1e6),
        1e3.. => format!("{} k", value / 1e3),
        // What is left of sums of steps.
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}
