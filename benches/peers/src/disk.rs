//! What the operating system says: bytes written and read by this process, and the size of a
//! directory. What it is told: that files are not needed in memory any more.

use crate::Result;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes that this process made dirty or wrote so far; `None` where `/proc` does not say. A page
/// that is written to again before it went to the disk counts once, and so do zeros.
pub fn bytes_written() -> Option<u64> {
    counted("write_bytes: ")
}

/// Bytes that came from the disk for this process so far, what was read ahead included; `None`
/// where `/proc` does not say.
pub fn bytes_read() -> Option<u64> {
    counted("read_bytes: ")
}

fn counted(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

/// Takes the files below `dir` out of the page cache. Pages that somebody has mapped stay.
///
/// # Errors
/// A file cannot be read, or there is no `sync`: pages that are dirty would stay as well.
pub fn forget_pages(dir: &Path) -> Result<()> {
    sync_all()?;
    forget_clean_pages(dir)
}

fn forget_clean_pages(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget_clean_pages(&entry.path())?;
        } else {
            let file = std::fs::File::open(entry.path())?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Space that the files below a directory take, what is allocated ahead included.
///
/// # Errors
/// The directory cannot be read.
pub fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A file may be gone since it was listed.
        let Ok(file) = entry.metadata() else { continue };
        bytes += if file.is_dir() { size(&entry.path())? } else { file.blocks() * 512 };
    }
    Ok(bytes)
}

/// The largest size of `dir` until `stop`, looked at ten times a second.
///
/// # Errors
/// The directory cannot be read.
pub fn largest_size(dir: &Path, stop: &AtomicBool) -> Result<u64> {
    let mut largest = 0;
    while !stop.load(Ordering::Relaxed) {
        largest = largest.max(size(dir)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(largest)
}

/// Lets what others left dirty go to the disk now, not during the next measurement.
///
/// # Errors
/// There is no `sync`.
pub fn sync_all() -> Result<()> {
    std::process::Command::new("sync").status()?;
    Ok(())
}

/// A directory that goes when it is dropped.
#[derive(Debug)]
pub struct Directory(pub PathBuf);

impl Directory {
    /// A directory of this process's own in `within`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(within: &Path, program: &str) -> Result<Self> {
        let dir = Self(within.join(format!("sluicedb-{program}-{}", std::process::id())));
        std::fs::create_dir_all(&dir.0)?;
        Ok(dir)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nobody would read what could be said about it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
