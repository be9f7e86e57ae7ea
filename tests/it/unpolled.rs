//! Waiting writers that are not polled deprive nobody else of room.
//!
//! A consumer of a stream of writes that itself writes polls the stream only between its own
//! writes, so a hundred waiting writes may be in line unpolled. Under the simulator a hang is a
//! fact. With real threads it is a wait of more than [`PATIENCE`].

use crate::harness::{Home, PATIENCE, Simulated};
use crate::kit::chance::{Chance, Replay, seeds};
use crate::kit::disk::content;
use crate::kit::settings;
use futures::StreamExt;
use futures::stream;
use sluicedb::{Db, Options};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A program whose author knows nothing of the engine's inside.
async fn import(db: &Db, entries: usize, bytes: usize, at_once: usize) {
    let puts = stream::iter(0..entries).map(|n| db.put(format!("entry{n:05}"), vec![1; bytes]));
    let mut done = puts.buffer_unordered(at_once);
    let mut count = 0_u64;
    while let Some(put) = done.next().await {
        put.unwrap();
        count += 1;
        db.put("progress", count.to_be_bytes()).await.unwrap();
    }
    assert_eq!(count as usize, entries);
}

fn ranges(options: &Options, splits: &[&str]) -> Options {
    let mut options = options.clone();
    options.initial_split_keys = splits.iter().map(|key| key.as_bytes().to_vec()).collect();
    options
}

#[test]
fn a9_a_consumer_that_writes_while_its_stream_of_writes_waits() {
    let tiny = settings::tiny();
    let mut short = settings::tiny();
    short.sealed_memtables_max = 1000;
    let mut few_commits = settings::tiny();
    few_commits.commits_in_flight_max = 16;
    let budgets = [
        ("tiny", tiny.clone()),
        ("a range for the progress", ranges(&tiny, &["m"])),
        ("ranges", ranges(&tiny, &["entry00100", "entry00200", "m"])),
        ("short of memory", short),
        ("few commits in flight", few_commits),
    ];
    for (seed, (name, options)) in (0..).zip(budgets) {
        for bytes in [20, 1_500, 20_000] {
            eprintln!("{name}, seed {seed}, {bytes} bytes");
            let home = Simulated::with(seed, options.clone());
            let db = home.open();
            home.run(import(&db, 200, bytes, 100));
            assert_eq!(home.run(content(&db)).unwrap().len(), 201);
        }
    }
}

async fn in_time(work: impl Future<Output = ()>) {
    tokio::time::timeout(PATIENCE, work).await.expect("waited for ever");
}

async fn import_with_threads(options: Options, entries: usize, bytes: usize) {
    let home = Home::with(options);
    let db = home.builder().open().await.unwrap();
    in_time(import(&db, entries, bytes, 100)).await;
    db.close().await.unwrap();
}

fn small() -> Options {
    let mut options = Options::default();
    options.memory_budget_bytes = 4 << 20;
    options
}

#[tokio::test(flavor = "current_thread")]
async fn a9_a_consumer_that_writes_in_a_current_thread_runtime() {
    import_with_threads(settings::tiny(), 300, 1_000).await;
    import_with_threads(small(), 400, 20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a_consumer_that_writes_in_a_multi_thread_runtime() {
    import_with_threads(small(), 400, 20_000).await;
    // Half of the write buffer of the default budget, and a little more.
    import_with_threads(Options::default(), 150, 1 << 20).await;
}

/// Futures in any state of waiting are left unpolled, at random, for the whole test. Every write
/// that is polled completes, the largest too.
#[test]
fn a9_futures_that_are_woken_and_never_polled_delay_nobody() {
    let test = "a9_futures_that_are_woken_and_never_polled_delay_nobody";
    for seed in seeds(0, 4) {
        let _replay = Replay { binary: "it", test, seed };
        let mut chance = Chance::new(seed);
        let mut options = settings::tiny();
        options.commits_in_flight_max = chance.pick(&[16, 64]);
        options.sealed_memtables_max = chance.pick(&[0, 2, 1000]);
        if chance.one_in(2) {
            options = ranges(&options, &["k30", "k60"]);
        }
        let home = Simulated::with(seed, options);
        let db = home.open();
        let mut parked: Vec<Pin<Box<dyn Future<Output = sluicedb::Result<u64>> + '_>>> = Vec::new();
        for round in 0..300 {
            let bytes = chance.pick(&[10, 100, 1_000, 3_000, 30_000]);
            let key = format!("k{:02}{round}", chance.below(90));
            let mut put = Box::pin(db.put(key, vec![1; bytes]));
            // This poll is outside the simulator: no actor runs meanwhile, so room runs out.
            let polled = put.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(done) => done.map(drop).unwrap(),
                Poll::Pending if parked.len() < 150 && !chance.one_in(8) => parked.push(put),
                Poll::Pending => home.run(put).map(drop).unwrap(),
            }
            if chance.one_in(10) && !parked.is_empty() {
                // One parked write is polled to its end after all, or dropped.
                let put = parked.swap_remove(chance.below(parked.len()));
                if chance.one_in(2) {
                    home.run(put).unwrap();
                }
            }
        }
        assert!(parked.len() > 20, "seed {seed}: {} wait", parked.len());
        home.run(db.put("last", vec![1; 60_000])).unwrap();
        drop(parked);
        home.run(db.close()).unwrap();
    }
}
