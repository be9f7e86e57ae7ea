//! One distribution of keys with all configurations: fill, settle, scan, read; then let them rest,
//! scan and read again.

use crate::args::Args;
use crate::engines::{Account, Config, Store, histogram};
use crate::keys::{Plan, Progress};
use hdrhistogram::Histogram;
use sluicedb_bench_peers::Result;
use sluicedb_bench_peers::disk::{self, Directory};
use sluicedb_bench_peers::keys::{mix, scale};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Row {
    pub config: Config,
    /// Until the last put was done.
    pub fill: Duration,
    /// From then on until the background work was.
    pub settle: Duration,
    /// Bytes written until then, by the operating system's count.
    pub written: Option<u64>,
    pub puts: Histogram<u64>,
    pub gets_beside: Histogram<u64>,
    /// When all that was due is done.
    pub settled: State,
    /// How long it took to come to rest.
    pub rest: Duration,
    /// When all is done that is done while nobody writes.
    pub rested: State,
    pub largest: u64,
    pub verbose: bool,
}

/// What the database is like at some time, and what reads find then.
#[derive(Debug, Default)]
pub struct State {
    /// Until then.
    pub account: Account,
    pub size: u64,
    pub scan: Duration,
    /// Those of each turn.
    pub gets: Vec<Gets>,
}

/// Gets, one after the other.
#[derive(Debug)]
pub struct Gets {
    pub latencies: Histogram<u64>,
    pub took: Duration,
}

/// Dropped in this order.
struct Opened {
    store: Box<dyn Store>,
    dir: Directory,
    row: Row,
}

/// All configurations with one distribution of keys. One after the other they are filled, settle
/// and are scanned; then they take turns with gets. One after the other they come to rest and are
/// scanned; then they take turns again. The rate of gets changes within seconds, with whatever else
/// the machine does, by more than one configuration differs from another.
pub fn rows(args: &Args, plan: &Arc<Plan>) -> Result<Vec<Row>> {
    let name = plan.distribution.name();
    let mut all = Vec::new();
    for config in args.engines() {
        eprintln!("{name}, {config} ...");
        all.push(filled(args, all.len(), config, plan)?);
    }
    eprintln!("{name}, gets ...");
    take_turns(args, plan, &mut all, |row| &mut row.settled)?;
    for Opened { store, dir, row } in &mut all {
        eprintln!("{name}, {} comes to rest ...", row.config);
        let begun = Instant::now();
        let (rested, largest) = while_sampled(dir, || store.rest())?;
        row.rest = rested.saturating_duration_since(begun);
        row.rested = state(&**store, dir, plan)?;
        row.largest = row.largest.max(largest).max(row.rested.size);
    }
    eprintln!("{name}, gets ...");
    take_turns(args, plan, &mut all, |row| &mut row.rested)?;
    all.into_iter().map(|Opened { store, row, .. }| store.close().map(|()| row)).collect()
}

fn filled(args: &Args, number: usize, config: Config, plan: &Arc<Plan>) -> Result<Opened> {
    let dir = Directory::new(&args.dir, &format!("landing-{number}"))?;
    disk::sync_all()?;
    let before = disk::bytes_written();
    let store = config.open(&dir.0)?;
    let (store_ref, progress) = (&*store, Arc::new(Progress::default()));
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    let ((puts, gets_beside, fill, end), largest) = while_sampled(&dir, || {
        std::thread::scope(|scope| {
            let reader =
                scope.spawn(|| paced_gets(store_ref, args.read_rate, plan, &progress, &stop));
            let puts = store_ref.fill(plan, &progress);
            let fill = begun.elapsed();
            stop.store(true, Ordering::Relaxed);
            let gets_beside = reader.join().map_err(|_| "the reader died")??;
            Result::Ok((puts?, gets_beside, fill, store_ref.settle()?))
        })
    })?;
    let written = disk::bytes_written().zip(before).map(|(after, before)| after - before);
    let settled = state(store_ref, &dir, plan)?;
    let row = Row {
        config,
        fill,
        settle: end.saturating_duration_since(begun + fill),
        written,
        puts,
        gets_beside,
        largest: largest.max(settled.size),
        settled,
        rest: Duration::ZERO,
        rested: State::default(),
        verbose: args.verbose,
    };
    Ok(Opened { store, dir, row })
}

/// Does `work`, and says how large the directory was at most meanwhile.
fn while_sampled<T>(dir: &Directory, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| disk::largest_size(&dir.0, &stop));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let largest = sampler.join().map_err(|_| "the sampler died")?;
        Ok((done?, largest?))
    })
}

/// Without gets.
fn state(store: &dyn Store, dir: &Directory, plan: &Plan) -> Result<State> {
    let (account, size) = (store.account()?, disk::size(&dir.0)?);
    let begun = Instant::now();
    let entries = store.scan()?;
    let scan = begun.elapsed();
    if entries != plan.live {
        return Err(format!("a scan saw {entries} entries of {}", plan.live).into());
    }
    Ok(State { account, size, scan, gets: Vec::new() })
}

fn take_turns(
    args: &Args,
    plan: &Plan,
    all: &mut [Opened],
    state: fn(&mut Row) -> &mut State,
) -> Result<()> {
    for Opened { store, .. } in &*all {
        // The host of a virtual machine may have set aside memory that was not read for a minute,
        // pages of files as well. The first read of such a page takes twenty microseconds more.
        store.scan()?;
    }
    for turn in 0..args.turns {
        for Opened { store, row, .. } in &mut *all {
            state(row).gets.push(fast_gets(&**store, turn * args.gets, args.gets, plan)?);
        }
    }
    Ok(())
}

fn get(store: &dyn Store, plan: &Plan, put: u64, latencies: &mut Histogram<u64>) -> Result<()> {
    let key = plan.key(put);
    let begun = Instant::now();
    let found = store.get(&key)?;
    latencies.saturating_record(begun.elapsed().as_nanos() as u64);
    if found { Ok(()) } else { Err(format!("the key of put {put} is not there").into()) }
}

/// Gets of what was written so far, `rate` a second. A get that is late does not make the next ones
/// hurry.
fn paced_gets(
    store: &dyn Store,
    rate: u64,
    plan: &Plan,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Histogram<u64>> {
    let mut latencies = histogram();
    let period = Duration::from_nanos(1_000_000_000 / rate.max(1));
    let mut next = Instant::now();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let now = Instant::now();
        next = now.max(next + period);
        std::thread::sleep(next - now);
        if let Some(put) = progress.draw(mix(mix(number))) {
            get(store, plan, put, &mut latencies)?;
        }
    }
    Ok(latencies)
}

/// Gets of anything, one after the other. As many as a tenth of them go before, to warm the caches.
fn fast_gets(store: &dyn Store, from: u64, count: u64, plan: &Plan) -> Result<Gets> {
    let mut latencies = histogram();
    let mut begun = Instant::now();
    for number in 0..count + count / 10 {
        if number == count / 10 {
            latencies.reset();
            begun = Instant::now();
        }
        let put = scale(mix(!mix(from + number)), plan.puts);
        get(store, plan, put, &mut latencies)?;
    }
    Ok(Gets { latencies, took: begun.elapsed() })
}
