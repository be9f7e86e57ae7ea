//! Writes a table, front to back.
//!
//! The file is written in large chunks, and write-back is started after each of them. So the final
//! sync does not find everything dirty, and a concurrent sync of the log does not wait behind a
//! mass of dirty pages. The builder holds one chunk, the index and eight bytes per key for the
//! filter in memory. After a failed write it only repeats that error; the caller removes the file.

use super::block::BlockBuilder;
use super::cache::BLOCKS_MAX;
use super::filter::Filter;
use super::footer::{FOOTER_BYTES, Footer, Handle};
use super::index::{IndexBuilder, separator};
use super::options::{Compression, TableId, TableOptions};
use super::properties::{self, TableMeta};
use super::sketch::KeySketch;
use super::trailer::{ChecksumSeed, TRAILER_BYTES, end_block, put_block, put_section};
use crate::codec::hash64;
use crate::error::{Error, Result};
use crate::give_way;
use crate::key::{Kind, Seqno};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_CAP};
use crate::vfs::File;
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;

/// Finished blocks are written to the file when they have this many bytes.
const CHUNK_BYTES: usize = 512 << 10;
/// Only whole pages are written before the end: a page that goes to the disk in two parts is
/// written there twice.
const PAGE_BYTES: usize = 4096;

/// Writes one table to a file that the caller created.
#[derive(Debug)]
pub struct TableBuilder {
    file: Arc<dyn File>,
    path: PathBuf,
    id: TableId,
    options: TableOptions,
    seed: ChecksumSeed,
    block: BlockBuilder,
    /// The last finished block before compression.
    raw: Vec<u8>,
    index: IndexBuilder,
    hashes: Vec<u64>,
    /// Finished bytes that are not yet in the file, where they start at `written`.
    chunk: Vec<u8>,
    written: u64,
    /// Length of the last finished block. Its separator depends on the next key, so it is not
    /// indexed yet.
    open_length: u64,
    separator: Vec<u8>,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
    entries: u64,
    tombstones: u64,
    raw_bytes: u64,
    min_seqno: Seqno,
    max_seqno: Seqno,
    created_at_ms: u64,
    tombstones_since_ms: Option<u64>,
    keys: KeySketch,
    features: u64,
    failed: Option<Error>,
}

impl TableBuilder {
    /// Begins a table in `file`, which is new and empty. `path` is for error messages. Invalid
    /// `options` are reported by the first `add` or by `finish`.
    pub fn new(file: Arc<dyn File>, path: PathBuf, id: TableId, options: TableOptions) -> Self {
        let failed = options.validate().err();
        let interval = if failed.is_none() { options.restart_interval } else { 1 };
        Self {
            file,
            path,
            id,
            seed: ChecksumSeed::new(&id.unique_id()),
            block: BlockBuilder::new(interval),
            raw: Vec::new(),
            index: IndexBuilder::new(),
            hashes: Vec::new(),
            chunk: Vec::with_capacity(CHUNK_BYTES + 2 * options.block_bytes),
            options,
            written: 0,
            open_length: 0,
            separator: Vec::new(),
            first_key: Vec::new(),
            last_key: Vec::new(),
            entries: 0,
            tombstones: 0,
            raw_bytes: 0,
            min_seqno: Seqno::MAX,
            max_seqno: Seqno::ZERO,
            created_at_ms: 0,
            tombstones_since_ms: None,
            keys: KeySketch::default(),
            features: 0,
            failed,
        }
    }

    /// Sets the creation time that the table records, in milliseconds since 1970.
    pub fn created_at(mut self, unix_ms: u64) -> Self {
        self.created_at_ms = unix_ms;
        self
    }

    /// If the table gets a tombstone, its creation time is at most `unix_ms`, since when there are
    /// such tombstones.
    pub fn tombstones_since(mut self, unix_ms: Option<u64>) -> Self {
        self.tombstones_since_ms = unix_ms;
        self
    }

    /// Adds an entry. Usually a copy in memory; about every half megabyte it writes to the file and
    /// blocks on the disk.
    ///
    /// # Panics
    /// If `key` is not after the last one, or is empty or too long; if a delete has a value.
    ///
    /// # Errors
    /// `Error::Io` if the file cannot be written, `Error::Invalid` for bad options.
    pub fn add(&mut self, key: &[u8], seqno: Seqno, kind: Kind, value: &[u8]) -> Result<()> {
        assert!(!key.is_empty() && key.len() <= KEY_BYTES_MAX, "key of {} bytes", key.len());
        assert!(value.len() <= VALUE_BYTES_CAP, "value of {} bytes", value.len());
        assert!(self.entries == 0 || key > &self.last_key[..], "keys of a table ascend strictly");
        assert!(kind == Kind::Put || value.is_empty(), "a delete has no value");
        assert!(seqno <= Seqno::MAX, "a seqno has 56 bits");
        if let Some(error) = &self.failed {
            return Err(error.duplicate());
        }
        if self.block.is_empty() {
            self.close_separator(key);
        } else {
            let more = key.len() + value.len() + 10;
            if self.block.estimated_bytes() + more > self.options.block_bytes {
                self.finish_block()?;
                self.close_separator(key);
            }
        }
        if self.entries == 0 {
            self.first_key.extend_from_slice(key);
        }
        let hash = hash64(key);
        if self.options.filter_bits_per_key > 0 {
            self.hashes.push(hash);
        }
        self.keys.add(hash);
        self.block.add(key, hash, seqno, kind, value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.entries += 1;
        self.tombstones += u64::from(kind == Kind::Delete);
        self.raw_bytes += (key.len() + value.len()) as u64;
        self.min_seqno = self.min_seqno.min(seqno);
        self.max_seqno = self.max_seqno.max(seqno);
        Ok(())
    }

    /// The estimated length of the file if the table were finished now, within one percent.
    pub fn estimated_bytes(&self) -> u64 {
        let filter = self.hashes.len() * self.options.filter_bits_per_key / 8;
        let block = if self.block.is_empty() { 0 } else { self.block.estimated_bytes() };
        self.end() + (block + self.index.len() + filter + FOOTER_BYTES + 512) as u64
    }

    /// The number of entries added so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Writes the last block, the filter, the index, the properties and the footer, and makes all
    /// of it durable. Then reads index, properties and footer back and compares them. The name is
    /// not durable yet: that takes a sync of the directory. Blocks on the disk.
    ///
    /// # Errors
    /// `Error::Invalid` for a table without entries or bad options, `Error::Io` from the file,
    /// `Error::Corrupt` if the file does not return what was written.
    pub fn finish(mut self) -> Result<TableMeta> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.entries == 0 {
            return Err(Error::invalid("a table needs at least one entry"));
        }
        self.finish_block()?;
        self.index.add(&self.last_key, self.open_length);

        let mut filter = Handle { offset: self.end(), length: 0 };
        if self.options.filter_bits_per_key > 0 {
            let payload = Filter::build(&self.hashes, self.options.filter_bits_per_key).encode();
            put_section(&mut self.chunk, &payload, self.seed, filter.offset);
            filter.length = self.end() - filter.offset;
        }
        self.write_chunk(self.chunk.len())?;

        // The rest is written and read back at once.
        let start = self.end();
        let mut tail = Vec::new();
        let data_blocks = self.index.blocks();
        let payload = std::mem::take(&mut self.index).finish();
        let tombstones_since_ms = self.tombstones_since_ms.filter(|_| self.tombstones > 0);
        put_section(&mut tail, &payload, self.seed, start);
        let index = Handle { offset: start, length: tail.len() as u64 };
        let mut meta = TableMeta {
            number: self.id.number,
            unique_id: self.id.unique_id(),
            file_bytes: 0,
            raw_bytes: self.raw_bytes,
            entries: self.entries,
            tombstones: self.tombstones,
            min_key: Bytes::copy_from_slice(&self.first_key),
            max_key: Bytes::copy_from_slice(&self.last_key),
            min_seqno: self.min_seqno,
            max_seqno: self.max_seqno,
            created_at_ms: tombstones_since_ms.unwrap_or(u64::MAX).min(self.created_at_ms),
            keys: self.keys,
        };
        let payload = properties::encode(&meta, data_blocks, &self.options);
        put_section(&mut tail, &payload, self.seed, index.end());
        let properties =
            Handle { offset: index.end(), length: start + tail.len() as u64 - index.end() };
        meta.file_bytes = properties.end() + FOOTER_BYTES as u64;
        let footer = Footer {
            properties,
            index,
            filter,
            file_bytes: meta.file_bytes,
            id: self.id,
            features: self.features,
        };
        tail.extend_from_slice(&footer.encode());

        let file = &self.file;
        file.write_all_at(&tail, start).map_err(|e| Error::io_at("write", &self.path, start, e))?;
        file.sync_all().map_err(|e| Error::io("sync", &self.path, e))?;
        let mut again = vec![0; tail.len()];
        let read = file
            .read_at(&mut again, start)
            .map_err(|e| Error::io_at("read", &self.path, start, e))?;
        let length = file.len().map_err(|e| Error::io("stat", &self.path, e))?;
        if read != tail.len() || again != tail || length != meta.file_bytes {
            let what = "file does not return the index and footer just written";
            return Err(Error::corrupt(&self.path, start, what));
        }
        Ok(meta)
    }

    /// The offset of the next block.
    fn end(&self) -> u64 {
        self.written + self.chunk.len() as u64
    }

    /// Adds the last finished block to the index, if there is one. `next_key` is the key after it.
    fn close_separator(&mut self, next_key: &[u8]) {
        if self.open_length > 0 {
            separator(&self.last_key, next_key, &mut self.separator);
            self.index.add(&self.separator, self.open_length);
            self.open_length = 0;
        }
    }

    /// Finishes the current block with its trailer. Writes the chunk if it is large enough.
    fn finish_block(&mut self) -> Result<()> {
        if self.index.blocks() >= BLOCKS_MAX as u64 - 1 {
            let what = format!("a table has at most {BLOCKS_MAX} blocks: use larger ones");
            return Err(Error::invalid(what));
        }
        let offset = self.end();
        if self.options.compression == Compression::None {
            // Built in the chunk, without a copy.
            let start = self.chunk.len();
            self.block.finish(&mut self.chunk);
            end_block(&mut self.chunk, start, self.seed, offset);
        } else {
            self.raw.clear();
            self.block.finish(&mut self.raw);
            let compression = self.options.compression;
            self.features |= put_block(&mut self.chunk, &self.raw, compression, self.seed, offset);
        }
        self.block.clear();
        self.open_length = self.end() - offset;
        debug_assert!(self.open_length > TRAILER_BYTES as u64);
        give_way::now_and_then();
        if self.chunk.len() >= CHUNK_BYTES {
            self.write_chunk(self.chunk.len() / PAGE_BYTES * PAGE_BYTES)?;
        }
        Ok(())
    }

    /// Writes the first bytes of the chunk.
    fn write_chunk(&mut self, bytes: usize) -> Result<()> {
        let (offset, length) = (self.written, bytes as u64);
        let done = self
            .file
            .write_all_at(&self.chunk[..bytes], offset)
            .map_err(|source| Error::io_at("write", &self.path, offset, source));
        if let Err(error) = done {
            self.failed = Some(error.duplicate());
            return Err(error);
        }
        // Only a hint: if it fails, the final sync fails as well, and that error counts.
        let _ = self.file.write_back(offset, length);
        self.written += length;
        self.chunk.drain(..bytes);
        Ok(())
    }
}
