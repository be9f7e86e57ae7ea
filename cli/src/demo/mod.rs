//! `demo`: the whole engine on real data, with every value compared with its file.
//!
//! Import real files and their lines with several tasks; take a snapshot; overwrite and delete;
//! compare everything; kill a writing process and reopen, several times; compare again; scan in
//! both directions; compact; compare; check that the snapshot had not moved; make a checkpoint,
//! open it, and give its entries to another database; verify every checksum. Ranges are split while
//! entries are overwritten. Any mismatch is told and makes the exit code non-zero.

pub mod args;
mod copies;
mod corpus;
pub mod crash;
mod report;
mod watch;
mod work;

use crate::machine::Machine;
use crate::outcome::{Exit, Failure, Result};
use crate::{inspect, output, store, text, units};
use args::DemoArgs;
use corpus::Corpus;
use report::{Report, Step};
use sluicedb::{Db, Snapshot};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use watch::Peaks;
use work::{Digest, Pass, Tally, digest};

pub async fn run(args: DemoArgs) -> Result {
    let (_guard, path) = place(&args)?;
    let corpus = Arc::new(Corpus::choose(&args)?);
    let mut report = Report::begin(args.json);
    let memory = units::bytes(args.memory);
    report.fact("machine", &Machine::look(path.parent().unwrap_or(&path)).describe())?;
    report.fact("database", &format!("{}, budget {memory}", path.display()))?;
    for folder in &corpus.folders {
        report.fact("folder", &folder.display().to_string())?;
    }
    if cfg!(debug_assertions) {
        report.fact("build", "debug; use --release for figures that mean something")?;
    }
    let peaks = Peaks::default();
    let told = Box::pin(steps(&args, &path, &corpus, &peaks, &mut report)).await;
    if let Err(failure) = told {
        // The steps before are worth seeing, and the verdict must not be missing.
        report.error(failure.message.as_deref().unwrap_or("stopped"));
        report.end()?;
        return Err(Failure::silent(failure.exit));
    }
    let good = report.end()?;
    if args.keep.is_some() {
        output::message(&format!("the database is still in {}", path.display()));
    }
    if good { Ok(()) } else { Err(Failure::silent(Exit::Corrupt)) }
}

async fn steps(
    args: &DemoArgs,
    path: &Path,
    corpus: &Arc<Corpus>,
    peaks: &Peaks,
    report: &mut Report,
) -> Result {
    let mut db = open(path, args, true).await?;
    let mut watch = peaks.watch(&db);
    let pass_over =
        |db: &Db| Pass { db: db.clone(), corpus: Arc::clone(corpus), tasks: args.tasks };
    let pass = pass_over(&db);

    let step = Step::start(&format!("import, {} tasks", args.tasks));
    let tally = pass.import().await?;
    report.done(step, &tally)?;

    let step = Step::start("snapshot, full scan of it");
    let snapshot = db.snapshot_labelled("after the import");
    let (mut tally, then) = scan_of(&snapshot).await?;
    let live = pass.live_entries(false);
    if then.entries != live {
        tally.mismatch(format!("{} entries were imported, {live} were expected", then.entries));
    }
    report.done(step, &tally)?;

    let step = Step::start("overwrite and delete, synced");
    let (changed, parted) = tokio::join!(pass.change(), copies::part(&db));
    parted?;
    report.done(step, &changed?)?;
    let places: Vec<_> = db.ranges().iter().map(|range| text::escape(&range.start)).collect();
    report
        .note(&format!("meanwhile ranges were split: they meet at {}", places[1..].join(", ")))?;

    let step = Step::start("compare every value");
    report.done(step, &pass.check(true).await?)?;

    let step = Step::start("the snapshot has not moved");
    report.done(step, &unmoved(&snapshot, then).await?)?;
    report.pins(&db)?;

    drop((pass, snapshot));
    for round in 0..args.kills {
        report.keep_stats(&db);
        watch.end().await;
        db.close().await?;
        // The child needs the directory for itself, so no handle may remain here.
        drop(db);
        let step = Step::start("kill -9 a writer, reopen");
        let acks = crash::kill_a_writer(path, args, round).await?;
        let opening = std::time::Instant::now();
        db = open(path, args, false).await?;
        let opened = opening.elapsed();
        let mut tally = Tally::default();
        let acknowledged = crash::check(&db, round, &acks, &mut tally).await?;
        let stats = db.stats();
        report.done(step, &tally)?;
        report.note(&format!(
            "{} acknowledged batches, all there; open took {}, replayed {} entries, \
             cut a torn tail of {}",
            units::count(acknowledged),
            units::seconds(opened),
            units::count(stats.recovered_entries),
            units::bytes(stats.recovered_torn_bytes)
        ))?;
        watch = peaks.watch(&db);
    }
    let pass = pass_over(&db);

    let step = Step::start("scan forward");
    let mut tally = Tally::default();
    let forward = digest(db.scan(..), false, &mut tally).await?;
    report.done(step, &tally)?;

    let step = Step::start("scan in reverse");
    let mut tally = Tally::default();
    let backward = digest(db.scan(..).rev(), true, &mut tally).await?;
    same("the reverse scan", backward, forward, &mut tally);
    report.done(step, &tally)?;

    let snapshot = db.snapshot_labelled("before the compaction");
    let step = Step::start("compact");
    db.compact().await?;
    let mut tally = Tally::default();
    let levels = db.level_info();
    tally.entries = levels.iter().map(|level| level.entries).sum();
    tally.bytes = levels.iter().map(|level| level.bytes).sum();
    report.done(step, &tally)?;
    report.pins(&db)?;

    let step = Step::start("compare every value again");
    report.done(step, &pass.check(true).await?)?;

    let step = Step::start("nothing too many, nothing moved");
    let mut tally = unmoved(&snapshot, forward).await?;
    let mut counted = digest(db.scan_prefix("file/").keys_only(), false, &mut tally).await?.entries;
    counted += digest(db.scan_prefix("line/").keys_only(), false, &mut tally).await?.entries;
    let live = pass.live_entries(true);
    if counted != live {
        tally.mismatch(format!("{counted} entries of files and lines, {live} were expected"));
    }
    report.done(step, &tally)?;

    drop((pass, snapshot));
    copies::copy(&db, forward, path, args.memory, report).await?;
    watch.end().await;
    report.keep_stats(&db);
    report.show(
        &crate::levels::table(&db.level_info()),
        "levels",
        inspect::to_json(&db.level_info()),
    )?;
    let stats = report.stats();
    let peak = |name: &str| peaks.of(name);
    report.show(&inspect::actors(&stats, Some(&peak)), "actors", inspect::to_json(&stats))?;
    db.close().await?;
    drop(db);

    let step = Step::start("verify every checksum");
    let verified = sluicedb::verify(path, |_, _| {})?;
    let mut tally =
        Tally { entries: verified.entries, bytes: store::bytes_on_disk(path), ..Tally::default() };
    verified.findings.iter().for_each(|finding| tally.mismatch(inspect::describe(finding)));
    report.done(step, &tally)
}

async fn open(path: &Path, args: &DemoArgs, create: bool) -> Result<Db> {
    store::open(path, store::options(Some(args.memory)), create).await
}

/// A directory for the database, and the guard that removes it.
fn place(args: &DemoArgs) -> Result<(Option<tempfile::TempDir>, PathBuf)> {
    if let Some(path) = &args.keep {
        if path.exists() {
            let path = path.display();
            return Err(Failure::usage(format!("{path}: exists; the demo makes its own database")));
        }
        return Ok((None, path.clone()));
    }
    let dir = tempfile::Builder::new().prefix("sluice-demo-").tempdir();
    let dir = dir.map_err(|error| Failure::io("temporary directory", &error))?;
    let path = dir.path().join("db");
    Ok((Some(dir), path))
}

async fn scan_of(snapshot: &Snapshot) -> Result<(Tally, Digest)> {
    let mut tally = Tally::default();
    let seen = digest(snapshot.scan(..), false, &mut tally).await?;
    Ok((tally, seen))
}

async fn unmoved(snapshot: &Snapshot, then: Digest) -> Result<Tally> {
    let (mut tally, now) = scan_of(snapshot).await?;
    same("the snapshot", now, then, &mut tally);
    Ok(tally)
}

fn same(what: &str, now: Digest, then: Digest, tally: &mut Tally) {
    if now != then {
        tally.mismatch(format!("{what} shows {now:?}, expected {then:?}"));
    }
}
