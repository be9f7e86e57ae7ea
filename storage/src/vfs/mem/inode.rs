//! One file of a disk with a page cache: its current contents, its durable contents, and what
//! differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::{FileContent, PAGE_BYTES, page_span, pieces};
use super::namespace::{FailedSync, SpaceUse};

/// The unit that a disk writes atomically.
pub(super) const SECTOR_BYTES: usize = 512;
/// How many earlier unsynced contents are kept per sector. Any of them may have been written back.
const VERSIONS_MAX: usize = 3;

/// A file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// The page cache: what reads return.
    pub(super) current: FileContent,
    /// What certainly survives a power cut.
    pub(super) durable: FileContent,
    /// Pages with bytes that were written after the last sync.
    pub(super) dirty: BTreeMap<u64, Arc<DirtyPage>>,
    /// Pages that a failed sync marked clean. They are readable until the cache is dropped, but not
    /// on the disk.
    pub(super) lost: BTreeSet<u64>,
    /// Pages that were read since they were last dropped.
    pub(super) resident: BTreeSet<u64>,
}

/// The unsynced part of one page.
#[derive(Clone, Debug)]
pub(super) struct DirtyPage {
    /// One bit per byte that was written.
    written: [u64; PAGE_BYTES / 64],
    /// Contents of sectors between the durable and the current ones.
    versions: Vec<(usize, Box<[u8; SECTOR_BYTES]>)>,
}

impl DirtyPage {
    fn new() -> Self {
        Self { written: [0; PAGE_BYTES / 64], versions: Vec::new() }
    }

    /// Was this byte written since the last sync?
    pub(super) fn is_written(&self, at: usize) -> bool {
        self.written[at / 64] >> (at % 64) & 1 == 1
    }

    /// Was any byte of this sector written since the last sync?
    pub(super) fn is_dirty(&self, sector: usize) -> bool {
        let words = SECTOR_BYTES / 64;
        self.written[sector * words..(sector + 1) * words].iter().any(|&word| word != 0)
    }

    /// The contents of a sector between the durable and the current one.
    pub(super) fn versions(&self, sector: usize) -> Vec<&[u8; SECTOR_BYTES]> {
        let mine = self.versions.iter().filter(|(s, _)| *s == sector);
        mine.map(|(_, bytes)| &**bytes).collect()
    }

    /// Records that `[at, at + len)` of `page` is about to be overwritten.
    fn mark(&mut self, page: Option<&[u8; PAGE_BYTES]>, at: usize, len: usize) {
        for sector in at / SECTOR_BYTES..(at + len).div_ceil(SECTOR_BYTES) {
            if self.is_dirty(sector) {
                self.keep_version(page, sector);
            }
        }
        let mut from = at;
        while from < at + len {
            let (word, bit) = (from / 64, from % 64);
            let n = (64 - bit).min(at + len - from);
            self.written[word] |= (u64::MAX >> (64 - n)) << bit;
            from += n;
        }
    }

    fn keep_version(&mut self, page: Option<&[u8; PAGE_BYTES]>, sector: usize) {
        let mut bytes = Box::new([0; SECTOR_BYTES]);
        if let Some(page) = page {
            bytes.copy_from_slice(&page[sector * SECTOR_BYTES..][..SECTOR_BYTES]);
        }
        if self.versions(sector).len() == VERSIONS_MAX {
            let oldest = self.versions.iter().position(|(s, _)| *s == sector);
            self.versions.remove(oldest.expect("there are as many as the most"));
        }
        self.versions.push((sector, bytes));
    }
}

impl Inode {
    /// Writes to the page cache.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (number, at, _, len) in pieces(offset, bytes.len()) {
            self.mark(number, at, len);
        }
        self.current.write(bytes, offset);
    }

    /// Truncates or extends the file in the page cache. Truncated bytes count as overwritten by
    /// zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        let old = self.current.len();
        if len < old {
            for number in self.current.page_numbers(len / PAGE_BYTES as u64) {
                let start = number * PAGE_BYTES as u64;
                let from = len.max(start);
                let end = old.min(start + PAGE_BYTES as u64);
                if from < end {
                    self.mark(number, (from - start) as usize, (end - from) as usize);
                }
            }
        }
        self.current.set_len(len);
    }

    fn mark(&mut self, number: u64, at: usize, len: usize) {
        let page = self.current.page(number).map(|page| &**page);
        let dirty = self.dirty.entry(number).or_insert_with(|| Arc::new(DirtyPage::new()));
        Arc::make_mut(dirty).mark(page, at, len);
        // The next sync writes a page that is dirty again as a whole, including bytes that were
        // lost.
        self.lost.remove(&number);
    }

    /// Makes content and length durable.
    pub(super) fn sync(&mut self) {
        for &number in self.dirty.keys() {
            self.durable.put_page(number, self.current.page(number).cloned());
        }
        self.dirty.clear();
        self.settle_len();
    }

    /// Makes those unsynced pages durable that fit into `free` bytes, in file order. The others are
    /// lost as in a failed sync. Returns whether all of them fit.
    pub(super) fn sync_within(&mut self, free: u64, failed: FailedSync) -> bool {
        let mut pages_left = free / PAGE_BYTES as u64;
        let has_room = |number: &u64| {
            let takes =
                self.durable.page(*number).is_none() && self.current.page(*number).is_some();
            let fits = !takes || pages_left > 0;
            pages_left -= u64::from(takes && fits);
            fits
        };
        let numbers: Vec<u64> = self.dirty.keys().copied().collect();
        let (fitting, rest): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(has_room);
        if rest.is_empty() {
            self.sync();
            return true;
        }
        for number in fitting {
            let end = (number + 1) * PAGE_BYTES as u64;
            self.durable.set_len(self.durable.len().max(end.min(self.current.len())));
            self.durable.put_page(number, self.current.page(number).cloned());
            self.dirty.remove(&number);
        }
        self.lose_unsynced(failed);
        false
    }

    /// Makes the length durable.
    fn settle_len(&mut self) {
        self.durable.set_len(self.current.len());
    }

    /// Applies a failed sync: pages are clean, but their bytes never reached the disk. Neither did
    /// the length; a later sync of other bytes makes it durable.
    pub(super) fn lose_unsynced(&mut self, failed: FailedSync) {
        let dirty = std::mem::take(&mut self.dirty);
        match failed {
            FailedSync::KeepsNew => self.lost.extend(dirty.keys()),
            FailedSync::RevertsToOld => {
                for number in dirty.keys() {
                    self.current.put_page(*number, self.durable.page(*number).cloned());
                }
                self.current.set_len(self.durable.len());
            }
        }
    }

    /// Drops clean pages. Lost pages show what the disk has afterwards.
    pub(super) fn drop_cache(&mut self) {
        for number in std::mem::take(&mut self.lost) {
            self.current.put_page(number, self.durable.page(number).cloned());
        }
        self.resident.clear();
    }

    /// Bytes of space that the file takes.
    pub(super) fn used(&self, space: SpaceUse) -> u64 {
        match space {
            SpaceUse::InPlace => self.current.allocated(),
            SpaceUse::Delayed => self.durable.allocated(),
            SpaceUse::CopyOnWrite => {
                let twice = |number: &&u64| self.durable.page(**number).is_some();
                let old = self.dirty.keys().filter(twice).count() as u64;
                self.current.allocated() + old * PAGE_BYTES as u64
            }
        }
    }

    /// How many of `len` bytes can be written at `offset` with `free` bytes of space left.
    pub(super) fn fitting(&self, len: usize, offset: u64, free: u64, space: SpaceUse) -> usize {
        if space == SpaceUse::Delayed {
            return len;
        }
        let mut pages_left = free / PAGE_BYTES as u64;
        for (number, _, done, _) in pieces(offset, len) {
            let copied = space == SpaceUse::CopyOnWrite
                && self.durable.page(number).is_some()
                && !self.dirty.contains_key(&number);
            if copied || self.current.page(number).is_none() {
                if pages_left == 0 {
                    return done;
                }
                pages_left -= 1;
            }
        }
        len
    }

    /// Is all of it in memory? Used for cold reads.
    pub(super) fn is_resident(&self, offset: u64, len: usize) -> bool {
        let (first, end) = page_span(offset, len as u64);
        (first..end).all(|number| self.resident.contains(&number))
    }

    pub(super) fn make_resident(&mut self, offset: u64, len: usize) {
        let (first, end) = page_span(offset, len as u64);
        self.resident.extend(first..end);
    }
}
