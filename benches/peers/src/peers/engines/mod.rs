//! The engines behind one trait. What is set, and what an engine has no equal of, stands at the
//! top of each adapter; SluiceDB's is in the library. The same for all:
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
#[cfg(feature = "surrealkv")]
mod surreal;

use crate::child;
use sluicedb_bench_peers::Result;
pub use sluicedb_bench_peers::engine::{Engine, Setup};
#[allow(unused_imports, reason = "only some adapters need them, and none may be built in")]
pub use sluicedb_bench_peers::engine::{MEMTABLES, look_at};
use sluicedb_bench_peers::sluice::Sluice;

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
    let ours = Known { name: OURS, kind: Kind::Ours, run: Some(child::run::<Sluice>) };
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
