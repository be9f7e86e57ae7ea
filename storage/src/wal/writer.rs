//! The appending end of the log: offsets, checksums, staging. It is guarded by the log writer's
//! combining lock.
//!
//! Guarantees: no method touches the disk or waits. An append is a copy of the record and a
//! checksum over 24 bytes. No record reaches the file before all its predecessors. So a killed
//! process leaves a prefix behind.
//!
//! It does not stamp sequence numbers, but checks that they are consecutive. It does not know who
//! waits.

use super::ends::{BEGIN_PAYLOAD_BYTES_MAX, CONTINUED_BYTES, encode_begin};
use super::group::{StagedBytes, SyncGroup, SyncTarget, Unsynced};
use super::header::HEADER_BYTES;
use super::record::{self, DIGEST_START, RECORD_HEADER_BYTES, RecordHeader, RecordSeed, kind};
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
use std::ops::Range;
use std::sync::Arc;

/// Bytes kept free at the end of every segment: for one watermark, and then for the close mark or
/// the name of the next segment.
const RESERVE_BYTES: u64 = record::record_bytes(0) + record::record_bytes(CONTINUED_BYTES);
/// The length of the longest begin record.
const BEGIN_BYTES_MAX: u64 = record::record_bytes(BEGIN_PAYLOAD_BYTES_MAX);
/// A mapped append copies at most so many bytes of others, because it may run on a thread that must
/// not be held up: a millisecond or two. Behind more than that it waits for their group.
const SETTLED_BYTES_MAX: usize = 4 << 20;
/// Larger staging buffers are not kept for reuse.
const KEPT_BUFFER_BYTES_MAX: usize = 4 << 20;
/// One buffer that is being written and one spare, besides the one that is being filled.
const KEPT_BUFFERS_MAX: usize = 2;

/// Length of the smallest segment that can hold a record with a payload of `payload_len` bytes.
pub fn segment_bytes_needed(payload_len: usize) -> u64 {
    let frame = HEADER_BYTES as u64 + BEGIN_BYTES_MAX + RESERVE_BYTES;
    let needed = frame + record::record_bytes(payload_len);
    needed.next_multiple_of(HEADER_BYTES as u64)
}

/// The path of a record into its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendPath {
    /// Stored through the mapping, for a caller that asked for `Buffered`. Falls back to staging if
    /// the segment has no mapping, or if much is staged before it.
    Mapped,
    /// Staged for the next sync group, for a caller that waits for the sync anyway. Pages that
    /// `write` makes dirty are much cheaper to sync than pages made dirty through a mapping.
    Staged,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the record in the segment `LogWriter::number`.
    pub offset: u64,
    /// Is the record in the file, with everything before it? If not, it will be when its group is
    /// written.
    pub in_file: bool,
}

/// The runs of a taken group that is not written yet.
struct InFlight {
    id: u64,
    /// The flag says that the run was copied through the mapping meanwhile.
    runs: Vec<(StagedBytes, bool)>,
}

/// The single appender of a log.
pub struct LogWriter {
    identity: LogIdentity,
    seed: RecordSeed,
    segment: Arc<SegmentFile>,
    /// A copy of `segment.mapping`, for quick access.
    mapping: Option<Arc<dyn Mapping>>,
    /// The offset of the next record.
    tail: u64,
    /// The offset up to which this segment is known to be durable.
    synced: u64,
    /// The offset up to which this segment's bytes are in groups.
    taken: u64,
    digest: u64,
    first_seqno: Seqno,
    next_seqno: Seqno,
    /// The bytes before `tail` that are neither in the mapping nor in a group.
    staged: Vec<u8>,
    /// Staged bytes of sealed segments that are in no group yet.
    sealed_runs: Vec<StagedBytes>,
    /// Sealed segments that are in no group yet.
    sealed: Vec<(SyncTarget, SealedSegment)>,
    /// Groups that are taken and not written.
    in_flight: VecDeque<InFlight>,
    /// The first group that is not synced.
    unsynced: u64,
    /// How many runs of `sealed_runs` and `in_flight` are not known to be in their files.
    runs_outside: usize,
    next_group: u64,
    buffers: Vec<Arc<Vec<u8>>>,
    /// The `synced_to` of the newest record of this segment.
    confirmed: u64,
    /// The offset up to which a record should confirm: the end of the last batch or change, or of
    /// the begin record, which says how the previous segment ended.
    watermark_due: u64,
    closed: bool,
}

impl LogWriter {
    /// Begins a log, or a new incarnation of one, in `first`. The begin record is staged. Take,
    /// write and sync a group right away, so that every later record confirms it.
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
            seed: RecordSeed::new(&identity, segment.number),
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
            unsynced: 0,
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

    /// Is the beginning of the current segment durable?
    pub fn has_durable_begin(&self) -> bool {
        self.synced > 0
    }

    /// Length of the current segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment.bytes
    }

    /// The offset of the next record in the current segment.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// The sequence number that the next record must have.
    pub fn next_seqno(&self) -> Seqno {
        self.next_seqno
    }

    /// Can the current segment be stored to through a mapping?
    pub fn is_mapped(&self) -> bool {
        self.mapping.is_some()
    }

    /// Does a record with a payload of `payload_len` bytes fit into the current segment? If not,
    /// rotate into a spare of at least `segment_bytes_needed(payload_len)` bytes.
    #[inline]
    pub fn has_room(&self, payload_len: usize) -> bool {
        self.tail + record::record_bytes(payload_len) + RESERVE_BYTES <= self.segment.bytes
    }

    /// Appends a batch of `count` operations, encoded in `payload`. Its first operation has
    /// `first_seqno`. `payload_crc` is `codec::crc(payload)`, computed outside the combining lock.
    ///
    /// Costs a copy of the payload. A mapped append also copies what is staged, once, up to 4 MiB.
    ///
    /// # Panics
    /// Without room, with an empty batch, with a sequence number out of order, or after the close
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

    /// Appends the change `id`, which takes the one sequence number `seqno`. Its payload has
    /// `CHANGE_BYTES` bytes.
    ///
    /// # Panics
    /// Without room, with a sequence number out of order, or after the close mark.
    pub fn append_change(&mut self, seqno: Seqno, id: ChangeId, path: AppendPath) -> Appended {
        let payload = record::encode_change(id);
        self.put_stamped(kind::CHANGE, seqno, 1, &payload, crc(&payload), path)
    }

    /// Is everything durable, while no record confirms the end of the log? Then damage there would
    /// look like a torn write. When idle, call `append_watermark` and write the group.
    pub fn wants_watermark(&self) -> bool {
        self.synced == self.tail
            && self.confirmed < self.watermark_due
            && !self.closed
            && self.watermark_fits()
    }

    /// Stages a record that only confirms what is durable now. Returns `false` if there is no room;
    /// then the next segment's records will confirm it.
    pub fn append_watermark(&mut self) -> bool {
        if !self.watermark_fits() {
            return false;
        }
        self.put(kind::WATERMARK, &[], record::PAYLOAD_CRC_NONE, AppendPath::Staged);
        true
    }

    /// Stages the last record of the log. Call it after everything else is synced, so that it
    /// confirms all of it. It still must be taken, written and synced. Nothing can be appended
    /// after it.
    pub fn append_close_mark(&mut self) {
        self.put(kind::CLOSE_MARK, &[], record::PAYLOAD_CRC_NONE, AppendPath::Staged);
        self.closed = true;
    }

    /// Continues the log in `spare`, in memory only. The last record of the old segment names the
    /// new one. The old segment joins the next group, which syncs it before the new one.
    pub fn rotate(&mut self, spare: Spare) {
        let new = Arc::new(spare.segment);
        assert!(new.number > self.segment.number, "numbers rise along the log");
        assert!(!self.closed, "nothing follows the close mark");
        // INVARIANT(no-log-file-missing): the file and the name of `new` are durable.
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
        self.seed = RecordSeed::new(&self.identity, new.number);
        self.mapping.clone_from(&new.mapping);
        let old = mem::replace(&mut self.segment, new);
        let sealed = SealedSegment {
            number: old.number,
            path: old.path.clone(),
            first_seqno: self.first_seqno,
            last_seqno: link.last_seqno,
            bytes: old.bytes,
        };
        let target = SyncTarget { segment: old, from: self.taken, upto: self.tail };
        self.sealed.push((target, sealed));
        self.first_seqno = self.next_seqno;
        self.digest = DIGEST_START;
        self.tail = HEADER_BYTES as u64;
        (self.synced, self.taken, self.confirmed) = (0, 0, 0);
        self.begin(Predecessor::Follows(link));
        // A record of the new segment must confirm the end of the old one.
        self.watermark_due = self.tail;
    }

    /// Is a sealed segment in no group yet? Take it soon: only then can it be synced or given up.
    #[inline]
    pub fn has_sealed(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Takes everything appended since the last group. Cheap: it swaps buffers. Write and sync the
    /// group outside the combining lock, in the order in which groups were taken, and report both.
    pub fn take_group(&mut self) -> SyncGroup {
        let mut runs = mem::take(&mut self.sealed_runs);
        // The runs were counted when their segment was sealed.
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
            targets.push(SyncTarget { segment, from, upto });
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

    /// Records that `group.write()` succeeded: the whole group is in its files.
    pub fn written(&mut self, group: &SyncGroup) {
        if group.is_empty() {
            return;
        }
        let flight = self.in_flight.pop_front().expect("a taken group is in flight until written");
        assert!(flight.id == group.id, "groups are written in the order they were taken");
        // The group still holds its segments, so no mapping is unmapped here.
        for (run, copied) in flight.runs {
            self.runs_outside -= usize::from(!copied);
            let reusable = run.bytes.capacity() <= KEPT_BUFFER_BYTES_MAX;
            if reusable && self.buffers.len() < KEPT_BUFFERS_MAX {
                self.buffers.push(run.bytes);
            }
        }
    }

    /// Records that `unsynced.sync()` succeeded: later records confirm what it covered.
    pub fn synced(&mut self, unsynced: &Unsynced) {
        let Range { start, end } = unsynced.groups;
        assert!(start == end || start == self.unsynced, "groups are synced in their order");
        let written = self.in_flight.front().map_or(self.next_group, |flight| flight.id);
        assert!(end <= written, "a group is written before it is synced");
        self.unsynced = self.unsynced.max(end);
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

    /// Appends the begin record. It is always staged, so that nothing is stored in the new file
    /// before the old one has all its records.
    fn begin(&mut self, predecessor: Predecessor) {
        let payload = encode_begin(predecessor);
        self.put(kind::BEGIN, &payload, crc(&payload), AppendPath::Staged);
    }

    fn take_staged(&mut self) -> StagedBytes {
        let kept = self.buffers.iter_mut().position(|buffer| Arc::get_mut(buffer).is_some());
        let mut next = kept
            .and_then(|at| Arc::into_inner(self.buffers.swap_remove(at)))
            .unwrap_or_else(|| Vec::with_capacity(self.staged.len().min(KEPT_BUFFER_BYTES_MAX)));
        next.clear();
        let bytes = Arc::new(mem::replace(&mut self.staged, next));
        let offset = self.tail - bytes.len() as u64;
        StagedBytes { segment: self.segment.clone(), offset, bytes }
    }

    /// Appends a record that takes `count` sequence numbers from `first_seqno` on.
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
        // INVARIANT(one-stamp): sequence numbers follow the order of the log, without gaps.
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

    /// Copies every byte before `tail` that is not in its file through the mappings. `false` if
    /// some bytes can only be written by their group, or if there are so many that whoever appends
    /// had better wait for their group than copy them.
    ///
    /// A group that is being written meanwhile writes the same bytes to the same places.
    #[inline]
    fn settle(&mut self) -> bool {
        (self.staged.is_empty() && self.runs_outside == 0) || self.settle_slowly()
    }

    #[cold]
    fn settle_slowly(&mut self) -> bool {
        let flying = self.in_flight.iter().flat_map(|flight| &flight.runs);
        let outside = flying.filter(|(_, copied)| !copied).map(|(run, _)| run);
        let outside = outside.chain(&self.sealed_runs).map(|run| run.bytes.len());
        if outside.sum::<usize>() + self.staged.len() > SETTLED_BYTES_MAX {
            return false;
        }
        // Oldest first, so that a kill in between also leaves a prefix.
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
            // The next group still syncs the segment; only its write is saved.
            self.sealed_runs.remove(0);
            self.runs_outside -= 1;
        }
        let Some(mapping) = &self.mapping else { return false };
        mapping.write(self.tail as usize - self.staged.len(), &self.staged);
        self.staged.clear();
        true
    }
}

fn copy_through_mapping(run: &StagedBytes) -> bool {
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
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}
