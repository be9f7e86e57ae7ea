//! Tables of random keys, and the map that they must agree with.

use super::*;
pub(super) use crate::vfs::chance::Chance as Random;

pub(super) type Entry = (Seqno, Kind, Vec<u8>);
pub(super) type Model = BTreeMap<Vec<u8>, Entry>;

pub(super) const ID: TableId = TableId { db_id: *b"0123456789abcdef", number: FileNumber(7) };
pub(super) const PATH: &str = "/db/000007.sst";

/// A key of one of six families.
pub(super) fn key(random: &mut Random) -> Vec<u8> {
    let number = random.below(5000);
    match random.below(6) {
        0 => number.to_be_bytes().to_vec(),
        1 => format!("user:{number:06}:name").into_bytes(),
        2 => format!("user:{number}").into_bytes(),
        3 => vec![0xFF; 1 + (number % 40) as usize],
        4 => [&[b'k'; 200][..], &number.to_be_bytes()].concat(),
        _ => hash64(&number.to_le_bytes()).to_be_bytes().repeat(2),
    }
}

pub(super) fn model(seed: u64, entries: u64) -> Model {
    let mut random = Random(seed << 32);
    let mut model = Model::new();
    for _ in 0..entries {
        let key = key(&mut random);
        let bits = 1 + random.below(55);
        let seqno = Seqno(1 + random.below(1 << bits));
        let value = match random.below(40) {
            0..6 => (seqno, Kind::Delete, vec![]),
            6..10 => (seqno, Kind::Put, vec![]),
            10 => (seqno, Kind::Put, vec![b'v'; random.below(9000) as usize]),
            _ => {
                let length = random.below(150) as usize;
                let noise = random.next().to_le_bytes();
                (seqno, Kind::Put, noise.iter().copied().cycle().take(length).collect())
            }
        };
        model.insert(key, value);
    }
    model
}

pub(super) fn write(
    vfs: &Arc<dyn Vfs>,
    model: &Model,
    options: &TableOptions,
) -> Result<TableMeta> {
    vfs.create_dir_all(Path::new("/db")).unwrap();
    let file = vfs.create(Path::new(PATH)).unwrap();
    let mut builder = TableBuilder::new(file, PathBuf::from(PATH), ID, options.clone());
    for (key, (seqno, kind, value)) in model {
        builder.add(key, *seqno, *kind, value)?;
    }
    assert_eq!(builder.entries(), model.len() as u64);
    let estimate = builder.estimated_bytes();
    let meta = builder.finish()?;
    if meta.file_bytes > 100_000 {
        let off = estimate as f64 / meta.file_bytes as f64;
        assert!((0.97..1.03).contains(&off), "{estimate} of {}", meta.file_bytes);
    }
    Ok(meta)
}

pub(super) fn memory() -> Arc<dyn Vfs> {
    Arc::new(MemVfs::new())
}

pub(super) fn open(vfs: &Arc<dyn Vfs>, cache: &Arc<BlockCache>) -> Result<Arc<Table>> {
    Table::open(vfs, PathBuf::from(PATH), ID, None, Arc::clone(cache))
}

pub(super) fn get(table: &Table, key: &[u8]) -> Result<Option<Found>> {
    table.get(key, hash64(key), ReadTier::Disk)
}

pub(super) fn all_options() -> Vec<TableOptions> {
    let plain = TableOptions::default();
    vec![
        plain.clone(),
        TableOptions { block_bytes: 256, restart_interval: 1, ..plain.clone() },
        TableOptions { block_bytes: 700, restart_interval: 4, ..plain.clone() },
        TableOptions { block_bytes: 200_000, restart_interval: 128, ..plain.clone() },
        TableOptions { filter_bits_per_key: 0, ..plain.clone() },
        TableOptions { compression: Compression::Lz4, ..plain.clone() },
        #[cfg(feature = "zstd")]
        TableOptions { compression: Compression::Zstd(1), ..plain },
    ]
}

pub(super) fn same(cursor: &TableCursor, want: Option<(&Vec<u8>, &Entry)>) {
    assert_eq!(cursor.valid(), want.is_some(), "{want:?}");
    if let Some((key, (seqno, kind, value))) = want {
        assert_eq!(cursor.key(), key);
        assert_eq!((cursor.seqno(), cursor.kind()), (*seqno, *kind));
        assert_eq!(cursor.value(), value);
        assert_eq!(cursor.value_bytes(), value);
    }
}
