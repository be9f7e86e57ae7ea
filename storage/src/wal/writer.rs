//! The appending end of the log: offsets, checksums, staging. It lives behind the log writer's
//! seat.
//!
//! Guarantees: no method touches the disk or waits. An append is a copy of the record and a
//! checksum over 24 bytes. No record reaches the file before all its predecessors did, so what a
//! killed process leaves behind is a prefix.
//!
//! It does not stamp sequence numbers; it checks that they are consecutive. It does not know who
//! waits.

use super::ends::{BEGIN_PAYLOAD_BYTES_MAX, CONTINUED_BYTES, encode_begin};
use super::group::{Run, SyncGroup, Target, Unsynced};
use super::header::HEADER_BYTES;
use super::record::{self, DIGEST_START, RECORD_HEADER_BYTES, RecordHeader, Seed, kind};
use super::spare::SegmentFile;
use super::{Link, LogIdentity, Predecessor, SealedSegment, Spare};
use crate::change::ChangeId;
use crate::codec::crc;
use crate::filename::FileNumber;
use crate::key::Seqno;
use crate::limits::BATCH_BYTES_CAP;
use crate::vfs::Mapping;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;

/// So many bytes are kept free at the end of every segment: for one watermark, and behind it for
/// the close mark or the name of the next segment.
const RESERVE_BYTES: u64 = record::record_bytes(0) + record::record_bytes(CONTINUED_BYTES);
/// The longest beginning.
const BEGIN_BYTES_MAX: u64 = record::record_bytes(BEGIN_PAYLOAD_BYTES_MAX);
/// Staging buffers larger than this are not kept for reuse.
const KEPT_BUFFER_BYTES_MAX: usize = 4 << 20;
/// One buffer being filled, one being written, one waiting.
const KEPT_BUFFERS_MAX: usize = 2;

/// Length of the smallest segment that can hold a record with `payload_len` bytes.
pub fn segment_bytes_needed(payload_len: usize) -> u64 {
    let frame = HEADER_BYTES as u64 + BEGIN_BYTES_MAX + RESERVE_BYTES;
    let needed = frame + record::record_bytes(payload_len);
    needed.next_multiple_of(HEADER_BYTES as u64)
}

/// The way a record takes into its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendPath {
    /// Stored through the mapping, for a caller who asked for `Buffered`. Falls back to staging
    /// where a segment has no mapping.
    Mapped,
    /// Staged for the next sync group, for a caller who will wait for its sync anyway: pages
    /// dirtied by `write` are much cheaper to sync than pages dirtied through a mapping.
    Staged,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the record in the segment `LogWriter::number`.
    pub offset: u64,
    /// Is the record, with everything before it, in the file? If not, it will be once the group
    /// that takes it is written.
    pub in_file: bool,
}

/// Runs of a taken group that may not be in the file yet.
struct InFlight {
    id: u64,
    /// Emptied by `written`; the flag says that a run was copied through the mapping meanwhile.
    runs: Vec<(Run, bool)>,
}

/// The single appender of a log.
pub struct LogWriter {
    identity: LogIdentity,
    seed: Seed,
    segment: Arc<SegmentFile>,
    /// `segment.mapping` at hand.
    mapping: Option<Arc<dyn Mapping>>,
    /// Where the next record goes.
    tail: u64,
    /// Known durable up to here.
    synced: u64,
    /// In groups up to here.
    taken: u64,
    digest: u64,
    first_seqno: Seqno,
    next_seqno: Seqno,
    /// The bytes in front of `tail` that went neither into the mapping nor into a group.
    staged: Vec<u8>,
    /// Staged bytes of sealed segments that no group has taken.
    sealed_runs: Vec<Run>,
    /// Sealed segments that no group has taken.
    sealed: Vec<(Target, SealedSegment)>,
    in_flight: VecDeque<InFlight>,
    /// Runs in `sealed_runs` and `in_flight` that are not known to be in their files.
    runs_outside: usize,
    next_group: u64,
    buffers: Vec<Arc<Vec<u8>>>,
    /// What the newest record of this segment confirms.
    confirmed: u64,
    /// What still has to be confirmed: the end of the last batch or change, or of the beginning,
    /// which says how the previous segment ended.
    watermark_due: u64,
    closed: bool,
}

impl LogWriter {
    /// Begins a log, or a new incarnation of one, in `first`. The first record is staged: taking,
    /// writing and syncing a group right away lets every record confirm it from the start.
    pub fn start(
        identity: LogIdentity,
        first: Spare,
        next_seqno: Seqno,
        predecessor: Predecessor,
    ) -> Self {
        assert!(next_seqno > Seqno::ZERO, "0 means before anything");
        let segment = Arc::new(first.segment);
        let mut writer = Self {
            identity,
            seed: Seed::new(&identity, segment.number),
            mapping: segment.mapping.clone(),
            segment,
            tail: HEADER_BYTES as u64,
            synced: 0,
            taken: 0,
            digest: DIGEST_START,
            first_seqno: next_seqno,
            next_seqno,
            staged: Vec::new(),
            sealed_runs: Vec::new(),
            sealed: Vec::new(),
            in_flight: VecDeque::new(),
            runs_outside: 0,
            next_group: 0,
            buffers: Vec::new(),
            confirmed: 0,
            watermark_due: 0,
            closed: false,
        };
        writer.begin(predecessor);
        writer
    }

    /// The current segment.
    pub fn number(&self) -> FileNumber {
        self.segment.number
    }

    /// Length of the current segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment.bytes
    }

    /// Where the next record of the current segment goes.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// The sequence number the next record must have.
    pub fn next_seqno(&self) -> Seqno {
        self.next_seqno
    }

    /// Can the current segment be stored to through a mapping?
    pub fn is_mapped(&self) -> bool {
        self.mapping.is_some()
    }

    /// Does a record with `payload_len` bytes fit into the current segment? If not, rotate into a
    /// spare of at least `segment_bytes_needed(payload_len)` bytes.
    #[inline]
    pub fn has_room(&self, payload_len: usize) -> bool {
        self.tail + record::record_bytes(payload_len) + RESERVE_BYTES <= self.segment.bytes
    }

    /// Appends one batch of `count` operations, encoded in `payload`, whose first operation has
    /// `first_seqno`. `payload_crc` is `codec::crc(payload)`, computed outside the seat.
    ///
    /// Costs a copy of the payload. A mapped append also copies what is staged, once.
    ///
    /// # Panics
    /// Without room, with an empty batch, with a sequence number out of order, after the close
    /// mark.
    #[inline]
    pub fn append(
        &mut self,
        first_seqno: Seqno,
        count: u32,
        payload: &[u8],
        payload_crc: u32,
        path: AppendPath,
    ) -> Appended {
        assert!(payload.len() <= BATCH_BYTES_CAP, "the length fits its field");
        assert!(count > 0, "a batch has operations");
        self.put_stamped(kind::BATCH, first_seqno, count, payload, payload_crc, path)
    }

    /// Appends the change `id`, which takes the number `seqno` and no other; its payload has
    /// `CHANGE_BYTES`.
    ///
    /// # Panics
    /// Without room, with a sequence number out of order, after the close mark.
    pub fn append_change(&mut self, seqno: Seqno, id: ChangeId, path: AppendPath) -> Appended {
        let payload = record::encode_change(id);
        self.put_stamped(kind::CHANGE, seqno, 1, &payload, crc(&payload), path)
    }

    /// Is everything durable, and does no record confirm the end of the log? Then damage there
    /// could not be told from a torn write. When idle, call `append_watermark` and sync once more.
    pub fn wants_watermark(&self) -> bool {
        self.synced == self.tail
            && self.confirmed < self.watermark_due
            && !self.closed
            && self.watermark_fits()
    }

    /// Stages a record that only confirms what is durable now. `false`: there was no room, and
    /// the records of the next segment will confirm instead.
    pub fn append_watermark(&mut self) -> bool {
        if !self.watermark_fits() {
            return false;
        }
        self.put(kind::WATERMARK, &[], record::PAYLOAD_CRC_NONE, AppendPath::Staged);
        true
    }

    /// Stages the last record of the log. Call it after everything else was synced, so that it
    /// confirms all of it. It still has to be taken, written and synced. Nothing can be appended
    /// later.
    pub fn append_close_mark(&mut self) {
        self.put(kind::CLOSE_MARK, &[], record::PAYLOAD_CRC_NONE, AppendPath::Staged);
        self.closed = true;
    }

    /// Goes on in `spare`. Memory only: the old segment gets its last record, which names the new
    /// one, and joins the next group, which syncs it before the new one.
    pub fn rotate(&mut self, spare: Spare) {
        let new = Arc::new(spare.segment);
        assert!(new.number > self.segment.number, "numbers rise along the log");
        assert!(!self.closed, "nothing follows the close mark");
        // INVARIANT(no-log-file-missing): its file and its name are durable.
        let name = new.number.0.to_le_bytes();
        self.put(kind::CONTINUED, &name, crc(&name), AppendPath::Staged);
        let link = Link {
            number: self.segment.number,
            final_length: self.tail,
            synced_length: self.synced,
            last_seqno: Seqno(self.next_seqno.0 - 1),
            digest: self.digest,
        };
        if !self.staged.is_empty() {
            let run = self.take_staged();
            self.sealed_runs.push(run);
            self.runs_outside += 1;
        }
        self.seed = Seed::new(&self.identity, new.number);
        self.mapping.clone_from(&new.mapping);
        let old = mem::replace(&mut self.segment, new);
        let sealed = SealedSegment {
            number: old.number,
            path: old.path.clone(),
            first_seqno: self.first_seqno,
            last_seqno: link.last_seqno,
            bytes: old.bytes,
        };
        let target = Target { segment: old, from: self.taken, upto: self.tail };
        self.sealed.push((target, sealed));
        self.first_seqno = self.next_seqno;
        self.digest = DIGEST_START;
        self.tail = HEADER_BYTES as u64;
        (self.synced, self.taken, self.confirmed) = (0, 0, 0);
        self.begin(Predecessor::Follows(link));
        // A record here has to confirm the end of the old segment.
        self.watermark_due = self.tail;
    }

    /// Was a segment left that no group has taken? It should be taken and synced soon: only then
    /// can it become obsolete.
    #[inline]
    pub fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Takes everything appended since the last group. Cheap: it swaps buffers. Write and sync it
    /// off the seat, in the order groups were taken, and report both.
    pub fn take_group(&mut self) -> SyncGroup {
        let mut runs = mem::take(&mut self.sealed_runs);
        // Sealed runs were counted when they were sealed.
        self.runs_outside -= runs.len();
        if !self.staged.is_empty() {
            let run = self.take_staged();
            runs.push(run);
        }
        let mut targets = Vec::with_capacity(self.sealed.len() + 1);
        let mut sealed = Vec::with_capacity(self.sealed.len());
        for (target, segment) in self.sealed.drain(..) {
            targets.push(target);
            sealed.push(segment);
        }
        if self.tail > self.taken {
            let segment = self.segment.clone();
            let (from, upto) = (self.taken, self.tail);
            targets.push(Target { segment, from, upto });
            self.taken = self.tail;
        }
        let upto = Seqno(self.next_seqno.0 - 1);
        let group = SyncGroup { id: self.next_group, runs, targets, sealed, upto };
        if !group.is_empty() {
            self.next_group += 1;
            self.runs_outside += group.runs.len();
            let runs = group.runs.iter().map(|run| (run.clone(), false)).collect();
            self.in_flight.push_back(InFlight { id: group.id, runs });
        }
        group
    }

    /// Notes that `group.write()` succeeded: all of it is in its files.
    pub fn written(&mut self, group: &SyncGroup) {
        let Some(flight) = self.in_flight.iter_mut().find(|flight| flight.id == group.id) else {
            assert!(group.is_empty(), "a group is written before it is synced");
            return;
        };
        // The group still holds its segments, so no mapping is torn down here.
        for (run, copied) in flight.runs.drain(..) {
            self.runs_outside -= usize::from(!copied);
            let reusable = run.bytes.capacity() <= KEPT_BUFFER_BYTES_MAX;
            if reusable && self.buffers.len() < KEPT_BUFFERS_MAX {
                self.buffers.push(run.bytes);
            }
        }
    }

    /// Notes that `unsynced.sync()` succeeded: later records confirm what it covered.
    pub fn synced(&mut self, unsynced: &Unsynced) {
        for id in unsynced.groups.clone() {
            let flight =
                self.in_flight.pop_front().expect("a taken group is in flight until synced");
            assert!(flight.id == id, "groups are synced in the order they were taken");
            assert!(flight.runs.is_empty(), "a group is written before it is synced");
        }
        if let Some(target) =
            unsynced.targets.last().filter(|t| Arc::ptr_eq(&t.segment, &self.segment))
        {
            assert!(target.upto > self.synced, "a group has new bytes");
            self.synced = target.upto;
        }
    }

    fn watermark_fits(&self) -> bool {
        self.tail + RESERVE_BYTES <= self.segment.bytes
    }

    /// The first record: what the segment continues. Always staged, so that nothing is stored in
    /// the new file before the old one has all of its own.
    fn begin(&mut self, predecessor: Predecessor) {
        let payload = encode_begin(predecessor);
        self.put(kind::BEGIN, &payload, crc(&payload), AppendPath::Staged);
    }

    fn take_staged(&mut self) -> Run {
        let kept = self.buffers.iter_mut().position(|buffer| Arc::get_mut(buffer).is_some());
        let mut next = kept
            .and_then(|at| Arc::into_inner(self.buffers.swap_remove(at)))
            .unwrap_or_else(|| Vec::with_capacity(self.staged.len().min(KEPT_BUFFER_BYTES_MAX)));
        next.clear();
        let bytes = Arc::new(mem::replace(&mut self.staged, next));
        let offset = self.tail - bytes.len() as u64;
        Run { segment: self.segment.clone(), offset, bytes }
    }

    /// A record that takes `count` numbers from `first_seqno` on.
    #[inline]
    fn put_stamped(
        &mut self,
        kind: u8,
        first_seqno: Seqno,
        count: u32,
        payload: &[u8],
        payload_crc: u32,
        path: AppendPath,
    ) -> Appended {
        assert!(self.has_room(payload.len()), "the caller rotates before a segment overflows");
        // INVARIANT(one-stamp): numbers are given in log order, without gaps.
        assert!(first_seqno == self.next_seqno, "{first_seqno} is not {}", self.next_seqno);
        let appended = self.put(kind, payload, payload_crc, path);
        self.next_seqno = Seqno(first_seqno.0 + u64::from(count));
        self.watermark_due = self.tail;
        appended
    }

    #[inline]
    fn put(&mut self, kind: u8, payload: &[u8], payload_crc: u32, path: AppendPath) -> Appended {
        assert!(!self.closed, "nothing follows the close mark");
        let offset = self.tail;
        let header = RecordHeader {
            len: payload.len() as u32,
            synced_to: self.synced,
            kind,
            flags: 0,
            first_seqno: self.next_seqno,
        };
        let (head, crc) = record::encode(self.seed, offset, &header, payload_crc);
        let payload_end = offset + (RECORD_HEADER_BYTES + payload.len()) as u64;
        let end = payload_end.next_multiple_of(record::ALIGN);
        let padding = &[0_u8; record::ALIGN as usize][..(end - payload_end) as usize];
        let in_file = path == AppendPath::Mapped && self.mapping.is_some() && self.settle();
        if let (true, Some(mapping)) = (in_file, &self.mapping) {
            mapping.write(offset as usize, &head);
            mapping.write(offset as usize + RECORD_HEADER_BYTES, payload);
            if !padding.is_empty() {
                mapping.write(payload_end as usize, padding);
            }
        } else {
            self.staged.reserve((end - offset) as usize);
            self.staged.extend_from_slice(&head);
            self.staged.extend_from_slice(payload);
            self.staged.extend_from_slice(padding);
        }
        self.digest = record::roll(self.digest, crc);
        self.tail = end;
        self.confirmed = self.synced;
        Appended { offset, in_file }
    }

    /// Brings every byte before `tail` into its file through the mappings. `false`: some of them
    /// can only be written by their group.
    ///
    /// A group that is being written meanwhile writes the same bytes to the same places.
    #[inline]
    fn settle(&mut self) -> bool {
        (self.staged.is_empty() && self.runs_outside == 0) || self.settle_slowly()
    }

    #[cold]
    fn settle_slowly(&mut self) -> bool {
        // Oldest first, so that a kill in between leaves a prefix, too.
        let flying = self.in_flight.iter_mut().flat_map(|flight| &mut flight.runs);
        for (run, copied) in flying.filter(|(_, copied)| !copied) {
            if !copy_through_mapping(run) {
                return false;
            }
            *copied = true;
            self.runs_outside -= 1;
        }
        while let Some(run) = self.sealed_runs.first() {
            if !copy_through_mapping(run) {
                return false;
            }
            // The segment is still synced by the next group; only the write is saved.
            self.sealed_runs.remove(0);
            self.runs_outside -= 1;
        }
        let Some(mapping) = &self.mapping else { return false };
        mapping.write(self.tail as usize - self.staged.len(), &self.staged);
        self.staged.clear();
        true
    }
}

fn copy_through_mapping(run: &Run) -> bool {
    let Some(mapping) = &run.segment.mapping else { return false };
    mapping.write(run.offset as usize, &run.bytes);
    true
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter")
            .field("number", &self.segment.number)
            .field("tail", &self.tail)
            .field("synced", &self.synced)
            .field("next_seqno", &self.next_seqno)
            .field("staged_bytes", &self.staged.len())
            .finish_non_exhaustive()
    }
}
