//! The bytes of one version of a file: sparse pages of 4 KiB in groups of 1 MiB, shared until
//! written.
//!
//! A clone costs one counter per MiB. The first write after a clone copies one group of pointers
//! and one page. An absent page reads as zeros and takes no space.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Bytes of a page, which is the unit of sharing and of dirtiness.
pub(super) const PAGE_BYTES: usize = 4096;
/// Pages of a group. A group is 1 MiB, so a clone of a segment of 64 MiB takes 64 references.
const GROUP_PAGES: usize = 256;

pub(super) type Page = Arc<[u8; PAGE_BYTES]>;
type Group = Arc<Vec<Option<Page>>>;

/// The page that is allocated but never written. All files share it.
static ZEROS: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE_BYTES]));

/// A length and the pages below it. The bytes of a page beyond the length are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct FileContent {
    len: u64,
    groups: BTreeMap<u64, Group>,
    pages: u64,
}

impl FileContent {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Space taken, in bytes.
    pub(super) fn allocated(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }

    pub(super) fn page(&self, number: u64) -> Option<&Page> {
        let group = self.groups.get(&(number / GROUP_PAGES as u64))?;
        group[(number % GROUP_PAGES as u64) as usize].as_ref()
    }

    /// Sets a page, or removes it with `None`.
    pub(super) fn put_page(&mut self, number: u64, page: Option<Page>) {
        let slot = self.slot(number);
        let before = slot.is_some();
        let after = page.is_some();
        *slot = page;
        self.pages = self.pages + u64::from(after) - u64::from(before);
    }

    /// The page, for writing.
    pub(super) fn page_mut(&mut self, number: u64) -> &mut [u8; PAGE_BYTES] {
        if self.page(number).is_none() {
            self.put_page(number, Some(Arc::clone(&ZEROS)));
        }
        Arc::make_mut(self.slot(number).as_mut().expect("put there a line ago"))
    }

    fn slot(&mut self, number: u64) -> &mut Option<Page> {
        let group = self.groups.entry(number / GROUP_PAGES as u64);
        let group = group.or_insert_with(|| Arc::new(vec![None; GROUP_PAGES]));
        &mut Arc::make_mut(group)[(number % GROUP_PAGES as u64) as usize]
    }

    /// Reads up to the end of the file. Returns the number of bytes.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (number, at, from, len) in pieces(offset, n) {
            let target = &mut buf[from..from + len];
            match self.page(number) {
                Some(page) => target.copy_from_slice(&page[at..at + len]),
                None => target.fill(0),
            }
        }
        n
    }

    /// Writes, and extends the file. An empty write extends nothing.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        for (number, at, from, len) in pieces(offset, bytes.len()) {
            self.page_mut(number)[at..at + len].copy_from_slice(&bytes[from..from + len]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Gives `[0, len)` real pages, and extends the file to `len`.
    pub(super) fn allocate(&mut self, len: u64) {
        for number in 0..len.div_ceil(PAGE_BYTES as u64) {
            if self.page(number).is_none() {
                self.put_page(number, Some(Arc::clone(&ZEROS)));
            }
        }
        self.len = self.len.max(len);
    }

    /// The page of the first byte at or after `offset` that is not zero.
    pub(super) fn next_data(&self, offset: u64) -> Option<u64> {
        let (first, end) = page_span(offset, self.len.saturating_sub(offset));
        let has_data =
            |number: &u64| self.page(*number).is_some_and(|page| !Arc::ptr_eq(page, &ZEROS));
        let number = (first..end).find(has_data)?;
        Some(offset.max(number * PAGE_BYTES as u64))
    }

    /// The number of pages of `[offset, offset + len)` that are absent.
    pub(super) fn absent_pages(&self, offset: u64, len: u64) -> u64 {
        let (first, end) = page_span(offset, len);
        (first..end).filter(|&number| self.page(number).is_none()).count() as u64
    }

    /// Truncates the file, or extends it with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (kept, at) = (len / PAGE_BYTES as u64, (len % PAGE_BYTES as u64) as usize);
            if at > 0 && self.page(kept).is_some() {
                self.page_mut(kept)[at..].fill(0);
            }
            for number in self.page_numbers(kept + u64::from(at > 0)) {
                self.put_page(number, None);
            }
        }
        self.len = len;
    }

    /// The pages from `first` on that take space.
    pub(super) fn page_numbers(&self, first: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        for (&group_number, group) in self.groups.range(first / GROUP_PAGES as u64..) {
            let base = group_number * GROUP_PAGES as u64;
            let present = group.iter().enumerate().filter(|(_, page)| page.is_some());
            numbers.extend(present.map(|(i, _)| base + i as u64).filter(|&n| n >= first));
        }
        numbers
    }
}

/// The page numbers `[first, end)` that `[offset, offset + len)` touches.
pub(super) fn page_span(offset: u64, len: u64) -> (u64, u64) {
    let page = PAGE_BYTES as u64;
    if len == 0 { (0, 0) } else { (offset / page, (offset + len).div_ceil(page)) }
}

/// Divides `[offset, offset + len)` at page bounds: (page, offset in page, offset in buffer,
/// length).
pub(super) fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let absolute = offset + done as u64;
        let at = (absolute % PAGE_BYTES as u64) as usize;
        let piece = (PAGE_BYTES - at).min(len - done);
        let item = (absolute / PAGE_BYTES as u64, at, done, piece);
        done += piece;
        Some(item)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_do_not_see_later_writes() {
        let mut a = FileContent::default();
        a.write(b"before", 4094);
        let b = a.clone();
        a.write(b"AFTER!", 4094);
        let mut seen = [0; 6];
        assert_eq!(b.read(&mut seen, 4094), 6);
        assert_eq!(&seen, b"before");
        assert_eq!((a.allocated(), a.len()), (8192, 4100));
    }

    #[test]
    fn cutting_zeroes_what_is_extended_over_again() {
        let mut a = FileContent::default();
        a.write(&[7; 10_000], 0);
        a.set_len(5000);
        assert_eq!(a.allocated(), 8192);
        a.set_len(9000);
        let mut seen = [1; 5000];
        assert_eq!(a.read(&mut seen, 4500), 4500);
        assert!(seen[..500].iter().all(|&b| b == 7));
        assert!(seen[500..4500].iter().all(|&b| b == 0));
        assert_eq!(a.absent_pages(0, 9000), 1);
    }
}
