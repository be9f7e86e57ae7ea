//! Clients: tasks on the runtime, each doing one operation after the other until all are done or
//! the time is over.
//!
//! Before each operation a client gives up a unit of tokio's cooperative budget, as a task does
//! that gets its requests from a channel or a socket. So it lets others run after 128 operations,
//! however quick its engine is. The latency of an operation has the wait for its turn in it, for
//! all engines: one that gives up units itself would otherwise wait inside its operations, and
//! others beside them.

use crate::{Result, histogram, process};
use hdrhistogram::Histogram;
use std::future::Future;
use std::time::{Duration, Instant};

/// What a client does.
pub trait Work: Clone + Send + 'static {
    /// Operation `n`; returns how many entries it was about.
    fn run(&self, n: u64) -> impl Future<Output = Result<u64>> + Send;
}

#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub clients: u64,
    /// Operations of all clients together, at most.
    pub operations: u64,
    /// How long, at most.
    pub seconds: f64,
}

#[derive(Debug)]
pub struct Driven {
    pub latencies: Histogram<u64>,
    pub entries: u64,
    /// Operations that each client did. Client `c` of `k` does `c`, `c + k`, `c + 2k` ...
    pub done: Vec<u64>,
    pub took: Duration,
    pub cpu: Duration,
}

impl Driven {
    pub fn operations(&self) -> u64 {
        self.done.iter().sum()
    }
}

struct Client {
    latencies: Histogram<u64>,
    entries: u64,
    done: u64,
}

async fn client(work: impl Work, number: u64, load: Load, deadline: Instant) -> Result<Client> {
    let mut client = Client { latencies: histogram(2), entries: 0, done: 0 };
    for n in (number..load.operations).step_by(load.clients as usize) {
        let begun = Instant::now();
        tokio::task::coop::consume_budget().await;
        client.entries += work.run(n).await?;
        let ended = Instant::now();
        client.latencies.saturating_record((ended - begun).as_nanos() as u64);
        client.done += 1;
        if ended >= deadline {
            break;
        }
    }
    Ok(client)
}

pub async fn drive(work: impl Work, load: Load) -> Result<Driven> {
    let cpu = process::cpu_time();
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs_f64(load.seconds);
    let clients: Vec<_> = (0..load.clients)
        .map(|number| tokio::spawn(client(work.clone(), number, load, deadline)))
        .collect();
    drop(work);
    let mut driven = Driven {
        latencies: histogram(2),
        entries: 0,
        done: Vec::new(),
        took: Duration::ZERO,
        cpu: Duration::ZERO,
    };
    for client in clients {
        let client = client.await??;
        driven.latencies.add(client.latencies)?;
        driven.entries += client.entries;
        driven.done.push(client.done);
    }
    driven.took = begun.elapsed();
    driven.cpu = process::cpu_time().saturating_sub(cpu);
    Ok(driven)
}
