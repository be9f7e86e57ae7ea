//! The command line, as clap sees it. Field docs are the help text.

use crate::bench::args::BenchArgs;
use crate::demo::args::{ChildArgs, DemoArgs};
use crate::import::args::ImportArgs;
use crate::store::{Durable, Store};
use crate::text::Encoding;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 corrupt or findings,
5 locked by another process, 6 overloaded, 7 no space, 8 unsupported format.

Data goes to stdout, messages to stderr. NO_COLOR is respected.";

/// Import, inspect, verify and bench SluiceDB databases
#[derive(Debug, Parser)]
#[command(name = "sluice", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read entries from a file, a directory tree or stdin into a database
    Import(ImportArgs),
    /// Write entries to stdout, a file or a directory tree; `import` reads them back
    Export(ExportArgs),
    /// Print the value of a key
    Get(GetArgs),
    /// Set a key, from an argument, a file or stdin
    Put(PutArgs),
    /// Remove keys
    Del(DelArgs),
    /// Print entries in key order
    Scan(ScanArgs),
    /// Print counters, memory and the actors' mailboxes
    Stats(StatsArgs),
    /// Print what each level and its landing hold, with a picture, and why they are merged or not
    Levels(LevelsArgs),
    /// Check every checksum and every rule of order of a closed database
    Verify(VerifyArgs),
    /// Flush, then merge all keys down, or some of them
    Compact(CompactArgs),
    /// Make a copy in another directory by hard links, or bring an older one up to date
    Checkpoint(CheckpointArgs),
    /// Ingest tables that were written outside a database, all in one change
    Ingest(IngestArgs),
    /// Excise keys, in one change and without reading them
    Excise(ExciseArgs),
    /// Make keys exactly what another database has there, all in one change
    Replace(ReplaceArgs),
    /// Print a map of the key ranges: where they meet, and what each holds
    Ranges(RangesArgs),
    /// Print the keyspaces and what each holds, or drop some
    Keyspaces(KeyspacesArgs),
    /// Split the range of a key, so that a new range begins with the key
    Split(SplitArgs),
    /// Import real files into a temporary database, break it, and check every value
    Demo(DemoArgs),
    #[command(hide = true)]
    DemoChild(ChildArgs),
    /// Measure a workload: rates, percentiles, and what they were measured on
    Bench(BenchArgs),
}

/// A selection of keys.
#[derive(clap::Args, Clone, Debug)]
pub struct KeySpan {
    /// Only keys that begin with this
    #[arg(long, value_name = "KEY", conflicts_with_all = ["from", "to"])]
    pub prefix: Option<String>,
    /// First key, inclusive
    #[arg(long, value_name = "KEY")]
    pub from: Option<String>,
    /// Last key, exclusive; '' is after all keys
    #[arg(long, value_name = "KEY")]
    pub to: Option<String>,
    /// How keys on this command line are written
    #[arg(long, value_name = "ENCODING", default_value = "raw")]
    pub keys_as: Encoding,
}

/// A selection of entries, and their order.
#[derive(clap::Args, Clone, Debug)]
pub struct Selection {
    #[command(flatten)]
    pub keys: KeySpan,
    /// From the last key to the first
    #[arg(long)]
    pub reverse: bool,
    /// At most this many entries
    #[arg(long, value_name = "N", value_parser = crate::units::parse_count)]
    pub limit: Option<u64>,
}

#[derive(clap::Args, Debug)]
pub struct ScanArgs {
    #[command(flatten)]
    pub store: Store,
    #[command(flatten)]
    pub selection: Selection,
    /// Keys without values
    #[arg(long)]
    pub keys_only: bool,
    /// How keys and values are printed; `key<TAB>value` lines unless `--json`
    #[arg(long, value_name = "ENCODING", default_value = "escaped")]
    pub print: Encoding,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    pub store: Store,
    /// Format of the output [default: by the extension of --output, else jsonl]
    #[arg(long)]
    pub format: Option<Format>,
    /// Path of the output; `-` is stdout
    #[arg(long, short, value_name = "PATH", default_value = "-")]
    pub output: PathBuf,
    /// How keys and values are written in csv, tsv and lines; the header tells `import`
    #[arg(long, value_name = "ENCODING", default_value = "raw")]
    pub encoding: Encoding,
    #[command(flatten)]
    pub selection: Selection,
    /// Print the summary as JSON to stdout; needs --output
    #[arg(long)]
    pub json: bool,
}

/// A format of data outside the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object per line
    Jsonl,
    /// Comma-separated values with a header
    Csv,
    /// Tab-separated values with a header
    Tsv,
    /// One value per line
    Lines,
    /// A directory tree: path as key, content as value
    Tree,
}

#[derive(clap::Args, Debug)]
pub struct GetArgs {
    #[command(flatten)]
    pub store: Store,
    /// The key
    pub key: String,
    /// How the key is written here
    #[arg(long, value_name = "ENCODING", default_value = "raw")]
    pub keys_as: Encoding,
    /// How the value is printed; raw adds no line break except on a terminal
    #[arg(long, value_name = "ENCODING", default_value = "raw")]
    pub print: Encoding,
    /// A JSON object with key and value
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct PutArgs {
    #[command(flatten)]
    pub store: Store,
    /// The key
    pub key: String,
    /// The value [default: all of stdin]
    #[arg(conflicts_with = "file")]
    pub value: Option<String>,
    /// Take the value from this file; `-` is stdin
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// How key and value arguments are written here
    #[arg(long, value_name = "ENCODING", default_value = "raw")]
    pub keys_as: Encoding,
    /// What the write survives once this command has ended
    #[arg(long, default_value = "synced")]
    pub durability: Durable,
}

#[derive(clap::Args, Debug)]
pub struct DelArgs {
    #[command(flatten)]
    pub store: Store,
    /// The keys, deleted in one atomic batch
    #[arg(required = true)]
    pub keys: Vec<String>,
    /// Fail with "not found", deleting nothing, if one of them is absent
    #[arg(long)]
    pub must_exist: bool,
    /// How the keys are written here
    #[arg(long, value_name = "ENCODING", default_value = "raw")]
    pub keys_as: Encoding,
    /// What the deletes survive once this command has ended
    #[arg(long, default_value = "synced")]
    pub durability: Durable,
}

#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// The database directory
    #[arg(value_name = "DB")]
    pub path: PathBuf,
    /// JSON instead of a line
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct RangesArgs {
    #[command(flatten)]
    pub store: Store,
    /// JSON instead of a map
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct StatsArgs {
    #[command(flatten)]
    pub store: Store,
    /// Change nothing: open for reading only, as `get`, `scan`, `export` and `levels` always do,
    /// and leave out what only a writing engine has
    #[arg(long)]
    pub read_only: bool,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct CheckpointArgs {
    #[command(flatten)]
    pub store: Store,
    /// The directory of the copy: absent or empty
    #[arg(value_name = "TO")]
    pub to: PathBuf,
    /// TO may hold an older checkpoint of the database: link what is new, remove what is not needed
    #[arg(long)]
    pub incremental: bool,
    /// JSON instead of a line
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct IngestArgs {
    #[command(flatten)]
    pub store: Store,
    /// The tables, whose keys do not overlap; they are only read
    #[arg(value_name = "TABLE", required = true)]
    pub tables: Vec<PathBuf>,
    /// JSON instead of a line
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct ExciseArgs {
    #[command(flatten)]
    pub store: Store,
    #[command(flatten)]
    pub keys: KeySpan,
    /// All keys before --to
    #[arg(long, conflicts_with_all = ["from", "prefix"])]
    pub from_first: bool,
    /// All keys from --from on
    #[arg(long, conflicts_with_all = ["to", "prefix"])]
    pub to_last: bool,
    /// JSON instead of a line
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct ReplaceArgs {
    #[command(flatten)]
    pub store: Store,
    /// The database with the new content; it is only read
    #[arg(long, value_name = "DIR")]
    pub from_db: PathBuf,
    /// Which keyspace of that database
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub from_keyspace: String,
    /// Keys that begin with this; may be repeated
    #[arg(long, value_name = "KEY")]
    pub prefix: Vec<String>,
    /// First key of a span, inclusive; may be repeated
    #[arg(long, value_name = "KEY")]
    pub from: Vec<String>,
    /// Last key of a span, exclusive; as often as --from
    #[arg(long, value_name = "KEY")]
    pub to: Vec<String>,
    /// The first span begins before all keys; instead of its --from
    #[arg(long)]
    pub from_first: bool,
    /// The last span ends after all keys; instead of its --to
    #[arg(long)]
    pub to_last: bool,
    /// How keys on this command line are written
    #[arg(long, value_name = "ENCODING", default_value = "raw")]
    pub keys_as: Encoding,
    /// Change nothing, and fail, if the other database has none of the keys
    #[arg(long)]
    pub refuse_empty: bool,
    /// JSON instead of a line
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct KeyspacesArgs {
    /// The database directory
    #[arg(value_name = "DB")]
    pub path: PathBuf,
    /// JSON file with options of the database; the others are the defaults
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,
    /// Drop this keyspace with everything in it; may be repeated
    #[arg(long, value_name = "NAME")]
    pub drop: Vec<String>,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct SplitArgs {
    #[command(flatten)]
    pub store: Store,
    /// The first key of the new range
    pub key: String,
    /// How the key is written here
    #[arg(long, value_name = "ENCODING", default_value = "raw")]
    pub keys_as: Encoding,
    /// JSON instead of a map
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct LevelsArgs {
    #[command(flatten)]
    pub store: Store,
    /// Say what would be merged now and why, and why the rest waits
    #[arg(long)]
    pub why: bool,
    /// JSON instead of a table and a picture
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args, Debug)]
pub struct CompactArgs {
    #[command(flatten)]
    pub store: Store,
    #[command(flatten)]
    pub keys: KeySpan,
    /// Merge into this level and leave deeper levels alone [default: the deepest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    pub to_level: Option<u8>,
    /// Say which merges were chosen, by `compact` or meanwhile, and what for
    #[arg(long)]
    pub why: bool,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
