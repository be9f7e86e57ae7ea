//! Format version 1 of a table, byte for byte: written the same for ever, readable for ever.
//!
//! After a deliberate change of what the builder writes (not of what old files mean):
//! `SLUICE_WRITE_GOLDEN=1 cargo test -p sluicedb-storage --test table_golden`, and keep the old
//! files under new names in `golden_bytes_stay_readable`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use sluicedb_storage::Error;
use sluicedb_storage::codec::hash64;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::iter::Cursor;
use sluicedb_storage::key::{Kind, Seqno};
use sluicedb_storage::table::{
    BlockCache, Compression, CursorOptions, Found, ReadTier, Table, TableBuilder, TableId,
    TableOptions,
};
use sluicedb_storage::vfs::{MemVfs, Vfs};
use std::path::Path;
use std::sync::Arc;

const PLAIN: &[u8] = include_bytes!("golden/table-v1.sst");
const LZ4: &[u8] = include_bytes!("golden/table-v1-lz4.sst");
/// Of a builder that recorded neither when a table was made nor a sketch of its keys.
const OLD: [&[u8]; 2] = [
    include_bytes!("golden/table-v1-builder-1.sst"),
    include_bytes!("golden/table-v1-lz4-builder-1.sst"),
];
const ID: TableId = TableId { db_id: *b"golden-database!", number: FileNumber(42) };

fn entries() -> Vec<(Vec<u8>, Seqno, Kind, Vec<u8>)> {
    let mut entries = Vec::new();
    for i in 0..40_u64 {
        let key = format!("user:{:04}:{}", i / 3, i % 3).into_bytes();
        let (kind, value) = match i % 7 {
            0 => (Kind::Delete, vec![]),
            1 => (Kind::Put, vec![]),
            _ => (Kind::Put, format!("value {i} ").repeat(i as usize % 5 + 1).into_bytes()),
        };
        entries.push((key, Seqno(1000 + i * i * 10), kind, value));
    }
    // Lengths that need two bytes, and a block that needs four bytes per offset.
    entries.push((vec![b'x'; 300], Seqno(5), Kind::Put, vec![b'y'; 70_000]));
    entries
}

fn options(compression: Compression) -> TableOptions {
    TableOptions { block_bytes: 512, restart_interval: 8, compression, ..TableOptions::default() }
}

fn write(vfs: &Arc<dyn Vfs>, compression: Compression) -> Vec<u8> {
    let path = Path::new("/000042.sst");
    let file = vfs.create(path).unwrap();
    let mut builder =
        TableBuilder::new(Arc::clone(&file), path.to_owned(), ID, options(compression));
    for (key, seqno, kind, value) in entries() {
        builder.add(&key, seqno, kind, &value).unwrap();
    }
    let meta = builder.finish().unwrap();
    let mut bytes = vec![0; meta.file_bytes as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn read(bytes: &[u8]) {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let path = Path::new("/000042.sst");
    vfs.create(path).unwrap().write_all_at(bytes, 0).unwrap();
    let cache = BlockCache::new(1 << 20);
    let table = Table::open(&vfs, path.to_owned(), ID, None, cache).unwrap();
    assert!(!table.filter_is_broken());
    let mut cursor = table.cursor(CursorOptions::default());
    cursor.seek_first().unwrap();
    for (key, seqno, kind, value) in entries() {
        let found = table.get(&key, hash64(&key), ReadTier::Disk).unwrap();
        assert_eq!(found, Some(Found { seqno, kind, value: Bytes::from(value.clone()) }));
        assert_eq!((cursor.key(), cursor.seqno(), cursor.kind()), (&key[..], seqno, kind));
        assert_eq!(cursor.value(), value);
        cursor.next().unwrap();
    }
    assert!(!cursor.valid());
    assert_eq!(table.meta().entries, entries().len() as u64);
    assert_eq!(table.meta().tombstones, 6);
    assert_eq!(table.verify(&mut |error: Error| panic!("{error}")).errors, 0);
}

#[test]
fn builders_write_the_golden_bytes() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let plain = write(&vfs, Compression::None);
    vfs.remove(Path::new("/000042.sst")).unwrap();
    let lz4 = write(&vfs, Compression::Lz4);
    if std::env::var_os("SLUICE_WRITE_GOLDEN").is_some() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        std::fs::write(dir.join("table-v1.sst"), plain).unwrap();
        std::fs::write(dir.join("table-v1-lz4.sst"), lz4).unwrap();
        return;
    }
    let first_difference = plain.iter().zip(PLAIN).position(|(a, b)| a != b);
    assert_eq!((first_difference, plain.len()), (None, PLAIN.len()));
    // What an LZ4 encoder emits may change with its version; what it means may not.
    if lz4 != LZ4 {
        read(&lz4);
    }
}

#[test]
fn golden_bytes_stay_readable() {
    read(PLAIN);
    read(LZ4);
    OLD.into_iter().for_each(read);
}
