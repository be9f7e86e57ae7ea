//! A directory tree: the path below the root, with `/`, is the key; the content is the value.
//!
//! Symbolic links, sockets and devices are skipped and counted. Names come in sorted order, so two
//! imports of one tree do the same.

use super::source::{Record, Source, Trouble};
use crate::outcome::Failure;
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Tree {
    root: PathBuf,
    walk: Walk,
    bytes_max: u64,
    total: Arc<AtomicU64>,
    place: String,
}

impl Tree {
    /// Walks `root`. A file longer than `bytes_max` is a bad record and is not read.
    pub fn open(root: &Path, bytes_max: u64, total: &Arc<AtomicU64>) -> Result<Self, Failure> {
        let walk = Walk::new(root).map_err(|error| Failure::io(root.display(), &error))?;
        let total = Arc::clone(total);
        Ok(Self { root: root.to_owned(), walk, bytes_max, total, place: String::new() })
    }

    fn read(&self, path: &Path) -> Result<Record, String> {
        let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if meta.len() > self.bytes_max {
            return Err(format!("{} bytes; a value holds at most {}", meta.len(), self.bytes_max));
        }
        let value = std::fs::read(path).map_err(|error| error.to_string())?;
        self.total.fetch_add(value.len() as u64, Ordering::Relaxed);
        let relative = path.strip_prefix(&self.root).expect("the walk stays below its root");
        Ok(Record { key: key_of(relative), value })
    }
}

/// A relative path as a key: its names with `/` between them.
pub fn key_of(relative: &Path) -> Vec<u8> {
    let names: Vec<&[u8]> =
        relative.components().map(|name| name.as_os_str().as_encoded_bytes()).collect();
    names.join(&b'/')
}

impl Source for Tree {
    fn next(&mut self) -> Result<Option<Record>, Trouble> {
        let path = match self.walk.next() {
            None => return Ok(None),
            Some(Ok(path)) => path,
            Some(Err((path, error))) => {
                let place = path.display().to_string();
                return Err(Trouble::Record { place, what: error.to_string() });
            }
        };
        self.place = path.display().to_string();
        let record = self.read(&path);
        record.map(Some).map_err(|what| Trouble::Record { place: self.place.clone(), what })
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn passed_over(&self) -> u64 {
        self.walk.passed_over
    }
}

/// The regular files below a directory, depth first, in sorted order, without following links.
#[derive(Debug)]
pub struct Walk {
    /// What is still to be visited, last first.
    stack: Vec<(PathBuf, bool)>,
    /// Links and special files that were skipped.
    passed_over: u64,
    skip: fn(&str) -> bool,
}

impl Walk {
    /// Starts at `root`.
    pub fn new(root: &Path) -> io::Result<Self> {
        Self::without(root, |_| false)
    }

    /// Starts at `root` and does not enter directories with these names.
    pub fn without(root: &Path, skip: fn(&str) -> bool) -> io::Result<Self> {
        let mut walk = Self { stack: Vec::new(), passed_over: 0, skip };
        walk.enter(root)?;
        Ok(walk)
    }

    fn enter(&mut self, dir: &Path) -> io::Result<()> {
        let mut names: Vec<(PathBuf, FileType)> = std::fs::read_dir(dir)?
            .map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))))
            .collect::<io::Result<_>>()?;
        names.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        for (path, kind) in names {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if kind.is_file() || kind.is_dir() && !(self.skip)(&name) {
                self.stack.push((path, kind.is_dir()));
            } else if !kind.is_dir() {
                self.passed_over += 1;
            }
        }
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<PathBuf, (PathBuf, io::Error)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((path, is_dir)) = self.stack.pop() {
            if !is_dir {
                return Some(Ok(path));
            }
            if let Err(error) = self.enter(&path) {
                return Some(Err((path, error)));
            }
        }
        None
    }
}
