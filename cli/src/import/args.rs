//! The arguments of `import`, and which of them belong together.

use crate::args::Format;
use crate::export::by_extension;
use crate::outcome::{Failure, Result};
use crate::store::{Durable, Store};
use crate::units::parse_size;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct ImportArgs {
    #[command(flatten)]
    pub store: Store,
    /// A file, a directory (its tree: path -> content), or `-` for stdin
    pub source: PathBuf,
    /// Format of the input [default: by the extension of SOURCE]
    #[arg(long)]
    pub format: Option<Format>,
    /// jsonl: path of the field that is the key, like `user.id` or `tags.0`
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
    /// jsonl: path of the field that is the value [default: with --key the whole line, else
    /// `value`]
    #[arg(long, value_name = "FIELD")]
    pub value: Option<String>,
    /// csv, tsv: the key's column, by name or number from 1 [default: key]
    #[arg(long, value_name = "COLUMN")]
    pub key_column: Option<String>,
    /// csv, tsv: the value's column [default: value, else the whole row as a JSON object]
    #[arg(long, value_name = "COLUMN")]
    pub value_column: Option<String>,
    /// csv, tsv: the first row is data; columns are numbers
    #[arg(long)]
    pub no_headers: bool,
    /// lines: what the key is
    #[arg(long, value_name = "WHAT")]
    pub line_key: Option<LineKey>,
    /// Put this in front of every key
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub key_prefix: String,
    /// Tasks that write at the same time
    #[arg(
        long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub writers: u16,
    /// Bytes per atomic batch
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = parse_size)]
    pub batch: u64,
    /// What each batch survives when it is acknowledged; the end of the import is always synced
    #[arg(long, default_value = "buffered")]
    pub durability: Durable,
    /// What to do with a record that cannot be imported
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    pub on_error: OnError,
    /// Print the summary as JSON to stdout
    #[arg(long)]
    pub json: bool,
}

/// The key of a plain line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LineKey {
    /// The line's number with leading zeros, from 1; the line is the value
    Number,
    /// The line itself; the value is empty
    Whole,
}

/// What to do with bad records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// End with an error; earlier batches stay imported
    Stop,
    /// Report it and go on
    Skip,
}

impl ImportArgs {
    /// The format, as requested or guessed.
    pub fn resolve_format(&self) -> Result<Format> {
        let format = match self.format {
            Some(format) => format,
            None if self.source == Path::new("-") => {
                return Err(Failure::usage("stdin has no extension to guess from: add --format"));
            }
            None if self.source.is_dir() => Format::Tree,
            None => by_extension(&self.source).ok_or_else(|| {
                Failure::usage(format!(
                    "{}: cannot guess the format from the name: add --format",
                    self.source.display()
                ))
            })?,
        };
        self.check(format)?;
        Ok(format)
    }

    /// A flag that would silently do nothing is an error.
    fn check(&self, format: Format) -> Result {
        let table = matches!(format, Format::Csv | Format::Tsv);
        let flags = [
            ("--key", self.key.is_some(), format == Format::Jsonl, "jsonl"),
            ("--value", self.value.is_some(), format == Format::Jsonl, "jsonl"),
            ("--key-column", self.key_column.is_some(), table, "csv and tsv"),
            ("--value-column", self.value_column.is_some(), table, "csv and tsv"),
            ("--no-headers", self.no_headers, table, "csv and tsv"),
            ("--line-key", self.line_key.is_some(), format == Format::Lines, "lines"),
        ];
        for (flag, given, fits, formats) in flags {
            if given && !fits {
                return Err(Failure::usage(format!("{flag} is for {formats}")));
            }
        }
        if format == Format::Tree && self.source == Path::new("-") {
            return Err(Failure::usage("a tree is a directory, not stdin"));
        }
        Ok(())
    }
}
