//! What every input format has in common: records with a place, and a bound on their size.

use crate::outcome::Failure;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest record that is read into memory: a value of 64 MiB fits, in the longest of its
/// encodings. A control byte in JSON has six bytes.
pub const RECORD_BYTES_MAX: u64 = 400 << 20;

/// One entry to import.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Why there is no record.
#[derive(Debug)]
pub enum Trouble {
    /// This record is bad; the next may be good. `place` is "line 7" or a path.
    Record { place: String, what: String },
    /// Nothing more can be read.
    Fatal(Failure),
}

impl Trouble {
    /// A bad record at a line.
    pub fn line(line: u64, what: impl Into<String>) -> Self {
        Self::Record { place: format!("line {line}"), what: what.into() }
    }
}

/// Records in order. Runs on a thread of its own, so it may block.
pub trait Source: Send {
    /// The next record, `None` at the end.
    fn next(&mut self) -> Result<Option<Record>, Trouble>;
    /// The place of the record that `next` returned last.
    fn place(&self) -> String;
    /// What was seen so far that cannot be a record: symbolic links and special files of a tree.
    fn passed_over(&self) -> u64 {
        0
    }
}

/// Counts what is read. Refuses to read more than one record may hold without finishing a record.
#[derive(Debug)]
pub struct Meter<R> {
    inner: R,
    total: Arc<AtomicU64>,
    since_record: Arc<AtomicU64>,
}

impl<R> Meter<R> {
    /// Counts into `total`; whoever finishes a record sets `since_record` to 0.
    pub fn new(inner: R, total: &Arc<AtomicU64>, since_record: &Arc<AtomicU64>) -> Self {
        Self { inner, total: Arc::clone(total), since_record: Arc::clone(since_record) }
    }
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.total.fetch_add(n as u64, Ordering::Relaxed);
        let since = self.since_record.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        if since > RECORD_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a record of more than {} (is a quote or a line break missing?)",
                crate::units::bytes(RECORD_BYTES_MAX)
            )));
        }
        Ok(n)
    }
}

/// Reads lines of any bytes, without the line break.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<Meter<R>>,
    since_record: Arc<AtomicU64>,
    buffer: Vec<u8>,
    number: u64,
    name: String,
}

impl<R: Read> Lines<R> {
    /// Lines of `reader`. Errors call it `name`.
    pub fn new(reader: R, name: &str, total: &Arc<AtomicU64>) -> Self {
        let since_record = Arc::new(AtomicU64::new(0));
        let meter = Meter::new(reader, total, &since_record);
        let reader = BufReader::with_capacity(256 << 10, meter);
        Self { reader, since_record, buffer: Vec::new(), number: 0, name: name.to_owned() }
    }

    /// The next line and its number from 1.
    pub fn next(&mut self) -> Result<Option<(u64, &[u8])>, Trouble> {
        self.since_record.store(0, Ordering::Relaxed);
        self.buffer.clear();
        let read = self.reader.read_until(b'\n', &mut self.buffer);
        self.number += 1;
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => {
                let place = format!("{}, line {}", self.name, self.number);
                return Err(Trouble::Fatal(Failure::io(place, &error)));
            }
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        }
        Ok(Some((self.number, &self.buffer)))
    }

    /// The number of the line that `next` returned last.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// Opens a file or stdin. Returns its length if it has one.
pub fn open(source: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if source == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let failure = |error: &io::Error| Failure::io(source.display(), error);
    let file = std::fs::File::open(source).map_err(|error| failure(&error))?;
    let meta = file.metadata().map_err(|error| failure(&error))?;
    if meta.is_dir() {
        return Err(Failure::usage(format!(
            "{}: is a directory; use --format tree",
            source.display()
        )));
    }
    Ok((Box::new(file), meta.is_file().then_some(meta.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_keep_their_bytes() {
        let total = Arc::new(AtomicU64::new(0));
        let mut lines = Lines::new(&b"a\r\n\n\xff"[..], "test", &total);
        assert_eq!(lines.next().unwrap(), Some((1, &b"a\r"[..])));
        assert_eq!(lines.next().unwrap(), Some((2, &b""[..])));
        assert_eq!(lines.next().unwrap(), Some((3, &b"\xff"[..])));
        assert!(lines.next().unwrap().is_none());
        assert_eq!(total.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn an_endless_record_is_refused_before_it_fills_memory() {
        let total = Arc::new(AtomicU64::new(0));
        let mut lines = Lines::new(io::repeat(b'x'), "endless", &total);
        let Err(Trouble::Fatal(failure)) = lines.next() else { panic!("it was read") };
        let message = failure.message.unwrap();
        assert!(
            message.starts_with("endless, line 1: a record of more than 400.0 MiB"),
            "{message}"
        );
    }
}
