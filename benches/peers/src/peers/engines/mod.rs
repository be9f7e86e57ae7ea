//! The engines behind one trait. What is set, and what an engine has no equal of, stands at the
//! top of each adapter. The same for all:
//!
//! * memory as [`Setup`] says, for the cache and for writes; where an engine has one size for
//!   both, it gets the sum;
//! * no compression;
//! * *buffered*: a write is with the operating system when it is acknowledged, or as near to that
//!   as the engine has; *synced*: it is on the disk;
//! * engines without an asynchronous interface are called inline, on the thread of the runtime:
//!   that is what somebody does who uses them in a service without thinking, and it is the
//!   quickest way (a trip through `spawn_blocking` takes 20 us);
//! * a value that an engine lends is looked at, not copied.

mod baseline;
#[cfg(feature = "bf-tree")]
mod bf_tree;
#[cfg(feature = "canopydb")]
mod canopy;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(feature = "sled")]
mod sled;
mod sluice;
#[cfg(feature = "surrealkv")]
mod surreal;

use crate::child;
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::keys::Key;
use std::future::Future;
use std::path::Path;

/// How an engine is opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub cache_bytes: u64,
    pub memtable_bytes: u64,
    /// Are writes on the disk when they are acknowledged?
    pub synced: bool,
}

/// Write buffers of each engine that has them.
pub const MEMTABLES: u64 = 4;

impl Setup {
    /// Of an engine that does not tell cache and write buffer apart.
    #[allow(dead_code, reason = "no engine that is built in is like that")]
    pub fn memory_bytes(&self) -> u64 {
        self.cache_bytes + MEMTABLES * self.memtable_bytes
    }
}

/// What every engine can do. A handle is cheap to clone; each client has one.
pub trait Engine: Clone + Send + Sync + 'static {
    fn open(dir: &Path, setup: Setup) -> impl Future<Output = Result<Self>> + Send;

    fn put(&self, key: &Key, value: &[u8]) -> impl Future<Output = Result<()>> + Send;

    /// All of them at once.
    fn write(&self, entries: &[(Key, &[u8])]) -> impl Future<Output = Result<()>> + Send;

    /// Looks at a value; is there one?
    fn get(&self, key: &Key) -> impl Future<Output = Result<bool>> + Send;

    /// Looks at up to `limit` entries from `from` on; how many were there?
    fn scan(&self, from: &Key, limit: u64) -> impl Future<Output = Result<u64>> + Send;

    /// Moves to where it will stay what was written, as far as the engine can be told to. The
    /// caller waits afterwards until nothing moves any more.
    fn settle(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Is background work due that does not show yet? `at_rest`: also such as is done only when
    /// nobody has written for a while.
    fn is_due(&self, at_rest: bool) -> bool {
        let _ = at_rest;
        false
    }

    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// What kind of structure it is: SluiceDB has bars against the best of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Lsm,
    Tree,
    /// Nothing that stores: what the machine does.
    Baseline,
}

/// An engine that is built in, or that could be.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub kind: Kind,
    /// Runs a step in this process, if the engine is built in.
    pub run: Option<fn(&child::Job) -> Result<()>>,
}

macro_rules! known {
    ($($name:literal, $kind:ident, $feature:literal, $engine:path;)*) => {
        [$(Known {
            name: $name,
            kind: Kind::$kind,
            #[cfg(feature = $feature)]
            run: Some(child::run::<$engine>),
            #[cfg(not(feature = $feature))]
            run: None,
        }),*]
    };
}

pub const OURS: &str = "SluiceDB";
pub const BASELINE: &str = "no engine";

const PEERS: [Known; 8] = known![
    "RocksDB", Lsm, "rocksdb", rocks::Rocks;
    "fjall", Lsm, "fjall", fjall::Fjall;
    "SurrealKV", Lsm, "surrealkv", surreal::Surreal;
    "LMDB", Tree, "lmdb", lmdb::Lmdb;
    "redb", Tree, "redb", redb::Redb;
    "canopydb", Tree, "canopydb", canopy::Canopy;
    "sled", Tree, "sled", sled::Sled;
    "Bf-Tree", Tree, "bf-tree", bf_tree::Bf;
];

/// In the order of the tables.
pub fn known() -> impl Iterator<Item = Known> {
    let ours = Known { name: OURS, kind: Kind::Ours, run: Some(child::run::<sluice::Sluice>) };
    let none = Known {
        name: BASELINE,
        kind: Kind::Baseline,
        run: Some(child::run::<baseline::Fdatasync>),
    };
    std::iter::once(ours).chain(PEERS).chain(std::iter::once(none))
}

pub fn named(name: &str) -> Option<Known> {
    known().find(|known| known.name.eq_ignore_ascii_case(name))
}

/// What a client does with an entry that it got.
fn look_at(key: &[u8], value: &[u8]) {
    std::hint::black_box((key.len(), value.len(), value.first(), value.last()));
}
