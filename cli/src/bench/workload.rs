//! One task's share of a workload: draw keys, run operations, record the time of each.

use super::args::{BenchArgs, Order, Workload};
use crate::outcome::{Failure, Result};
use crate::random::{Random, Zipf, mix};
use hdrhistogram::Histogram;
use sluicedb::{Db, WriteBatch};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Longest latency that the histogram distinguishes, in nanoseconds.
const NANOS_MAX: u64 = 600_000_000_000;

/// A histogram of nanoseconds with three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(NANOS_MAX, 3).expect("the bounds are valid")
}

/// The state that all tasks share.
#[derive(Debug)]
pub struct Plan {
    pub args: BenchArgs,
    pub zipf: Option<Zipf>,
    /// Operations given out.
    pub started: AtomicU64,
    /// Operations to give out.
    pub quota: u64,
    /// When to stop.
    pub deadline: Option<Instant>,
    /// Next id of sequential orders and of `fill`.
    pub next_id: AtomicU64,
    /// Operations done, for the progress bar.
    pub done: Arc<AtomicU64>,
    /// Values are slices of this.
    noise: Vec<u8>,
}

/// What one task did.
#[derive(Debug)]
pub struct Tally {
    pub latencies: Histogram<u64>,
    pub entries: u64,
    pub bytes: u64,
    /// Keys that should have existed and did not.
    pub missing: u64,
}

impl Plan {
    pub fn new(args: BenchArgs, done: &Arc<AtomicU64>) -> Self {
        let zipf = (args.order == Order::Zipf).then(|| Zipf::new(args.entries, args.theta));
        let mut noise = vec![0; args.value_bytes as usize + (64 << 10)];
        let mut random = Random::new(args.seed);
        // Half random, half repeated: compresses to about one half, as much real data does.
        for block in noise.chunks_mut(64) {
            let half = block.len() / 2;
            random.fill(&mut block[..half]);
        }
        Self {
            zipf,
            started: AtomicU64::new(0),
            quota: args.count.unwrap_or(u64::MAX),
            deadline: None,
            next_id: AtomicU64::new(0),
            done: Arc::clone(done),
            noise,
            args,
        }
    }

    /// Writes the key of `id`. It is scattered unless the order is sequential, and always the same.
    pub fn key(&self, id: u64, out: &mut Vec<u8>) {
        out.clear();
        let scattered = self.args.order != Order::Sequential;
        let head = if scattered { mix(id ^ self.args.seed.rotate_left(32)) } else { id };
        out.extend_from_slice(&head.to_be_bytes());
        // Short keys keep the low bytes, which tell neighbours apart.
        let len = self.args.key_bytes as usize;
        if len < 8 {
            out.drain(..8 - len);
        }
        out.resize(len, b'k');
    }

    /// A value: a slice of noise, at a random place.
    pub fn value(&self, random: &mut Random) -> &[u8] {
        let len = self.args.value_bytes as usize;
        let start = random.below((self.noise.len() - len + 1) as u64) as usize;
        &self.noise[start..start + len]
    }

    fn existing_id(&self, random: &mut Random) -> u64 {
        match (&self.zipf, self.args.order) {
            (Some(zipf), _) => zipf.rank(random.next()),
            (None, Order::Sequential) => {
                self.next_id.fetch_add(1, Ordering::Relaxed) % self.args.entries
            }
            _ => random.below(self.args.entries),
        }
    }

    /// The id that a write uses. `fill` takes new ones; zipf overwrites.
    fn id_to_write(&self, random: &mut Random) -> u64 {
        if self.args.workload == Workload::Fill && self.zipf.is_none() {
            return self.next_id.fetch_add(1, Ordering::Relaxed);
        }
        self.existing_id(random)
    }

    fn may_start(&self, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| now < deadline)
            && self.started.fetch_add(1, Ordering::Relaxed) < self.quota
    }
}

/// Runs operations until the plan says stop.
pub async fn task(db: Db, plan: Arc<Plan>, number: u64) -> Result<Tally> {
    let mut random = Random::new(plan.args.seed ^ mix(number + 1));
    let mut tally = Tally { latencies: histogram(), entries: 0, bytes: 0, missing: 0 };
    let mut keys = vec![Vec::new(); plan.args.batch as usize];
    let mut begun = Instant::now();
    while plan.may_start(begun) {
        let read = match plan.args.workload {
            Workload::Fill => false,
            Workload::Mixed => random.below(100) < u64::from(plan.args.reads),
            Workload::Read | Workload::Scan => true,
        };
        // The clock runs over the database only, not over drawing keys and values.
        begun = if plan.args.workload == Workload::Scan {
            scan(&db, &plan, &mut random, &mut tally).await?
        } else if read {
            get(&db, &plan, &mut random, &mut keys, &mut tally).await?
        } else {
            put(&db, &plan, &mut random, &mut keys, &mut tally).await?
        };
        plan.done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(tally)
}

/// Records the time since `begun`. Returns now.
fn note(tally: &mut Tally, begun: Instant) -> Instant {
    let now = Instant::now();
    tally.latencies.saturating_record((now - begun).as_nanos() as u64);
    now
}

async fn put(
    db: &Db,
    plan: &Plan,
    random: &mut Random,
    keys: &mut [Vec<u8>],
    tally: &mut Tally,
) -> Result<Instant> {
    let options = plan.args.durability.write_options();
    tally.entries += keys.len() as u64;
    tally.bytes += (plan.args.key_bytes + plan.args.value_bytes) * keys.len() as u64;
    if let [key] = keys {
        plan.key(plan.id_to_write(random), key);
        let value = plan.value(random);
        let begun = Instant::now();
        db.put_with(&*key, value, options).await?;
        return Ok(note(tally, begun));
    }
    let mut batch = WriteBatch::new();
    for key in keys {
        plan.key(plan.id_to_write(random), key);
        batch.put(&*key, plan.value(random));
    }
    let begun = Instant::now();
    db.write_with(batch, options).await?;
    Ok(note(tally, begun))
}

async fn get(
    db: &Db,
    plan: &Plan,
    random: &mut Random,
    keys: &mut [Vec<u8>],
    tally: &mut Tally,
) -> Result<Instant> {
    for key in &mut *keys {
        plan.key(plan.existing_id(random), key);
    }
    let begun = Instant::now();
    let found =
        if let [key] = keys { vec![db.get(&*key).await?] } else { db.multi_get(keys).await? };
    let now = note(tally, begun);
    tally.entries += found.len() as u64;
    for value in found {
        match value {
            Some(value) => tally.bytes += plan.args.key_bytes + value.len() as u64,
            None => tally.missing += 1,
        }
    }
    Ok(now)
}

async fn scan(db: &Db, plan: &Plan, random: &mut Random, tally: &mut Tally) -> Result<Instant> {
    let mut key = Vec::new();
    plan.key(plan.existing_id(random), &mut key);
    let begun = Instant::now();
    let mut scan = db.scan(key..).limit(plan.args.scan_entries);
    let mut entries = 0;
    while let Some(batch) = scan.next_chunk().await? {
        for (key, value) in batch.iter() {
            entries += 1;
            tally.bytes += (key.len() + value.len()) as u64;
        }
    }
    let now = note(tally, begun);
    tally.entries += entries;
    tally.missing += u64::from(entries == 0);
    Ok(now)
}

/// Writes the entries of `share`, in batches, as fast as possible.
pub async fn fill(db: Db, plan: Arc<Plan>, share: std::ops::Range<u64>) -> Result<()> {
    let mut random = Random::new(plan.args.seed ^ mix(share.start));
    let mut key = Vec::new();
    let per_batch = ((256 << 10) / (plan.args.key_bytes + plan.args.value_bytes)).clamp(1, 1000);
    let mut id = share.start;
    while id < share.end {
        let end = share.end.min(id + per_batch);
        let mut batch = WriteBatch::new();
        for id in id..end {
            plan.key(id, &mut key);
            batch.put(&key, plan.value(&mut random));
        }
        let options = crate::store::Durable::Buffered.write_options();
        db.write_with(batch, options).await.map_err(Failure::from)?;
        plan.done.fetch_add(end - id, Ordering::Relaxed);
        id = end;
    }
    Ok(())
}
