//! The parent: starts a child for each step, group, engine and round, and keeps what they tell.

use crate::Result;
use crate::args::{ProfileArgs, RunArgs};
use crate::engines::{BASELINE, Known, OURS, known, named};
use crate::figures::Figures;
use crate::groups::{FILL_TIMES, Group};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sluicedb_bench_peers::children::listen;
use sluicedb_bench_peers::disk::{self, Directory};
use sluicedb_bench_peers::machine::Machine;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A child that takes longer is stopped.
const STEP_MAX: Duration = Duration::from_secs(300);

/// The runs of one machine, as they are in a file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Runs {
    pub machine: Machine,
    pub profile: String,
    pub figures: Vec<Figures>,
}

impl Runs {
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()).into())
    }

    fn write(&self, file: &Path) -> Result<()> {
        Ok(std::fs::write(file, serde_json::to_string(self)? + "\n")?)
    }

    /// Adds what was measured with the same profile.
    pub fn add(&mut self, others: Self) -> Result<()> {
        if self.profile != others.profile {
            return Err(format!("{} beside {}", self.profile, others.profile).into());
        }
        self.figures.extend(others.figures);
        Ok(())
    }
}

fn engines(args: &RunArgs) -> Result<Vec<Known>> {
    let Some(names) = &args.engines else {
        return Ok(known().filter(|known| known.run.is_some()).collect());
    };
    let ours = [OURS, BASELINE].into_iter().map(str::to_owned);
    let mut engines = Vec::new();
    for name in ours.chain(names.iter().cloned()) {
        let engine = named(&name).ok_or_else(|| format!("no engine is called {name}"))?;
        if engine.run.is_none() {
            return Err(format!("{name} is not built in: it is a cargo feature").into());
        }
        if engines.iter().all(|known: &Known| known.name != engine.name) {
            engines.push(engine);
        }
    }
    Ok(engines)
}

pub fn run(args: &RunArgs) -> Result<Runs> {
    let mut runs = Runs {
        machine: Machine::here(&args.dir),
        profile: describe(args.profile),
        figures: Vec::new(),
    };
    if let Some(file) = args.json.as_ref().filter(|file| file.exists()) {
        runs.add(Runs::read(file)?)?;
    }
    let groups = if args.only.is_empty() { Group::value_variants() } else { &args.only };
    let engines = engines(args)?;
    for round in 0..args.rounds {
        for group in groups {
            // Who begins changes, so that none is always measured in the same company.
            for at in 0..engines.len() {
                let engine = engines[(at + round) % engines.len()];
                let takes_part = if engine.name == BASELINE {
                    group.has_baseline()
                } else {
                    group.has_engines()
                };
                if takes_part {
                    eprintln!("round {}, {group:?}: {} ...", round + 1, engine.name);
                    runs.figures.extend(steps(args, *group, engine)?);
                }
            }
            // After each group, so that a run that is cut short leaves something.
            if let Some(file) = &args.json {
                runs.write(file)?;
            }
        }
    }
    Ok(runs)
}

fn describe(args: ProfileArgs) -> String {
    let profile = args.profile();
    format!(
        "Profile {}: {} s a row, {} s a row that fills, {} puts, {} loaded, {} MiB of cache, \
         4 x {} MiB of write buffers, values of {} bytes",
        if args.profile == crate::profile::Size::Quick { "quick" } else { "full" },
        profile.seconds,
        profile.seconds * FILL_TIMES,
        profile.puts,
        profile.loaded,
        profile.cache_bytes >> 20,
        profile.memtable_bytes >> 20,
        profile.value_bytes,
    )
}

/// All steps of a group with one engine. One that fails is said so, and has no figures.
fn steps(args: &RunArgs, group: Group, engine: Known) -> Result<Vec<Figures>> {
    let dir = Directory::new(&args.dir, "peers")?;
    let mut figures = Vec::new();
    for step in 0..group.steps() {
        // What the step before has left dirty is not this one's to wait for.
        disk::sync_all()?;
        if let Err(e) = one_step(args, group, engine, step, &dir.0, &mut figures) {
            eprintln!("{}, {group:?}, step {step}: {e}", engine.name);
            break;
        }
    }
    Ok(figures)
}

fn one_step(
    args: &RunArgs,
    group: Group,
    engine: Known,
    step: usize,
    dir: &Path,
    figures: &mut Vec<Figures>,
) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    let name_of = |value: clap::builder::PossibleValue| value.get_name().to_owned();
    let profile = args.profile.profile.to_possible_value().map(name_of);
    let group = group.to_possible_value().map(name_of);
    command.args(["child", engine.name]).args(group).arg(step.to_string()).arg(dir);
    command.arg("--profile").args(profile);
    if let Some(seconds) = args.profile.seconds {
        command.arg("--seconds").arg(seconds.to_string());
    }
    if let Some(bytes) = args.profile.value_bytes {
        command.arg("--value-bytes").arg(bytes.to_string());
    }
    listen(&mut command, STEP_MAX, figures)
}
