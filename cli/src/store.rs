//! Opens a database as the command line says.

use crate::outcome::{Exit, Failure, Result};
use crate::text::escape;
use crate::units::parse_size;
use clap::{Args, ValueEnum};
use sluicedb::{Db, Durability, Options, ReadOnlyDb, WriteOptions};
use std::path::{Path, PathBuf};

/// Which database, and the options to open it with.
#[derive(Args, Clone, Debug)]
pub struct Store {
    /// The database directory
    #[arg(value_name = "DB")]
    pub path: PathBuf,
    /// Memory for write buffers and cache together
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// JSON file with options of the database, like {"level_ratio": 8}; the others are the defaults
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,
    /// Keyspace of the keys; commands that write new entries create it if there is none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub keyspace: String,
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durable {
    /// The death of the process
    Buffered,
    /// A power cut as well
    Synced,
}

impl From<Durable> for Durability {
    fn from(durable: Durable) -> Self {
        match durable {
            Durable::Buffered => Self::Buffered,
            Durable::Synced => Self::Synced,
        }
    }
}

impl Durable {
    /// The options of one write.
    pub fn write_options(self) -> WriteOptions {
        WriteOptions::durability(self.into())
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Synced => "synced",
        }
    }
}

impl Store {
    /// The options that the flags stand for.
    pub fn options(&self) -> Result<Options> {
        let Some(path) = &self.options else { return Ok(options(self.memory)) };
        let text = std::fs::read(path).map_err(|error| Failure::io(path.display(), &error))?;
        let mut options: Options = serde_json::from_slice(&text)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        if let Some(memory) = self.memory {
            options.memory_budget_bytes = memory;
        }
        Ok(options)
    }

    /// Opens, creating the database if there is none.
    pub async fn create(&self) -> Result<Db> {
        let db = open(&self.path, self.options()?, true).await?;
        match db.keyspace(&self.keyspace).await {
            Ok(keyspace) => Ok(keyspace),
            Err(error) => close(db, Err(error.into())).await,
        }
    }

    /// Opens an existing database. "Not found" if there is none.
    pub async fn existing(&self) -> Result<Db> {
        must_exist(&self.path)?;
        let db = open(&self.path, self.options()?, false).await?;
        if !db.keyspaces().contains(&self.keyspace) {
            return close(db, Err(self.no_keyspace())).await;
        }
        Ok(db.keyspace(&self.keyspace).await?)
    }

    /// Opens an existing database and changes nothing. Any number of processes may do so at once.
    pub async fn read_only(&self) -> Result<ReadOnlyDb> {
        must_exist(&self.path)?;
        let db = ReadOnlyDb::builder(&self.path).options(self.options()?).open_read_only().await?;
        db.keyspace(&self.keyspace).ok_or_else(|| self.no_keyspace())
    }

    fn no_keyspace(&self) -> Failure {
        let (path, name) = (self.path.display(), escape(self.keyspace.as_bytes()));
        Failure::new(Exit::NotFound, format!("{path}: no keyspace is called {name}"))
    }
}

/// "Not found" unless there is a database, or what is left of one without its `CURRENT`.
/// Checked before anything is opened or created.
pub fn must_exist(path: &Path) -> Result {
    let absent = || Failure::new(Exit::NotFound, format!("{}: no database there", path.display()));
    let files = std::fs::read_dir(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => absent(),
        _ => Failure::io(path.display(), &error),
    })?;
    let is_ours = |name: &str| {
        let ends = [".sst", ".wal"];
        name == "CURRENT" || name.starts_with("MANIFEST-") || ends.iter().any(|e| name.ends_with(e))
    };
    for file in files {
        let file = file.map_err(|error| Failure::io(path.display(), &error))?;
        if file.file_name().to_str().is_some_and(is_ours) {
            return Ok(());
        }
    }
    Err(absent())
}

/// The defaults with another memory budget.
pub fn options(memory: Option<u64>) -> Options {
    let mut options = Options::default();
    if let Some(memory) = memory {
        options.memory_budget_bytes = memory;
    }
    options
}

/// Opens with these options.
pub async fn open(path: &Path, options: Options, create: bool) -> Result<Db> {
    Ok(Db::builder(path).options(options).create_if_missing(create).open().await?)
}

/// Closes. Reports the first thing that went wrong: the command itself, or the close.
pub async fn close<T>(db: Db, ended: Result<T>) -> Result<T> {
    let closed = db.close().await;
    let value = ended?;
    closed?;
    Ok(value)
}

/// Bytes of all files of a database. A file that cannot be examined counts as nothing.
pub fn bytes_on_disk(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}
