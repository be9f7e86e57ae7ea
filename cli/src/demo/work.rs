//! What the demo does with the data: import, change, check, digest.

use super::corpus::{Corpus, Fate, Loaded, expected, hash, lines, rewritten};
use crate::outcome::{Failure, Result};
use crate::progress::Progress;
use crate::store::Durable;
use crate::text::escape;
use sluicedb::{Db, Scan, WriteBatch};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Lines per batch and keys per multi-get.
const LINES_PER_BATCH: usize = 128;
/// Bytes of lines per batch.
const BATCH_BYTES: usize = 256 << 10;
/// Synced changes in flight per task: they share syncs.
const IN_FLIGHT: usize = 16;
/// Mismatches that are reported one by one.
const TOLD_MAX: usize = 10;

/// What a pass over the data did.
#[derive(Debug, Default)]
pub struct Tally {
    pub entries: u64,
    pub bytes: u64,
    pub mismatches: u64,
    /// The first few mismatches.
    pub told: Vec<String>,
    /// Files that changed since they were imported, and could not be compared.
    pub changed: Vec<PathBuf>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.mismatches += other.mismatches;
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
        self.changed.extend(other.changed);
    }

    fn compare(&mut self, key: &[u8], expected: Option<&[u8]>, found: Option<&[u8]>) {
        self.entries += 1;
        self.bytes += found.map_or(0, <[u8]>::len) as u64;
        if expected == found {
            return;
        }
        let say = |value: Option<&[u8]>| match value {
            None => "nothing".to_owned(),
            Some(value) => format!("{} bytes (hash {:016x})", value.len(), hash(value)),
        };
        self.mismatch(format!("{}: expected {}, found {}", escape(key), say(expected), say(found)));
    }

    pub fn mismatch(&mut self, what: String) {
        self.mismatches += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(what);
        }
    }
}

/// A pass over all files with several tasks.
#[derive(Clone, Debug)]
pub struct Pass {
    pub db: Db,
    pub corpus: Arc<Corpus>,
    pub tasks: u16,
}

impl Pass {
    /// Imports: whole files one by one, their lines in batches; `Buffered`, synced at the end.
    pub async fn import(&self) -> Result<Tally> {
        let tally = self.run(true, Self::import_task).await?;
        self.db.sync().await?;
        Ok(tally)
    }

    /// Overwrites and deletes. Every change is `Synced` by itself, with many in flight.
    pub async fn change(&self) -> Result<Tally> {
        self.run(false, Self::change_task).await
    }

    /// Reads every entry and compares it with its file.
    pub async fn check(&self, changed: bool) -> Result<Tally> {
        self.run(false, move |pass, files, done| pass.check_task(files, done, changed)).await
    }

    async fn run<F, T>(&self, first: bool, task: F) -> Result<Tally>
    where
        F: Fn(Self, mpsc::Receiver<Loaded>, Arc<AtomicU64>) -> T,
        T: Future<Output = Result<Tally>> + Send + 'static,
    {
        let done = Arc::new(AtomicU64::new(0));
        let _bar = Progress::bytes(Some(self.corpus.bytes), &done);
        let (queues, reader) = self.corpus.deal(self.tasks, first);
        let mut tasks = JoinSet::new();
        for files in queues {
            tasks.spawn(task(self.clone(), files, Arc::clone(&done)));
        }
        let mut tally = Tally::default();
        while let Some(ended) = tasks.join_next().await {
            let ended =
                ended.map_err(|error| Failure::failed(format!("a task stopped: {error}")))?;
            tally.add(ended?);
        }
        tally.changed = reader.join()?;
        Ok(tally)
    }

    async fn import_task(
        self,
        mut files: mpsc::Receiver<Loaded>,
        done: Arc<AtomicU64>,
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        let options = Durable::Buffered.write_options();
        while let Some(Loaded { index, content }) = files.recv().await {
            let item = &self.corpus.items[index];
            self.db.put_with(item.file_key(), &content, options).await?;
            let count = item.lines.load(Ordering::Relaxed);
            let mut batch = WriteBatch::new();
            for (number, line) in (0..count).zip(lines(&content)) {
                batch.put(item.line_key(number), line);
                tally.bytes += line.len() as u64;
                if batch.len() == LINES_PER_BATCH || batch.encoded_len() > BATCH_BYTES {
                    self.db.write_with(std::mem::take(&mut batch), options).await?;
                }
            }
            self.db.write_with(batch, options).await?;
            tally.entries += 1 + count;
            tally.bytes += content.len() as u64;
            done.fetch_add(content.len() as u64, Ordering::Relaxed);
        }
        Ok(tally)
    }

    async fn change_task(
        self,
        mut files: mpsc::Receiver<Loaded>,
        done: Arc<AtomicU64>,
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut in_flight = JoinSet::new();
        while let Some(Loaded { index, content }) = files.recv().await {
            let item = &self.corpus.items[index];
            let mut changes = vec![(item.file_key(), &content[..], Corpus::file_fate(index))];
            let count = item.lines.load(Ordering::Relaxed);
            for (number, line) in (0..count).zip(lines(&content)) {
                changes.push((item.line_key(number), line, Corpus::line_fate(index, number)));
            }
            for (key, old, fate) in changes {
                let value = match fate {
                    Fate::Kept => continue,
                    Fate::Overwritten => Some(rewritten(old)),
                    Fate::Deleted => None,
                };
                tally.entries += 1;
                tally.bytes += value.as_ref().map_or(0, Vec::len) as u64;
                if in_flight.len() == IN_FLIGHT {
                    join(&mut in_flight).await?;
                }
                let db = self.db.clone();
                in_flight.spawn(async move {
                    match value {
                        Some(value) => db.put(key, value).await.map(drop),
                        None => db.delete(key).await.map(drop),
                    }
                });
            }
            done.fetch_add(content.len() as u64, Ordering::Relaxed);
        }
        while !in_flight.is_empty() {
            join(&mut in_flight).await?;
        }
        Ok(tally)
    }

    async fn check_task(
        self,
        mut files: mpsc::Receiver<Loaded>,
        done: Arc<AtomicU64>,
        changed: bool,
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        while let Some(Loaded { index, content }) = files.recv().await {
            let item = &self.corpus.items[index];
            let key = item.file_key();
            let found = self.db.get(&key).await?;
            let wanted = expected(&content, Corpus::file_fate(index), changed);
            tally.compare(&key, wanted.as_deref(), found.as_deref());
            let count = item.lines.load(Ordering::Relaxed);
            let mut numbered = (0..count).zip(lines(&content)).peekable();
            while numbered.peek().is_some() {
                let some: Vec<_> = numbered.by_ref().take(LINES_PER_BATCH).collect();
                let keys: Vec<_> = some.iter().map(|(number, _)| item.line_key(*number)).collect();
                let found = self.db.multi_get(&keys).await?;
                for (((number, line), key), found) in some.iter().zip(&keys).zip(&found) {
                    let wanted = expected(line, Corpus::line_fate(index, *number), changed);
                    tally.compare(key, wanted.as_deref(), found.as_deref());
                }
            }
            done.fetch_add(content.len() as u64, Ordering::Relaxed);
        }
        Ok(tally)
    }

    /// How many entries of files and lines must exist.
    pub fn live_entries(&self, changed: bool) -> u64 {
        (0..self.corpus.items.len()).map(|index| self.corpus.live_entries(index, changed)).sum()
    }
}

async fn join(in_flight: &mut JoinSet<sluicedb::Result<()>>) -> Result {
    match in_flight.join_next().await {
        None => Ok(()),
        Some(Ok(written)) => Ok(written?),
        Some(Err(error)) => Err(Failure::failed(format!("a write stopped: {error}"))),
    }
}

/// What a scan saw. Two scans of the same entries have the same sum, whatever their direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub entries: u64,
    pub bytes: u64,
    pub sum: u64,
}

/// Walks a scan to its end and checks that keys come strictly in order.
pub async fn digest(mut scan: Scan, reverse: bool, tally: &mut Tally) -> Result<Digest> {
    let mut digest = Digest::default();
    let mut last = Vec::new();
    while let Some(batch) = scan.next_chunk().await? {
        for (key, value) in batch.iter() {
            digest.entries += 1;
            digest.bytes += (key.len() + value.len()) as u64;
            let entry = hash(key).wrapping_mul(3).wrapping_add(hash(value));
            digest.sum = digest.sum.wrapping_add(crate::random::mix(entry));
            let in_order = if reverse { key < &last[..] } else { key > &last[..] };
            if !in_order && digest.entries > 1 {
                let (key, last) = (escape(key), escape(&last));
                tally.mismatch(format!("scan: {key} does not come after {last}"));
            }
            last.clear();
            last.extend_from_slice(key);
        }
    }
    tally.entries += digest.entries;
    tally.bytes += digest.bytes;
    Ok(digest)
}

/// The files that changed meanwhile, each once.
pub fn changed_files<'a>(tallies: impl Iterator<Item = &'a Tally>) -> BTreeSet<PathBuf> {
    tallies.flat_map(|tally| tally.changed.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::args::DemoArgs;
    use crate::store;

    async fn imported(dir: &std::path::Path) -> Pass {
        let folder = dir.join("data");
        std::fs::create_dir(&folder).unwrap();
        for i in 0..30 {
            let text = format!("first line of {i}\nsecond line of {i}\n");
            std::fs::write(folder.join(format!("{i}.txt")), text).unwrap();
        }
        let args = DemoArgs {
            folder: Some(folder),
            cap: 1 << 20,
            lines: 1000,
            tasks: 2,
            kills: 0,
            memory: 16 << 20,
            keep: None,
            json: false,
        };
        let corpus = Arc::new(Corpus::choose(&args).unwrap());
        let db = store::open(&dir.join("db"), store::options(Some(args.memory)), true).await;
        let pass = Pass { db: db.unwrap(), corpus, tasks: args.tasks };
        assert_eq!(pass.import().await.unwrap().entries, 90);
        pass
    }

    fn of(pass: &Pass, fate: Fate) -> Vec<u8> {
        let index = (0..30).find(|&index| Corpus::file_fate(index) == fate);
        pass.corpus.items[index.expect("30 files meet every fate")].file_key()
    }

    /// Goal: a check that passes means something.
    /// Method: plant each kind of wrong content, and see it reported.
    #[tokio::test]
    async fn wrong_content_is_a_mismatch() {
        let dir = tempfile::tempdir().unwrap();
        let pass = imported(dir.path()).await;
        assert_eq!(pass.check(false).await.unwrap().mismatches, 0);
        assert!(pass.check(true).await.unwrap().mismatches > 0, "the changes are not made yet");
        pass.change().await.unwrap();
        let tally = pass.check(true).await.unwrap();
        assert_eq!((tally.entries, tally.mismatches), (90, 0), "{:?}", tally.told);

        let (kept, deleted) = (of(&pass, Fate::Kept), of(&pass, Fate::Deleted));
        pass.db.put(&kept, "something else").await.unwrap();
        pass.db.put(&deleted, "back again").await.unwrap();
        pass.db.delete(of(&pass, Fate::Overwritten)).await.unwrap();
        let tally = pass.check(true).await.unwrap();
        assert_eq!((tally.mismatches, tally.told.len()), (3, 3), "{:?}", tally.told);
        pass.db.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_changed_is_left_out_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let pass = imported(dir.path()).await;
        std::fs::write(&pass.corpus.items[3].path, "edited meanwhile").unwrap();
        let tally = pass.check(false).await.unwrap();
        assert_eq!((tally.mismatches, tally.entries), (0, 87));
        assert_eq!(tally.changed, [pass.corpus.items[3].path.clone()]);
        pass.db.close().await.unwrap();
    }

    #[tokio::test]
    async fn digests_agree_in_both_directions_and_notice_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let pass = imported(dir.path()).await;
        let mut tally = Tally::default();
        let forward = digest(pass.db.scan(..), false, &mut tally).await.unwrap();
        let backward = digest(pass.db.scan(..).rev(), true, &mut tally).await.unwrap();
        assert_eq!((forward, tally.mismatches), (backward, 0));
        digest(pass.db.scan(..), true, &mut tally).await.unwrap();
        assert!(tally.mismatches > 0, "a forward scan is not a reverse one");
        pass.db.put(of(&pass, Fate::Kept), "other").await.unwrap();
        let mut tally = Tally::default();
        assert_ne!(digest(pass.db.scan(..), false, &mut tally).await.unwrap(), forward);
        pass.db.close().await.unwrap();
    }
}
