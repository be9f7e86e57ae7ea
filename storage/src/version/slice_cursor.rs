//! A cursor over a slice: its table's cursor, confined to the slice's bounds.

use super::slice::TablePart;
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno};
use crate::table::TableCursor;
use std::sync::Arc;

/// A position in a slice.
#[derive(Debug)]
pub struct SliceCursor {
    cursor: TableCursor,
    /// The bounds; `None`: the whole table.
    part: Option<Arc<TablePart>>,
    seqno: Option<Seqno>,
    /// If there is a part: is the cursor inside it?
    inside: bool,
}

impl SliceCursor {
    /// Confines `cursor` to `part`. `seqno`, if given, replaces the number of every entry.
    pub(super) fn new(
        cursor: TableCursor,
        part: Option<Arc<TablePart>>,
        seqno: Option<Seqno>,
    ) -> Self {
        Self { cursor, part, seqno, inside: false }
    }

    /// Updates `inside`. Called after each move.
    #[inline]
    fn look(&mut self) {
        if let Some(part) = &self.part {
            self.inside = self.cursor.valid() && {
                let key = self.cursor.key();
                key >= &part.min_key[..] && key <= &part.max_key[..]
            };
        }
    }
}

impl Cursor for SliceCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.cursor.valid() && (self.inside || self.part.is_none())
    }
    #[inline]
    fn key(&self) -> &[u8] {
        self.cursor.key()
    }
    #[inline]
    fn seqno(&self) -> Seqno {
        self.seqno.unwrap_or_else(|| self.cursor.seqno())
    }
    #[inline]
    fn kind(&self) -> Kind {
        self.cursor.kind()
    }
    #[inline]
    fn value(&self) -> &[u8] {
        self.cursor.value()
    }
    fn seek_first(&mut self) -> Result<()> {
        match &self.part {
            None => self.cursor.seek_first()?,
            Some(part) => self.cursor.seek(&part.min_key)?,
        }
        self.look();
        Ok(())
    }
    fn seek_last(&mut self) -> Result<()> {
        match &self.part {
            None => self.cursor.seek_last()?,
            // The table contains this bound, so the seek stops exactly there.
            Some(part) => self.cursor.seek(&part.max_key)?,
        }
        self.look();
        Ok(())
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        match &self.part {
            Some(part) if key < &part.min_key[..] => self.cursor.seek(&part.min_key)?,
            _ => self.cursor.seek(key)?,
        }
        self.look();
        Ok(())
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        match &self.part {
            Some(part) if key > &part.max_key[..] => self.cursor.seek(&part.max_key)?,
            _ => self.cursor.seek_before(key)?,
        }
        self.look();
        Ok(())
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        assert!(self.valid(), "next on a cursor that is not valid");
        self.cursor.next()?;
        self.look();
        Ok(())
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        assert!(self.valid(), "prev on a cursor that is not valid");
        self.cursor.prev()?;
        self.look();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Slice, SliceMeta, TableCache, TableLimits};
    use super::*;
    use crate::compact::TableSink;
    use crate::error::Error;
    use crate::filename::FileNumber;
    use crate::iter::model::{ModelEntry, VecCursor, walk_alike};
    use crate::table::{BlockCache, CursorOptions, TableOptions};
    use crate::vfs::{MemVfs, Vfs};
    use proptest::prelude::*;
    use std::path::Path;

    fn entry(key: u8) -> ModelEntry {
        ModelEntry {
            key: vec![key],
            seqno: Seqno(u64::from(key) + 1),
            kind: Kind::Put,
            value: vec![key; 40],
        }
    }

    /// A whole table with these keys, in small blocks.
    fn table(keys: &[u8]) -> Slice {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let dir = Path::new("/db");
        vfs.create_dir_all(dir).unwrap();
        let options = TableOptions { block_bytes: 256, ..TableOptions::default() };
        let mut sink = TableSink::new(&vfs, dir, [7; 16], options, || FileNumber(3));
        for entry in keys.iter().copied().map(entry) {
            sink.add(&entry.key, entry.seqno, entry.kind, &entry.value).unwrap();
        }
        let meta = sink.finish().unwrap().remove(0);
        let blocks = BlockCache::new(1 << 20);
        let limits = TableLimits { open_max: 8, memory_bytes_max: 1 << 20, blocks };
        let cache = TableCache::new(&vfs, dir, [7; 16], limits);
        Slice::whole(&cache.handle(Arc::new(meta)))
    }

    fn part(whole: &Slice, min: u8, max: u8, seqno: Option<Seqno>) -> Slice {
        let (min_key, max_key) = (vec![min].into(), vec![max].into());
        let part = TablePart { min_key, max_key, file_bytes: 1, entries: 1, tombstones: 0 };
        let table = Arc::clone(&whole.table);
        let meta = SliceMeta { table, part: Some(Arc::new(part)), seqno, landed: None };
        Slice::new(meta, Arc::clone(whole.handle()))
    }

    /// Planted: the bounds of a part are taken for keys of the table.
    #[test]
    fn a_part_that_does_not_begin_or_end_as_the_manifest_says_is_damage_when_it_is_cut() {
        let whole = table(&[10, 20, 30]);
        let cut = |min, max, at: u8| part(&whole, min, max, None).cut(&[vec![at].into()]);
        for (min, max, at) in [(10, 25, 22), (12, 30, 15), (11, 19, 15)] {
            let error = cut(min, max, at).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{min} to {max}: {error}");
        }
        assert_eq!(cut(10, 30, 20).unwrap().len(), 2);
    }

    fn shown(cursor: &dyn Cursor) -> Option<(Vec<u8>, Seqno)> {
        cursor.valid().then(|| (cursor.key().to_vec(), cursor.seqno()))
    }

    proptest! {
        #[test]
        fn a_slice_walks_like_the_entries_between_its_bounds(
            keys in proptest::collection::btree_set(0_u8..60, 1..40),
            ends in any::<(prop::sample::Index, prop::sample::Index)>(),
            seqno in proptest::option::of(Just(Seqno(99))),
            moves in proptest::collection::vec((0_u8..10, 0_u8..62), 1..60),
        ) {
            let keys: Vec<_> = keys.into_iter().collect();
            let (a, b) = (ends.0.index(keys.len()), ends.1.index(keys.len()));
            let inside = &keys[a.min(b)..=a.max(b)];
            let slice = part(&table(&keys), inside[0], inside[inside.len() - 1], seqno);
            let entries = inside.iter().copied().map(entry);
            let entries = entries.map(|e| ModelEntry { seqno: seqno.unwrap_or(e.seqno), ..e });
            let mut oracle = VecCursor::new(entries.collect());
            let mut cursor = slice.cursor(CursorOptions::default()).unwrap();
            walk_alike(&mut cursor, &mut oracle, moves, shown, |is, should| assert_eq!(is, should));
        }
    }
}
