//! What a power cut may leave: each task's batches up to some point, none torn and none invented;
//! everything that was promised; and of all batches together a prefix of their order, as far as
//! that is known outside.

use crate::kit::oracle::{Map, apply, difference};
use crate::story::{Event, SAID_EVERY, Setup, TASKS, changes, mark_of, task_of};

/// What was found, if it is allowed.
#[derive(Debug)]
pub struct Verdict {
    /// The number of batches of each task.
    pub counts: Vec<u64>,
    /// Acknowledged batches that are gone, which is allowed when they were not synced.
    pub gone: u64,
}

/// What the writer reported.
struct Promises {
    /// The least number of batches of each task that must be found.
    least: Vec<u64>,
    /// Position, task and number of each acknowledgement.
    acked: Vec<(usize, usize, u64)>,
}

impl Promises {
    /// The least number of events that preceded the beginning of batch `number` of a task.
    fn before(&self, task: usize, number: u64) -> usize {
        let mut before = self.acked.iter().filter(|(_, t, n)| *t == task && *n < number);
        before.next_back().map_or(0, |(position, ..)| position + 1)
    }

    /// The most batches of a task that can have begun.
    fn most(&self, setup: &Setup, task: usize) -> u64 {
        let mut mine = self.acked.iter().filter(|(_, t, _)| *t == task);
        let acked = mine.next_back().map_or(setup.first[task], |(_, _, number)| number + 1);
        acked + if setup.says_all { 1 } else { SAID_EVERY }
    }
}

fn promises(setup: &Setup, events: &[Event]) -> Promises {
    // The content from before was closed properly.
    let (mut least, mut acked) = (setup.first.clone(), Vec::new());
    let (mut at_sync, mut cut) = (0, false);
    for (position, event) in events.iter().enumerate() {
        match *event {
            Event::Acked { task, number, synced } => {
                acked.push((position, task, number));
                if synced && !cut {
                    least[task] = least[task].max(number + 1);
                }
            }
            Event::SyncBegun => at_sync = acked.len(),
            Event::Cut => cut = true,
            Event::SyncDone if cut => {}
            Event::SyncDone => {
                for &(_, task, number) in &acked[..at_sync] {
                    least[task] = least[task].max(number + 1);
                }
            }
        }
    }
    Promises { least, acked }
}

/// Judges what `found` holds after the cut that ended `events`.
pub fn judge(setup: &Setup, events: &[Event], found: &Map) -> Result<Verdict, String> {
    let mut maps = vec![Map::new(); TASKS];
    for (key, value) in found {
        let task = task_of(key).filter(|task| *task < TASKS);
        let task = task.ok_or_else(|| format!("{} was never written", key.escape_ascii()))?;
        maps[task].insert(key.clone(), value.clone());
    }
    let promises = promises(setup, events);
    let mut counts = Vec::new();
    for (task, map) in maps.iter().enumerate() {
        let count = match map.get(&mark_of(task)) {
            None => 0,
            Some(text) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(format!("the mark of task {task} is no number"))?,
        };
        let (least, most) = (promises.least[task], promises.most(setup, task));
        if count < least || count > most {
            return Err(format!(
                "task {task}: {count} batches are there, {least} were promised, {most} were begun"
            ));
        }
        let mut expected = Map::new();
        for number in 0..count {
            apply(&mut expected, &changes(setup.seed, task, number));
        }
        if let Some(what) = difference(&expected, map) {
            return Err(format!("task {task} after {count} batches: {what}"));
        }
        counts.push(count);
    }

    // A batch that began after another was acknowledged follows it in the log.
    let new = (0..TASKS).filter(|&task| counts[task] > setup.first[task]);
    let begun = new.map(|task| (promises.before(task, counts[task] - 1), task));
    if let Some((events, late)) = begun.max() {
        for &(acked, task, number) in &promises.acked {
            if acked < events && number >= counts[task] {
                return Err(format!(
                    "batch {number} of task {task} is gone, though it was acknowledged \
                     before batch {} of task {late} was begun, which is there",
                    counts[late] - 1
                ));
            }
        }
    }
    let gone = |&&(_, task, number): &&(usize, usize, u64)| number >= counts[task];
    let gone = promises.acked.iter().filter(gone).count() as u64;
    Ok(Verdict { counts, gone })
}
