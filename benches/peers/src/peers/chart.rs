//! The chart: for each row the rate of every peer as a multiple of SluiceDB's, on a logarithmic
//! axis.

use crate::Result;
use crate::engines::{Kind, OURS};
use crate::run::Runs;
use crate::table::{Medians, ROWS, Row};
use plotters::prelude::*;
use std::path::Path;

const WIDTH: u32 = 980;
const LINE: u32 = 22;
const AROUND: u32 = 110;
/// What is further away is drawn at the edge.
const LEAST: f64 = 0.01;
const MOST: f64 = 10.0;
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 0, 0),
    RGBColor(214, 39, 40),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(31, 119, 180),
    RGBColor(23, 190, 207),
    RGBColor(44, 160, 44),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
];

pub fn draw(runs: &Runs, file: &Path) -> Result<()> {
    let medians = Medians::of(runs);
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| medians.ours(row.name, row.rate).is_some()).collect();
    let engines: Vec<_> =
        medians.engines().into_iter().filter(|engine| engine.kind != Kind::Baseline).collect();
    let count = rows.len() as i32;
    let area = SVGBackend::new(file, (WIDTH, LINE * rows.len() as u32 + AROUND));
    let area = area.into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Rate of each engine, SluiceDB = 1", ("sans-serif", 18))
        .margin(12)
        .margin_right(30)
        .x_label_area_size(34)
        .y_label_area_size(190)
        .build_cartesian_2d((LEAST..MOST).log_scale(), (-1..count).into_segmented())?;
    let label = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(at) if (0..count).contains(at) => {
            rows[(count - 1 - at) as usize].name.to_owned()
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .y_labels(rows.len() + 2)
        .y_label_formatter(&label)
        .x_label_formatter(&|x| format!("{x}"))
        .x_desc("to the right of 1: quicker than SluiceDB")
        .light_line_style(WHITE)
        .draw()?;
    for (engine, colour) in engines.iter().zip(COLOURS) {
        let points = rows.iter().enumerate().filter_map(|(at, row)| {
            let ours = medians.ours(row.name, row.rate)?;
            let ratio = medians.get(row.name, engine.name, row.rate)? / ours;
            Some((ratio.clamp(LEAST, MOST), SegmentValue::CenterOf(count - 1 - at as i32)))
        });
        let size = if engine.name == OURS { 5 } else { 4 };
        let style = colour.filled();
        chart
            .draw_series(points.map(|point| Circle::new(point, size, style)))?
            .label(engine.name)
            .legend(move |(x, y)| Circle::new((x + 10, y), 4, style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}
