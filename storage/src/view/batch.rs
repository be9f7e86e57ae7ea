//! Entries of a scan in one buffer: no allocation per entry, and slices that share it.

use bytes::Bytes;
use std::sync::Arc;

/// The most memory that is allocated ahead.
const ENTRIES_FORESEEN_MAX: usize = 4096;
const BYTES_FORESEEN_MAX: usize = 256 << 10;

/// Collects entries. Reusable: `freeze` leaves it empty.
#[derive(Debug, Default)]
pub struct ScanBatchBuilder {
    data: Vec<u8>,
    /// Where each entry's key and value end.
    ends: Vec<(u32, u32)>,
    /// In a scan of keys: the lengths of the values.
    lengths: Vec<u32>,
}

impl ScanBatchBuilder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates the memory of a whole batch at once. Called before the first of up to
    /// `entries_max` entries, which are about as long as this one and have about `bytes_max` bytes
    /// together.
    #[inline]
    pub fn make_room(&mut self, entry_bytes: usize, bytes_max: usize, entries_max: usize) {
        if self.ends.capacity() == 0 {
            self.take_room(entry_bytes.max(1), bytes_max, entries_max);
        }
    }

    #[cold]
    fn take_room(&mut self, entry_bytes: usize, bytes_max: usize, entries_max: usize) {
        let entries = entries_max.min(bytes_max / entry_bytes + 1).min(ENTRIES_FORESEEN_MAX);
        self.ends.reserve_exact(entries);
        self.data.reserve_exact((entries * entry_bytes).min(BYTES_FORESEEN_MAX));
    }

    /// Appends an entry.
    ///
    /// # Panics
    /// Beyond 4 GiB. Scans never get there: a batch ends with the entry that fills it, at 1 MiB or
    /// less, and an entry has 1 GiB at most.
    #[inline]
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        let key_end = self.data.len() + key.len();
        let end = key_end + value.len();
        assert!(u32::try_from(end).is_ok(), "a batch is below 4 GiB");
        self.data.reserve(end - self.data.len());
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        self.ends.push((key_end as u32, end as u32));
    }

    /// Appends a key, and the length of its value. A batch has either all values or none.
    ///
    /// # Panics
    /// As `push`.
    #[inline]
    pub fn push_key(&mut self, key: &[u8], value_len: usize) {
        debug_assert_eq!(self.ends.len(), self.lengths.len(), "all without their values, or none");
        self.push(key, &[]);
        self.lengths.push(u32::try_from(value_len).expect("a value is below 4 GiB"));
    }

    /// How many entries it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Has it no entry?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all keys and values.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The key of the last entry.
    pub fn last_key(&self) -> Option<&[u8]> {
        let (key_end, _) = *self.ends.last()?;
        let start = self.ends.len().checked_sub(2).map_or(0, |at| self.ends[at].1);
        Some(&self.data[start as usize..key_end as usize])
    }

    /// The entries as a batch; the builder is empty afterwards.
    pub fn freeze(&mut self) -> ScanBatch {
        let data = Bytes::from(std::mem::take(&mut self.data));
        let (ends, lengths) = (std::mem::take(&mut self.ends), std::mem::take(&mut self.lengths));
        ScanBatch { data, places: (!ends.is_empty()).then(|| Arc::new(Places { ends, lengths })) }
    }
}

/// Entries in scan order. Clones and slices share one buffer, which lives as long as any of them.
#[derive(Clone, Debug, Default)]
pub struct ScanBatch {
    data: Bytes,
    /// `None` without entries.
    places: Option<Arc<Places>>,
}

#[derive(Debug)]
struct Places {
    /// Where each entry's key and value end.
    ends: Vec<(u32, u32)>,
    /// In a scan of keys: the lengths of the values. Otherwise empty.
    lengths: Vec<u32>,
}

impl ScanBatch {
    #[inline]
    fn ends(&self) -> &[(u32, u32)] {
        self.places.as_ref().map_or(&[], |places| &places.ends)
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.ends().len()
    }

    /// Has it no entry?
    pub fn is_empty(&self) -> bool {
        self.places.is_none()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    #[inline]
    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends()[index - 1].1 as usize }
    }

    /// A key. Panics beyond the end.
    #[inline]
    pub fn key(&self, index: usize) -> Bytes {
        self.data.slice(self.start(index)..self.ends()[index].0 as usize)
    }

    /// A value; empty in a scan of keys. Panics beyond the end.
    #[inline]
    pub fn value(&self, index: usize) -> Bytes {
        let (key_end, end) = self.ends()[index];
        self.data.slice(key_end as usize..end as usize)
    }

    /// The length of a value, also in a scan of keys. Panics beyond the end.
    #[inline]
    pub fn value_len(&self, index: usize) -> usize {
        let (key_end, end) = self.ends()[index];
        let length = self.places.as_ref().and_then(|places| places.lengths.get(index));
        length.map_or((end - key_end) as usize, |length| *length as usize)
    }

    /// A key and a value, borrowed. Panics beyond the end.
    #[inline]
    pub fn entry(&self, index: usize) -> (&[u8], &[u8]) {
        let (key_end, end) = self.ends()[index];
        let (key_end, end) = (key_end as usize, end as usize);
        (&self.data[self.start(index)..key_end], &self.data[key_end..end])
    }

    /// All entries, borrowed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + DoubleEndedIterator {
        (0..self.len()).map(|index| self.entry(index))
    }
}
