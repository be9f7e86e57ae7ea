//! Plain lines: the key is the line's number or the line itself.

use super::args::LineKey;
use super::source::{Lines, Record, Source, Trouble};
use std::io::Read;

/// Wide enough for one line per nanosecond during a quarter of an hour. Keeps numbers in order.
pub const NUMBER_WIDTH: usize = 12;

pub struct PlainLines<R> {
    pub lines: Lines<R>,
    pub key: LineKey,
}

impl<R: Read + Send> Source for PlainLines<R> {
    fn next(&mut self) -> Result<Option<Record>, Trouble> {
        let key = self.key;
        let record = self.lines.next()?.map(|(number, line)| match key {
            LineKey::Number => Record {
                key: format!("{number:0NUMBER_WIDTH$}").into_bytes(),
                value: line.to_vec(),
            },
            LineKey::Whole => Record { key: line.to_vec(), value: Vec::new() },
        });
        Ok(record)
    }

    fn place(&self) -> String {
        format!("line {}", self.lines.number())
    }
}
