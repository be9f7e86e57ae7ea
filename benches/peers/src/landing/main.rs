//! What the levels cost: bytes written, stalls, reads, scans and space, beside RocksDB in the same
//! run.
//!
//! ```sh
//! cargo run --release -p sluicedb-bench-peers --bin landing -- --quick # SluiceDB, 2 M puts
//! LIBCLANG_PATH=/usr/lib/llvm-14/lib \
//! BINDGEN_EXTRA_CLANG_ARGS=-I/usr/lib/gcc/x86_64-linux-gnu/12/include \
//!     cargo run --release -p sluicedb-bench-peers --features rocksdb --bin landing # 20 M, both
//! ```
//!
//! `--engines sluicedb,rocksdb,sluicedb:level_ratio=8:l0_trigger_tables=8` compares settings as
//! well: any field of `sluicedb::Options` can follow. Each engine has a directory of its own that
//! is deleted afterwards. Memory and level sizes are the same on both sides (`engines/mod.rs`) and
//! so small that three levels form below L0. 20 M puts need about 3 GB of disk for each engine. As
//! fast as they go in, writers soon wait for compaction, and L0 is as full as it may be:
//! `--put-rate 100000` shows the levels as they are when compaction keeps up.
//!
//! Three states are told apart: while it runs; *settled*, when nothing is due any more after the
//! last put, with what was written until then; and *at rest*, when that is done as well which is
//! done while nobody writes (`rest_after_ms`; the database is opened again for it, without that it
//! never rests). RocksDB has no such thing: there the second is the first, measured again.
//!
//! Deliberately not here: synced writes, concurrent scans, deletes.
#![allow(clippy::disallowed_methods, reason = "a benchmark has to look at the clock")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it measures is what it prints")]
#![allow(unreachable_pub, missing_docs, reason = "a binary has no public items")]

mod args;
mod engines;
mod keys;
mod measure;
mod report;

use args::Args;
use clap::Parser;
use sluicedb_bench_peers::Result;
use std::sync::Arc;

fn main() -> Result<()> {
    let args = Args::parse();
    let mut documents = Vec::new();
    for keys in &args.keys {
        let plan = keys::Plan::new(*keys, args.puts(), args.keys_max(), args.put_rate)?;
        let plan = Arc::new(plan);
        let rows = measure::rows(&args, &plan)?;
        report::print(&plan, &rows);
        documents.push(report::json(&plan, &rows));
        // After each distribution, so that a run that is cut short leaves something.
        if let Some(file) = &args.json {
            std::fs::write(file, format!("{:#}\n", serde_json::Value::from(documents.clone())))?;
        }
    }
    Ok(())
}
