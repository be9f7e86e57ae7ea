//! An open table: index and filter in memory, data blocks through the cache.

use super::block::{Block, Bounds, Broken, EntrySlot};
use super::cache::{BlockCache, BlockPlaces, TableBlocks};
use super::cursor::{CursorOptions, TableCursor};
use super::filter::Filter;
use super::footer::{FOOTER_BYTES, Footer, Handle};
use super::index::{Index, IndexOf};
use super::options::TableId;
use super::properties::{self, TableMeta};
use super::section::{load_filter, read, read_into, read_section, refuse};
use super::trailer::{
    ChecksumSeed, INFLATED_BYTES_MAX, OpenedBlock, check_bytes, check_trailer, raw_bytes, unshared,
    zeroed,
};
use crate::error::{Error, Lacks, Result};
use crate::key::{Kind, Seqno};
use crate::vfs::{File, Vfs};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How far down a read may go for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadTier {
    /// Memory only, the system's page cache included. A block that is not there is
    /// `Error::WouldBlock`. So is one that is large and not in the block cache.
    Memory,
    /// To the disk, however long that takes. Joins a read of the same block that is under way.
    Disk,
}

/// A longer block is not read under `ReadTier::Memory`: to copy and to check it takes so long that
/// other tasks of the thread would notice.
pub const READ_AT_ONCE_BYTES_MAX: usize = 256 << 10;

/// What a table says about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// When it was written.
    pub seqno: Seqno,
    /// Put or delete.
    pub kind: Kind,
    /// The value; empty for a delete. Shares the block's memory if it is at least an eighth of it.
    pub value: Bytes,
}

/// One open table. Immutable; all methods may be called from several threads.
#[derive(Debug)]
pub struct Table {
    filter: Filter,
    index: Index,
    blocks: TableBlocks,
    file: Arc<dyn File>,
    seed: ChecksumSeed,
    path: PathBuf,
    meta: TableMeta,
    footer: Footer,
    filter_broken: bool,
}

/// Is this block, as it is stored, as short when it is inflated? A damaged one may say anything;
/// whoever may wait finds that out.
///
/// # Errors
/// `WouldBlock` if it is not.
pub(super) fn check_short(stored: &[u8]) -> Result<()> {
    if raw_bytes(stored) > READ_AT_ONCE_BYTES_MAX {
        return Err(Error::WouldBlock(Lacks::Thread));
    }
    Ok(())
}

impl Table {
    /// Opens the table at `path` and loads its index and filter: disk work. A filter that cannot be
    /// read is ignored, counted and logged; everything else that is wrong fails the call.
    ///
    /// # Errors
    /// `Error::Missing` if there is no such file although `expected` says what should be in it;
    /// `Error::Corrupt` if the file is not the table `id`, is damaged, or differs from `expected`;
    /// `Error::Unsupported` if this build cannot read it; `Error::Io`.
    pub fn open(
        vfs: &Arc<dyn Vfs>,
        path: PathBuf,
        id: TableId,
        expected: Option<&TableMeta>,
        cache: Arc<BlockCache>,
    ) -> Result<Arc<Self>> {
        Self::open_file(None, vfs, path, Some(id), expected, cache)
    }

    /// `open` for a table that is whatever its own footer says.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_any(
        vfs: &Arc<dyn Vfs>,
        path: PathBuf,
        cache: Arc<BlockCache>,
    ) -> Result<Arc<Self>> {
        Self::open_file(None, vfs, path, None, None, cache)
    }

    /// `open` for a table whose blocks are found again in `places` when it is opened again.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_in(
        places: &BlockPlaces,
        vfs: &Arc<dyn Vfs>,
        path: PathBuf,
        id: TableId,
        expected: Option<&TableMeta>,
        cache: Arc<BlockCache>,
    ) -> Result<Arc<Self>> {
        Self::open_file(Some(places), vfs, path, Some(id), expected, cache)
    }

    fn open_file(
        places: Option<&BlockPlaces>,
        vfs: &Arc<dyn Vfs>,
        path: PathBuf,
        id: Option<TableId>,
        expected: Option<&TableMeta>,
        cache: Arc<BlockCache>,
    ) -> Result<Arc<Self>> {
        let file = vfs.open(&path).map_err(|source| {
            if expected.is_some() && source.kind() == io::ErrorKind::NotFound {
                Error::Missing { path: path.clone() }
            } else {
                Error::io("open", &path, source)
            }
        })?;
        let file_bytes = file.len().map_err(|source| Error::io("stat", &path, source))?;
        let Some(footer_at) = file_bytes.checked_sub(FOOTER_BYTES as u64) else {
            let what = format!("file of {file_bytes} bytes is too short for a table");
            return Err(Error::corrupt(&path, 0, what));
        };
        let bytes = read(&*file, &path, footer_at, FOOTER_BYTES)?;
        let bytes = bytes.as_slice().try_into().expect("as many bytes were asked for");
        // INVARIANT(adopted-as-written): one that is not of this database's making.
        let is_own = |id: &TableId| expected.is_none_or(|meta| meta.unique_id == id.unique_id());
        let footer = Footer::decode(bytes, &path, file_bytes, id.as_ref().filter(|id| is_own(id)))?;
        let id = footer.id;
        if !is_own(&id) {
            let what = format!("file is table {} of another database or place", id.number);
            return Err(Error::corrupt(&path, footer_at, what));
        }
        let seed = ChecksumSeed::new(&id.unique_id());

        let payload = read_section(&*file, &path, seed, footer.properties)?;
        let (mut meta, data_blocks) = properties::decode(&payload, file_bytes)
            .map_err(|what| Error::corrupt(&path, footer.properties.offset, what))?;
        let stranger = meta.number != id.number || meta.unique_id != id.unique_id();
        if let Some(expected) = expected.filter(|_| !stranger) {
            meta.number = expected.number;
        }
        if stranger || expected.is_some_and(|expected| *expected != meta) {
            let what = match expected {
                Some(expected) if !stranger => {
                    let fields = meta.differences(expected).join(", ");
                    format!("table is {meta:?}, but the manifest expects another {fields}")
                }
                _ => format!("properties are those of table {}", meta.number),
            };
            return Err(Error::corrupt(&path, footer.properties.offset, what));
        }

        let payload = read_section(&*file, &path, seed, footer.index)?;
        let (raw_bytes, data_end) = (meta.raw_bytes, footer.filter.offset);
        let of = IndexOf { raw_bytes, data_end, features: footer.features };
        let index = Index::decode(&payload, &of)
            .map_err(|fault| refuse(&path, footer.index.offset, fault))?;
        if index.len() as u64 != data_blocks
            || data_blocks > meta.entries
            || index.separator(index.len() - 1) != meta.max_key
        {
            let what = "index, properties and data blocks do not fit each other";
            return Err(Error::corrupt(&path, footer.index.offset, what));
        }

        let filter = match load_filter(&*file, &path, seed, footer.filter) {
            Ok(filter) => Some(filter),
            Err(error) => {
                tracing::warn!(%error, "filter is ignored: absent keys will cost a block read");
                cache.count_broken_filter();
                None
            }
        };
        let filter_broken = filter.is_none();
        let filter = filter.unwrap_or_else(Filter::everything);
        let (index_bytes, filter_bytes) = (index.memory_bytes(), filter.memory_bytes());
        let blocks =
            TableBlocks::new(cache, places, index.len(), index_bytes as u64, filter_bytes as u64);
        Ok(Arc::new(Self { filter, index, blocks, file, seed, path, meta, footer, filter_broken }))
    }

    /// What the table contains.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Which table it is.
    pub fn id(&self) -> TableId {
        self.footer.id
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Was the filter unreadable when the table was opened?
    pub fn filter_is_broken(&self) -> bool {
        self.filter_broken
    }

    /// No value in it is longer than this.
    pub fn value_bytes_bound(&self) -> u64 {
        let blocks = (0..self.index.len()).map(|i| self.index.place(i).1 as u64);
        let longest = blocks.max().unwrap_or(0);
        if self.footer.features == 0 {
            return longest;
        }
        // What is longer is not compressed.
        longest.max(INFLATED_BYTES_MAX as u64).min(self.meta.raw_bytes)
    }

    /// How many data blocks the table has.
    pub fn data_blocks(&self) -> usize {
        self.index.len()
    }

    /// File bytes of the data blocks that lie wholly before `key`: a measure of how much is between
    /// two keys. Memory only.
    pub fn bytes_before(&self, key: &[u8]) -> u64 {
        match self.index.lower_bound(key) {
            i if i == self.index.len() => self.index.data_end(),
            i => self.index.place(i).0,
        }
    }

    /// A key that divides the table's data blocks at `numerator / denominator`, for choosing split
    /// points. It need not be in the table.
    ///
    /// # Panics
    /// If the fraction is not below 1.
    pub fn key_at_fraction(&self, numerator: u64, denominator: u64) -> &[u8] {
        assert!(numerator < denominator, "a fraction below 1");
        let i = u128::from(numerator) * self.index.len() as u128 / u128::from(denominator);
        self.index.separator(i as usize)
    }

    /// May the table have a key with this hash (`codec::hash64` of the key)? Memory only; "no" is
    /// certain.
    #[inline]
    pub fn may_contain(&self, key_hash: u64) -> bool {
        self.filter.may_contain(key_hash)
    }

    /// The entry of `key`, whose `codec::hash64` is `key_hash`; tombstones are found, too. At most
    /// one block is looked at, and none if the filter says no.
    ///
    /// # Errors
    /// `Error::WouldBlock` under `ReadTier::Memory` if the block is not in memory; `Error::Io` or
    /// `Error::Corrupt`, with file and offset, if it cannot be read.
    #[inline]
    pub fn get(&self, key: &[u8], key_hash: u64, tier: ReadTier) -> Result<Option<Found>> {
        self.look_up(key, key_hash, tier, |block, index, slot| Found {
            seqno: block.seqno(index),
            kind: slot.kind,
            value: block.value(slot.value..slot.end),
        })
    }

    /// Like `get` without the value, which is not copied.
    #[inline]
    pub fn probe(
        &self,
        key: &[u8],
        key_hash: u64,
        tier: ReadTier,
    ) -> Result<Option<(Seqno, Kind)>> {
        self.look_up(key, key_hash, tier, |block, index, slot| (block.seqno(index), slot.kind))
    }

    /// Like `get` with the value's length in place of the value.
    ///
    /// # Errors
    /// As `get`.
    #[inline]
    pub fn value_len(
        &self,
        key: &[u8],
        key_hash: u64,
        tier: ReadTier,
    ) -> Result<Option<(Kind, u64)>> {
        let length = |slot: &EntrySlot| (slot.end - slot.value) as u64;
        self.look_up(key, key_hash, tier, |_, _, slot| (slot.kind, length(&slot)))
    }

    #[inline]
    fn look_up<T>(
        &self,
        key: &[u8],
        key_hash: u64,
        tier: ReadTier,
        make: impl Fn(&Block, u32, EntrySlot) -> T,
    ) -> Result<Option<T>> {
        if !self.filter.may_contain(key_hash) {
            return Ok(None);
        }
        let i = self.index.lower_bound(key);
        if i == self.index.len() {
            return Ok(None);
        }
        let find = |block: &Block| match block.find(key, key_hash) {
            Ok(found) => Ok(found.map(|(index, slot)| make(block, index, slot))),
            Err(broken) => Err(self.broken(i, broken)),
        };
        match self.blocks.look(i, find) {
            Some(found) => found,
            None => find(&self.fetch(i, tier, true)?),
        }
    }

    /// A cursor over all entries, tombstones included. It stands nowhere until a seek.
    pub fn cursor(self: &Arc<Self>, how: CursorOptions) -> TableCursor {
        TableCursor::new(Arc::clone(self), how)
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Block `i` from the cache.
    #[inline]
    pub(super) fn cached(&self, i: usize) -> Option<Block> {
        self.blocks.look(i, Block::clone)
    }

    /// Puts block `i` into the cache.
    pub(super) fn cache(&self, i: usize, block: Block) {
        self.blocks.insert(i, block);
    }

    /// A block that was not in the cache was read in another way than by `fetch`.
    pub(super) fn missed(&self) {
        self.blocks.missed();
    }

    /// Block `i`, which is not in the cache. Counts as a miss.
    #[cold]
    pub(super) fn fetch(&self, i: usize, tier: ReadTier, fill_cache: bool) -> Result<Block> {
        let block = match (tier, fill_cache) {
            (ReadTier::Disk, true) => self.blocks.get_or_read(i, || self.read_block(i, true))?,
            (ReadTier::Disk, false) => self.read_block(i, false)?,
            (ReadTier::Memory, _) => {
                let (offset, length) = self.index.place(i);
                if length > READ_AT_ONCE_BYTES_MAX {
                    return Err(Error::WouldBlock(Lacks::Thread));
                }
                let mut stored = self.buffer(i, length, fill_cache);
                let bytes = &mut unshared(&mut stored)[..length];
                if !self.try_read(bytes, offset)? {
                    return Err(Error::WouldBlock(Lacks::Pages));
                }
                check_short(bytes)?;
                let block = self.open_block(i, stored, 0, fill_cache)?;
                if fill_cache {
                    self.cache(i, block.clone());
                }
                block
            }
        };
        self.blocks.missed();
        Ok(block)
    }

    /// Memory of at least `bytes`; what is in it means nothing. If the cache `keeps` what will be
    /// there, that of a block that has left.
    fn buffer(&self, i: usize, bytes: usize, keeps: bool) -> Arc<[u8]> {
        if keeps { self.blocks.buffer(i, bytes) } else { zeroed(bytes) }
    }

    /// Block `i` from the file, past the cache; into its memory if the cache `keeps` it.
    pub(super) fn read_block(&self, i: usize, keeps: bool) -> Result<Block> {
        let (offset, length) = self.index.place(i);
        let mut stored = self.buffer(i, length, keeps);
        self.read_into(&mut unshared(&mut stored)[..length], offset)?;
        self.open_block(i, stored, 0, keeps)
    }

    /// Fills `buffer` from `offset`; false if that would take a disk read.
    pub(super) fn try_read(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        self.file
            .try_read_exact_at(buffer, offset)
            .map_err(|source| Error::io_at("read", &self.path, offset, source))
    }

    /// Fills `buffer` from `offset`, which lies inside the file.
    pub(super) fn read_into(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_into(&*self.file, &self.path, offset, buffer)
    }

    /// Checks and decodes block `i`, which was read to `at` of `buffer`; shares the buffer if the
    /// block is not compressed, or else inflates it as `read_block` reads. What it returns keeps
    /// every rule of a block, so that nothing read from it can break one elsewhere
    /// (INVARIANT(blocks-keep-their-rules)).
    pub(super) fn open_block(
        &self,
        i: usize,
        buffer: Arc<[u8]>,
        at: usize,
        keeps: bool,
    ) -> Result<Block> {
        let (offset, length) = self.index.place(i);
        let inflated = |bytes| self.buffer(i, bytes, keeps);
        let block = match check_trailer(&buffer[at..at + length], self.seed, offset, inflated) {
            Ok(OpenedBlock::Raw(length)) => Block::parse(buffer, at..at + length),
            Ok(OpenedBlock::Inflated(raw, length)) => Block::parse(raw, 0..length),
            Err(fault) => return Err(refuse(&self.path, offset, fault)),
        };
        let bounds = Bounds {
            first: (i == 0).then_some(&self.meta.min_key),
            after: i.checked_sub(1).map(|before| self.index.separator(before)),
            upto: self.index.separator(i),
            seqnos: self.meta.min_seqno.0..=self.meta.max_seqno.0,
        };
        block
            .and_then(|block| block.check(&bounds).map(|()| block))
            .map_err(|broken| self.broken(i, broken))
    }

    /// Looks at the checksum of a block with its trailer, which was read at `offset`.
    pub(super) fn check_block_bytes(&self, stored: &[u8], offset: u64) -> Result<()> {
        check_bytes(stored, self.seed, offset)
            .map(|_| ())
            .map_err(|fault| refuse(&self.path, offset, fault))
    }

    /// The error for something wrong inside block `i`.
    #[cold]
    pub(super) fn broken(&self, i: usize, broken: Broken) -> Error {
        Error::corrupt(&self.path, self.index.place(i).0, broken.0)
    }

    /// The payload of a section, read afresh.
    pub(super) fn section(&self, handle: Handle) -> Result<Vec<u8>> {
        read_section(&*self.file, &self.path, self.seed, handle)
    }

    /// The filter, read afresh.
    pub(super) fn filter_afresh(&self) -> Result<Filter> {
        load_filter(&*self.file, &self.path, self.seed, self.footer.filter)
    }
}
