//! Tables that were made to do harm: valid checksums around numbers that are not true.

use super::footer::{FOOTER_BYTES, Footer, Handle};
use super::trailer::{ChecksumSeed, FEATURE_LZ4, put_section};
use super::*;
use crate::codec::put_varint;

/// A table of `blocks` blocks of `block_bytes` zeros each, under an index whose separators share
/// nearly everything with the one before, and with properties that claim to need it.
fn crafted(blocks: u64, block_bytes: u64, first: usize, features: u64) -> Arc<dyn Vfs> {
    let vfs = memory();
    let model: Model = [(b"k".to_vec(), (Seqno(1), Kind::Put, vec![1]))].into();
    let mut meta = write(&vfs, &model, &TableOptions::default()).unwrap();
    let longest = first + blocks as usize - 1;
    (meta.raw_bytes, meta.entries, meta.max_key) =
        (u64::MAX / 4, blocks, vec![b'k'; longest].into());
    let mut index = blocks.to_le_bytes().to_vec();
    for i in 0..blocks {
        let (shared, fresh) = if i == 0 { (0, first) } else { (first as u64 + i - 1, 1) };
        put_varint(&mut index, shared);
        put_varint(&mut index, fresh as u64);
        index.extend(std::iter::repeat_n(b'k', fresh));
        put_varint(&mut index, block_bytes);
    }
    let seed = ChecksumSeed::new(&ID.unique_id());
    let filter = Handle { offset: blocks * block_bytes, length: 0 };
    let mut file = vec![0; filter.offset as usize];
    put_section(&mut file, &index, seed, filter.offset);
    let index = Handle { offset: filter.offset, length: file.len() as u64 - filter.offset };
    let payload = properties::encode(&meta, blocks, &TableOptions::default());
    put_section(&mut file, &payload, seed, index.end());
    let length = file.len() as u64 - index.end();
    let properties = Handle { offset: index.end(), length };
    let file_bytes = (file.len() + FOOTER_BYTES) as u64;
    let footer = Footer { properties, index, filter, file_bytes, id: ID, features };
    file.extend(footer.encode());
    let to = vfs.open_rw(Path::new(PATH)).unwrap();
    to.set_len(file_bytes).unwrap();
    to.write_all_at(&file, 0).unwrap();
    vfs
}

/// Goal: an index takes no more memory than the blocks that it names can have keys, whatever the
/// properties claim.
///
/// Planted: only the properties limit the separators.
#[test]
fn separators_are_no_longer_than_their_blocks_can_be() {
    let opened = |vfs: &Arc<dyn Vfs>| open(vfs, &BlockCache::new(0)).map(drop);
    let refused = |vfs: &Arc<dyn Vfs>| {
        let error = opened(vfs).expect_err("it takes much memory").to_string();
        assert!(error.contains("longer than its block"), "{error}");
    };
    // 60 KB of blocks, 3 MB of separators.
    refused(&crafted(2000, 30, 500, 0));
    refused(&crafted(2000, 30, 30 * 255, FEATURE_LZ4));
    // As long as their blocks.
    opened(&crafted(20, 50, 31, 0)).unwrap();
    opened(&crafted(20, 50, 50 * 200, FEATURE_LZ4)).unwrap();
}

/// Goal: what an error says about a table is not what its owner has in it.
#[test]
fn no_error_about_a_tables_description_has_its_keys() {
    let vfs = memory();
    let entry = || (Seqno(1), Kind::Put, vec![1]);
    let model: Model = [(b"sesame/1".to_vec(), entry()), (b"sesame/9".to_vec(), entry())].into();
    let meta = write(&vfs, &model, &TableOptions::default()).unwrap();
    let described = format!("{meta:?}");
    assert!(!described.contains("sesame") && described.contains("8 bytes"), "{described}");
    let others = [
        (TableMeta { max_key: b"sesame/2".to_vec().into(), ..meta.clone() }, "max_key"),
        (TableMeta { entries: 3, ..meta.clone() }, "entries"),
    ];
    for (expected, field) in others {
        let cache = BlockCache::new(0);
        let error = Table::open(&vfs, PATH.into(), ID, Some(&expected), cache);
        let error = error.map(drop).unwrap_err().to_string();
        assert!(error.contains(field) && !error.contains("sesame"), "{error}");
    }
}
