//! `export`: every entry, in a format that `import` reads back byte for byte.
//!
//! JSON Lines switch to base64 per field where bytes are not UTF-8. CSV and TSV carry raw bytes, or
//! say the encoding in the header (`key_base64`). Lines hold values only. A tree holds one file
//! per key; keys that are not plain relative paths are refused, never rewritten.

use crate::args::{ExportArgs, Format};
use crate::outcome::{Failure, Result};
use crate::output;
use crate::progress::Progress;
use crate::text::{Encoding, escape};
use crate::units;
use serde_json::json;
use sluicedb::Scan;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub async fn run(args: ExportArgs) -> Result {
    let to_stdout = args.output == Path::new("-");
    let format = args.format.unwrap_or_else(|| by_extension(&args.output).unwrap_or(Format::Jsonl));
    if to_stdout && format == Format::Tree {
        return Err(Failure::usage("a tree needs a directory: --output DIR"));
    }
    if to_stdout && args.json {
        return Err(Failure::usage(
            "--json prints a summary to stdout, where the data goes: add --output",
        ));
    }
    if args.encoding != Encoding::Raw && matches!(format, Format::Jsonl | Format::Tree) {
        return Err(Failure::usage("--encoding is for csv, tsv and lines"));
    }
    let db = args.store.read_only().await?;
    let started = Instant::now();
    let (entries, bytes) = export(args.selection.scan(&db)?, format, &args).await?;
    let elapsed = started.elapsed();
    if args.json {
        let seconds = elapsed.as_secs_f64();
        return output::json(&json!({"entries": entries, "bytes": bytes, "seconds": seconds}));
    }
    output::message(&format!(
        "exported {} entries ({}) in {}: {} entries/s",
        units::count(entries),
        units::bytes(bytes),
        units::seconds(elapsed),
        units::rate(entries, elapsed)
    ));
    Ok(())
}

/// The format that a file name suggests.
pub fn by_extension(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "csv" => Some(Format::Csv),
        "tsv" | "tab" => Some(Format::Tsv),
        "txt" | "log" | "list" => Some(Format::Lines),
        _ => None,
    }
}

async fn export(mut scan: Scan, format: Format, args: &ExportArgs) -> Result<(u64, u64)> {
    let mut sink = Sink::open(format, args)?;
    let done = Arc::new(AtomicU64::new(0));
    // On a terminal the data itself is the progress.
    let _bar = (args.output != Path::new("-")).then(|| Progress::items(None, &done));
    let (mut entries, mut bytes) = (0, 0);
    while let Some(batch) = scan.next_chunk().await? {
        for (key, value) in batch.iter() {
            sink.entry(key, value)?;
            entries += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        done.store(entries, Ordering::Relaxed);
    }
    sink.finish()?;
    Ok((entries, bytes))
}

/// Where entries are written.
struct Sink {
    /// What messages call it.
    to: PathBuf,
    form: Form,
}

enum Form {
    Jsonl(Output),
    Table(Box<csv::Writer<Output>>, Encoding),
    Lines(Output, Encoding),
    Tree,
}

type Output = BufWriter<Box<dyn Write + Send>>;

impl Sink {
    fn open(format: Format, args: &ExportArgs) -> Result<Self> {
        let to = args.output.clone();
        if format == Format::Tree {
            std::fs::create_dir_all(&to).map_err(|error| Failure::io(to.display(), &error))?;
            return Ok(Self { to, form: Form::Tree });
        }
        let writer: Box<dyn Write + Send> = if to == Path::new("-") {
            Box::new(std::io::stdout())
        } else {
            Box::new(File::create(&to).map_err(|error| Failure::io(to.display(), &error))?)
        };
        let writer = BufWriter::with_capacity(256 << 10, writer);
        let encoding = args.encoding;
        let form = match format {
            Format::Jsonl => Form::Jsonl(writer),
            Format::Lines => Form::Lines(writer, encoding),
            _ => {
                let delimiter = if format == Format::Csv { b',' } else { b'\t' };
                let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(writer);
                let header = match encoding {
                    Encoding::Raw => ["key", "value"],
                    Encoding::Escaped => ["key_escaped", "value_escaped"],
                    Encoding::Hex => ["key_hex", "value_hex"],
                    Encoding::Base64 => ["key_base64", "value_base64"],
                };
                table.write_record(header).map_err(|error| csv_failure(&to, error))?;
                Form::Table(Box::new(table), encoding)
            }
        };
        Ok(Self { to, form })
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result {
        let to = &self.to;
        match &mut self.form {
            Form::Jsonl(out) => writeln!(out, "{}", output::json_entry(key, Some(value)))
                .map_err(|error| not_written(to, &error)),
            Form::Table(table, encoding) => table
                .write_record([encoding.encode(key), encoding.encode(value)])
                .map_err(|error| csv_failure(to, error)),
            Form::Lines(out, encoding) => {
                let line = encoding.encode(value);
                if line.contains(&b'\n') {
                    let key = escape(key);
                    return Err(Failure::failed(format!(
                        "the value of {key} has a line break; use --encoding escaped \
                         or another format"
                    )));
                }
                out.write_all(&line)
                    .and_then(|()| out.write_all(b"\n"))
                    .map_err(|error| not_written(to, &error))
            }
            Form::Tree => write_file(to, key, value),
        }
    }

    fn finish(self) -> Result {
        let to = &self.to;
        let mut out = match self.form {
            Form::Jsonl(out) | Form::Lines(out, _) => out,
            Form::Table(table, _) => {
                table.into_inner().map_err(|error| not_written(to, error.error()))?
            }
            Form::Tree => return Ok(()),
        };
        out.flush().map_err(|error| not_written(to, &error))
    }
}

fn csv_failure(to: &Path, error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => not_written(to, &error),
        other => Failure::failed(format!("csv: {other:?}")),
    }
}

/// An error of writing to what `--output` names.
fn not_written(to: &Path, error: &io::Error) -> Failure {
    if to == Path::new("-") { Failure::stdout(error) } else { Failure::io(to.display(), error) }
}

/// Writes one file of a tree. The key is data and may be hostile: only plain names may become a
/// path.
fn write_file(root: &Path, key: &[u8], value: &[u8]) -> Result {
    let relative = relative_path(key).ok_or_else(|| {
        Failure::failed(format!("the key {} is not a plain relative path", escape(key)))
    })?;
    let path = root.join(relative);
    let parent = path.parent().expect("root joined with a name has a parent");
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(&path, value))
        .map_err(|error| Failure::io(path.display(), &error))
}

fn relative_path(key: &[u8]) -> Option<&Path> {
    let text = std::str::from_utf8(key).ok()?;
    let plain = text.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !text.contains(['\0', '\\'])
        && Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    plain.then_some(Path::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_become_files() {
        for good in ["a", "a/b.rs", "a b/c", "..a/b..", ".hidden"] {
            assert!(relative_path(good.as_bytes()).is_some(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\0b", "a\\..\\b"] {
            assert!(relative_path(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(relative_path(b"\xff").is_none());
    }
}
