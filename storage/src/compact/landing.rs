//! What is done about the shards of a landing: merged into the level behind it, or into itself.
//!
//! A landing takes tables by an edit alone, so a burst costs no rewriting. The price is paid later,
//! in one of two ways. A *drain* merges a part of a shard with what it overlaps in the level; it
//! pays when much has landed over little. A *keep* merges neighbours in age within the shard; it
//! pays when a read looks into many runs, or when they hide each other's entries, and the level is
//! too large to be rewritten yet.

use super::backlog::{self, OLD_MS, ShardView};
use super::job::{Inputs, Job};
use super::pick::Situation;
use super::rewrite::has_old_tombstone;
use super::why::{Choice, Why};
use crate::filename::FileNumber;
use crate::key::Span;
use crate::table::KeySketch;
use crate::version::{Place, RangeVersion, Slice, runs_of};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A keep reaches as far back in age as what came before is at most this many times what it has.
const KEEP_GROWTH: u64 = 2;
/// From this share of hidden entries on a keep pays by what it removes.
const SUPERSEDED_MUCH: f64 = 0.5;

/// About which share of the entries of `slices`, which are newest first, newer ones of them hide: 0
/// where their keys are not known.
///
/// A file has one sketch, in however many parts it is used: of the entries of a part as many are
/// hidden as of those of the whole file.
pub(crate) fn superseded(slices: &[Slice]) -> f64 {
    if slices.len() < 2 {
        return 0.0;
    }
    let mut files: Vec<(&Slice, u64)> = Vec::new();
    let mut at: BTreeMap<FileNumber, usize> = BTreeMap::new();
    for slice in slices {
        let at = *at.entry(slice.number()).or_insert(files.len());
        match files.get_mut(at) {
            Some((_, entries)) => *entries = entries.saturating_add(slice.entries()),
            None => files.push((slice, slice.entries())),
        }
    }
    let mut newer = KeySketch::default();
    let (mut known, mut there, mut hidden) = (0.0, 0.0, 0.0);
    for (slice, entries) in files {
        let keys = slice.table.keys.keys();
        newer.join(&slice.table.keys);
        let with = newer.keys();
        let share = entries as f64 / slice.table.entries.max(1) as f64;
        there += share * keys;
        hidden += share * (keys - (with - known));
        known = with;
    }
    let share = hidden / there;
    if share > 0.0 { share.min(1.0) } else { 0.0 }
}

fn bytes_of(slices: &[Slice]) -> u64 {
    slices.iter().fold(0, |sum, slice| sum.saturating_add(slice.file_bytes()))
}

/// One shard that has something.
pub(super) struct Shard {
    view: ShardView,
    /// Newest first.
    slices: Vec<Slice>,
    main: Vec<Slice>,
    /// Its parts that could be drained.
    windows: Vec<Window>,
    /// Keys of tombstones that are old: of its own, and of those of the level above that lie over
    /// it.
    old: Vec<(Bytes, Bytes)>,
}

/// What lies in the landing in front of one level of a range.
pub(super) struct Landing<'a> {
    range: &'a RangeVersion,
    level: u8,
    shards: Vec<Shard>,
    /// How much a drain of all of it is worth, however old it is.
    score: f64,
}

impl<'a> Landing<'a> {
    /// As it is at `now_ms`. `None` for one that is empty.
    pub(super) fn of(
        range: &'a RangeVersion,
        level: u8,
        situation: &Situation<'_>,
    ) -> Option<Self> {
        let layers = range.layers.landing(level);
        if layers.is_empty() {
            return None;
        }
        let shards: Vec<_> = layers
            .chunk_by(|a, b| a.place == b.place)
            .map(|layers| Shard::of(range, layers[0].place, layers.len(), situation))
            .collect();
        let bytes = shards.iter().map(|shard| shard.view.bytes).sum();
        let main = shards.iter().map(|shard| shard.view.main_bytes).sum();
        let score = backlog::drain_score(bytes, main, situation.options.drain_ratio, 0, false);
        let mut landing = Self { range, level, shards, score };
        for at in 0..landing.shards.len() {
            let (drain, keep) = landing.scores(&landing.shards[at], situation);
            let view = &mut landing.shards[at].view;
            (view.drain_score, view.keep_score) = (drain, keep);
        }
        Some(landing)
    }

    /// What is known of its shards.
    pub(super) fn views(&self) -> impl Iterator<Item = ShardView> {
        self.shards.iter().map(|shard| shard.view)
    }

    fn in_order(&self) -> impl Iterator<Item = &Shard> {
        let views: Vec<_> = self.views().collect();
        let order = backlog::order(&views);
        order.into_iter().filter_map(|n| self.shards.iter().find(|s| s.view.shard == n))
    }

    /// May one more merge of this landing run?
    fn has_room(&self, situation: &Situation<'_>, score: f64) -> bool {
        let base = situation.options.landing_parallelism.get();
        let most = backlog::parallelism(base, score, self.shards.len());
        situation.claims.merges_of_landing(self.range.id, self.level) < most
    }

    /// What is due, with its score: the drains, then the keeps, each by their shards' backlogs.
    pub(super) fn due(&self) -> Vec<(f64, Choice, u16)> {
        let mut due = Vec::new();
        for shard in self.in_order() {
            let ShardView { shard, drain_score, keep_score, .. } = shard.view;
            due.push((drain_score, Choice::Drain, shard));
            due.push((keep_score, Choice::Keep, shard));
        }
        due.retain(|(score, ..)| *score >= 1.0);
        due.sort_by(|a, b| b.0.total_cmp(&a.0));
        due
    }

    /// When something may be due because its shard has waited, in milliseconds since 1970: as long
    /// as anything comes, and that is to come; and while nothing does. `None` if never, or if it
    /// is.
    pub(super) fn next_due_ms(&self, situation: &Situation<'_>) -> (Option<u64>, Option<u64>) {
        let (mut waited, mut idle) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let came = situation.now_ms - shard.view.age_ms;
            let worth = shard.best_worth(situation, 0);
            let after = |idles| Some(came.saturating_add(backlog::due_after_ms(worth, idles)?));
            // From then on less is enough for a keep.
            let old = (shard.view.runs > 1).then(|| came.saturating_add(OLD_MS + 1));
            waited.extend(after(false).into_iter().chain(old));
            idle.extend(after(true));
        }
        waited.retain(|at| *at > situation.now_ms);
        (waited.into_iter().min(), idle.into_iter().min())
    }

    /// How urgent a drain and a keep of a shard are.
    fn scores(&self, shard: &Shard, situation: &Situation<'_>) -> (f64, f64) {
        let (options, view) = (situation.options, &shard.view);
        if options.landing_runs_max == 0 {
            // Landings were switched off: what lies there goes down, whatever it costs.
            return (f64::MAX, 0.0);
        }
        let mut drain = shard.best_worth(situation, view.age_ms);
        let trigger = backlog::keep_trigger(options.keep_trigger, self.score, view.age_ms);
        let mut keep = view.runs as f64 / options.landing_batch as f64 / trigger;
        if shard.view.superseded >= SUPERSEDED_MUCH && view.runs > options.landing_batch {
            keep = keep.max(1.0);
        }
        if options.keep_trigger.is_infinite() || view.runs < 2 {
            keep = 0.0;
        }
        if !shard.old.is_empty() {
            drain = drain.max(1.0);
        }
        if view.runs >= options.landing_runs_max {
            // Nothing more can land. If a keep cannot help, a drain has to, whatever it costs.
            drain = drain.max(1.0);
        }
        // Where a drain pays, it does more for a read than a keep.
        if drain >= 1.0 && view.superseded < SUPERSEDED_MUCH {
            keep *= 0.8;
        }
        if view.runs >= options.landing_runs_max && keep > 0.0 {
            // And if that drain cannot be had, because of a table that is set aside, a keep makes
            // room.
            keep = keep.max(1.0);
        }
        (drain, keep)
    }

    /// The merge of `choice` in a shard; `None` if it cannot be run now.
    pub(super) fn job(&self, choice: Choice, shard: u16, situation: &Situation<'_>) -> Option<Job> {
        let shard = self.shards.iter().find(|s| s.view.shard == shard)?;
        let ShardView { drain_score, keep_score, .. } = shard.view;
        let score = if choice == Choice::Keep { keep_score } else { drain_score };
        if !self.has_room(situation, score) {
            return None;
        }
        let job = if choice == Choice::Keep {
            self.keep(shard, situation, score)
        } else {
            self.drain(shard, situation, score, Choice::Drain)
        };
        job.filter(|job| situation.admits(job))
    }

    /// A merge of one part of it into the level, whatever that costs; `None` if none can be run
    /// now.
    pub(super) fn rest(&self, situation: &Situation<'_>) -> Option<Job> {
        let mut shards = self.in_order().filter(|_| self.has_room(situation, self.score));
        shards.find_map(|shard| self.drain(shard, situation, 1.0, Choice::Rest))
    }

    /// The part of the shard over which most has landed, with what it overlaps in the level.
    fn drain(
        &self,
        shard: &Shard,
        situation: &Situation<'_>,
        score: f64,
        choice: Choice,
    ) -> Option<Job> {
        let options = situation.options;
        let place = Place::Landing(self.level, shard.view.shard);
        let output = Place::Main(self.level);
        let mut windows: Vec<_> = shard.windows.iter().collect();
        let worth = |window: &Window| shard.worth(window, situation, 0);
        let is_old = |Window { span, .. }: &Window| {
            shard.old.iter().any(|(min, max)| span.overlaps_closed(min, max))
        };
        windows
            .sort_by(|a, b| is_old(b).cmp(&is_old(a)).then_with(|| worth(b).total_cmp(&worth(a))));
        windows.into_iter().find_map(|&Window { ref span, bytes, main_bytes, .. }| {
            let touched = |slice: &&Slice| span.overlaps_closed(slice.min_key(), slice.max_key());
            let target = main_bytes / options.drain_ratio;
            let most = options.landing_batch;
            let batch = match choice {
                // Nothing else is going to come, so it is to be rewritten once.
                Choice::Rest => shard.slices.len(),
                _ => backlog::batch(most, bytes as u64, target, shard.slices.len()),
            };
            // INVARIANT(oldest-closed): from the oldest on, a prefix is closed under "older and
            // overlapping".
            let oldest = shard.slices.iter().rev().filter(touched);
            let free = oldest.take_while(|slice| !situation.is_set_aside(slice));
            let mut slices: Vec<_> = free.take(batch).cloned().collect();
            slices.reverse();
            if slices.is_empty() {
                return None;
            }
            let runs = slices.len();
            let superseded = superseded(&slices);
            let mut inputs = vec![Inputs { place, slices }];
            let main: Vec<_> = shard.main.iter().filter(touched).cloned().collect();
            if !main.is_empty() {
                inputs.push(Inputs { place: output, slices: main });
            }
            let bytes = bytes as u64;
            let why = Why { choice, score, bytes, target_bytes: main_bytes, runs, superseded };
            let job = Job::inside(self.range, inputs, output, span.clone()).because(why);
            situation.admits(&job).then_some(job)
        })
    }

    /// Neighbours in age, from the newest on: a batch of runs, and what came before it as long as
    /// that is not much larger than what there is. What is large was merged before. What has the
    /// same epoch goes or stays together: the result gets the epoch of the oldest, and sequence
    /// numbers do not tell whether it is newer than what stayed.
    fn keep(&self, shard: &Shard, situation: &Situation<'_>, score: f64) -> Option<Job> {
        let place = Place::Landing(self.level, shard.view.shard);
        // One run would be one run again.
        let batch = situation.options.landing_batch.max(2);
        let epoch = |slice: &Slice| slice.landed.map(|landed| landed.epoch);
        let is_set_aside = |slice: &Slice| situation.is_set_aside(slice);
        let newest = shard.slices.iter().take_while(|slice| is_set_aside(slice)).count();
        let mut slices: Vec<Slice> = Vec::new();
        for came in shard.slices[newest..].chunk_by(|a, b| epoch(a) == epoch(b)) {
            let large = bytes_of(came) > KEEP_GROWTH.saturating_mul(bytes_of(&slices));
            let is_enough = || runs_of(place, slices.clone()).len() >= batch;
            if came.iter().any(is_set_aside) || (large && is_enough()) {
                break;
            }
            slices.extend_from_slice(came);
        }
        let runs = runs_of(place, slices.clone()).len();
        if runs < 2 || self.is_over_older_l0(&slices) {
            return None;
        }
        let superseded = superseded(&slices);
        let (bytes, target_bytes) = (bytes_of(&slices), shard.view.main_bytes);
        let why = Why { choice: Choice::Keep, score, bytes, target_bytes, runs, superseded };
        let job = Job::new(self.range, vec![Inputs { place, slices }], place);
        Some(job.because(why))
    }

    /// Would what `slices` are merged into lie over a table that had to stay in L0, and is older?
    /// They share no key with it, but that could not be seen any more.
    fn is_over_older_l0(&self, slices: &[Slice]) -> bool {
        let min = slices.iter().map(|slice| slice.min_key()).min();
        let max = slices.iter().map(|slice| slice.max_key()).max();
        let (Some(min), Some(max)) = (min, max) else { return false };
        let newest = slices.iter().map(|slice| slice.max_seqno()).max();
        let l0 = self.range.overlapping(Place::L0, min, max);
        self.level == 1 && l0.iter().any(|slice| Some(slice.max_seqno()) < newest)
    }
}

/// A part of a shard.
struct Window {
    span: Span,
    main_bytes: u64,
    /// About how much of the landing it has.
    bytes: f64,
    /// Has it a table of the level that cannot be merged?
    is_set_aside: bool,
}

impl Shard {
    fn worth(&self, window: &Window, situation: &Situation<'_>, age_ms: u64) -> f64 {
        // What is hidden goes in any case: it is no reason to rewrite the level.
        let bytes = window.bytes * (1.0 - self.view.superseded);
        let (main, ratio) = (window.main_bytes, situation.options.drain_ratio);
        backlog::drain_score(bytes as u64, main, ratio, age_ms, situation.idles())
    }

    /// That of the window which is worth the most.
    fn best_worth(&self, situation: &Situation<'_>, age_ms: u64) -> f64 {
        let worth = |window| self.worth(window, situation, age_ms);
        self.windows.iter().map(worth).fold(0.0, f64::max)
    }

    /// Divides the shard into parts, each with some neighbouring tables of the level: a drain of
    /// one rewrites no more than `drain_bytes_max`, unless a single table has more. A table that is
    /// set aside has a window for itself, just as wide as it is, and that is left out: what lies
    /// beside it goes on.
    fn divide(&mut self, situation: &Situation<'_>) {
        let most = situation.options.drain_bytes_max();
        // Each ends where the next one begins.
        let window = |lo: Bytes| Window {
            span: Span { lo, hi: None },
            main_bytes: 0,
            bytes: 0.0,
            is_set_aside: false,
        };
        let mut windows = vec![window(Bytes::new())];
        for slice in &self.main {
            let is_set_aside = situation.is_set_aside(slice);
            let bytes = slice.file_bytes();
            match windows.last_mut() {
                Some(last)
                    if !is_set_aside
                        && (last.main_bytes == 0 || last.main_bytes + bytes <= most) =>
                {
                    last.main_bytes += bytes;
                }
                _ => {
                    let of = window(slice.min_key().clone());
                    windows.push(Window { main_bytes: bytes, is_set_aside, ..of });
                }
            }
            if is_set_aside {
                windows.push(window(successor(slice.max_key())));
            }
        }
        for at in 1..windows.len() {
            windows[at - 1].span.hi = Some(windows[at].span.lo.clone());
        }
        for slice in &self.slices {
            let touched = windows
                .iter_mut()
                .filter(|window| window.span.overlaps_closed(slice.min_key(), slice.max_key()));
            let mut touched: Vec<_> = touched.collect();
            let all: u64 = touched.iter().map(|window| window.main_bytes).sum();
            let count = touched.len() as f64;
            for window in &mut touched {
                // The level shows how keys spread.
                let share = match all {
                    0 => 1.0 / count,
                    all => window.main_bytes as f64 / all as f64,
                };
                window.bytes += slice.file_bytes() as f64 * share;
            }
        }
        windows.retain(|window| !window.is_set_aside && !window.span.is_empty());
        self.windows = windows;
    }

    fn of(range: &RangeVersion, place: Place, runs: usize, situation: &Situation<'_>) -> Self {
        let slices = range.layers.in_order(place);
        let min = slices.iter().map(|slice| slice.min_key()).min().expect("it has a slice");
        let max = slices.iter().map(|slice| slice.max_key()).max().expect("it has a slice");
        let main = range.overlapping(Place::Main(place.level()), min, max);
        let landed = slices.iter().filter_map(|slice| slice.landed).map(|landed| landed.at_ms);
        let oldest = landed.min().unwrap_or(situation.now_ms);
        let entries: u64 = slices.iter().map(|slice| slice.entries()).sum();
        let tombstones: u64 = slices.iter().map(|slice| slice.tombstones()).sum();
        let superseded = superseded(&slices);
        let view = ShardView {
            shard: if let Place::Landing(_, shard) = place { shard } else { 0 },
            runs,
            tables: slices.len(),
            bytes: bytes_of(&slices),
            entries,
            // The clock may have been set back.
            age_ms: situation.now_ms.saturating_sub(oldest),
            density: superseded + tombstones as f64 / entries.max(1) as f64,
            main_bytes: bytes_of(&main),
            superseded,
            drain_score: 0.0,
            keep_score: 0.0,
        };
        let above = range.overlapping(Place::Main(place.level() - 1), min, max);
        let over =
            |dead: &&Slice| slices.iter().any(|s| s.overlaps(dead.min_key(), dead.max_key()));
        let old = slices.iter().chain(above.iter().filter(over));
        let old = old.filter(|slice| has_old_tombstone(slice, situation));
        let old = old.map(|slice| (slice.min_key().clone(), slice.max_key().clone())).collect();
        let mut shard = Self { view, slices, main, windows: Vec::new(), old };
        shard.divide(situation);
        shard
    }
}

/// The first key after `key`.
fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

#[cfg(test)]
mod tests;
