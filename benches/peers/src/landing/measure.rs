//! One configuration with one distribution of keys: fill, settle, read, scan; then let it rest,
//! read and scan again.

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
    pub puts: Histogram<u64>,
    pub gets_beside: Histogram<u64>,
    /// When all that was due is done.
    pub settled: State,
    /// From the last put until it was at rest.
    pub rest: Duration,
    /// When all is done that is done while nobody writes.
    pub rested: State,
    pub largest: u64,
    pub verbose: bool,
}

/// What the database is like at some time, and what reads find then.
#[derive(Debug)]
pub struct State {
    /// Until then.
    pub account: Account,
    /// Likewise, by the operating system's count.
    pub written: Option<u64>,
    pub size: u64,
    pub gets: Histogram<u64>,
    pub gets_took: Duration,
    pub scan: Duration,
}

pub fn row(args: &Args, config: Config, plan: &Plan) -> Result<Row> {
    let dir = Directory::new(&args.dir, "landing")?;
    disk::sync_all()?;
    let before = disk::bytes_written();
    let store = config.open(&dir.0)?;
    let store_ref = &*store;
    let (plan, progress) = (Arc::new(plan.clone()), Arc::new(Progress::default()));
    let (filled, settled) = (AtomicBool::new(false), AtomicBool::new(false));
    let begun = Instant::now();
    let (puts, fill, end, gets_beside, largest) = std::thread::scope(|scope| {
        let reader =
            scope.spawn(|| paced_gets(store_ref, args.read_rate, &plan, &progress, &filled));
        let sampler = scope.spawn(|| disk::largest_size(&dir.0, &settled));
        let puts = store_ref.fill(&plan, &progress);
        let fill = begun.elapsed();
        filled.store(true, Ordering::Relaxed);
        let end = if puts.is_ok() { store_ref.settle() } else { Ok(Instant::now()) };
        settled.store(true, Ordering::Relaxed);
        let gets = reader.join().map_err(|_| "the reader died")?;
        let largest = sampler.join().map_err(|_| "the sampler died")?;
        Result::Ok((puts?, fill, end?, gets?, largest?))
    })?;
    let state = || {
        let written = disk::bytes_written().zip(before).map(|(after, before)| after - before);
        let account = store_ref.account()?;
        let size = disk::size(&dir.0)?;
        let (gets, gets_took) = fast_gets(store_ref, args.gets, &plan)?;
        let begun = Instant::now();
        let entries = store_ref.scan()?;
        let scan = begun.elapsed();
        if entries != plan.live {
            return Err(format!("a scan saw {entries} entries of {}", plan.live).into());
        }
        Result::Ok(State { account, written, size, gets, gets_took, scan })
    };
    let settled_state = state()?;
    let resting = AtomicBool::new(false);
    let (rested, while_resting) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| disk::largest_size(&dir.0, &resting));
        let rested = store_ref.rest();
        resting.store(true, Ordering::Relaxed);
        let largest = sampler.join().map_err(|_| "the sampler died")?;
        Result::Ok((rested?, largest?))
    })?;
    let rested_state = state()?;
    let largest = largest.max(while_resting).max(settled_state.size).max(rested_state.size);
    store.close()?;
    Ok(Row {
        config,
        fill,
        settle: end.saturating_duration_since(begun + fill),
        puts,
        gets_beside,
        settled: settled_state,
        rest: rested.saturating_duration_since(begun + fill),
        rested: rested_state,
        largest,
        verbose: args.verbose,
    })
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

/// Gets of anything, one after the other, and how long they took together. As many as a tenth of
/// them go before, to warm the caches.
fn fast_gets(store: &dyn Store, count: u64, plan: &Plan) -> Result<(Histogram<u64>, Duration)> {
    let mut latencies = histogram();
    let mut begun = Instant::now();
    for number in 0..count + count / 10 {
        if number == count / 10 {
            latencies.reset();
            begun = Instant::now();
        }
        let put = scale(mix(!mix(number)), plan.puts);
        get(store, plan, put, &mut latencies)?;
    }
    Ok((latencies, begun.elapsed()))
}
