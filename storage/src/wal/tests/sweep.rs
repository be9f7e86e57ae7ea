//! Goal: a process that is killed at any instant loses nothing that was in the file. A power cut at
//! any instant loses nothing that was synced. Both leave a log that opens.
//! Method: random histories of batches and changes on both paths, with groups in flight, rotations
//! and recycling, on the simulated disk. An image of that disk is taken before every operation,
//! replayed, and compared with the history. Seeds are printed.

use super::*;
use crate::vfs::CrashKind;
pub(super) use crate::vfs::chance::Chance as Random;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};

/// What was promised so far. Read when an image is taken.
#[derive(Default)]
struct Promised {
    in_file: AtomicU64,
    synced: AtomicU64,
    floor: AtomicU64,
}

struct Image {
    at: String,
    disk: MemVfs,
    in_file: u64,
    synced: u64,
    floor: u64,
}

/// One record with numbers.
#[derive(Clone, Copy)]
struct Stamped {
    first: u64,
    /// The number of operations.
    count: u32,
    /// `None` is a change.
    value_len: Option<usize>,
}

impl Stamped {
    fn said(self) -> Said {
        self.value_len.map_or_else(
            || Said::Change(change(self.first)),
            |value_len| said(self.first, self.count, value_len),
        )
    }

    fn last(self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}

/// The disks and segments that a history uses.
#[derive(Clone, Copy, Debug)]
enum Mapping {
    Always,
    Never,
    Mixed,
}

struct History {
    vfs: MemVfs,
    disk: Arc<dyn Vfs>,
    log: LogWriter,
    random: Random,
    mapping: Mapping,
    next: u64,
    next_number: u64,
    /// Everything that was appended, in order.
    stamped: Vec<Stamped>,
    /// Taken groups; the flag says whether the first one is written.
    groups: VecDeque<SyncGroup>,
    first_is_written: bool,
    /// Groups that were reported as written. A later sync covers them.
    unsynced: Unsynced,
    /// The most groups under one sync.
    groups_per_sync_max: u64,
    obsolete: Vec<SealedSegment>,
    promised: Arc<Promised>,
}

const SEGMENT_BYTES: u64 = 8192;

impl History {
    fn new(seed: u64, mapping: Mapping) -> (Self, Arc<Mutex<Vec<Image>>>) {
        let vfs = MemVfs::new();
        vfs.set_can_map(!matches!(mapping, Mapping::Never));
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        let promised = Arc::new(Promised::default());
        promised.floor.store(1, SeqCst);
        let images: Arc<Mutex<Vec<Image>>> = Arc::default();
        let (sink, state) = (images.clone(), promised.clone());
        vfs.on_operation(move |disk, operation| {
            sink.lock().unwrap().push(Image {
                at: format!("{operation:?}"),
                disk: disk.kill_clone(),
                in_file: state.in_file.load(SeqCst),
                synced: state.synced.load(SeqCst),
                floor: state.floor.load(SeqCst),
            });
        });
        let first = spare(&vfs, 1, SEGMENT_BYTES, true);
        let log = LogWriter::start(IDENTITY, first, Seqno(1), Predecessor::Barrier);
        let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
        let history = Self {
            vfs,
            disk,
            log,
            random: Random(seed),
            mapping,
            next: 1,
            next_number: 2,
            stamped: Vec::new(),
            groups: VecDeque::new(),
            first_is_written: false,
            unsynced: Unsynced::default(),
            groups_per_sync_max: 0,
            obsolete: Vec::new(),
            promised,
        };
        (history, images)
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=3 => self.append(AppendPath::Mapped),
            4..=7 => self.append(AppendPath::Staged),
            8 | 9 if self.groups.len() < 3 => {
                let group = self.log.take_group();
                if !group.is_empty() {
                    self.groups.push_back(group);
                }
            }
            10 if self.log.wants_watermark() => {
                self.log.append_watermark();
            }
            11 => self.reuse(),
            _ => self.advance_group(),
        }
    }

    fn append(&mut self, path: AppendPath) {
        let first = self.next;
        let stamped = match self.random.below(16) {
            0..=3 => Stamped { first, count: 1, value_len: None },
            size => {
                let value_len = match size {
                    4 => 2500,
                    5 => 700,
                    n => (n as usize - 4) * 8,
                };
                let count = 1 + self.random.below(3) as u32;
                Stamped { first, count, value_len: Some(value_len) }
            }
        };
        let appended = match stamped.said() {
            Said::Batch(payload) => {
                self.make_room(payload.len());
                self.log.append(Seqno(first), stamped.count, &payload, crc(&payload), path)
            }
            Said::Change(id) => {
                self.make_room(CHANGE_BYTES);
                self.log.append_change(Seqno(first), id, path)
            }
        };
        self.stamped.push(stamped);
        self.next = stamped.last() + 1;
        if appended.in_file {
            self.promised.in_file.store(self.next - 1, SeqCst);
        }
    }

    fn make_room(&mut self, payload_len: usize) {
        if self.log.has_room(payload_len) {
            return;
        }
        let bytes = SEGMENT_BYTES.max(segment_bytes_needed(payload_len));
        let number = FileNumber(self.next_number);
        self.next_number += 1;
        let mapped = !matches!(self.mapping, Mapping::Mixed) || self.random.below(2) == 0;
        let dir = Path::new(DIR);
        let floor = self.promised.floor.load(SeqCst);
        let fitting =
            self.obsolete.iter().position(|old| old.bytes >= bytes && old.number.0 < floor);
        let spare = match fitting {
            Some(at) => {
                let old = self.obsolete.swap_remove(at);
                recycle(&self.disk, dir, &old, number, mapped).unwrap()
            }
            None => prepare_spare(&self.disk, dir, &IDENTITY, number, bytes, mapped).unwrap(),
        };
        self.log.rotate(spare);
    }

    /// Advances the oldest group by one step, or syncs what is written.
    fn advance_group(&mut self) {
        if self.random.below(4) == 0 {
            return self.sync();
        }
        let Some(group) = self.groups.pop_front() else { return };
        if self.first_is_written {
            self.log.written(&group);
            self.promised.in_file.fetch_max(group.upto().0, SeqCst);
            self.unsynced.add(group);
        } else {
            group.write().unwrap();
            self.groups.push_front(group);
        }
        self.first_is_written = !self.first_is_written;
    }

    fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        unsynced.sync().unwrap();
        self.promised.synced.fetch_max(unsynced.upto().0, SeqCst);
        self.log.synced(&unsynced);
        self.obsolete.extend(unsynced.sealed().iter().cloned());
        let groups = unsynced.groups.end - unsynced.groups.start;
        self.groups_per_sync_max = self.groups_per_sync_max.max(groups);
    }

    /// Raises the floor above the sealed segments, as if all their entries had been flushed. They
    /// may be recycled then, but not at once: a power cut before the new floor is durable needs all
    /// of them.
    fn reuse(&mut self) {
        if let Some(last) = self.obsolete.iter().map(|old| old.number.0).max() {
            self.promised.floor.fetch_max(last + 1, SeqCst);
        }
        if self.obsolete.len() > 2 {
            let old = self.obsolete.remove(0);
            remove(&self.disk, &old).unwrap();
        }
    }

    /// The surviving records must be a run of the history that ends at or after `promised`.
    fn check(&self, context: &str, floor: u64, promised: u64, result: Result<Replayed>) {
        let (records, report) = match result {
            Ok(replayed) => replayed,
            Err(error) => panic!("{context}: {error}"),
        };
        let last = report.last_seqno.0;
        assert!(last >= promised, "{context}: {promised} was promised, {last} is left: {report:?}");
        let Some((first, _)) = records.first() else {
            return;
        };
        let start = self.stamped.binary_search_by_key(first, |stamped| stamped.first);
        let start = start.expect("a record's number");
        if floor == 1 {
            assert_eq!(start, 0, "{context}");
        }
        for ((first, said), want) in records.iter().zip(&self.stamped[start..]) {
            assert_eq!(*first, want.first, "{context}");
            assert!(*said == want.said(), "{context}: the record with {first}");
        }
        let end = self.stamped[start + records.len() - 1];
        assert_eq!(last, end.last(), "{context}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn sweep(mapping: Mapping, seeds: std::ops::Range<u64>, steps: usize) {
    let (mut kills, mut cuts, mut torn, mut rotations) = (0, 0, 0, 0);
    let mut groups_per_sync_max = 0;
    for seed in seeds {
        let (mut history, images) = History::new(seed, mapping);
        for _ in 0..steps {
            history.step();
        }
        history.vfs.clear_hook();
        rotations += history.log.number().0 - 1;
        groups_per_sync_max = groups_per_sync_max.max(history.groups_per_sync_max);
        for (i, image) in lock(&images).drain(..).enumerate() {
            let context = format!("{mapping:?}, seed {seed}, image {i} before {}", image.at);
            let killed = replay_all(&image.disk, image.floor);
            kills += 1;
            history.check(&format!("kill: {context}"), image.floor, image.in_file, killed);
            for kind in CrashKind::each(seed ^ i as u64) {
                let cut = replay_all(&image.disk.crash_clone(kind), image.floor);
                cuts += 1;
                torn += u64::from(
                    cut.as_ref().is_ok_and(|(_, report)| report.reason == TailReason::Torn),
                );
                let context = format!("{kind:?}: {context}");
                history.check(&context, image.floor, image.synced, cut);
            }
        }
    }
    println!("{kills} kills, {cuts} power cuts, {torn} torn tails, {rotations} rotations");
    assert!(torn > 0 && rotations > 0, "the sweep met what it is for");
    assert!(groups_per_sync_max > 2, "groups were written and covered by a later sync");
}

#[test]
fn kills_and_power_cuts_on_mapped_segments() {
    sweep(Mapping::Always, 0..12, 150);
}

#[test]
fn kills_and_power_cuts_without_mapping() {
    sweep(Mapping::Never, 100..106, 150);
}

#[test]
fn kills_and_power_cuts_on_segments_of_both_kinds() {
    sweep(Mapping::Mixed, 200..206, 150);
}
