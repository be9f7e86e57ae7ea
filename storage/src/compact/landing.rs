//! The jobs of a landing's shards: drains into the level behind it, and keeps within it.
//!
//! A landing takes tables by an edit alone, so a burst of writes costs no rewrite. The price is
//! paid later, in one of two ways. A *drain* merges a part of a shard with what it overlaps in the
//! level. It pays when much has landed over few bytes of the level. A *keep* merges neighbours in
//! age within the shard. It pays when a read searches many runs, or when the runs supersede each
//! other's entries, while a rewrite of the level is still too expensive.

use super::backlog::{self, OLD_MS, ShardView};
use super::claims::Claims;
use super::job::{Inputs, Job};
use super::options::CompactionOptions;
use super::pick::Situation;
use super::rewrite::has_old_tombstone;
use super::why::{Choice, Why};
use crate::filename::FileNumber;
use crate::key::Span;
use crate::table::KeySketch;
use crate::version::{Place, RangeVersion, Slice, runs_of};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A keep extends to older slices while the next ones have at most this many times the bytes that
/// it already takes.
const KEEP_GROWTH: u64 = 2;
/// If at least this share of a shard's entries is superseded, a keep pays by what it removes.
const SUPERSEDED_MUCH: f64 = 0.5;

/// The estimated share of the entries of `slices`, newest first, that newer ones of them supersede.
/// 0 if the sketches of their keys are empty.
///
/// A file has one sketch, even if several slices use parts of it. The superseded share of a part is
/// taken to be that of the whole file.
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

/// A shard that is not empty.
pub(super) struct Shard {
    view: ShardView,
    /// Newest first.
    slices: Vec<Slice>,
    main: Vec<Slice>,
    /// The parts of the shard that can be drained.
    windows: Vec<Window>,
    /// The key bounds of slices with old tombstones: in this shard, and in the level above where it
    /// overlaps this shard.
    old: Vec<(Bytes, Bytes)>,
}

/// The landing in front of one level of a range.
pub(super) struct Landing<'a> {
    range: &'a RangeVersion,
    level: u8,
    shards: Vec<Shard>,
    /// The drain score of the whole landing, without regard to age.
    score: f64,
}

impl<'a> Landing<'a> {
    /// The landing as it is at `now_ms`; `None` if it is empty.
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

    /// What is due, with its score, the most urgent first. Equal scores are ordered by the backlogs
    /// of their shards.
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

    /// When a shard may become due by age alone, in milliseconds since 1970. The first result holds
    /// while tables keep arriving, and lies in the future; the second holds while the database
    /// idles. `None` if there is no such time.
    pub(super) fn next_due_ms(&self, situation: &Situation<'_>) -> (Option<u64>, Option<u64>) {
        let (mut waited, mut idle) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let came = situation.now_ms - shard.view.age_ms;
            let worth = shard.best_worth(situation, 0);
            let after = |idles| Some(came.saturating_add(backlog::due_after_ms(worth, idles)?));
            // An old shard is kept with fewer runs.
            let old = (shard.view.runs > 1).then(|| came.saturating_add(OLD_MS + 1));
            waited.extend(after(false).into_iter().chain(old));
            idle.extend(after(true));
        }
        waited.retain(|at| *at > situation.now_ms);
        (waited.into_iter().min(), idle.into_iter().min())
    }

    /// The scores of a drain and of a keep of a shard.
    fn scores(&self, shard: &Shard, situation: &Situation<'_>) -> (f64, f64) {
        let (options, view) = (situation.options, &shard.view);
        if options.landing_runs_max == 0 {
            // Landings were switched off: drain them, whatever it costs.
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
            // Nothing more can land. If a keep does not help, a drain must, whatever it costs.
            drain = drain.max(1.0);
            // It is as urgent as what waits for it, whichever of the two is due.
            let waits = self.waiting(shard, options);
            if view.superseded < SUPERSEDED_MUCH {
                drain = drain.max(waits);
            } else if keep >= 1.0 {
                keep = keep.max(waits);
            }
        }
        // Where a drain pays, it saves reads more than a keep does.
        if drain >= 1.0 && view.superseded < SUPERSEDED_MUCH {
            keep *= 0.8;
        }
        if view.runs >= options.landing_runs_max && keep > 0.0 {
            // The drain may be impossible because of a table that is set aside. Then a keep makes
            // room.
            keep = keep.max(1.0);
        }
        (drain, keep)
    }

    /// The runs of L0 that cannot land before there is room in this shard, as multiples of those
    /// from which L0 is due.
    fn waiting(&self, shard: &Shard, options: &CompactionOptions) -> f64 {
        let at = usize::from(shard.view.shard);
        let is_over = |slice: &Slice| {
            self.range.shards.touched(slice.min_key(), slice.max_key()).contains(&at)
        };
        let l0 = if self.level == 1 { self.range.layers.at(Place::L0) } else { &[] };
        let runs = l0.iter().filter(|layer| layer.run.slices().iter().any(is_over)).count();
        runs as f64 / options.l0_trigger as f64
    }

    /// The merge of `choice` in a shard; `None` if it cannot run now.
    pub(super) fn job(&self, choice: Choice, shard: u16, situation: &Situation<'_>) -> Option<Job> {
        let shard = self.shards.iter().find(|s| s.view.shard == shard)?;
        let ShardView { drain_score, keep_score, .. } = shard.view;
        let score = if choice == Choice::Keep { keep_score } else { drain_score };
        if !self.has_room(situation, score) {
            return None;
        }
        let job = if choice == Choice::Keep {
            if self.is_drained_soon(shard, situation) {
                return None;
            }
            self.keep(shard, situation, score)
        } else {
            self.drain(shard, situation, score, Choice::Drain)
        };
        job.filter(|job| situation.admits(job))
    }

    /// Will a drain merge the shard as soon as it gets its turn? Then a keep before it would write
    /// every byte once more. Where much is superseded, a keep pays by what it drops. Where nothing
    /// more can land, the drain's turn must be now.
    fn is_drained_soon(&self, shard: &Shard, situation: &Situation<'_>) -> bool {
        let ShardView { drain_score, superseded, runs, .. } = shard.view;
        let nothing = Claims::new();
        let full = runs >= situation.options.landing_runs_max;
        let claims = if full { situation.claims } else { &nothing };
        let then = Situation { claims, ..*situation };
        drain_score >= 1.0
            && superseded < SUPERSEDED_MUCH
            && self.drain(shard, &then, drain_score, Choice::Drain).is_some()
    }

    /// Merges one part of the landing into the level, whatever the cost. `None` if no merge can run
    /// now.
    pub(super) fn rest(&self, situation: &Situation<'_>) -> Option<Job> {
        let mut shards = self.in_order().filter(|_| self.has_room(situation, self.score));
        shards.find_map(|shard| self.drain(shard, situation, 1.0, Choice::Rest))
    }

    /// Drains the part of a shard that is worth the most, with what it overlaps in the level.
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
                // No more tables will arrive, so each table of the level is rewritten only once.
                Choice::Rest => shard.slices.len(),
                _ => backlog::batch(most, bytes as u64, target, shard.slices.len()),
            };
            // INVARIANT(oldest-closed): counted from the oldest, every prefix is closed under
            // "older and overlapping".
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

    /// Keeps a shard: merges neighbours in age, from the newest on. It takes a batch of runs, and
    /// older slices as long as they are not much larger than what it already takes; large slices
    /// are the result of earlier merges. Slices of the same epoch are taken together or not at all:
    /// the output gets the epoch of the oldest input, and sequence numbers do not tell whether it
    /// is newer than a slice that stayed.
    fn keep(&self, shard: &Shard, situation: &Situation<'_>, score: f64) -> Option<Job> {
        let place = Place::Landing(self.level, shard.view.shard);
        // A keep of one run would achieve nothing.
        let batch = situation.options.landing_batch.max(2);
        let epoch = |slice: &Slice| slice.landed.map(|landed| landed.epoch);
        let is_set_aside = |slice: &Slice| situation.is_set_aside(slice);
        let mut slices: Vec<Slice> = Vec::new();
        for came in shard.slices.chunk_by(|a, b| epoch(a) == epoch(b)) {
            if came.iter().any(is_set_aside) {
                if slices.is_empty() {
                    continue;
                }
                break;
            }
            let large = bytes_of(came) > KEEP_GROWTH.saturating_mul(bytes_of(&slices));
            let is_enough = || runs_of(place, slices.clone()).len() >= batch;
            if large && is_enough() {
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

    /// Would the output of merging `slices` overlap an older table that had to stay in L0? The
    /// slices themselves share no key with that table, but the output's bounds no longer show it.
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
    /// The estimated bytes of the landing inside the window.
    bytes: f64,
    /// Does it consist of a table of the level that cannot be merged?
    is_set_aside: bool,
}

impl Shard {
    fn worth(&self, window: &Window, situation: &Situation<'_>, age_ms: u64) -> f64 {
        // Superseded entries are removed in any case, so they do not justify a rewrite of the
        // level.
        let bytes = window.bytes * (1.0 - self.view.superseded);
        let (main, ratio) = (window.main_bytes, situation.options.drain_ratio);
        backlog::drain_score(bytes as u64, main, ratio, age_ms, situation.idles())
    }

    /// The worth of the best window.
    fn best_worth(&self, situation: &Situation<'_>, age_ms: u64) -> f64 {
        let worth = |window| self.worth(window, situation, age_ms);
        self.windows.iter().map(worth).fold(0.0, f64::max)
    }

    /// Divides the shard into windows, each with adjacent tables of the level. A window ends with
    /// the table that makes its tables reach `overlap_bytes_max`. A table that is set aside gets a
    /// window exactly as wide as itself, and that window is dropped. So the keys beside it can
    /// still be drained.
    fn divide(&mut self, situation: &Situation<'_>) {
        let most = situation.options.overlap_bytes_max();
        // A window ends where the next one begins.
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
                Some(last) if !is_set_aside && last.main_bytes < most => {
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
                // The level is taken to show how the keys are spread.
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
