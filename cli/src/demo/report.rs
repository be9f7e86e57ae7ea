//! Reports what the demo does while it does it, and keeps score.

use super::work::{Tally, changed_files};
use crate::outcome::Result;
use crate::{output, units};
use comfy_table::Table;
use serde_json::{Map, Value, json};
use sluicedb::{ActorStats, Db};
use std::time::{Duration, Instant};

/// A step that has begun.
#[derive(Debug)]
pub struct Step {
    name: String,
    begun: Instant,
}

impl Step {
    /// Starts the clock of a step.
    pub fn start(name: &str) -> Self {
        Self { name: name.to_owned(), begun: Instant::now() }
    }
}

#[derive(Debug)]
pub struct Report {
    json: bool,
    begun: Instant,
    facts: Map<String, Value>,
    steps: Vec<(String, Duration, Tally)>,
    /// Messages handled by each actor, over all incarnations of the database.
    actors: Vec<ActorStats>,
    error: Option<String>,
    heading: bool,
}

impl Report {
    pub fn begin(json: bool) -> Self {
        Self {
            json,
            begun: Instant::now(),
            facts: Map::new(),
            steps: Vec::new(),
            actors: Vec::new(),
            error: None,
            heading: false,
        }
    }

    /// A fact that one needs to judge the rest.
    pub fn fact(&mut self, name: &str, what: &str) -> Result {
        match self.facts.get_mut(name) {
            Some(Value::Array(many)) => many.push(what.into()),
            Some(one) => *one = json!([one.clone(), what]),
            None => {
                self.facts.insert(name.to_owned(), what.into());
            }
        }
        self.say(&format!("  {name:<10} {what}"))
    }

    /// Reports what a step did and what was wrong.
    pub fn done(&mut self, step: Step, tally: &Tally) -> Result {
        let elapsed = step.begun.elapsed();
        if !self.heading {
            self.heading = true;
            self.say(&format!(
                "\n  {:<32} {:>10} {:>11} {:>9} {:>11} {:>12}",
                "step", "entries", "bytes", "time", "entries/s", "bytes/s"
            ))?;
        }
        self.say(&format!(
            "{} {:<32} {:>10} {:>11} {:>9} {:>11} {:>12}",
            output::verdict(tally.mismatches == 0, if tally.mismatches == 0 { "+" } else { "!" }),
            step.name,
            units::count(tally.entries),
            units::bytes(tally.bytes),
            units::seconds(elapsed),
            units::rate(tally.entries, elapsed),
            units::byte_rate(tally.bytes, elapsed),
        ))?;
        for what in &tally.told {
            self.say(&format!("    MISMATCH {what}"))?;
        }
        if tally.mismatches > tally.told.len() as u64 {
            let more = tally.mismatches - tally.told.len() as u64;
            self.say(&format!("    ... and {} more", units::count(more)))?;
        }
        let kept = Tally {
            told: tally.told.clone(),
            changed: tally.changed.clone(),
            ..Tally {
                entries: tally.entries,
                bytes: tally.bytes,
                mismatches: tally.mismatches,
                ..Tally::default()
            }
        };
        self.steps.push((step.name, elapsed, kept));
        Ok(())
    }

    /// A remark about the previous step.
    pub fn note(&mut self, what: &str) -> Result {
        self.say(&format!("    {what}"))
    }

    /// Who keeps obsolete files, if anybody does.
    pub fn pins(&mut self, db: &Db) -> Result {
        for pin in db.pins().iter().filter(|pin| pin.obsolete_tables > 0) {
            let label = pin.label.as_ref().map_or(String::new(), |label| format!(" {label:?}"));
            self.note(&format!(
                "{}{label} keeps {} of obsolete tables for {}",
                pin.holder,
                units::bytes(pin.obsolete_bytes),
                units::seconds(pin.age),
            ))?;
        }
        Ok(())
    }

    /// Something went wrong that is not a mismatch.
    pub fn error(&mut self, what: &str) {
        self.error = Some(what.to_owned());
    }

    /// Adds what the actors of this incarnation have handled.
    pub fn keep_stats(&mut self, db: &Db) {
        for actor in db.stats().actors {
            match self.actors.iter_mut().find(|known| known.name == actor.name) {
                Some(known) => {
                    known.handled += actor.handled;
                    known.mailbox_len = actor.mailbox_len;
                }
                None => self.actors.push(actor),
            }
        }
    }

    pub fn stats(&self) -> Vec<ActorStats> {
        self.actors.clone()
    }

    /// A table, or its JSON.
    pub fn show(&mut self, table: &Table, name: &str, json: Value) -> Result {
        self.facts.insert(name.to_owned(), json);
        self.say(&format!("\n{table}\n"))
    }

    /// The verdict. `true` is good.
    pub fn end(self) -> Result<bool> {
        let elapsed = self.begun.elapsed();
        let mismatches: u64 = self.steps.iter().map(|(_, _, tally)| tally.mismatches).sum();
        let compared: u64 = self.steps.iter().map(|(_, _, tally)| tally.entries).sum();
        let changed = changed_files(self.steps.iter().map(|(_, _, tally)| tally));
        let good = mismatches == 0 && self.error.is_none();
        if self.json {
            let steps: Vec<Value> = self
                .steps
                .iter()
                .map(|(name, elapsed, tally)| {
                    json!({
                        "step": name, "seconds": elapsed.as_secs_f64(), "entries": tally.entries,
                        "bytes": tally.bytes, "mismatches": tally.mismatches, "told": tally.told,
                    })
                })
                .collect();
            let mut json = self.facts;
            json.insert("steps".into(), steps.into());
            json.insert("files_changed_meanwhile".into(), changed.len().into());
            json.insert("mismatches".into(), mismatches.into());
            json.insert("error".into(), self.error.into());
            json.insert("seconds".into(), elapsed.as_secs_f64().into());
            json.insert("ok".into(), good.into());
            output::json(&Value::Object(json))?;
            return Ok(good);
        }
        for path in &changed {
            output::message(&format!("not compared, changed meanwhile: {}", path.display()));
        }
        let compared = units::count(compared);
        let time = units::seconds(elapsed);
        let verdict = match &self.error {
            Some(error) => format!("FAILED after {time}: {error}"),
            None if good => {
                format!("OK: {compared} entries written, read or compared in {time}, 0 mismatches")
            }
            None => format!(
                "FAILED: {} mismatches in {compared} entries, {time}",
                units::count(mismatches)
            ),
        };
        output::line(&format!("\n{}", output::verdict(good, &verdict)))?;
        Ok(good)
    }

    fn say(&self, text: &str) -> Result {
        if self.json { Ok(()) } else { output::line(text) }
    }
}
