//! `import`: one thread reads and parses, several tasks write, and queues between them are short.
//!
//! A key always goes to the same writer. So of two records with one key the later wins, as with a
//! single writer. Memory is bounded by writers x queue x batch. The end of an import is synced
//! whatever `--durability` says: "imported" means on disk.

pub mod args;
mod jsonl;
mod lines;
mod source;
mod table;
pub mod tree;

use crate::args::Format;
use crate::outcome::{Failure, Result};
use crate::progress::Progress;
use crate::store;
use crate::text::escape;
use crate::{output, units};
use args::{ImportArgs, LineKey, OnError};
use serde_json::json;
use sluicedb::{Db, WriteBatch, WriteOptions};
use source::{Lines, Record, Source, Trouble};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Batches that wait per writer: the reader fills one while another is being written.
const QUEUE: usize = 2;
/// Most entries of a batch.
const BATCH_ENTRIES_MAX: usize = 4096;
/// Bad records that are reported one by one. The rest is counted.
const REPORTED_MAX: u64 = 20;

pub async fn run(args: ImportArgs) -> Result {
    let format = args.resolve_format()?;
    let options = args.store.options()?;
    let value_bytes_max = options.effective_value_bytes_max();
    let done = Arc::new(AtomicU64::new(0));
    // The source is opened first: a missing file must not leave a new database behind.
    let (source, length) = open(&args, format, value_bytes_max, &done)?;
    let started = Instant::now();
    let db = args.store.create().await?;
    let bar = Progress::bytes(length, &done);
    let imported = pump(&db, source, &args).await;
    let ended = match imported {
        Ok(tally) => db.sync().await.map(|()| tally).map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    drop(bar);
    let Tally { entries, bytes, skipped, passed_over } = store::close(db, ended).await?;
    let elapsed = started.elapsed();
    if args.json {
        return output::json(&json!({
            "entries": entries, "bytes": bytes, "skipped": skipped, "passed_over": passed_over,
            "seconds": elapsed.as_secs_f64(), "durability": args.durability.name(),
        }));
    }
    let skips =
        if skipped > 0 { format!(", {} skipped", units::count(skipped)) } else { String::new() };
    if passed_over > 0 {
        let links = units::count(passed_over);
        output::message(&format!("passed over: {links} symbolic links and special files"));
    }
    output::message(&format!(
        "imported {} entries ({}){skips} in {}: {} entries/s, {}",
        units::count(entries),
        units::bytes(bytes),
        units::seconds(elapsed),
        units::rate(entries, elapsed),
        units::byte_rate(bytes, elapsed)
    ));
    Ok(())
}

fn open(
    args: &ImportArgs,
    format: Format,
    value_bytes_max: u64,
    done: &Arc<AtomicU64>,
) -> Result<(Box<dyn Source>, Option<u64>)> {
    if format == Format::Tree {
        return Ok((Box::new(tree::Tree::open(&args.source, value_bytes_max, done)?), None));
    }
    let (reader, length) = source::open(&args.source)?;
    let name = if args.source.as_os_str() == "-" {
        "stdin".to_owned()
    } else {
        args.source.display().to_string()
    };
    let source: Box<dyn Source> = match format {
        Format::Jsonl => Box::new(jsonl::JsonLines {
            lines: Lines::new(reader, &name, done),
            key: args.key.clone(),
            value: args.value.clone(),
        }),
        Format::Lines => Box::new(lines::PlainLines {
            lines: Lines::new(reader, &name, done),
            key: args.line_key.unwrap_or(LineKey::Number),
        }),
        Format::Csv | Format::Tsv | Format::Tree => {
            let columns = table::Columns {
                delimiter: if format == Format::Tsv { b'\t' } else { b',' },
                headers: !args.no_headers,
                key: args.key_column.clone(),
                value: args.value_column.clone(),
            };
            Box::new(table::Table::open(reader, &name, done, &columns)?)
        }
    };
    Ok((source, length))
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    entries: u64,
    bytes: u64,
    /// Bad records.
    skipped: u64,
    /// Links and special files.
    passed_over: u64,
}

async fn pump(db: &Db, source: Box<dyn Source>, args: &ImportArgs) -> Result<Tally> {
    let options = args.store.options()?;
    let value_bytes_max = options.effective_value_bytes_max();
    // A batch is sent once it is full, so it may exceed the requested size by one entry.
    let room = options.effective_batch_bytes_max().saturating_sub(value_bytes_max + (128 << 10));
    let mut writers = JoinSet::new();
    let mut lanes = Vec::new();
    for _ in 0..args.writers {
        let (sender, batches) = mpsc::channel(QUEUE);
        lanes.push(Lane { sender, batch: WriteBatch::new() });
        writers.spawn(write(db.clone(), batches, args.durability.write_options()));
    }
    let reader = Reader {
        source,
        lanes,
        prefix: args.key_prefix.clone().into_bytes(),
        batch_bytes: usize::try_from(args.batch.min(room)).unwrap_or(usize::MAX),
        on_error: args.on_error,
        name: args.source.display().to_string(),
        value_bytes_max,
    };
    let reader = std::thread::spawn(move || reader.run());
    let mut failed = None;
    while let Some(ended) = writers.join_next().await {
        let ended = ended.map_err(|error| Failure::failed(format!("a writer stopped: {error}")))?;
        if let Err(error) = ended {
            failed.get_or_insert(error);
        }
    }
    // All lanes are closed, so the reader has ended or is about to end.
    let read = reader.join().map_err(|_| Failure::failed("the reader stopped"))?;
    match failed {
        Some(error) => Err(error.into()),
        None => read,
    }
}

async fn write(
    db: Db,
    mut batches: mpsc::Receiver<WriteBatch>,
    options: WriteOptions,
) -> sluicedb::Result<()> {
    while let Some(batch) = batches.recv().await {
        db.write_with(batch, options).await?;
    }
    Ok(())
}

/// The lane to one writer.
struct Lane {
    sender: mpsc::Sender<WriteBatch>,
    batch: WriteBatch,
}

impl Lane {
    /// Hands the batch over. Waits for room. `false`: the writer has stopped with an error.
    fn send(&mut self) -> bool {
        self.batch.is_empty() || self.sender.blocking_send(std::mem::take(&mut self.batch)).is_ok()
    }
}

struct Reader {
    source: Box<dyn Source>,
    lanes: Vec<Lane>,
    prefix: Vec<u8>,
    batch_bytes: usize,
    on_error: OnError,
    name: String,
    value_bytes_max: u64,
}

impl Reader {
    fn run(mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        loop {
            let record = match self.source.next() {
                Ok(None) => break,
                Ok(Some(record)) => match self.check(record) {
                    Ok(record) => record,
                    Err(what) => {
                        let place = self.source.place();
                        self.skip(&place, &what, &mut tally)?;
                        continue;
                    }
                },
                Err(Trouble::Record { place, what }) => {
                    self.skip(&place, &what, &mut tally)?;
                    continue;
                }
                Err(Trouble::Fatal(failure)) => return Err(failure),
            };
            tally.entries += 1;
            tally.bytes += (record.key.len() + record.value.len()) as u64;
            let mut hasher = DefaultHasher::new();
            record.key.hash(&mut hasher);
            let lane = (hasher.finish() % self.lanes.len() as u64) as usize;
            let lane = &mut self.lanes[lane];
            lane.batch.put(&record.key, &record.value);
            let full = lane.batch.encoded_len() >= self.batch_bytes
                || lane.batch.len() >= BATCH_ENTRIES_MAX;
            if full && !lane.send() {
                return Ok(tally);
            }
        }
        self.lanes.iter_mut().all(Lane::send);
        tally.passed_over = self.source.passed_over();
        if tally.skipped > REPORTED_MAX {
            let more = tally.skipped - REPORTED_MAX;
            output::message(&format!("... and {} more", units::count(more)));
        }
        Ok(tally)
    }

    /// Adds the prefix. Reports early, with a place, what the database would report without one.
    fn check(&self, mut record: Record) -> Result<Record, String> {
        if !self.prefix.is_empty() {
            record.key.splice(..0, self.prefix.iter().copied());
        }
        match (record.key.len(), record.value.len() as u64) {
            (0, _) => Err("the key is empty".to_owned()),
            (65_536.., _) => Err(format!(
                "the key {}... has {} bytes; keys have at most 65535",
                escape(&record.key[..32]),
                record.key.len()
            )),
            (_, bytes) if bytes > self.value_bytes_max => Err(format!(
                "the value has {bytes} bytes; values have at most {}",
                self.value_bytes_max
            )),
            _ => Ok(record),
        }
    }

    fn skip(&self, place: &str, what: &str, tally: &mut Tally) -> Result {
        // The place of a tree's record is a path already.
        let place = if place.starts_with("line ") {
            format!("{}, {place}", self.name)
        } else {
            place.into()
        };
        if self.on_error == OnError::Stop {
            return Err(Failure::failed(format!("{place}: {what}")));
        }
        tally.skipped += 1;
        if tally.skipped <= REPORTED_MAX {
            output::message(&format!("skipped: {place}: {what}"));
        }
        Ok(())
    }
}
