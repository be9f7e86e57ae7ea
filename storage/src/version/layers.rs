//! The one order, newest first, of what a range has on disk (INVARIANT(one-layer-order)).
//!
//! Compaction picks and `check` walk this list; reads walk a list derived from it. No other order
//! exists. A layer is one sorted run in its place, and is never empty. The order is:
//!
//! 1. L0, newest run first.
//! 2. For each level, the runs of its landing, shard by shard and newest first; then its main run.
//!
//! INVARIANT(newest-layer-first): a reader that walks the list may stop at its first hit.
//!
//! The shards of a landing share no key. So a reader concatenates the newest runs of all shards,
//! then the second newest of all shards, and so on. It visits as many runs as the deepest shard
//! has, whatever the number of shards.

use super::place::Place;
use super::run::Run;
use super::slice::{Slice, SliceName};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

/// A sorted run and its place.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its place.
    pub place: Place,
    /// Its tables; not empty.
    pub run: Run,
}

/// All layers of a range, newest first. Derefs to a slice of layers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    layers: Arc<[Layer]>,
    runs: Arc<[Run]>,
}

impl Layers {
    fn new(layers: Vec<Layer>) -> Self {
        let runs = reading_runs(&layers);
        Self { layers: layers.into(), runs: runs.into() }
    }

    /// The runs that a reader searches, newest first.
    #[inline]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The layers of one place, newest first: any number in a tier, at most one in a level.
    pub fn at(&self, place: Place) -> &[Layer] {
        let start = self.layers.partition_point(|layer| layer.place < place);
        let count = self.layers[start..].partition_point(|layer| layer.place == place);
        &self.layers[start..start + count]
    }

    /// The layers of the landing in front of a level: shard by shard, newest first in each.
    pub fn landing(&self, level: u8) -> &[Layer] {
        let start = self.layers.partition_point(|layer| layer.place < Place::Landing(level, 0));
        let count = self.layers[start..].partition_point(|layer| layer.place < Place::Main(level));
        &self.layers[start..start + count]
    }

    /// The run of a level; `None` if the level is empty.
    pub fn main(&self, level: u8) -> Option<&Run> {
        self.at(Place::Main(level)).first().map(|layer| &layer.run)
    }

    /// All slices with their places.
    pub fn slices(&self) -> impl Iterator<Item = (Place, &Slice)> {
        self.layers
            .iter()
            .flat_map(|layer| layer.run.slices().iter().map(|slice| (layer.place, slice)))
    }

    /// The slices in one place, newest first in a tier, in key order in a level.
    pub fn in_order(&self, place: Place) -> Vec<Slice> {
        let runs = self.at(place).iter();
        let mut slices: Vec<_> =
            runs.flat_map(|layer| layer.run.slices().iter().cloned()).collect();
        if place.is_tier() {
            sort_by_age(&mut slices);
        }
        slices
    }

    /// The number of slices in one place.
    pub fn count(&self, place: Place) -> usize {
        self.at(place).iter().map(|layer| layer.run.slices().len()).sum()
    }

    /// The places that are not empty.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.layers.chunk_by(|a, b| a.place == b.place).map(|layers| layers[0].place)
    }

    /// These layers, with the contents of the changed places replaced.
    pub(crate) fn with_places(&self, changed: BTreeMap<Place, Vec<Slice>>) -> Self {
        if changed.is_empty() {
            return self.clone();
        }
        let stay = self.layers.iter().filter(|layer| !changed.contains_key(&layer.place));
        let mut layers: Vec<_> = stay.cloned().collect();
        for (place, slices) in changed {
            layers.extend(runs_of(place, slices).into_iter().map(|run| Layer { place, run }));
        }
        // The sort is stable: runs of one place keep their order.
        layers.sort_by_key(|layer| layer.place);
        Self::new(layers)
    }

    /// These layers, with the contents of `place` replaced by `slices`.
    pub(crate) fn with(&self, place: Place, slices: Vec<Slice>) -> Self {
        self.with_places([(place, slices)].into())
    }

    /// The slice with this name in `place`.
    pub fn find(&self, place: Place, name: &SliceName) -> Option<&Slice> {
        let mut slices = self.at(place).iter().flat_map(|layer| layer.run.slices().iter());
        slices.find(|slice| slice.number() == name.table && *slice.min_key() == name.min_key)
    }
}

impl Deref for Layers {
    type Target = [Layer];

    #[inline]
    fn deref(&self) -> &[Layer] {
        &self.layers
    }
}

/// The runs in the order in which a reader searches them.
fn reading_runs(layers: &[Layer]) -> Vec<Run> {
    let mut runs = Vec::with_capacity(layers.len());
    for level in layers.chunk_by(|a, b| a.place.is_landing_of(b.place)) {
        let shards: Vec<_> = level.chunk_by(|a, b| a.place == b.place).collect();
        let depth = shards.iter().map(|shard| shard.len()).max().unwrap_or(0);
        for at in 0..depth {
            let here: Vec<_> = shards.iter().filter_map(|shard| shard.get(at)).collect();
            runs.push(if let [only] = here[..] {
                only.run.clone()
            } else {
                Run::new(here.iter().flat_map(|l| l.run.slices().iter().cloned()).collect())
            });
        }
    }
    runs
}

/// Groups the slices of one place into runs.
///
/// In L0 and in landings, slices that are neighbours in age and do not overlap share a run. So
/// wherever two runs overlap, all entries of the first one are newer. A flush that is cut at shard
/// bounds writes several tables that do not overlap. They form one run, and cost a reader or a
/// merge what one table costs. Therefore the number of runs, not of files, triggers compactions and
/// makes flushes wait.
pub(crate) fn runs_of(place: Place, mut slices: Vec<Slice>) -> Vec<Run> {
    if slices.is_empty() {
        return Vec::new();
    }
    if !place.is_tier() {
        slices.sort_by(|a, b| a.min_key().cmp(b.min_key()));
        return vec![Run::new(slices)];
    }
    sort_by_age(&mut slices);
    let mut runs: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        match runs.last_mut().and_then(|run| Some((position_in(run, &slice)?, run))) {
            Some((at, run)) => run.insert(at, slice),
            None => runs.push(vec![slice]),
        }
    }
    runs.into_iter().map(Run::new).collect()
}

/// Newest first.
fn sort_by_age(slices: &mut [Slice]) {
    slices.sort_by(|a, b| b.age().cmp(&a.age()).then_with(|| a.min_key().cmp(b.min_key())));
}

/// The position of `slice` in a sorted run; `None` if it overlaps a slice of the run.
fn position_in(run: &[Slice], slice: &Slice) -> Option<usize> {
    let at = run.partition_point(|other| other.max_key() < slice.min_key());
    run.get(at).is_none_or(|next| slice.max_key() < next.min_key()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::super::testing::slice;
    use super::*;

    fn numbers(slices: &[Slice]) -> Vec<u64> {
        slices.iter().map(|slice| slice.number().0).collect()
    }

    fn runs_of(layers: &Layers, place: Place) -> Vec<Vec<u64>> {
        layers.at(place).iter().map(|layer| numbers(layer.run.slices())).collect()
    }

    #[test]
    fn pieces_of_one_flush_are_one_run() {
        let slices = vec![
            slice(8, b"a", b"c", 1),
            slice(9, b"m", b"z", 1),
            slice(6, b"d", b"f", 1),
            slice(7, b"x", b"y", 1),
        ];
        let layers = Layers::default().with(Place::L0, slices);
        assert_eq!(runs_of(&layers, Place::L0), [vec![8, 9], vec![6, 7]]);
        assert_eq!(numbers(&layers.in_order(Place::L0)), [9, 8, 7, 6]);
        assert_eq!((layers.count(Place::L0), layers.at(Place::L0).len()), (4, 2));
    }

    #[test]
    fn x_21_an_older_table_never_gets_before_a_newer_one_that_it_overlaps() {
        // 7 overlaps 8; 6 overlaps neither. But 6 must not join the first run: a reader would then
        // search it before 7, which is newer.
        let slices =
            vec![slice(6, b"x", b"z", 1), slice(7, b"b", b"c", 1), slice(8, b"a", b"f", 1)];
        let layers = Layers::default().with(Place::L0, slices);
        assert_eq!(runs_of(&layers, Place::L0), [vec![8], vec![7, 6]]);
    }

    /// Planted: runs of landings of different levels are mixed; shards are read one after another.
    #[test]
    fn readers_meet_as_many_runs_as_the_deepest_shard_has() {
        let layers = Layers::default()
            .with(Place::L0, vec![slice(9, b"a", b"z", 1)])
            .with(Place::Landing(1, 0), vec![slice(8, b"a", b"c", 1), slice(7, b"b", b"d", 1)])
            .with(Place::Landing(1, 2), vec![slice(6, b"m", b"p", 1)])
            .with(Place::Landing(1, 3), vec![slice(5, b"q", b"z", 1), slice(4, b"r", b"s", 1)])
            .with(Place::Main(1), vec![slice(3, b"a", b"z", 1)])
            .with(Place::Landing(2, 0), vec![slice(2, b"a", b"c", 1)])
            .with(Place::Main(2), vec![slice(1, b"a", b"z", 1)]);
        let runs: Vec<_> = layers.runs().iter().map(|run| numbers(run.slices())).collect();
        let want: [&[u64]; 6] = [&[9], &[8, 6, 5], &[7, 4], &[3], &[2], &[1]];
        assert_eq!(runs, want);
        assert_eq!(layers.landing(1).len(), 5);
        assert_eq!(layers.landing(3).len(), 0);
    }

    #[test]
    fn places_come_in_reading_order_whatever_came_first() {
        let of = |number| vec![slice(number, b"a", b"c", 1)];
        let layers = Layers::default()
            .with(Place::Main(2), of(1))
            .with(Place::Main(1), of(2))
            .with(Place::L0, of(6))
            .with(Place::Landing(2, 1), of(3))
            .with(Place::Landing(1, 0), of(5))
            .with(Place::Landing(2, 0), of(4));
        let order: Vec<_> = layers.slices().map(|(_, slice)| slice.number().0).collect();
        assert_eq!(order, [6, 5, 2, 4, 3, 1]);
        assert_eq!(layers.places().count(), 6);
        assert_eq!(layers.landing(2).len(), 2);
        let without = layers.with(Place::Main(1), Vec::new());
        assert_eq!(without.places().count(), 5);
        assert!(without.main(1).is_none() && without.main(2).is_some());
    }
}
