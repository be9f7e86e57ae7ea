//! The loop over the cuts: start a writer, listen, cut the power, judge the disk.

use crate::disk::{Disk, Journal};
use crate::judge::{Verdict, judge};
use crate::kit::chance::Chance;
use crate::kit::disk::{content, verify};
use crate::story::{Cell, Event, Setup, TASKS};
use crate::writer;
use futures::executor::block_on;
use sluicedb::Db;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// Cuts that one file system goes through.
const CUTS_OF_A_LIFE: u64 = 6;
const INSIDE: &str = "SLUICE_TEST_POWER_INSIDE";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

pub fn run() -> ExitCode {
    if let Ok(task) = std::env::var(writer::TASK) {
        return writer::run(&task);
    }
    let replay = std::env::var("SLUICE_POWER_REPLAY").ok();
    let cuts = number("SLUICE_POWER_CUTS").unwrap_or(0);
    if cuts == 0 && replay.is_none() {
        println!(
            "power: skipped: it mounts file systems, so it wants SLUICE_POWER_CUTS=30, as root"
        );
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_none() {
        return enter();
    }
    let home = match tempfile::Builder::new().prefix("sluice-power.").tempdir_in(memory()) {
        Ok(home) => home,
        Err(error) => {
            println!("power: skipped: no directory to work in: {error}");
            return ExitCode::SUCCESS;
        }
    };
    if let Some(image) = replay {
        return match judge_again(Path::new(&image), home.path()) {
            Ok(verdict) => {
                println!("power: {image} is as it should be: {verdict:?}");
                ExitCode::SUCCESS
            }
            Err(what) => {
                println!("power: {image}: {what}");
                ExitCode::FAILURE
            }
        };
    }
    // Checks that this machine allows it at all.
    if let Err(error) = Disk::make(home.path()).and_then(|mut disk| {
        disk.mount()?;
        disk.cut(Journal::Dropped)?;
        disk.unmount()
    }) {
        println!("power: skipped: {error}");
        return ExitCode::SUCCESS;
    }
    Rig::new(home.path().to_owned(), cuts).run()
}

/// In memory if possible: the image's own disk does not matter, and its syncs are slow.
fn memory() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}

/// Restarts in a private mount namespace: however the process ends, its mounts end with it.
fn enter() -> ExitCode {
    let me = std::env::current_exe().unwrap();
    let inside = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(me)
        .env(INSIDE, "1")
        .status();
    match inside {
        Ok(status) => match status.code() {
            Some(0) => ExitCode::SUCCESS,
            _ if !is_root() => {
                println!("power: skipped: only root may mount file systems");
                ExitCode::SUCCESS
            }
            _ => ExitCode::FAILURE,
        },
        Err(error) => {
            println!("power: skipped: unshare: {error}");
            ExitCode::SUCCESS
        }
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Where images of failed cuts go.
fn kept(name: &str) -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).join("power").join(name)
}

#[derive(Debug, Default)]
struct Tally {
    acked: u64,
    synced: u64,
    gone: u64,
    /// Cuts after which acknowledged batches were gone, which is allowed for them.
    lossy: u64,
    replayed: u64,
    torn: u64,
}

struct Rig {
    home: PathBuf,
    cuts: u64,
    cells: Vec<Cell>,
    seed: u64,
    tally: Tally,
}

/// A file system, its content, and how many cuts it has seen.
struct Life {
    disk: Disk,
    seed: u64,
    ranges: usize,
    counts: Vec<u64>,
    cuts: u64,
}

impl Rig {
    fn new(home: PathBuf, cuts: u64) -> Self {
        let only = std::env::var("SLUICE_POWER_ONLY").unwrap_or_default();
        let fits = |cell: &Cell| only.is_empty() || cell.has(&only);
        let cells: Vec<_> = Cell::all().into_iter().filter(fits).collect();
        assert!(
            !cells.is_empty(),
            "no writer is all of SLUICE_POWER_ONLY={only}; {:?}",
            Cell::all()
        );
        let seed = number("SLUICE_POWER_SEED").unwrap_or(1);
        Self { home, cuts, cells, seed, tally: Tally::default() }
    }

    fn run(mut self) -> ExitCode {
        let mut failed = Vec::new();
        let mut life: Option<Life> = None;
        for cut in 0..self.cuts {
            let seed = self.seed.wrapping_mul(1_000_003) + cut;
            let mut chance = Chance::new(seed);
            if life.as_ref().is_some_and(|life| life.cuts >= CUTS_OF_A_LIFE) {
                life = None;
            }
            let cell = self.cells[(cut * 7 % self.cells.len() as u64) as usize];
            let cell = match &life {
                // A database keeps its ranges, so the cell must keep them too.
                Some(life) => Cell { ranges: life.ranges, ..cell },
                None => cell,
            };
            let result = self.one_cut(&mut life, cell, cut, &mut chance);
            if let Err(what) = result {
                println!("power: cut {cut} (SLUICE_POWER_SEED={}), {cell}: {what}", self.seed);
                failed.push(cut);
                life = None;
            }
        }
        println!("power: {} cuts, {} failed; {:?}", self.cuts, failed.len(), self.tally);
        // Cuts that never lost anything would prove nothing.
        if self.cuts >= 30 && self.tally.lossy == 0 && self.cells.len() == Cell::all().len() {
            println!("power: no cut ever took a buffered batch away: these are no power cuts");
            return ExitCode::FAILURE;
        }
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn one_cut(
        &mut self,
        life: &mut Option<Life>,
        cell: Cell,
        cut: u64,
        chance: &mut Chance,
    ) -> Result<()> {
        if life.is_none() {
            let mut disk = Disk::make(&self.home)?;
            disk.mount()?;
            let (seed, ranges) = (chance.next() >> 1, cell.ranges);
            *life = Some(Life { disk, seed, ranges, counts: vec![0; TASKS], cuts: 0 });
        }
        let life = life.as_mut().expect("it was just begun");
        life.cuts += 1;
        let says_all = chance.one_in(2);
        let setup = Setup { cell, seed: life.seed, says_all, first: life.counts.clone() };

        let mut writer = Writer::start(&setup, &life.disk.dir())?;
        let lines = if says_all { [20, 200, 1_000, 4_000] } else { [4, 40, 400, 1_000] };
        let wanted = chance.pick(&lines) * chance.between(1, 3);
        writer.listen_until(wanted)?;
        for _ in 0..chance.below(4) {
            life.disk.write_back_some(chance)?;
        }
        let journal = if chance.one_in(4) { Journal::Flushed } else { Journal::Dropped };
        writer.note_the_cut()?;
        life.disk.cut(journal)?;
        let events = writer.kill_and_listen()?;
        life.disk.unmount()?;

        let image = self.home.join("cut");
        life.disk.keep_as(&image)?;
        life.disk.mount()?;
        let verdict = look(&setup, &events, &life.disk.dir(), &mut self.tally);
        let verdict = verdict.map_err(|what| {
            let name = kept(&format!("cut-{}-{cut}.img", self.seed));
            match keep(&image, &name, &setup, &events) {
                Ok(()) => format!("{what}\n  to replay: SLUICE_POWER_REPLAY={}", name.display()),
                Err(error) => format!("{what}\n  (its image could not be kept: {error})"),
            }
        })?;
        for event in &events {
            if let Event::Acked { synced, .. } = event {
                self.tally.acked += 1;
                self.tally.synced += u64::from(*synced);
            }
        }
        self.tally.gone += verdict.gone;
        self.tally.lossy += u64::from(verdict.gone > 0);
        life.counts = verdict.counts;
        Ok(())
    }
}

/// Opens the database that the cut left, judges it, closes it, and verifies every byte of it.
fn look(setup: &Setup, events: &[Event], dir: &Path, tally: &mut Tally) -> Result<Verdict> {
    let db = block_on(Db::builder(dir).options(setup.options()).open())
        .map_err(|error| format!("does not open: {error}"))?;
    let found = block_on(content(&db)).map_err(|error| format!("cannot be read: {error}"));
    let stats = db.stats();
    let closed = block_on(db.close()).map_err(|error| format!("cannot be closed: {error}"));
    drop(db);
    let verdict = judge(setup, events, &found?)?;
    closed?;
    let findings = verify(dir)?;
    if !findings.is_sound() {
        return Err(format!("not sound: {findings:?}").into());
    }
    tally.replayed += u64::from(stats.recovered_entries > 0);
    tally.torn += u64::from(stats.recovered_torn_bytes > 0);
    Ok(verdict)
}

fn keep(image: &Path, name: &Path, setup: &Setup, events: &[Event]) -> Result<()> {
    fs::create_dir_all(name.parent().expect("it has a directory"))?;
    crate::disk::command("cp", |c| c.arg("--sparse=always").arg(image).arg(name))?;
    let mut lines = vec![setup.to_string()];
    lines.extend(events.iter().map(Event::to_string));
    fs::write(name.with_extension("story"), lines.join("\n"))?;
    Ok(())
}

fn judge_again(image: &Path, home: &Path) -> Result<Verdict> {
    let story = fs::read_to_string(image.with_extension("story"))?;
    let mut lines = story.lines();
    let setup: Setup = lines.next().ok_or("an empty story")?.parse()?;
    let events: Vec<Event> = lines.map(str::parse).collect::<std::result::Result<_, _>>()?;
    let mut disk = Disk::copy_of(image, home)?;
    disk.mount()?;
    look(&setup, &events, &disk.dir(), &mut Tally::default())
}

/// The writing process, and its reports so far.
struct Writer {
    child: Child,
    lines: Receiver<String>,
    events: Vec<Event>,
}

impl Writer {
    fn start(setup: &Setup, dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(writer::TASK, format!("{setup}\n{}", dir.display()))
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = child.stdout.take().expect("it was asked for");
        let (sender, lines) = channel();
        // A thread of its own reads, so that a full pipe never delays the writer.
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                if line.is_err() || line.is_ok_and(|line| sender.send(line).is_err()) {
                    return;
                }
            }
        });
        Ok(Self { child, lines, events: Vec::new() })
    }

    fn listen_until(&mut self, wanted: usize) -> Result<()> {
        while self.events.len() < wanted {
            let line = self.lines.recv().map_err(|_| "the writer ended by itself")?;
            self.listen_to(&line)?;
        }
        Ok(())
    }

    /// All reports so far were made while there was power.
    fn note_the_cut(&mut self) -> Result<()> {
        while let Ok(line) = self.lines.try_recv() {
            self.listen_to(&line)?;
        }
        self.events.push(Event::Cut);
        Ok(())
    }

    fn listen_to(&mut self, line: &str) -> Result<()> {
        if let Some(what) = line.strip_prefix(writer::FAILED) {
            return Err(format!("the writer failed before the cut: {what}").into());
        }
        self.events.push(line.parse()?);
        Ok(())
    }

    /// The reports after the cut show how far the writer was.
    fn kill_and_listen(mut self) -> Result<Vec<Event>> {
        self.child.kill()?;
        self.child.wait()?;
        while let Ok(line) = self.lines.recv() {
            if !line.starts_with(writer::FAILED) {
                self.events.push(line.parse()?);
            }
        }
        Ok(std::mem::take(&mut self.events))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
