//! The tables, as Markdown that is readable as it is.

use crate::engines::{Kind, Known};
use crate::figures::name;
use crate::run::Runs;
use crate::table::{
    BEAT_MAX_OVER, BEAT_P999_OVER, BEATS_MIN, LIMITS, Medians, ROWS, Row, WITHOUT_ENGINE,
};
use sluicedb_bench_peers::markdown::{Table, digits, number, or_dash, rate};
use std::collections::BTreeMap;
use std::fmt::Write;

const LSM: &[Kind] = &[Kind::Lsm];
const PEERS: &[Kind] = &[Kind::Lsm, Kind::Tree];

fn ratio(ours: f64, theirs: Option<(&'static str, f64)>) -> String {
    theirs.map_or_else(|| "-".into(), |(name, theirs)| format!("{:.2} {name}", ours / theirs))
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**missed**" }
}

pub fn markdown(runs: &Runs) -> String {
    let medians = Medians::of(runs);
    let mut text = String::new();
    let _ = writeln!(text, "{}.\n{}.\n", runs.machine, runs.profile);
    lost(&medians, &mut text);
    ratios(&medians, &mut text);
    limits(&medians, &mut text);
    rates(&medians, &mut text);
    let engines = medians.engines();
    let rows: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    let peers: Vec<_> = engines.iter().filter(|e| e.kind != Kind::Baseline).copied().collect();
    let mut each = |title: &str, rows: &[&str], values: [&str; 2]| {
        by_engine(&medians, title, &peers, rows, values, &mut text);
    };
    each("Latency, p99 / p99.9, us", &rows, [name::P99, name::P999]);
    each("Heartbeat later than due, p99.9 / max, ms", &rows, [name::BEAT_P999, name::BEAT_MAX]);
    each("Processor time per operation, us", &rows, [name::CPU, ""]);
    let fills = [
        "put c1",
        "put c16",
        "put c64",
        "put sequential c1",
        "batch of 100 c1",
        "load sorted c1",
        "overwrite zipf c16",
    ];
    each("Bytes written per byte put, until settled", &fills, [name::WRITTEN, ""]);
    let cold = ["get cold c1", "get cold c16"];
    each("Read from the disk per get, KiB", &cold, [name::READ, ""]);
    each("Space per byte that lives, closed", &fills, [name::SPACE, ""]);
    each("Memory, most resident while it ran, MiB", &rows, [name::PEAK, ""]);
    each("Settle, s / close, ms", &fills, [name::SETTLE, name::CLOSE]);
    let opens = ["open, new", "open, closed with 116 MB", "open, crashed with 58 MB"];
    each("Open, ms / close, ms", &opens, [name::OPEN, name::CLOSE]);
    each("Share that was there after it", &opens[1..], [name::KEPT, ""]);
    text
}

/// Rows in which a peer is quicker.
fn lost(medians: &Medians, text: &mut String) {
    let mut table = Table::new(["where a peer wins", "SluiceDB", "best peer", "x"]);
    for row in ROWS {
        let both = medians.ours(row.name, row.rate).zip(medians.best(row, PEERS));
        if let Some((ours, (name, theirs))) = both.filter(|(ours, (_, theirs))| ours < theirs) {
            let best = format!("{name} {}", rate(theirs));
            table.push(vec![row.name.into(), rate(ours), best, format!("{:.2}", ours / theirs)]);
        }
    }
    table.write(text);
}

fn ratios(medians: &Medians, text: &mut String) {
    let heading = ["per second", "SluiceDB", "x best LSM", "x LMDB", "x best of all", "bar", ""];
    let mut table = Table::new(heading);
    let (mut met, mut bars) = (0, 0);
    for row in ROWS {
        let Some(ours) = medians.ours(row.name, row.rate) else { continue };
        let lsm = medians.best(row, LSM);
        let lmdb = medians.get(row.name, "LMDB", row.rate);
        let reached = row.bar.zip(lsm).map(|(bar, (_, theirs))| ours >= bar * theirs);
        bars += u32::from(reached.is_some());
        met += u32::from(reached == Some(true));
        table.push(vec![
            row.name.into(),
            rate(ours),
            ratio(ours, lsm),
            or_dash(lmdb, |theirs| format!("{:.2}", ours / theirs)),
            ratio(ours, medians.best(row, PEERS)),
            or_dash(row.bar, |bar| format!("{bar}")),
            reached.map_or("", verdict).into(),
        ]);
    }
    table.write(text);
    let _ = writeln!(text, "Bars met: {met} of {bars}.\n");
}

/// What has a limit of its own.
fn limits(medians: &Medians, text: &mut String) {
    let mut table = Table::new(["SluiceDB", "what", "is", "at most", ""]);
    for limit in LIMITS {
        if let Some(is) = medians.ours(limit.row, limit.value) {
            let met = verdict(is <= limit.at_most).into();
            let (row, value) = (limit.row.into(), limit.value.into());
            table.push(vec![row, value, number(is), number(limit.at_most), met]);
        }
    }
    let (mut met, mut rows) = (0, 0);
    for row in ROWS {
        let beats = medians.ours(row.name, name::BEATS).unwrap_or_default();
        for (value, over) in [(name::BEAT_P999, BEAT_P999_OVER), (name::BEAT_MAX, BEAT_MAX_OVER)] {
            let without = medians.without_engine(value);
            let Some((is, without)) = medians.ours(row.name, value).zip(without) else { continue };
            if value == name::BEAT_P999 && beats < BEATS_MIN {
                continue;
            }
            rows += 1;
            if is <= without + over {
                met += 1;
            } else {
                let at_most = number(without + over);
                let missed = verdict(false).into();
                table.push(vec![row.name.into(), value.into(), number(is), at_most, missed]);
            }
        }
    }
    table.write(text);
    let _ = writeln!(
        text,
        "Heartbeat beside SluiceDB, p99.9 and maximum of each row: {met} of {rows} within \
         {BEAT_P999_OVER} and {BEAT_MAX_OVER} ms of the latest without an engine.\n",
    );
    let mut table = Table::new(["without an engine", "per second", "p99.9, ms", "max, ms"]);
    for row in WITHOUT_ENGINE {
        let get = |value| medians.get(row, crate::engines::BASELINE, value);
        table.push(vec![
            row.into(),
            or_dash(get(name::OPERATIONS), rate),
            or_dash(get(name::BEAT_P999), number),
            or_dash(get(name::BEAT_MAX), number),
        ]);
    }
    table.write(text);
}

fn rates(medians: &Medians, text: &mut String) {
    let engines = medians.engines();
    let mut table =
        Table::new(std::iter::once("per second").chain(engines.iter().map(|engine| engine.name)));
    for Row { name, rate: value, .. } in ROWS {
        let rates: Vec<_> =
            engines.iter().map(|engine| medians.get(name, engine.name, value)).collect();
        let best = rates.iter().zip(&engines).filter(|(_, engine)| engine.kind != Kind::Baseline);
        let best = best.filter_map(|(rate, _)| *rate).fold(0.0, f64::max);
        let show = |value: Option<f64>| {
            let cell = or_dash(value, rate);
            if value == Some(best) { format!("**{cell}**") } else { cell }
        };
        table.push(std::iter::once((*name).into()).chain(rates.into_iter().map(show)).collect());
    }
    table.write(text);
}

/// One or two values of each engine in these rows.
fn by_engine(
    medians: &Medians,
    title: &str,
    engines: &[Known],
    rows: &[&str],
    [first, second]: [&str; 2],
    text: &mut String,
) {
    let mut table =
        Table::new(std::iter::once(title).chain(engines.iter().map(|engine| engine.name)));
    for row in rows {
        let show = |engine: &Known| {
            let cell = or_dash(medians.get(row, engine.name, first), number);
            match medians.get(row, engine.name, second) {
                Some(value) => format!("{cell} / {}", number(value)),
                None => cell,
            }
        };
        table.push(std::iter::once((*row).into()).chain(engines.iter().map(show)).collect());
    }
    table.write(text);
}

/// The medians, a line for each row and engine.
pub fn semicolon_separated(runs: &Runs) -> String {
    let values = [
        name::OPERATIONS,
        name::ENTRIES,
        name::P50,
        name::P99,
        name::P999,
        name::MAX,
        name::BEAT_P999,
        name::BEAT_MAX,
        name::CPU,
        name::PEAK,
        name::WRITTEN,
        name::READ,
        name::SPACE,
        name::SETTLE,
        name::OPEN,
        name::CLOSE,
        name::KEPT,
    ];
    let mut lines: BTreeMap<_, [Option<f64>; 17]> = BTreeMap::new();
    let medians = Medians::of(runs);
    for ((row, engine, value), number) in medians.iter() {
        if let Some(at) = values.iter().position(|name| name == value) {
            lines.entry((row, engine)).or_default()[at] = Some(number);
        }
    }
    let mut text = format!("row;engine;{}\n", values.join(";"));
    for ((row, engine), values) in lines {
        let _ = write!(text, "{row};{engine}");
        for value in values {
            let _ = write!(text, ";{}", value.map_or_else(String::new, digits));
        }
        text.push('\n');
    }
    text
}
