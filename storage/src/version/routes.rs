//! Edits that change the routes: a range is split at a key, or two ranges are merged.
//!
//! No byte is copied. A table with keys on both sides is cut into slices of one file
//! (INVARIANT(slices-share-files)). All other tables only move to another range. These edits say
//! nothing about memtables.

use super::{NewRange, Place, RangeId, RangeVersion, Shards, Version, VersionEdit};
use crate::error::Result;
use crate::key::{Seqno, Span};
use crate::keyspace::KeyspaceId;
use bytes::Bytes;

impl RangeVersion {
    /// The edit that splits this range at `at`, a key inside it, into the ranges `ids`. Each of
    /// them keeps the shard bounds inside its span. Blocks on the disk: it reads the tables that
    /// have keys on both sides.
    ///
    /// # Errors
    /// As `Slice::cut`.
    pub fn split(&self, at: &Bytes, ids: [RangeId; 2]) -> Result<VersionEdit> {
        let [left, right] = self.span.parted(at).expect("the key lies inside the range");
        let parts = [left, right].map(|span| (self.shards.within(&span), span));
        let mut edit = VersionEdit { ranges_removed: vec![self.id], ..VersionEdit::default() };
        for (id, (shards, span)) in ids.iter().zip(&parts) {
            edit.ranges_added.push(NewRange {
                id: *id,
                keyspace: self.keyspace,
                span: span.clone(),
                shards: shards.clone(),
            });
            edit.flushed.push((*id, self.flushed_seqno));
        }
        for (place, slice) in self.layers.slices() {
            edit.deleted.push((self.id, place, slice.name()));
            for piece in slice.cut(std::slice::from_ref(at))? {
                let side = usize::from(piece.min_key() >= at);
                let place = parts[side].0.place(place, piece.min_key());
                edit.added.push((ids[side], place, piece.meta().clone()));
            }
        }
        Ok(edit)
    }

    /// The edit that merges this range and its right neighbour `next` into the range `id`. The
    /// tables of both must have every entry up to `flushed`, and none above it. If both together
    /// have more than `shards_max` shards, neighbouring shards are joined.
    pub fn merge(
        &self,
        next: &Self,
        id: RangeId,
        flushed: Seqno,
        shards_max: usize,
    ) -> VersionEdit {
        assert_eq!(self.span.hi.as_ref(), Some(&next.span.lo), "they are neighbours");
        assert_eq!(self.keyspace, next.keyspace, "they are neighbours");
        let keyspace = self.keyspace;
        let span = Span { lo: self.span.lo.clone(), hi: next.span.hi.clone() };
        let shards = self.shards.joined(&next.span.lo, &next.shards, shards_max);
        let mut edit = VersionEdit {
            ranges_removed: vec![self.id, next.id],
            ranges_added: vec![NewRange { id, keyspace, span, shards: shards.clone() }],
            flushed: vec![(id, flushed)],
            ..VersionEdit::default()
        };
        for range in [self, next] {
            for (place, slice) in range.layers.slices() {
                edit.deleted.push((range.id, place, slice.name()));
                let place = shards.place(place, slice.min_key());
                edit.added.push((id, place, slice.meta().clone()));
            }
        }
        edit
    }
}

impl Version {
    /// The edit that drops a keyspace with all its ranges and tables. No table is read. `None` if
    /// the keyspace does not exist.
    pub fn without_keyspace(&self, id: KeyspaceId) -> Option<VersionEdit> {
        let theirs = self.ranges().iter().filter(|range| range.keyspace == id);
        let mut edit = VersionEdit { keyspaces_removed: vec![id], ..VersionEdit::default() };
        for range in theirs {
            edit.ranges_removed.push(range.id);
            let slices = range.layers.slices();
            edit.deleted.extend(slices.map(|(place, slice)| (range.id, place, slice.name())));
        }
        (!edit.ranges_removed.is_empty()).then_some(edit)
    }
}

impl Shards {
    /// Maps `place` to these shards, for a slice that starts at `key`.
    fn place(&self, place: Place, key: &[u8]) -> Place {
        match place {
            Place::Landing(level, _) => {
                let shard = u16::try_from(self.index(key)).expect("there are few shards");
                Place::Landing(level, shard)
            }
            Place::L0 | Place::Main(_) => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::super::testing::version_of;
    use super::super::{Landed, Slice, SliceMeta, TableCache, TableLimits};
    use super::*;
    use crate::compact::TableSink;
    use crate::filename::FileNumber;
    use crate::key::Kind;
    use crate::table::{BlockCache, TableOptions};
    use crate::vfs::{MemVfs, Vfs};
    use std::path::Path;
    use std::sync::Arc;

    const AT: Bytes = Bytes::from_static(b"m");

    /// Writes tables.
    struct Tables(Arc<dyn Vfs>, Arc<TableCache>);

    impl Tables {
        fn new() -> Self {
            let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
            vfs.create_dir_all(Path::new("/db")).unwrap();
            let blocks = BlockCache::new(1 << 20);
            let limits = TableLimits { open_max: 8, memory_bytes_max: 1 << 20, blocks };
            let cache = TableCache::new(&vfs, Path::new("/db"), [1; 16], limits);
            Self(vfs, cache)
        }

        fn slice(&self, number: u64, keys: &[&str]) -> Slice {
            let options = TableOptions::default();
            let take = move || FileNumber(number);
            let mut sink = TableSink::new(&self.0, Path::new("/db"), [1; 16], options, take);
            for key in keys {
                sink.add(key.as_bytes(), Seqno(number), Kind::Put, b"v").unwrap();
            }
            let table = Arc::new(sink.finish().unwrap().remove(0));
            Slice::whole(&self.1.handle(table))
        }
    }

    fn landed(slice: &Slice, epoch: u64) -> Slice {
        let landed = Some(Landed { epoch, at_ms: 7 });
        Slice::new(SliceMeta { landed, ..slice.meta().clone() }, Arc::clone(slice.handle()))
    }

    /// One range of three shards, with something in every kind of place.
    fn version() -> Version {
        let tables = Tables::new();
        let l0 = vec![tables.slice(5, &["c", "p"]), tables.slice(4, &["a", "b"])];
        let main = vec![tables.slice(1, &["a", "k", "l"]), tables.slice(2, &["m", "z"])];
        let mut range = RangeVersion::clone(&version_of(l0, vec![main]).ranges()[0]);
        range.flushed_seqno = Seqno(100);
        let bounds = vec![Bytes::from_static(b"g"), Bytes::from_static(b"t")];
        range.shards = Shards::at(&range.span, bounds).unwrap();
        let in_landing = vec![landed(&tables.slice(3, &["h", "l", "n"]), 3)];
        range.layers = range.layers.with(Place::Landing(1, 1), in_landing);
        Version::new(vec![Arc::new(range)], Arc::clone(tables.1.obsolete_files()))
    }

    fn shape(version: &Version) -> Vec<(u32, Place, u64, String, String)> {
        let text = |key: &Bytes| String::from_utf8(key.to_vec()).unwrap();
        let slices = version.slices().map(|(range, place, slice)| {
            let (min, max) = (text(slice.min_key()), text(slice.max_key()));
            (range.0, place, slice.number().0, min, max)
        });
        let mut shape: Vec<_> = slices.collect();
        shape.sort();
        shape
    }

    /// Planted: a slice with keys on both sides goes to the left range as a whole.
    #[test]
    fn t002_09_a_range_parts_into_slices_of_what_it_has() {
        let whole = version();
        let edit = whole.ranges()[0].split(&AT, [RangeId(8), RangeId(9)]).unwrap();
        let parted = whole.apply(&edit, &[]).unwrap();
        check(&parted).unwrap();
        let wanted = [
            (8, Place::L0, 4, "a", "b"),
            (8, Place::L0, 5, "c", "c"),
            (8, Place::Landing(1, 1), 3, "h", "l"),
            (8, Place::Main(1), 1, "a", "l"),
            (9, Place::L0, 5, "p", "p"),
            (9, Place::Landing(1, 0), 3, "n", "n"),
            (9, Place::Main(1), 2, "m", "z"),
        ];
        let wanted = wanted.map(|(range, place, table, min, max)| {
            (range, place, table, min.to_owned(), max.to_owned())
        });
        let mut wanted = wanted.to_vec();
        wanted.sort();
        assert_eq!(shape(&parted), wanted);
        let shards = |at: usize| parted.ranges()[at].shards.bounds().to_vec();
        assert_eq!((shards(0), shards(1)), (vec!["g".into()], vec![Bytes::from_static(b"t")]));
        assert!(parted.ranges().iter().all(|range| range.flushed_seqno == Seqno(100)));
    }

    #[test]
    fn t002_09_what_was_parted_becomes_one_again() {
        let whole = version();
        let split = whole.ranges()[0].split(&AT, [RangeId(8), RangeId(9)]).unwrap();
        let parted = whole.apply(&split, &[]).unwrap();
        let [left, right] = parted.ranges() else { panic!("two") };
        for (shards_max, bounds) in [(16, 3), (3, 1), (1, 0)] {
            let merge = left.merge(right, RangeId(10), Seqno(100), shards_max);
            let merged = parted.apply(&merge, &[]).unwrap();
            check(&merged).unwrap();
            assert_eq!(merged.ranges()[0].shards.bounds().len(), bounds, "{shards_max}");
            assert_eq!(merged.slices().count(), 7);
        }
    }
}
