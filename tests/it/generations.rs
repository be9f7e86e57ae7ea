//! Three spans, a primary one and its two indexes, are replaced together again and again beside
//! readers. Each value names its generation.

use crate::harness::block_on;
use crate::kit::disk::{collect, fresh_dir, shared};
use crate::kit::oracle::Entries;
use crate::kit::settings;
use sluicedb::{Db, OnEmpty, WriteBatch};
use sluicedb_storage::vfs::MemVfs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const ROUNDS: u64 = 1000;
const SPANS: [&str; 3] = ["user/", "by-age/", "by-name/"];
/// The keys in every generation. Other keys are only in some.
const ALWAYS: u64 = 4;

fn key(span: usize, n: u64) -> String {
    format!("{}{n:03}", SPANS[span])
}

/// The number of entries of a generation in a span.
fn count(span: usize, generation: u64) -> u64 {
    ALWAYS + (generation + span as u64) % 5
}

fn open() -> Db {
    let builder = Db::builder(fresh_dir()).options(settings::tiny());
    block_on(builder.vfs(shared(&MemVfs::new())).open()).unwrap()
}

fn value(generation: u64) -> String {
    format!("{generation}{}", ".".repeat(50))
}

fn of(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().trim_end_matches('.').parse().unwrap()
}

/// The batch that gives the source one generation, and removes the generation before.
fn generation(number: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for span in 0..SPANS.len() {
        for n in 0..ALWAYS + 5 {
            if n < count(span, number) {
                batch.put(key(span, n), value(number));
            } else {
                batch.delete(key(span, n));
            }
        }
    }
    batch
}

/// Checks that the entries of all spans are all entries of one generation, and returns it.
fn whole(entries: &Entries) -> u64 {
    let mut in_spans = entries.iter().filter(|(key, _)| !key.starts_with(b"beside/")).peekable();
    let number = of(&in_spans.peek().expect("there is always something").1);
    let wanted = (0..SPANS.len()).map(|span| count(span, number)).sum::<u64>();
    let mut found = 0;
    for (key, value) in in_spans {
        assert_eq!(of(value), number, "{} is of another generation", key.escape_ascii());
        found += 1;
    }
    assert_eq!(found, wanted, "a part of generation {number}");
    number
}

/// What a reader has seen.
#[derive(Default)]
struct Seen {
    last: u64,
    different: u64,
}

impl Seen {
    fn see(&mut self, number: u64) {
        assert!(number >= self.last, "generation {number} after {}", self.last);
        self.different += u64::from(number > self.last);
        self.last = number;
    }
}

/// Reads the target once, in one of the possible ways.
fn look(way: usize, target: &Db, seen: &mut Seen) {
    let keys: Vec<_> = (0..SPANS.len()).map(|span| key(span, seen.last % ALWAYS)).collect();
    block_on(async {
        match way {
            0 => {
                // Each lookup has its own instant, never an older one than the last.
                for key in &keys {
                    seen.see(of(&target.get(key).await.unwrap().expect("it is always there")));
                }
            }
            1 => {
                let values = target.multi_get(&keys).await.unwrap();
                let numbers = values.into_iter().map(|value| of(&value.expect("it is there")));
                let numbers: Vec<_> = numbers.collect();
                assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
                seen.see(numbers[0]);
            }
            2 => seen.see(whole(&collect(target.scan(..)).await.unwrap())),
            _ => {
                let snapshot = target.snapshot();
                let number = whole(&collect(snapshot.scan("b".."v")).await.unwrap());
                for key in &keys {
                    let value = snapshot.get(key).await.unwrap().expect("it is always there");
                    assert_eq!(of(&value), number, "a lookup at the instant of a scan");
                }
                assert_eq!(
                    whole(
                        &collect(snapshot.scan(..).rev())
                            .await
                            .unwrap()
                            .into_iter()
                            .rev()
                            .collect()
                    ),
                    number
                );
                seen.see(number);
            }
        }
    });
}

/// Goal: while three spans are replaced a thousand times, a reader sees one generation in all of
/// them, and never an older one than before. Ranges are split and merged in the spans, memory is
/// flushed and tables are compacted meanwhile.
///
/// Planted: spans that are replaced one after the other; a superversion that is published without
/// its sequence number; a flush under way that brings back excised entries.
#[test]
fn t004_06_readers_see_one_generation_of_all_spans() {
    let (source, target) = (open(), open());
    let replace = |number: u64| {
        block_on(async {
            source.write(generation(number)).await.unwrap();
            let spans = ["by-age/".."by-age0", "by-name/".."by-name0", "user/".."user0"];
            target.replace_from(&source.snapshot(), spans, OnEmpty::Refuse).await.unwrap();
            // Some entries are put into memory too; the next replacement removes them.
            let mut batch = WriteBatch::new();
            for span in 0..SPANS.len() {
                batch.put(key(span, number % ALWAYS), value(number));
            }
            target.write(batch).await.unwrap();
        });
    };
    replace(1);
    let done = &AtomicBool::new(false);
    let [splits, merges, writes] = &[(); 3].map(|()| AtomicU64::new(0));
    let (different, took) = std::thread::scope(|threads| {
        let target = &target;
        let readers = [0, 1, 2, 3].map(|way| {
            threads.spawn(move || {
                let mut seen = Seen::default();
                while !done.load(Ordering::SeqCst) {
                    look(way, target, &mut seen);
                    std::thread::yield_now();
                }
                look(way, target, &mut seen);
                assert_eq!(seen.last, ROUNDS, "at last the last one");
                seen.different
            })
        });
        threads.spawn(move || {
            for at in ["by-age/002", "by-name/", "user/001", "user/003"].iter().cycle() {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                block_on(async {
                    let split = target.split_at(at).await.unwrap();
                    splits.fetch_add(u64::from(split), Ordering::SeqCst);
                    target.flush().await.unwrap();
                    target.put("beside/flushed", [7; 300]).await.unwrap();
                    target.compact().await.unwrap();
                    let merged = target.merge_at(at).await.unwrap();
                    merges.fetch_add(u64::from(merged), Ordering::SeqCst);
                });
            }
        });
        threads.spawn(move || {
            for n in (0..200).cycle() {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                block_on(target.put(format!("beside/{n:03}"), [n as u8; 100])).unwrap();
                writes.fetch_add(1, Ordering::SeqCst);
                std::thread::yield_now();
            }
        });
        let began = std::time::Instant::now();
        for number in 2..=ROUNDS {
            replace(number);
        }
        done.store(true, Ordering::SeqCst);
        (readers.map(|reader| reader.join().unwrap()), began.elapsed())
    });
    let stats = target.stats();
    let beside = [splits, merges, writes].map(|count| count.load(Ordering::SeqCst));
    let shown = format!("{beside:?}, readers {different:?}, {took:?}, {stats:?}");
    assert!(beside.iter().all(|count| *count >= 10), "{shown}");
    assert!(stats.flushes >= 20 && stats.compactions >= 20, "{shown}");
    assert!(stats.changes >= ROUNDS + beside[0], "{shown}");
    assert!(different.iter().all(|count| *count >= 20), "{shown}");
    eprintln!(
        "{beside:?}, readers {different:?}, {took:?}, {} flushes, {} compactions",
        stats.flushes, stats.compactions
    );
    block_on(async {
        target.close().await.unwrap();
        source.close().await.unwrap();
    });
}
