//! Groups of rows. Each group is a process of its own for each engine, with a directory of its own;
//! the group that opens what was closed, or was left by a crash, is several.

use crate::child::{Bench, Job};
use crate::engines::{Engine, Setup};
use crate::figures::{Figures, name};
use crate::profile::OPENED_MEMTABLE_BYTES;
use clap::ValueEnum;
use sluicedb_bench_peers::children::tell;
use sluicedb_bench_peers::drive::{Driven, Load, drive};
use sluicedb_bench_peers::engine::settle;
use sluicedb_bench_peers::keys::{hashed, mix};
use sluicedb_bench_peers::work::{Data, LARGE_VALUE_BYTES, On, Operation, YCSB};
use sluicedb_bench_peers::{Result, disk};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// How late a heartbeat is without any engine.
    Calibrate,
    PutC1,
    PutC16,
    PutC64,
    PutSequential,
    Batch,
    Load,
    Overwrite,
    /// Gets and scans of what fits into the cache.
    Read,
    /// Gets and scans right after many puts, nothing being settled.
    Levels,
    /// Gets from four times as much as fits into the cache, and from the disk.
    Beyond,
    Ycsb,
    Synced,
    /// Values of 64 KiB.
    Large,
    /// How long it takes to open and to close.
    Open,
}

/// The steps of [`Group::Open`].
const FILL_AND_CLOSE: usize = 0;
const OPEN_CLOSED: usize = 1;
const FILL_AND_CRASH: usize = 2;
const OPEN_CRASHED: usize = 3;

/// What a batch of a load has.
const LOAD_BATCH: u64 = 1000;
const CRASH_BATCH: u64 = 10;
const LEVELS_BATCH: u64 = 100;
/// Rows that fill may take so many times as long as others.
pub const FILL_TIMES: f64 = 5.0;
/// For rows that have to be done.
const UNLIMITED_SECONDS: f64 = 3600.0;
/// Operations of rows that end by time.
const UNLIMITED: u64 = u64::MAX;
/// What the system reads at least.
const PAGE_BYTES: u64 = 4096;
/// A cold get is one of so few that hardly any page is asked for twice.
const PAGES_PER_COLD_GET: u64 = 16;
/// After a crash one put in so many is looked for.
const KEPT_SAMPLE: usize = 100;

impl Group {
    pub fn steps(self) -> usize {
        if self == Self::Open { 4 } else { 1 }
    }

    /// Does it say something about no engine at all?
    pub fn has_baseline(self) -> bool {
        matches!(self, Self::Calibrate | Self::Synced)
    }

    pub fn has_engines(self) -> bool {
        self != Self::Calibrate
    }
}

pub async fn run<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let puts = bench.job.profile.puts;
    let fill = |row, clients, operation, operations| Fill { row, clients, operation, operations };
    match bench.job.group {
        Group::Calibrate => calibrate::<E>(bench).await,
        Group::PutC1 => fill("put c1", 1, Operation::Put, puts).run::<E>(bench).await,
        Group::PutC16 => fill("put c16", 16, Operation::Put, puts).run::<E>(bench).await,
        Group::PutC64 => fill("put c64", 64, Operation::Put, puts).run::<E>(bench).await,
        Group::PutSequential => {
            fill("put sequential c1", 1, Operation::PutSequential, puts).run::<E>(bench).await
        }
        Group::Batch => {
            fill("batch of 100 c1", 1, Operation::Batch(100), puts / 100).run::<E>(bench).await
        }
        Group::Load => {
            let operation = Operation::Load(LOAD_BATCH);
            fill("load sorted c1", 1, operation, puts / LOAD_BATCH).run::<E>(bench).await
        }
        Group::Overwrite => {
            fill("overwrite zipf c16", 16, Operation::Overwrite, puts).run::<E>(bench).await
        }
        Group::Read => read::<E>(bench).await,
        Group::Levels => levels::<E>(bench).await,
        Group::Beyond => beyond::<E>(bench).await,
        Group::Ycsb => ycsb::<E>(bench).await,
        Group::Synced => synced::<E>(bench).await,
        Group::Large => large::<E>(bench).await,
        Group::Open => match bench.job.step {
            FILL_AND_CLOSE => fill_and_close::<E>(bench).await,
            OPEN_CLOSED => open_closed::<E>(bench).await,
            FILL_AND_CRASH => fill_and_crash::<E>(bench).await,
            OPEN_CRASHED => open_crashed::<E>(bench).await,
            step => Err(format!("there is no step {step}").into()),
        },
    }
}

/// Rows on one open database.
struct Rows<'a, E> {
    bench: &'a Bench<'a>,
    engine: E,
    data: Arc<Data>,
}

impl<'a, E: Engine> Rows<'a, E> {
    fn new(bench: &'a Bench<'_>, engine: E, mut data: Data) -> Self {
        data.value_bytes = bench.job.profile.value_bytes;
        Self { bench, engine, data: Arc::new(data) }
    }

    fn on(&self, operation: Operation, salt: u64) -> On<E> {
        let (engine, data) = (self.engine.clone(), Arc::clone(&self.data));
        On { engine, operation, data, salt: mix(salt) }
    }

    /// Measures and tells a row that ends by time.
    async fn row(&self, row: &str, clients: u64, operation: Operation) -> Result<()> {
        let seconds = self.bench.job.profile.seconds;
        let salt = row.bytes().fold(clients, |salt, byte| mix(salt ^ u64::from(byte)));
        // A few scans of everything are enough.
        let operations = if operation == Operation::ScanAll { 5 } else { UNLIMITED };
        let load = Load { clients, operations, seconds };
        let (figures, _) = self.bench.row(row, self.on(operation, salt), load).await?;
        tell(&figures)
    }

    /// Measures and tells a row of gets that ends by time, or by their number, and what came from
    /// the disk for them.
    async fn cold(&self, row: &str, clients: u64, gets: u64) -> Result<()> {
        let read_before = disk::bytes_read();
        let load = Load { clients, operations: gets, seconds: self.bench.job.profile.seconds };
        let on = self.on(Operation::Get, clients);
        let (mut figures, driven) = self.bench.row(row, on, load).await?;
        if let Some((before, after)) = read_before.zip(disk::bytes_read()) {
            let kib = (after - before) as f64 / 1024.0;
            figures.set(name::READ, kib / driven.operations() as f64);
        }
        tell(&figures)
    }

    /// Does so many operations, however long that takes, and says nothing about it.
    async fn all(&self, clients: u64, operation: Operation, operations: u64) -> Result<Driven> {
        let load = Load { clients, operations, seconds: UNLIMITED_SECONDS };
        drive(self.on(operation, 0), load).await
    }
}

/// Opens an empty database and loads the first numbers into it: in random order, and settled.
async fn loaded<'a, E: Engine>(bench: &'a Bench<'_>, count: u64) -> Result<Rows<'a, E>> {
    let engine = E::open(&bench.job.dir, bench.job.profile.setup()).await?;
    let rows = Rows::new(bench, engine, Data::loaded(count));
    rows.all(1, Operation::Batch(LOAD_BATCH), count / LOAD_BATCH).await?;
    settle(&rows.engine, false).await?;
    Ok(rows)
}

async fn calibrate<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    bench.idle("idle").await?;
    let engine = E::open(&bench.job.dir, bench.job.profile.setup()).await?;
    let rows = Rows::new(bench, engine, Data::new());
    for (row, clients) in [("busy c1", 1), ("busy c16", 16), ("busy c64", 64)] {
        rows.row(row, clients, Operation::Nothing).await?;
    }
    rows.engine.close().await
}

/// A row that fills a database, or overwrites what was loaded before; what was written for that,
/// and the space that is taken in the end.
struct Fill {
    row: &'static str,
    clients: u64,
    operation: Operation,
    operations: u64,
}

impl Fill {
    async fn run<E: Engine>(self, bench: &Bench<'_>) -> Result<()> {
        let Job { profile, dir, .. } = bench.job;
        let overwrites = self.operation == Operation::Overwrite;
        let rows = if overwrites {
            loaded::<E>(bench, profile.loaded).await?
        } else {
            let sorts = matches!(self.operation, Operation::Load(_));
            let data = if sorts { Data::to_sort(profile.puts) } else { Data::new() };
            let engine = E::open(dir, profile.setup()).await?;
            Rows::new(bench, engine, data)
        };
        let written_before = disk::bytes_written();
        let load = Load {
            clients: self.clients,
            operations: self.operations,
            seconds: FILL_TIMES * profile.seconds,
        };
        let (mut figures, driven) = bench.row(self.row, rows.on(self.operation, 1), load).await?;
        let begun = Instant::now();
        settle(&rows.engine, false).await?;
        figures.set(name::SETTLE, begun.elapsed().as_secs_f64());
        if let Some((before, after)) = written_before.zip(disk::bytes_written()) {
            let user_bytes = driven.entries * profile.entry_bytes();
            figures.set(name::WRITTEN, (after - before) as f64 / user_bytes as f64);
        }
        settle(&rows.engine, true).await?;
        let begun = Instant::now();
        rows.engine.close().await?;
        figures.set_millis(name::CLOSE, begun.elapsed());
        let live = if overwrites { profile.loaded } else { driven.entries };
        figures.set(name::SPACE, disk::size(dir)? as f64 / (live * profile.entry_bytes()) as f64);
        tell(&figures)
    }
}

async fn read<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let Job { profile, dir, .. } = bench.job;
    let rows = loaded::<E>(bench, profile.loaded).await?;
    // Into the caches.
    rows.all(16, Operation::Get, 2 * profile.loaded).await?;
    for (row, clients) in [("get c1", 1), ("get c16", 16), ("get c64", 64)] {
        rows.row(row, clients, Operation::Get).await?;
    }
    rows.row("get absent c16", 16, Operation::GetAbsent).await?;
    for (row, clients) in [("scan 100 c1", 1), ("scan 100 c16", 16)] {
        rows.row(row, clients, Operation::Scan).await?;
    }
    rows.row("scan all c1", 1, Operation::ScanAll).await?;
    let Rows { engine, data, .. } = rows;
    engine.close().await?;
    let engine = E::open(dir, profile.setup()).await?;
    let rows = Rows { bench, engine, data };
    rows.row("get after open c16", 16, Operation::Get).await?;
    rows.engine.close().await
}

async fn levels<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let Job { profile, dir, .. } = bench.job;
    let engine = E::open(dir, profile.setup()).await?;
    // As much with every engine, so in batches: some would take minutes otherwise.
    let count = profile.puts / LEVELS_BATCH * 2 / 3 * LEVELS_BATCH;
    let rows = Rows::new(bench, engine, Data::written(vec![count]));
    rows.all(16, Operation::Batch(LEVELS_BATCH), count / LEVELS_BATCH).await?;
    rows.row("get after puts c16", 16, Operation::Get).await?;
    rows.row("scan 100 after puts c16", 16, Operation::Scan).await?;
    rows.engine.close().await
}

async fn beyond<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let Job { profile, dir, .. } = bench.job;
    let count = 4 * profile.cache_bytes / profile.entry_bytes();
    let engine = E::open(dir, profile.setup()).await?;
    let rows = Rows::new(bench, engine, Data::to_sort(count));
    rows.all(1, Operation::Load(LOAD_BATCH), count.div_ceil(LOAD_BATCH)).await?;
    settle(&rows.engine, false).await?;
    rows.all(16, Operation::Get, count / 4).await?;
    rows.row("get, 4 x the cache, c16", 16, Operation::Get).await?;
    let Rows { mut engine, data, .. } = rows;
    let gets = count * profile.entry_bytes() / PAGE_BYTES / PAGES_PER_COLD_GET;
    for (row, clients) in [("get cold c1", 1), ("get cold c16", 16)] {
        // Closed, because pages that are mapped stay.
        engine.close().await?;
        disk::forget_pages(dir)?;
        engine = E::open(dir, profile.setup()).await?;
        let rows = Rows { bench, engine: engine.clone(), data: Arc::clone(&data) };
        rows.cold(row, clients, gets).await?;
    }
    engine.close().await
}

async fn ycsb<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let rows = loaded::<E>(bench, bench.job.profile.loaded).await?;
    rows.all(16, Operation::Get, bench.job.profile.loaded).await?;
    for (row, mix) in YCSB {
        rows.row(row, 16, Operation::Ycsb(mix)).await?;
    }
    rows.engine.close().await
}

async fn synced<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    for (row, clients) in [("synced put c1", 1), ("synced put c16", 16), ("synced put c64", 64)] {
        let dir = bench.job.dir.join(clients.to_string());
        std::fs::create_dir(&dir)?;
        let setup = Setup { synced: true, ..bench.job.profile.setup() };
        let engine = E::open(&dir, setup).await?;
        let rows = Rows::new(bench, engine, Data::new());
        rows.row(row, clients, Operation::Put).await?;
        rows.engine.close().await?;
    }
    Ok(())
}

async fn large<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let Job { profile, dir, .. } = bench.job;
    // As much as the cache holds.
    let count = profile.cache_bytes / LARGE_VALUE_BYTES as u64;
    let engine = E::open(dir, profile.setup()).await?;
    let mut rows = Rows::new(bench, engine, Data::new());
    let load = Load { clients: 4, operations: count, seconds: UNLIMITED_SECONDS };
    let (figures, driven) =
        bench.row("put 64 KiB c4", rows.on(Operation::PutLarge, 0), load).await?;
    tell(&figures)?;
    settle(&rows.engine, false).await?;
    rows.data = Arc::new(Data::written(driven.done));
    rows.all(4, Operation::GetLarge, count).await?;
    rows.row("get 64 KiB c4", 4, Operation::GetLarge).await?;
    rows.engine.close().await
}

/// Opens it, and notes how long that took.
async fn open_timed<E: Engine>(bench: &Bench<'_>, row: &str, dir: &Path) -> Result<(E, Figures)> {
    let setup = Setup { memtable_bytes: OPENED_MEMTABLE_BYTES, ..bench.job.profile.setup() };
    let begun = Instant::now();
    let engine = E::open(dir, setup).await?;
    let mut figures = bench.figures(row);
    figures.set_millis(name::OPEN, begun.elapsed());
    Ok((engine, figures))
}

async fn fill_and_close<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let dir = bench.job.dir.join("closed");
    std::fs::create_dir(&dir)?;
    let (engine, mut figures) = open_timed::<E>(bench, "open, new", &dir).await?;
    let rows = Rows::new(bench, engine, Data::new());
    rows.all(1, Operation::Batch(LOAD_BATCH), bench.job.profile.closed_puts() / LOAD_BATCH).await?;
    let begun = Instant::now();
    rows.engine.close().await?;
    tell(figures.set_millis(name::CLOSE, begun.elapsed()))
}

async fn open_closed<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let dir = bench.job.dir.join("closed");
    let (engine, mut figures) = open_timed::<E>(bench, "open, closed with 116 MB", &dir).await?;
    let kept = kept(&engine, bench.job.profile.closed_puts()).await?;
    let begun = Instant::now();
    engine.close().await?;
    tell(figures.set(name::KEPT, kept).set_millis(name::CLOSE, begun.elapsed()))
}

async fn fill_and_crash<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let dir = bench.job.dir.join("crashed");
    std::fs::create_dir(&dir)?;
    let (engine, _) = open_timed::<E>(bench, "", &dir).await?;
    let rows = Rows::new(bench, engine, Data::new());
    rows.all(1, Operation::Batch(CRASH_BATCH), bench.job.profile.crashed_puts() / CRASH_BATCH)
        .await?;
    // Nothing is closed or dropped.
    std::process::exit(0)
}

async fn open_crashed<E: Engine>(bench: &Bench<'_>) -> Result<()> {
    let dir = bench.job.dir.join("crashed");
    let (engine, mut figures) = open_timed::<E>(bench, "open, crashed with 58 MB", &dir).await?;
    figures.set(name::KEPT, kept(&engine, bench.job.profile.crashed_puts()).await?);
    tell(&figures)?;
    engine.close().await
}

/// The share of the first `count` numbers that is there.
async fn kept(engine: &impl Engine, count: u64) -> Result<f64> {
    let (mut there, mut asked) = (0, 0);
    for number in (0..count).step_by(KEPT_SAMPLE) {
        there += u32::from(engine.get(&hashed(number)).await?);
        asked += 1;
    }
    Ok(f64::from(there) / f64::from(asked))
}
