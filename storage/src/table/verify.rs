//! Verifies a whole table against itself. Blocks on the disk and bypasses the cache.

use super::block::BlockCursor;
use super::index::{Index, IndexOf};
use super::properties;
use super::reader::Table;
use super::section::refuse;
use super::sketch::KeySketch;
use crate::codec::hash64;
use crate::error::{Error, Result};
use crate::give_way;
use crate::key::{Kind, Seqno};

/// Bytes read at once where only checksums are verified. They stay in a core's cache until then.
const PIECE_BYTES: u64 = 256 << 10;

/// The result of a verification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Data blocks that could be read: their checksum is right, and they keep the rules of the
    /// format.
    pub blocks: u64,
    /// Entries of those blocks.
    pub entries: u64,
    /// Errors passed to the callback.
    pub errors: u64,
}

/// Running totals, for comparison with the properties.
#[derive(Debug, Default)]
struct Totals {
    raw_bytes: u64,
    tombstones: u64,
    min_seqno: Option<Seqno>,
    max_seqno: Option<Seqno>,
    last_key: Vec<u8>,
    denied: u64,
    keys: KeySketch,
}

impl Table {
    /// Reads every byte of the file once. Verifies all checksums, the rules of every block and its
    /// place between its separators, the counts and bounds in the properties, and that the filter
    /// has every key. Each problem is passed to `each`, and the verification continues behind it.
    /// Blocks on the disk.
    pub fn verify(&self, each: &mut dyn FnMut(Error)) -> VerifyReport {
        self.verify_while(&mut || true, each).expect("nobody ends it")
    }

    /// As `verify`, but calls `goes_on` before each block. Returns `None` if that returned false.
    pub fn verify_while(
        &self,
        goes_on: &mut dyn FnMut() -> bool,
        each: &mut dyn FnMut(Error),
    ) -> Option<VerifyReport> {
        let mut report = VerifyReport::default();
        let mut errors = 0;
        let mut tell = |error| {
            errors += 1;
            each(error);
        };
        self.verify_sections(&mut tell);
        let filter = match self.filter_afresh() {
            Ok(filter) => Some(filter),
            Err(error) => {
                tell(error);
                None
            }
        };
        let mut totals = Totals::default();
        let mut complete = true;
        for i in 0..self.index().len() {
            if !goes_on() {
                return None;
            }
            give_way::now_and_then();
            let offset = self.index().place(i).0;
            let wrong = |what: &str| Error::corrupt(self.path(), offset, what);
            let block = match self.read_block(i, false) {
                Ok(block) => block,
                Err(error) => {
                    complete = false;
                    tell(error);
                    continue;
                }
            };
            report.blocks += 1;
            let mut cursor = BlockCursor::new();
            let mut step = cursor.enter_first(block.clone()).map(|()| true);
            while step == Ok(true) {
                report.entries += 1;
                let (key, seqno) = (cursor.key(), cursor.seqno());
                let hash = hash64(key);
                if filter.as_ref().is_some_and(|filter| !filter.may_contain(hash)) {
                    totals.denied += 1;
                }
                if !matches!(block.find(key, hash), Ok(Some(_))) {
                    tell(wrong("a key is not found by its tag"));
                }
                totals.keys.add(hash);
                totals.raw_bytes += (key.len() + cursor.value().len()) as u64;
                totals.tombstones += u64::from(cursor.kind() == Kind::Delete);
                totals.min_seqno = Some(totals.min_seqno.map_or(seqno, |min| min.min(seqno)));
                totals.max_seqno = totals.max_seqno.max(Some(seqno));
                totals.last_key.clear();
                totals.last_key.extend_from_slice(key);
                step = cursor.next();
            }
            if let Err(broken) = step {
                complete = false;
                tell(self.broken(i, broken));
            }
        }
        if complete {
            self.verify_totals(&totals, report.entries, &mut tell);
        }
        report.errors = errors;
        Some(report)
    }

    /// Verifies that every data block has the bytes that were written, by its checksum only. The
    /// rules of the format are not checked here: they are checked whenever a block is read. Calls
    /// `goes_on` before each piece, and returns `false` if that returned false. Bypasses the cache
    /// and blocks on the disk; with a warm page cache it runs at about the speed of a copy in
    /// memory.
    ///
    /// # Errors
    /// `Corrupt` or `Io` for the first block that differs from what was written.
    pub fn check_bytes(&self, goes_on: &mut dyn FnMut() -> bool) -> Result<bool> {
        let index = self.index();
        let mut piece = Vec::new();
        let mut next = 0;
        while next < index.len() {
            if !goes_on() {
                return Ok(false);
            }
            let (start, _) = index.place(next);
            // At least one block, however long.
            let end = index.blocks_ending_by(start + PIECE_BYTES).max(next + 1);
            let (last, length) = index.place(end - 1);
            piece.resize((last - start) as usize + length, 0);
            self.read_into(&mut piece, start)?;
            let mut left = &piece[..];
            for i in next..end {
                give_way::now_and_then();
                let (offset, length) = index.place(i);
                let (block, behind) = left.split_at(length);
                self.check_block_bytes(block, offset)?;
                left = behind;
            }
            next = end;
        }
        Ok(true)
    }

    /// Checks index and properties as they are on the disk now.
    fn verify_sections(&self, tell: &mut dyn FnMut(Error)) {
        let footer = *self.footer();
        let index = self.section(footer.index).and_then(|payload| {
            let (raw_bytes, data_end) = (self.meta().raw_bytes, footer.filter.offset);
            let of = IndexOf { raw_bytes, data_end, features: footer.features };
            Index::decode(&payload, &of)
                .map_err(|fault| refuse(self.path(), footer.index.offset, fault))
        });
        if let Err(error) = index {
            tell(error);
        }
        let at = footer.properties.offset;
        let meta = self.section(footer.properties).and_then(|payload| {
            properties::decode(&payload, footer.file_bytes)
                .map_err(|what| Error::corrupt(self.path(), at, what))
        });
        match meta {
            Ok((mut meta, _)) => {
                // The properties of an adopted table record its former number.
                meta.number = self.meta().number;
                if meta != *self.meta() {
                    let what = "properties have changed since the open";
                    tell(Error::corrupt(self.path(), at, what));
                }
            }
            Err(error) => tell(error),
        }
    }

    fn verify_totals(&self, totals: &Totals, entries: u64, tell: &mut dyn FnMut(Error)) {
        let meta = self.meta();
        let at = self.footer().properties.offset;
        let mut same = |name: &str, found: u64, stated: u64| {
            if found != stated {
                let what = format!("{name}: found {found}, properties say {stated}");
                tell(Error::corrupt(self.path(), at, what));
            }
        };
        same("entries", entries, meta.entries);
        same("tombstones", totals.tombstones, meta.tombstones);
        same("raw bytes", totals.raw_bytes, meta.raw_bytes);
        same("min seqno", totals.min_seqno.unwrap_or_default().0, meta.min_seqno.0);
        same("max seqno", totals.max_seqno.unwrap_or_default().0, meta.max_seqno.0);
        same("keys that the filter denies", totals.denied, 0);
        if meta.keys != KeySketch::default() && totals.keys != meta.keys {
            let what = "the sketch of the keys in the properties is not that of the keys";
            tell(Error::corrupt(self.path(), at, what));
        }
        if totals.last_key[..] != meta.max_key[..] {
            let what = "last key is not the one the properties name";
            tell(Error::corrupt(self.path(), at, what));
        }
    }
}
