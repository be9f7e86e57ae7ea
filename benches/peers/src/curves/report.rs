//! The figures as tables in Markdown and as charts, and the file they are kept in.

use crate::chart::{self, Axis, Panel, Series};
use crate::fit::Fit;
use crate::growth::{Growth, Point};
use crate::plan::{Level, Phase, Planned};
use crate::scaling::{OPERATIONS, Scaling};
use serde::{Deserialize, Serialize};
use sluicedb_bench_peers::machine::Machine;
use sluicedb_bench_peers::markdown::{Table, digits, number, or_dash, rate};
use sluicedb_bench_peers::{Result, median};
use std::fmt::Write;
use std::path::Path;

const MB: f64 = 1e6;
const MIB: f64 = 1_048_576.0;

/// One kind of figures, and where and of what they are.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Run<T> {
    pub machine: Machine,
    pub figures: T,
}

/// What a file has.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Curves {
    pub scaling: Option<Run<Scaling>>,
    pub growth: Option<Run<Growth>>,
    pub plan: Option<Run<Planned>>,
}

impl Curves {
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()).into())
    }

    /// Writes what it has; what it has not, stays as it is in the file.
    pub fn write_into(self, file: &Path) -> Result<()> {
        let there = if file.exists() { Self::read(file)? } else { Self::default() };
        let all = Self {
            scaling: self.scaling.or(there.scaling),
            growth: self.growth.or(there.growth),
            plan: self.plan.or(there.plan),
        };
        Ok(std::fs::write(file, serde_json::to_string_pretty(&all)? + "\n")?)
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if let Some(Run { machine, figures }) = &self.scaling {
            let _ = writeln!(text, "{machine}.\n{}.\n", figures.settings);
            scaling(figures, &mut text);
        }
        if let Some(Run { machine, figures }) = &self.growth {
            let _ = writeln!(text, "{machine}.\n{}.\n", figures.settings);
            growth(&figures.points, &mut text);
        }
        if let Some(Run { machine, figures }) = &self.plan {
            let _ = writeln!(text, "{machine}.\n{}.\n", figures.settings);
            plan(&figures.phases, &mut text);
        }
        text
    }
}

impl Scaling {
    fn median(
        &self,
        (operation, cores, ranges): (&str, u64, u64),
        of: fn(&crate::scaling::Figure) -> f64,
    ) -> Option<f64> {
        let is = |it: &&crate::scaling::Figure| {
            it.operation == operation && it.cores == cores && it.ranges == ranges
        };
        median(self.figures.iter().filter(is).map(of).collect())
    }

    fn numbers(&self, of: fn(&crate::scaling::Figure) -> u64) -> Vec<u64> {
        let mut numbers: Vec<_> = self.figures.iter().map(of).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

fn scaling(scaling: &Scaling, text: &mut String) {
    let heading = [
        "operation",
        "ranges",
        "cores",
        "per second",
        "x fewest cores",
        "x fewest ranges",
        "CPU us",
        "p99 us",
    ];
    let mut table = Table::new(heading);
    let (cores, ranges) = (scaling.numbers(|it| it.cores), scaling.numbers(|it| it.ranges));
    for operation in OPERATIONS {
        for range in &ranges {
            for core in &cores {
                let of =
                    |cores, ranges| scaling.median((operation, cores, ranges), |it| it.per_second);
                let Some(here) = of(*core, *range) else { continue };
                let times = |other: Option<f64>| or_dash(other.map(|it| here / it), number);
                let row = (operation, *core, *range);
                table.push(vec![
                    operation.into(),
                    range.to_string(),
                    core.to_string(),
                    rate(here),
                    times(of(cores[0], *range)),
                    times(of(*core, ranges[0])),
                    or_dash(scaling.median(row, |it| it.cpu_us), number),
                    or_dash(scaling.median(row, |it| it.p99_us), number),
                ]);
            }
        }
    }
    table.write(text);
}

/// A curve over the size of the data.
struct Cost {
    name: &'static str,
    unit: &'static str,
    of: fn(&Point) -> f64,
}

const COSTS: [Cost; 9] = [
    Cost { name: "put c16", unit: "ns", of: |point| point.put_ns },
    Cost { name: "get c1", unit: "ns", of: |point| point.get_c1_ns },
    Cost { name: "get c16", unit: "ns", of: |point| point.get_c16_ns },
    Cost { name: "entry of a scan of 100, c1", unit: "ns", of: |point| point.scan_c1_ns },
    Cost { name: "entry of a scan of 100, c16", unit: "ns", of: |point| point.scan_c16_ns },
    Cost { name: "bytes written per byte put", unit: "", of: |point| point.written },
    Cost { name: "space per byte put", unit: "", of: |point| point.space },
    Cost { name: "open", unit: "ms", of: |point| point.open_ms },
    Cost { name: "runs in front of a get", unit: "", of: |point| point.runs as f64 },
];

impl Cost {
    fn points(&self, points: &[Point]) -> Vec<(f64, f64)> {
        points.iter().map(|point| (point.bytes as f64, (self.of)(point))).collect()
    }

    fn title(&self) -> String {
        if self.unit.is_empty() {
            self.name.into()
        } else {
            format!("{}, {}", self.name, self.unit)
        }
    }
}

fn megabytes(bytes: f64) -> String {
    if bytes < 999.5 * MB {
        format!("{:.0} MB", bytes / MB)
    } else {
        format!("{} GB", (bytes / MB / 100.0).round() / 10.0)
    }
}

fn growth(points: &[Point], text: &mut String) {
    let sizes = points.iter().map(|point| megabytes(point.bytes as f64));
    let mut table = Table::new(std::iter::once("data".to_owned()).chain(sizes));
    let mut line = |name: String, of: &dyn Fn(&Point) -> String| {
        table.push(std::iter::once(name).chain(points.iter().map(of)).collect());
    };
    for cost in &COSTS {
        line(cost.title(), &|point| digits((cost.of)(point)));
    }
    line("CPU of a put, ns".into(), &|point| digits(point.put_cpu_ns));
    line("CPU of a get c16, ns".into(), &|point| digits(point.get_c16_cpu_ns));
    let both = |misses, cold| format!("{} / {}", number(misses), number(cold));
    line("get c16: blocks not in the cache / on the disk only".into(), &|point| {
        both(point.misses, point.cold)
    });
    line("scan of 100, c1: the same".into(), &|point| both(point.scan_misses, point.scan_cold));
    line("tables".into(), &|point| point.tables.to_string());
    line("settle, s".into(), &|point| {
        let late = if point.is_settled { "" } else { ", not yet" };
        format!("{}{late}", number(point.settle_s))
    });
    table.write(text);
    let heading =
        ["cost at S MB: a + b x log2(S)", "a", "b", "residual, rms", "furthest from the line"];
    let mut table = Table::new(heading);
    for cost in &COSTS {
        let Some(fit) = Fit::through(&cost.points(points)) else { continue };
        let furthest = fit.furthest;
        table.push(vec![
            cost.title(),
            digits(fit.a),
            digits(fit.b),
            digits(fit.residual),
            format!(
                "{}: {}{} ({:+.0} %)",
                megabytes(furthest.bytes),
                if furthest.above < 0.0 { "" } else { "+" },
                digits(furthest.above),
                100.0 * furthest.share,
            ),
        ]);
    }
    table.write(text);
}

fn plan(phases: &[Phase], text: &mut String) {
    let names = phases.iter().map(|phase| phase.name.clone());
    let mut table = Table::new(std::iter::once("phase".to_owned()).chain(names));
    let mut line = |name: &str, of: &dyn Fn(&Phase) -> String| {
        table.push(std::iter::once(name.to_owned()).chain(phases.iter().map(of)).collect());
    };
    let mib = |bytes: u64| format!("{:.0}", bytes as f64 / MIB);
    let levels = |levels: &[Level]| {
        let one = |(at, level): (usize, &Level)| {
            format!("L{at} {} + {}", mib(level.bytes), mib(level.landing_bytes))
        };
        levels.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
    };
    line("seconds", &|phase| number(phase.seconds));
    line("puts", &|phase| rate(phase.puts as f64));
    line("puts per second", &|phase| rate(phase.puts as f64 / phase.seconds));
    line("waited for room, client s", &|phase| number(phase.waited));
    line("log, per byte put", &|phase| number(phase.log));
    line("flush", &|phase| number(phase.flush));
    line("compaction", &|phase| number(phase.compaction));
    line("  keeps, read", &|phase| number(phase.kept));
    line("written into L0, L1 ...", &|phase| {
        phase.by_level.iter().map(|level| number(*level)).collect::<Vec<_>>().join(", ")
    });
    line("written per byte put", &|phase| number(phase.log + phase.flush + phase.compaction));
    line("levels + landings at the end, MiB", &|phase| levels(&phase.levels));
    line("largest, each for itself, MiB", &|phase| levels(&phase.levels_max));
    line("largest size of all files, MiB", &|phase| mib(phase.space_max));
    line("runs of a read, most / at the end", &|phase| {
        format!("{} / {}", phase.runs_max, phase.runs)
    });
    line("tables, most / at the end", &|phase| format!("{} / {}", phase.tables_max, phase.tables));
    line("open tables", &|phase| phase.open_tables.to_string());
    line("indexes and filters, MB", &|phase| number(phase.index_and_filter_bytes as f64 / MB));
    line("  per entry, B", &|phase| number(phase.index_and_filter_per_entry));
    table.write(text);
}

pub fn draw_scaling(scaling: &Scaling, file: &Path) -> Result<()> {
    let (cores, ranges) = (scaling.numbers(|it| it.cores), scaling.numbers(|it| it.ranges));
    let series = |operation: &str, ranges: u64| {
        let of = |cores: &u64| {
            let median = scaling.median((operation, *cores, ranges), |it| it.per_second)?;
            Some((*cores as f64, median))
        };
        let points: Vec<_> = cores.iter().filter_map(of).collect();
        let name = if ranges == 1 { "1 range".into() } else { format!("{ranges} ranges") };
        Series { name, line: points.clone(), points }
    };
    let panels = OPERATIONS.map(|operation| Panel {
        title: format!("{operation}, per second"),
        series: ranges.iter().map(|ranges| series(operation, *ranges)).collect(),
    });
    let axis = Axis { base: 2.0, name: "cores", label: |cores| format!("{cores:.0}") };
    chart::draw(file, "SluiceDB: rate by cores and ranges", axis, &panels)
}

pub fn draw_growth(growth: &Growth, file: &Path) -> Result<()> {
    let panels: Vec<_> = COSTS
        .iter()
        .map(|cost| {
            let points = cost.points(&growth.points);
            let fit = Fit::through(&points);
            let line = fit.map_or_else(Vec::new, |fit| {
                points.iter().map(|(bytes, _)| (*bytes, fit.at(*bytes))).collect()
            });
            let series = Series { name: cost.name.into(), points, line };
            Panel { title: cost.title(), series: vec![series] }
        })
        .collect();
    let axis = Axis { base: 10.0, name: "data", label: megabytes };
    chart::draw(file, "SluiceDB: cost by size of the data, and a + b x log2(size)", axis, &panels)
}
