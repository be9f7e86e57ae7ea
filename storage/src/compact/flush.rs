//! Flush: sealed memtables become tables of L0.
//!
//! The input is a cursor over memtables at `Seqno::MAX`, merged newest first. So it yields only the
//! newest entry of each key. Tombstones are kept: any level below may have older entries.

use super::sink::TableSink;
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::Seqno;
use crate::table::TableMeta;
use crate::version::ShardCuts;
use bytes::Bytes;

/// How many entries are written between two calls of `goes_on`.
const ASKED_EVERY: u64 = 1024;

/// Writes all entries of `cursor` into tables. No table spans one of `bounds`, which ascend.
/// Returns `Ok(None)` if `goes_on`, which is called now and then, returns false. In that case, and
/// after an error, the tables are removed. When this returns tables, they are durable; an empty
/// cursor makes none. Blocks on the disk.
///
/// INVARIANT(shard-disjoint): tables end at `bounds`.
///
/// # Errors
/// As the cursor and `TableSink`.
pub fn write_tables<C: Cursor + ?Sized>(
    cursor: &mut C,
    mut sink: TableSink<'_>,
    bounds: &[Bytes],
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<Vec<TableMeta>>> {
    let mut cuts = ShardCuts::at(bounds);
    let (mut entries, mut steps) = (0, 0);
    cursor.seek_first()?;
    while cursor.valid() {
        // A cursor that rests is at a key without an entry to show; see `Cursor`.
        if cursor.seqno() > Seqno::ZERO {
            if cuts.passes(cursor.key()) {
                sink.cut()?;
            }
            sink.add(cursor.key(), cursor.seqno(), cursor.kind(), cursor.value())?;
            entries += 1;
        }
        cursor.next()?;
        steps += 1;
        if steps % ASKED_EVERY == 0 && !goes_on() {
            return Ok(None);
        }
    }
    let tables = sink.finish()?;
    let written: u64 = tables.iter().map(|meta| meta.entries).sum();
    assert_eq!(written, entries, "every entry of the memtables is in a table");
    Ok(Some(tables))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filename::FileNumber;
    use crate::key::{Kind, Span};
    use crate::memtable::memtable;
    use crate::table::TableOptions;
    use crate::version::Shards;
    use crate::vfs::{MemVfs, Vfs};
    use crate::view::MemtableSlice;
    use std::path::Path;
    use std::sync::Arc;

    /// Flushes 4,000 keys spread over the key space.
    fn flushed(shards: &Shards) -> Vec<TableMeta> {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        vfs.create_dir_all(Path::new("/db")).unwrap();
        let (table, mut writer) = memtable(1);
        for n in 0..4_000_u32 {
            let key = n.wrapping_mul(0x9E37_79B9).to_be_bytes();
            writer.insert(&key, Seqno(u64::from(n) + 1), Kind::Put, b"value");
        }
        writer.freeze();
        let mut next = 0;
        let numbers = move || {
            next += 1;
            FileNumber(next)
        };
        let sink =
            TableSink::new(&vfs, Path::new("/db"), [1; 16], TableOptions::default(), numbers);
        let mut cursor = table.cursor(Seqno::MAX);
        write_tables(&mut cursor, sink, shards.bounds(), &|| true).unwrap().unwrap()
    }

    /// Planted: a rest that is written as a tombstone.
    #[test]
    fn a_memtable_with_many_spans_cut_out_is_flushed_without_them() {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        vfs.create_dir_all(Path::new("/db")).unwrap();
        let (table, mut writer) = memtable(1);
        let key = |n: u16| n.to_be_bytes();
        for n in 0..1_000 {
            writer.insert(&key(n), Seqno(u64::from(n) + 1), Kind::Put, b"value");
        }
        writer.freeze();
        let one = |n: u16| Span {
            lo: Bytes::copy_from_slice(&key(n)),
            hi: Some(Bytes::from([&key(n)[..], b"+"].concat())),
        };
        let spans: Vec<_> = (0..1_000).filter(|n| n % 300 != 0).map(one).collect();
        let slice = MemtableSlice::whole(table).without(&spans);
        let numbers = || FileNumber(1);
        let sink =
            TableSink::new(&vfs, Path::new("/db"), [1; 16], TableOptions::default(), numbers);
        let tables = write_tables(&mut slice.cursor(Seqno::MAX), sink, &[], &|| true);
        let tables = tables.unwrap().unwrap();
        let [meta] = &tables[..] else { panic!("{tables:?}") };
        assert_eq!((meta.entries, meta.tombstones, meta.min_seqno), (4, 0, Seqno(1)));
    }

    #[test]
    fn every_table_of_a_flush_lies_in_one_shard() {
        for count in [1, 2, 4, 16, 64] {
            let shards = Shards::of(&Span::all(), count);
            let tables = flushed(&shards);
            assert_eq!(tables.len(), count, "every shard has keys");
            for (shard, meta) in tables.iter().enumerate() {
                assert_eq!(shards.index(&meta.min_key), shard);
                assert_eq!(shards.index(&meta.max_key), shard, "{count} shards: {meta:?}");
            }
            assert_eq!(tables.iter().map(|meta| meta.entries).sum::<u64>(), 4_000);
        }
    }
}
