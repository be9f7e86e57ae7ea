//! What one operation costs in instructions, for `valgrind --tool=callgrind`. The count repeats
//! even on a busy machine, so `.ci/instructions` can hold it against a stored one.
//!
//! ```sh
//! instructions fill DIR      # makes a settled database, without valgrind
//! instructions put DIR       # prints how many operations `measured` runs
//! ```
//!
//! Only what runs inside of [`measured`], on its thread, is to be counted
//! (`--collect-atstart=no --toggle-collect='*measured*'`). So the work of the engine's threads is
//! left out: it depends on when they run. Everything is done once before it counts: a first touch
//! of a block or of memory is not what the operation costs.

#![allow(clippy::print_stdout, reason = "the script reads the number of operations")]

#[allow(dead_code, unreachable_pub, reason = "shared by benchmarks")]
mod kit;

use futures::TryStreamExt;
use futures::executor::block_on;
use kit::key;
use sluicedb::{Db, Durability, Options, WriteBatch};
use std::hint::black_box;
use std::path::Path;

/// What `fill` writes: several tables, and blocks that all fit the cache.
const ENTRIES: u64 = 100_000;
/// Less than a memtable holds, so that nothing is sealed while it counts.
const OPERATIONS: u64 = 10_000;
const PER_BATCH: u64 = 100;
/// More than the bytes of a batch.
const BATCH_BYTES: usize = 16 << 10;
const PER_SCAN: u64 = 100;
const VALUE: [u8; 100] = [7; 100];

fn open(dir: &Path) -> Db {
    let mut options = Options::default();
    options.durability = Durability::Buffered;
    block_on(Db::builder(dir).options(options).open()).expect("the directory is writable")
}

/// Where callgrind counts.
#[inline(never)]
fn measured(work: impl FnOnce()) {
    work();
}

/// Runs `operation` for `count` numbers from the first of `rounds` on. Then again, in `measured`,
/// from the second on.
fn count(rounds: [u64; 2], count: u64, mut operation: impl AsyncFnMut(u64)) {
    let mut run = |from: u64| {
        block_on(async {
            for index in from..from + count {
                operation(index).await;
            }
        });
    };
    run(rounds[0]);
    measured(|| run(rounds[1]));
    println!("{count}");
}

fn fill(db: &Db) {
    block_on(async {
        for index in 0..ENTRIES {
            db.put(key(index), VALUE).await.expect("there is room");
        }
        db.compact().await.expect("there is room");
        db.close().await.expect("nobody else has it open");
    });
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo bench` names no work: there is nothing to time.
    let [_, work, dir] = &arguments[..] else {
        return println!(
            "usage: instructions fill|put|batch|get|absent|scan DIR (see .ci/instructions)"
        );
    };
    let db = open(Path::new(dir));
    match work.as_str() {
        "fill" => return fill(&db),
        "put" => count([ENTRIES, ENTRIES + OPERATIONS], OPERATIONS, async |index| {
            db.put(key(index), VALUE).await.expect("there is room");
        }),
        "batch" => count(
            [ENTRIES, ENTRIES + OPERATIONS / PER_BATCH],
            OPERATIONS / PER_BATCH,
            async |index| {
                // Room for all of it: whether a vector grows where it is or is copied is up to the
                // allocator, and is not the same in every run.
                let mut batch = WriteBatch::with_capacity(BATCH_BYTES);
                for at in 0..PER_BATCH {
                    batch.put(key(index * PER_BATCH + at), VALUE);
                }
                db.write(batch).await.expect("there is room");
            },
        ),
        "get" => count([0, 0], OPERATIONS, async |index| {
            let value = db.get(key(index)).await.expect("the table is sound");
            assert!(black_box(value).is_some());
        }),
        "absent" => count([0, 0], OPERATIONS, async |index| {
            let value = db.get(key(ENTRIES + index)).await.expect("the table is sound");
            assert!(black_box(value).is_none());
        }),
        "scan" => count([0, 0], OPERATIONS / PER_SCAN, async |index| {
            let mut scan = db.scan(key(index)..).limit(PER_SCAN);
            while let Some(entry) = scan.try_next().await.expect("the table is sound") {
                black_box(entry);
            }
        }),
        other => panic!("no work is called {other:?}"),
    }
    block_on(db.close()).expect("nobody else has it open");
}
