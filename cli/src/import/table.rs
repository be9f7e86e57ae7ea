//! CSV and TSV: a key column, and a value column or the whole row as a JSON object.
//!
//! Columns are named by the header or counted from 1. A header like `key_base64` says how the
//! column is encoded, as `export` writes it.

use super::source::{Meter, Record, Source, Trouble};
use crate::outcome::Failure;
use crate::text::Encoding;
use csv::ByteRecord;
use serde_json::{Map, Value};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The columns that the caller wants.
#[derive(Clone, Debug)]
pub struct Columns {
    pub delimiter: u8,
    pub headers: bool,
    pub key: Option<String>,
    pub value: Option<String>,
}

pub struct Table<R> {
    reader: csv::Reader<Quotes<Meter<R>>>,
    /// The file has ended inside a quoted field.
    unclosed: Arc<AtomicBool>,
    since_record: Arc<AtomicU64>,
    name: String,
    row: ByteRecord,
    header: Vec<String>,
    key: Column,
    /// `None` for the whole row.
    value: Option<Column>,
}

const UNCLOSED: &str = "a quote is not closed before the end of the file";

/// Notices when a file ends inside a quoted field, which the parser takes for the end of the field.
/// It knows only as much about quoting as that needs.
struct Quotes<R> {
    inner: R,
    delimiter: u8,
    at: At,
    unclosed: Arc<AtomicBool>,
}

/// The position in a field after the last byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Plain,
    Quoted,
    /// After a quote inside quotes: it ends them, or is half of an escaped quote.
    Quote,
}

impl<R> Quotes<R> {
    fn new(inner: R, delimiter: u8, unclosed: &Arc<AtomicBool>) -> Self {
        Self { inner, delimiter, at: At::Start, unclosed: Arc::clone(unclosed) }
    }

    fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let ends = *byte == self.delimiter || *byte == b'\n' || *byte == b'\r';
            self.at = match self.at {
                At::Start | At::Quote if *byte == b'"' => At::Quoted,
                At::Quoted if *byte == b'"' => At::Quote,
                At::Quoted => At::Quoted,
                At::Start | At::Plain | At::Quote if ends => At::Start,
                At::Start | At::Plain | At::Quote => At::Plain,
            };
        }
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.follow(&buf[..n]);
        if n == 0 && self.at == At::Quoted {
            // Reported once, because the reader asks again after the end.
            self.at = At::Start;
            self.unclosed.store(true, Ordering::Relaxed);
        }
        Ok(n)
    }
}

#[derive(Clone, Copy, Debug)]
struct Column {
    index: usize,
    encoding: Encoding,
}

impl<R: Read + Send> Table<R> {
    /// Reads the header, if there is one, and finds the columns.
    pub fn open(
        reader: R,
        name: &str,
        total: &Arc<AtomicU64>,
        columns: &Columns,
    ) -> Result<Self, Failure> {
        let since_record = Arc::new(AtomicU64::new(0));
        let unclosed = Arc::new(AtomicBool::new(false));
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(columns.delimiter)
            .has_headers(columns.headers)
            .buffer_capacity(256 << 10)
            .from_reader(Quotes::new(
                Meter::new(reader, total, &since_record),
                columns.delimiter,
                &unclosed,
            ));
        let header: Vec<String> = if columns.headers {
            let record = reader.byte_headers().map_err(|error| fatal(name, error))?;
            if unclosed.load(Ordering::Relaxed) {
                return Err(Failure::failed(format!("{name}, line 1: {UNCLOSED}")));
            }
            record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect()
        } else {
            Vec::new()
        };
        let find = |wanted: &str| find(&header, columns.headers, wanted);
        let usage = |what: String| Failure::usage(format!("{name}: {what}"));
        let key = match &columns.key {
            Some(wanted) => find(wanted).map_err(usage)?,
            None if columns.headers => find("key").map_err(|what| {
                usage(format!("{what}; name the key's column with --key-column"))
            })?,
            None => return Err(usage("--no-headers needs --key-column".to_owned())),
        };
        let value = match &columns.value {
            Some(wanted) => Some(find(wanted).map_err(usage)?),
            None if columns.headers => find("value").ok(),
            None => None,
        };
        let (name, row) = (name.to_owned(), ByteRecord::new());
        Ok(Self { reader, unclosed, since_record, name, row, header, key, value })
    }

    fn record(&self) -> Result<Record, String> {
        let field = |column: Column| {
            let Some(field) = self.row.get(column.index) else {
                let (has, wants) = (self.row.len(), column.index + 1);
                return Err(format!("the row has {has} fields; column {wants} is asked for"));
            };
            column.encoding.decode(field)
        };
        let value = match self.value {
            Some(column) => field(column)?,
            None => self.whole_row()?,
        };
        Ok(Record { key: field(self.key)?, value })
    }

    fn whole_row(&self) -> Result<Vec<u8>, String> {
        let text = |field: &[u8]| match std::str::from_utf8(field) {
            Ok(text) => Ok(Value::from(text)),
            Err(_) => Err("the row is not UTF-8; choose one column with --value-column".to_owned()),
        };
        let fields = self.row.iter();
        let json = if self.header.is_empty() {
            fields.map(text).collect::<Result<Vec<_>, _>>().map(Value::Array)?
        } else {
            let named = self.header.iter().zip(fields);
            let object: Map<String, Value> = named
                .map(|(name, field)| Ok((name.clone(), text(field)?)))
                .collect::<Result<_, String>>()?;
            Value::Object(object)
        };
        Ok(json.to_string().into_bytes())
    }
}

impl<R: Read + Send> Source for Table<R> {
    fn next(&mut self) -> Result<Option<Record>, Trouble> {
        self.since_record.store(0, Ordering::Relaxed);
        let read = self.reader.read_byte_record(&mut self.row);
        // The read that met the end was the one for this record. The record contains what follows
        // the quote, and has too few fields.
        if self.unclosed.swap(false, Ordering::Relaxed) {
            let position = match &read {
                Ok(_) => self.row.position(),
                Err(error) => error.position(),
            };
            let line = position.map_or(0, csv::Position::line);
            return Err(Trouble::line(line, UNCLOSED));
        }
        match read {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(error) => {
                if let csv::ErrorKind::UnequalLengths { pos, expected_len, len } = error.kind() {
                    let line = pos.as_ref().map_or(0, csv::Position::line);
                    let what = format!("{len} fields where the rows before have {expected_len}");
                    return Err(Trouble::line(line, what));
                }
                return Err(Trouble::Fatal(fatal(&self.name, error)));
            }
        }
        let line = self.row.position().map_or(0, csv::Position::line);
        self.record().map(Some).map_err(|what| Trouble::line(line, what))
    }

    fn place(&self) -> String {
        format!("line {}", self.row.position().map_or(0, csv::Position::line))
    }
}

fn fatal(name: &str, error: csv::Error) -> Failure {
    let line = error.position().map(|position| format!(", line {}", position.line()));
    let place = format!("{name}{}", line.unwrap_or_default());
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::io(place, &error),
        other => Failure::failed(format!("{place}: {other:?}")),
    }
}

/// A column by exact name, by name with an encoding after it, or by number from 1.
fn find(header: &[String], headers: bool, wanted: &str) -> Result<Column, String> {
    let encodings = [
        ("", Encoding::Raw),
        ("_base64", Encoding::Base64),
        ("_escaped", Encoding::Escaped),
        ("_hex", Encoding::Hex),
    ];
    for (suffix, encoding) in encodings {
        let index = header
            .iter()
            .position(|name| name.strip_prefix(wanted).is_some_and(|rest| rest == suffix));
        if let Some(index) = index {
            return Ok(Column { index, encoding });
        }
    }
    match wanted.parse::<usize>() {
        Ok(number) if number >= 1 && (!headers || number <= header.len()) => {
            Ok(Column { index: number - 1, encoding: Encoding::Raw })
        }
        _ if headers => Err(format!("no column `{wanted}`; there are: {}", header.join(", "))),
        _ => Err(format!("`{wanted}` is not a column number; they count from 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, key: Option<&str>, value: Option<&str>) -> Vec<(String, String)> {
        let columns = Columns {
            delimiter: b',',
            headers: true,
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
        };
        let total = Arc::new(AtomicU64::new(0));
        let mut table = Table::open(text.as_bytes(), "t.csv", &total, &columns).unwrap();
        let mut out = Vec::new();
        while let Some(record) = table.next().unwrap() {
            let text = |bytes| String::from_utf8(bytes).unwrap();
            out.push((text(record.key), text(record.value)));
        }
        out
    }

    #[test]
    fn columns_by_name_number_and_encoding() {
        let text = "id,name\n1,\"a,\nb\"\n";
        assert_eq!(read(text, Some("id"), Some("name")), [("1".into(), "a,\nb".into())]);
        assert_eq!(read(text, Some("2"), Some("1")), [("a,\nb".into(), "1".into())]);
        assert_eq!(read(text, Some("id"), None)[0].1, r#"{"id":"1","name":"a,\nb"}"#);
        assert_eq!(read("key_hex,value\n6b,v\n", None, None), [("k".into(), "v".into())]);
    }

    #[test]
    fn a_short_row_names_its_line() {
        let columns = Columns { delimiter: b',', headers: true, key: None, value: None };
        let total = Arc::new(AtomicU64::new(0));
        let text = "key,value\na,1\nb\n";
        let mut table = Table::open(text.as_bytes(), "t.csv", &total, &columns).unwrap();
        table.next().unwrap();
        let Err(Trouble::Record { place, what }) = table.next() else { panic!("it was accepted") };
        assert_eq!((&*place, &*what), ("line 3", "1 fields where the rows before have 2"));
    }

    /// Planted: an escaped quote ends the quotes; a quote inside a plain field begins some.
    #[test]
    fn o7_a_quote_that_is_not_closed_is_told_with_its_line() {
        let columns = Columns { delimiter: b',', headers: true, key: None, value: None };
        let total = Arc::new(AtomicU64::new(0));
        for (text, line) in [
            ("key,value\na,\"1\nb,2\nc,3\n", Some(2)),
            ("key,value\na,1\nb,\"2 \"\" and\nc,3", Some(3)),
            ("key,value\na,1\n\"b,2\n", Some(3)),
            ("key,value\na,\"1\"\nb,\"", Some(3)),
            ("key,value\na,\"1\"\nb,\"2\"", None),
            ("key,value\na,one \" inch\nb,\"two \"\"\"\n", None),
            ("key,value\r\na,\"\"\r\nb,\"\n\"\r\n", None),
        ] {
            let mut table = Table::open(text.as_bytes(), "t.csv", &total, &columns).unwrap();
            let end = loop {
                match table.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(Trouble::Record { place, what }) => break Some((place, what)),
                    Err(Trouble::Fatal(failure)) => panic!("{failure:?}"),
                }
            };
            let expected = line.map(|line: u64| (format!("line {line}"), UNCLOSED.to_owned()));
            assert_eq!(end, expected, "{text:?}");
            assert!(table.next().unwrap().is_none(), "{text:?}");
        }
        let Err(failure) = Table::open(&b"key,\"value\na,1\n"[..], "t.csv", &total, &columns)
        else {
            panic!("it was accepted")
        };
        assert_eq!(failure.message.unwrap(), format!("t.csv, line 1: {UNCLOSED}"));
    }
}
