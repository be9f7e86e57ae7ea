//! The lives of a small database: what is written, synced, flushed and closed before a crash.

use super::*;

pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn is_table(name: &str) -> bool {
    matches!(FileKind::parse(name), Some(FileKind::Table(_)))
}

pub(super) fn is_wal(name: &str) -> bool {
    matches!(FileKind::parse(name), Some(FileKind::Wal(_)))
}

pub(super) const SEGMENT_BYTES: u64 = 64 << 10;

pub(super) fn dir() -> PathBuf {
    PathBuf::from("/db")
}

pub(super) fn disk() -> MemVfs {
    let mem = MemVfs::new();
    mem.create_dir_all(&dir()).unwrap();
    mem.sync_dir(Path::new("/")).unwrap();
    mem
}

pub(super) fn options() -> RecoverOptions {
    RecoverOptions {
        create_if_missing: true,
        fresh_id: [3; 16],
        split_keys: Vec::new(),
        replay_bytes_max: 40 << 10,
        table: TableOptions::default(),
        now_ms: 5,
        shard_cut_bytes_min: 1 << 20,
        shards: 4,
        tables: TableLimits {
            open_max: 4,
            memory_bytes_max: 1 << 20,
            blocks: BlockCache::new(1 << 20),
        },
        side_by_side: Arc::new(OneByOne),
    }
}

pub(super) fn open(mem: &MemVfs) -> Result<Recovered> {
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    open_directory(&vfs, &dir(), &options())
}

/// All entries of the tables.
pub(super) fn content(recovered: &Recovered) -> Model {
    try_content(recovered).unwrap()
}

pub(super) fn try_content(recovered: &Recovered) -> Result<Model> {
    check::check(&recovered.version).unwrap();
    let entry = |stable: &Arc<_>| {
        let stable = Arc::clone(stable);
        RangeEntry::new(memtable(0).0, stable, ())
    };
    let ranges = recovered.version.ranges().iter().map(entry).collect();
    let superversion = Superversion::new(1, 1, Seqno::ZERO, Arc::default(), ranges);
    let view = View::new(Arc::new(superversion), recovered.last_seqno);
    let mut cursor = view.cursor(ScanSpec::new(KeyspaceId::DEFAULT, Span::all()), ReadTier::Disk);
    let mut out = ScanBatchBuilder::new();
    while cursor.fill(&mut out, 1 << 20, 1 << 20)? {}
    Ok(out.freeze().iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
}

/// One running incarnation.
pub(super) struct Life {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) recovered: Recovered,
    pub(super) log: LogWriter,
    pub(super) next_number: u64,
    pub(super) next_seqno: Seqno,
    /// The log is durable up to this number.
    pub(super) synced: Seqno,
    pub(super) model: Model,
    pub(super) unflushed: MemtableWriter,
    pub(super) segment_bytes: u64,
    /// Sealed segments that are synced.
    pub(super) sealed: Vec<SealedSegment>,
    /// Sealed segments that nothing needs any more.
    pub(super) obsolete: Vec<SealedSegment>,
}

impl Life {
    pub(super) fn start(mem: &MemVfs) -> Self {
        Self::with(mem, SEGMENT_BYTES)
    }

    pub(super) fn with(mem: &MemVfs, segment_bytes: u64) -> Self {
        let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
        let recovered = open(mem).unwrap();
        let model = content(&recovered);
        let next_number = recovered.next_file_number.0;
        let identity = LogIdentity { db_id: recovered.db_id };
        let number = FileNumber(next_number);
        let spare = prepare_spare(&vfs, &dir(), &identity, number, segment_bytes, false).unwrap();
        let next_seqno = recovered.last_seqno.next();
        let log = LogWriter::start(identity, spare, next_seqno, Predecessor::Barrier);
        let unflushed = memtable(0).1;
        let next_number = next_number + 1;
        let mut life = Self {
            vfs,
            recovered,
            log,
            next_number,
            next_seqno,
            synced: Seqno::ZERO,
            model,
            unflushed,
            segment_bytes,
            sealed: Vec::new(),
            obsolete: Vec::new(),
        };
        life.sync();
        life.note(VersionEdit::default());
        life
    }

    pub(super) fn make_room(&mut self, payload_bytes: usize) {
        if !self.log.has_room(payload_bytes) {
            let number = FileNumber(self.next_number);
            let identity = LogIdentity { db_id: self.recovered.db_id };
            let bytes = self.segment_bytes;
            let spare = match self.obsolete.pop() {
                Some(old) => recycle(&self.vfs, &dir(), &old, number, false),
                None => prepare_spare(&self.vfs, &dir(), &identity, number, bytes, false),
            };
            let spare = spare.unwrap();
            self.next_number += 1;
            self.log.rotate(spare);
        }
    }

    /// Prepares a change in the manifest. It happens if `change` puts it into the log.
    pub(super) fn prepare(&mut self, edit: VersionEdit) -> ChangeId {
        let id = ChangeId(self.next_number);
        self.next_number += 1;
        self.note(VersionEdit { prepared: vec![(id, edit)], ..VersionEdit::default() });
        id
    }

    pub(super) fn change(&mut self, id: ChangeId) {
        self.make_room(CHANGE_BYTES);
        self.log.append_change(self.next_seqno, id, AppendPath::Staged);
        self.next_seqno = self.next_seqno.next();
    }

    pub(super) fn write(&mut self, batch: &WriteBatch) {
        self.make_room(batch.encoded_len());
        let encoded = batch.encoded();
        let count = batch.len() as u32;
        self.log.append(self.next_seqno, count, encoded, crc(encoded), AppendPath::Staged);
        for operation in batch.points() {
            self.unflushed.insert(operation.key, self.next_seqno, operation.kind, operation.value);
            self.next_seqno = self.next_seqno.next();
            match operation.kind {
                crate::key::Kind::Put => {
                    self.model.insert(operation.key.to_vec(), operation.value.to_vec())
                }
                crate::key::Kind::Delete => self.model.remove(operation.key),
            };
        }
    }

    pub(super) fn sync(&mut self) {
        let group = self.log.take_group();
        group.write().unwrap();
        self.log.written(&group);
        let unsynced = Unsynced::from(group);
        unsynced.sync().unwrap();
        self.log.synced(&unsynced);
        self.synced = Seqno(self.next_seqno.0 - 1);
        self.sealed.extend_from_slice(unsynced.sealed());
    }

    /// Everything is in tables, so the log may begin with the current segment.
    pub(super) fn trim(&mut self) {
        self.note(VersionEdit { log_floor: Some(self.log.number()), ..VersionEdit::default() });
        self.obsolete.append(&mut self.sealed);
    }

    /// Closes the database cleanly.
    pub(super) fn close(mut self) {
        self.sync();
        self.flush();
        self.log.append_close_mark();
        self.sync();
        self.note(VersionEdit { clean_close: true, ..VersionEdit::default() });
    }

    /// Appends an edit that says that this many numbers were given out.
    pub(super) fn close_at(&mut self, seqno: u64, number: u64) {
        let edit = VersionEdit {
            next_file_number: Some(FileNumber(number)),
            last_seqno: Some(Seqno(seqno)),
            ..VersionEdit::default()
        };
        self.recovered.manifest.append(&edit).unwrap();
    }

    /// Appends an edit, with the counters that every edit has.
    pub(super) fn note(&mut self, edit: VersionEdit) {
        let edit = VersionEdit {
            next_file_number: Some(FileNumber(self.next_number)),
            last_seqno: Some(Seqno(self.next_seqno.0 - 1)),
            newest_segment: Some(self.log.number()),
            log_synced: Some(self.synced),
            ..edit
        };
        self.recovered.manifest.append(&edit).unwrap();
    }

    /// Does what flush worker and version manager do, without moving the log floor.
    pub(super) fn flush(&mut self) {
        let writer = std::mem::replace(&mut self.unflushed, memtable(0).1);
        let memtable = Arc::clone(writer.memtable());
        writer.freeze();
        self.install(RangeId::FIRST, &memtable);
    }

    /// Flushes the memtable of one of several ranges. The others' entries stay in the log only.
    pub(super) fn flush_range(&mut self, at: usize) {
        let range = Arc::clone(&self.recovered.version.ranges()[at]);
        let mut cursor = self.unflushed.memtable().cursor(Seqno::MAX);
        let mut entries = Vec::new();
        cursor.seek_first().unwrap();
        while cursor.valid() {
            let entry =
                (cursor.seqno(), cursor.key().to_vec(), cursor.kind(), cursor.value().to_vec());
            entries.push(entry);
            cursor.next().unwrap();
        }
        entries.sort();
        let (own, mut writer) = memtable(1);
        for (seqno, key, kind, value) in entries {
            if range.span.contains(&key) {
                writer.insert(&key, seqno, kind, &value);
            }
        }
        writer.freeze();
        self.install(range.id, &own);
    }

    pub(super) fn install(&mut self, range: RangeId, memtable: &Arc<Memtable>) {
        let next = &mut self.next_number;
        let db_id = self.recovered.db_id;
        let sink = TableSink::new(&self.vfs, &dir(), db_id, TableOptions::default(), || {
            *next += 1;
            FileNumber(*next - 1)
        });
        let mut cursor = memtable.cursor(Seqno::MAX);
        let tables = write_tables(&mut cursor, sink, &[], &|| true);
        let tables = tables.unwrap().expect("not stopped");
        let edit = VersionEdit {
            added: tables
                .into_iter()
                .map(|meta| (range, Place::L0, SliceMeta::whole(meta)))
                .collect(),
            flushed: vec![(range, Seqno(self.next_seqno.0 - 1))],
            ..VersionEdit::default()
        };
        self.note(edit);
    }

    pub(super) fn fill(&mut self, round: u32, batches: u32) {
        for n in 0..batches {
            let mut batch = WriteBatch::new();
            for k in 0..5 {
                let key = format!("key{:04}", (n * 7 + k * 131 + round * 17) % 700);
                if (n + k) % 6 == 0 {
                    batch.delete(key);
                } else {
                    batch.put(key, vec![(n + round) as u8; 60]);
                }
            }
            self.write(&batch);
        }
    }
}

/// A disk with tables and a log of several segments, and the expected contents.
pub(super) fn sample() -> (MemVfs, Model) {
    let mem = disk();
    let mut life = Life::start(&mem);
    life.fill(0, 100);
    life.sync();
    life.flush();
    life.fill(1, 300);
    life.sync();
    let model = life.model;
    (mem, model)
}
