//! The real data: which files, which lines of them, and what must be in the database afterwards.
//!
//! What happens to an entry (left alone, overwritten, deleted) follows from its position. So the
//! expected value can be computed again from the file whenever it is checked. Only a hash per file
//! is remembered, which shows when a file changed while the demo ran.

use super::args::DemoArgs;
use crate::import::tree::{Walk, key_of};
use crate::outcome::{Failure, Result};
use crate::random::mix;
use crate::store;
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Larger files are left out: the demo is about many values, not about one.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Files in the queue of one task.
const QUEUE: usize = 8;

/// One file of the real data.
#[derive(Debug)]
pub struct Item {
    pub path: PathBuf,
    /// `<label>/<path below the folder>`
    pub name: Vec<u8>,
    /// Hash of the content when it was imported.
    pub hash: AtomicU64,
    /// How many of its lines are entries of their own.
    pub lines: AtomicU64,
    /// Bytes imported.
    pub bytes: AtomicU64,
}

/// All of the real data.
#[derive(Debug)]
pub struct Corpus {
    pub items: Vec<Item>,
    pub folders: Vec<PathBuf>,
    /// Bytes of the files, by the directory entries.
    pub bytes: u64,
    lines_max: u64,
}

/// What happens to an entry after it was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Overwritten,
    Deleted,
}

fn fate(number: u64) -> Fate {
    match mix(number) % 20 {
        0..3 => Fate::Overwritten,
        3..5 => Fate::Deleted,
        _ => Fate::Kept,
    }
}

/// A file with its content, on its way to a task.
#[derive(Debug)]
pub struct Loaded {
    pub index: usize,
    pub content: Vec<u8>,
}

impl Corpus {
    /// Chooses files: `folder`, or the checkout and the cargo registry's sources.
    pub fn choose(args: &DemoArgs) -> Result<Self> {
        let value_bytes_max = store::options(Some(args.memory)).effective_value_bytes_max();
        let file_bytes_max = FILE_BYTES_MAX.min(value_bytes_max);
        let folders = match &args.folder {
            Some(folder) => vec![("folder", folder.clone())],
            None => default_folders(),
        };
        let mut corpus =
            Self { items: Vec::new(), folders: Vec::new(), bytes: 0, lines_max: args.lines };
        for (label, root) in folders {
            let skip: fn(&str) -> bool = |name| matches!(name, "target" | ".git");
            let walk = Walk::without(&root, skip);
            let walk = walk.map_err(|error| Failure::io(root.display(), &error))?;
            for path in walk {
                // Unreadable folders belong to other users.
                let Ok(path) = path else { continue };
                let Ok(meta) = std::fs::metadata(&path) else { continue };
                if meta.len() > file_bytes_max || corpus.bytes + meta.len() > args.cap {
                    continue;
                }
                corpus.bytes += meta.len();
                let below = path.strip_prefix(&root).expect("the walk stays below its root");
                let mut name = label.as_bytes().to_vec();
                name.push(b'/');
                name.extend(key_of(below));
                corpus.items.push(Item {
                    path,
                    name,
                    hash: AtomicU64::new(0),
                    lines: AtomicU64::new(0),
                    bytes: AtomicU64::new(0),
                });
            }
            corpus.folders.push(root);
        }
        if corpus.items.is_empty() {
            let names: Vec<_> = corpus.folders.iter().map(|f| f.display().to_string()).collect();
            return Err(Failure::usage(format!("no files to import in {}", names.join(", "))));
        }
        Ok(corpus)
    }

    /// Reads every file once, on a thread, and distributes them to `tasks` queues. The first pass
    /// notes hashes and chooses lines. Later passes count files that changed, and leave them out.
    pub fn deal(
        self: &Arc<Self>,
        tasks: u16,
        first: bool,
    ) -> (Vec<mpsc::Receiver<Loaded>>, Reader) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..tasks).map(|_| mpsc::channel(QUEUE)).unzip();
        let corpus = Arc::clone(self);
        let reader = std::thread::spawn(move || corpus.read(&senders, first));
        (receivers, Reader(reader))
    }

    fn read(&self, senders: &[mpsc::Sender<Loaded>], first: bool) -> Vec<PathBuf> {
        let mut lines_left = self.lines_max;
        let mut changed = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            let Ok(content) = std::fs::read(&item.path) else {
                changed.push(item.path.clone());
                continue;
            };
            if first {
                let lines = (lines(&content).count() as u64).min(lines_left);
                lines_left -= lines;
                item.lines.store(lines, Ordering::Relaxed);
                item.hash.store(hash(&content), Ordering::Relaxed);
                item.bytes.store(content.len() as u64, Ordering::Relaxed);
            } else if item.hash.load(Ordering::Relaxed) != hash(&content) {
                changed.push(item.path.clone());
                continue;
            }
            // A task that has stopped has stopped with an error, which will be reported.
            if senders[index % senders.len()].blocking_send(Loaded { index, content }).is_err() {
                break;
            }
        }
        changed
    }

    /// Entries that must exist now: files and lines, without the deleted ones.
    pub fn live_entries(&self, index: usize, changed: bool) -> u64 {
        let count = self.items[index].lines.load(Ordering::Relaxed);
        let is_live = |fate: Fate| u64::from(!changed || fate != Fate::Deleted);
        let lines: u64 = (0..count).map(|line| is_live(Self::line_fate(index, line))).sum();
        lines + is_live(Self::file_fate(index))
    }

    pub fn file_fate(index: usize) -> Fate {
        fate(index as u64)
    }

    pub fn line_fate(index: usize, line: u64) -> Fate {
        fate((index as u64 + 1) << 32 | line)
    }
}

/// The reading thread. Returns the files that changed since they were imported.
#[derive(Debug)]
pub struct Reader(std::thread::JoinHandle<Vec<PathBuf>>);

impl Reader {
    pub fn join(self) -> Result<Vec<PathBuf>> {
        self.0.join().map_err(|_| Failure::failed("the thread that reads files stopped"))
    }
}

impl Item {
    /// The key of the whole file.
    pub fn file_key(&self) -> Vec<u8> {
        [b"file/", &self.name[..]].concat()
    }

    /// The key of one line.
    pub fn line_key(&self, line: u64) -> Vec<u8> {
        [b"line/", &self.name[..], format!("#{line:07}").as_bytes()].concat()
    }
}

/// Lines without their line breaks. The last one counts only if it is not empty.
pub fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

/// The content of an entry after it was overwritten: as long as before, and different.
pub fn rewritten(content: &[u8]) -> Vec<u8> {
    content.iter().rev().map(|byte| byte ^ 0x20).collect()
}

/// What must be stored for an entry, before (`changed == false`) or after the changes.
pub fn expected(content: &[u8], fate: Fate, changed: bool) -> Option<Cow<'_, [u8]>> {
    match fate {
        _ if !changed => Some(Cow::Borrowed(content)),
        Fate::Kept => Some(Cow::Borrowed(content)),
        Fate::Overwritten => Some(Cow::Owned(rewritten(content))),
        Fate::Deleted => None,
    }
}

/// A hash of bytes. It need only be the same within one run.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// This checkout, if the binary was built in one that still exists, else the working directory; and
/// the sources that cargo has unpacked.
fn default_folders() -> Vec<(&'static str, PathBuf)> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
    let checkout = checkout.filter(|path| path.join("Cargo.toml").is_file());
    let working = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let mut folders = vec![("checkout", checkout.unwrap_or_else(working))];
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let registry = cargo.map(|cargo| cargo.join("registry").join("src"));
    folders.extend(registry.filter(|path| path.is_dir()).map(|path| ("registry", path)));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_occurs_and_changes_show() {
        for wanted in [Fate::Kept, Fate::Overwritten, Fate::Deleted] {
            assert!((0..50).any(|index| Corpus::file_fate(index) == wanted), "{wanted:?}");
        }
        assert_eq!(expected(b"ab", Fate::Overwritten, true).as_deref(), Some(&b"BA"[..]));
        assert_eq!(expected(b"ab", Fate::Overwritten, false).as_deref(), Some(&b"ab"[..]));
        assert_eq!(expected(b"ab", Fate::Deleted, true), None);
        assert_ne!(rewritten(b"aa"), b"aa");
    }

    #[test]
    fn lines_have_no_breaks() {
        assert_eq!(lines(b"a\n\nb").collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
        assert_eq!(lines(b"a\n").count(), 1);
        assert_eq!(lines(b"").count(), 0);
    }
}
