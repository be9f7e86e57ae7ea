//! A rate-limited pool of worker threads with backpressure.
//!
//! Jobs go into mailboxes that are bounded in messages and in bytes. A caller that submits faster
//! than the pool works waits for room in line, without blocking an executor. All workers share one
//! rate. An actor without a thread of its own keeps it: whichever worker asks runs the actor.
//!
//! ```sh
//! cargo run --release -p sluicedb-kernel --example worker_pool
//! ```

#![cfg(not(loom))]
#![allow(clippy::disallowed_methods, reason = "a rate is about the clock")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program says what it did")]

use sluicedb_kernel::combining::{CombiningMailbox, Handler, Hooks, Turn};
use sluicedb_kernel::mailbox::{Capacity, Inbox, Mailbox, Refused};
use sluicedb_kernel::reply::{Answer, Reply, reply};
use sluicedb_kernel::sync::block_on;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Gives out turns that are `pause` apart.
struct Pace {
    pause: Duration,
    next: Instant,
}

impl Handler for Pace {
    /// Told the time of the asker's turn.
    type Message = Reply<Instant>;

    fn handle(&mut self, reply: Reply<Instant>, _: &mut Turn) {
        let turn = self.next.max(Instant::now());
        self.next = turn + self.pause;
        reply.send(turn);
    }

    fn weight(_: &Reply<Instant>) -> usize {
        1
    }
}

struct Job {
    text: String,
    reply: Reply<usize>,
}

struct Pool {
    mailboxes: Vec<Mailbox<Job>>,
    next: AtomicUsize,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    fn new(workers: usize, per_second: u32) -> Self {
        let pace = Pace { pause: Duration::from_secs(1) / per_second, next: Instant::now() };
        // At most one request per worker exists at once, and all of them fit into one turn.
        let hooks =
            Hooks { kick: Box::new(|| ()), on_panic: Box::new(|told| eprintln!("pace: {told}")) };
        let capacity = Capacity { messages: workers, bytes: 0 };
        let pace = CombiningMailbox::new(pace, capacity, hooks);
        let pace = Arc::new(pace);
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| Mailbox::new(Capacity { messages: 8, bytes: 1 << 10 })).unzip();
        let work = |inbox| {
            let pace = Arc::clone(&pace);
            thread::spawn(move || work(inbox, &pace))
        };
        let workers = inboxes.into_iter().map(work).collect();
        Self { mailboxes, next: AtomicUsize::new(0), workers }
    }

    /// Waits for room, not for the work; the answer is for that. If it is dropped while waiting,
    /// nothing has happened.
    async fn submit(&self, text: String) -> Result<Answer<usize>, Refused> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len();
        let permit = self.mailboxes[at].reserve(text.len() as u64).await?;
        let (reply, answer) = reply();
        permit.send(Job { text, reply }).map_err(|_| Refused::Closed)?;
        Ok(answer)
    }

    /// Submitted jobs are done first: a mailbox ends when it is empty and its last sender is gone.
    fn close(self) {
        drop(self.mailboxes);
        for worker in self.workers {
            worker.join().expect("no worker panics");
        }
    }
}

fn work(mut inbox: Inbox<Job>, pace: &CombiningMailbox<Pace>) {
    while let Some(Job { text, reply: done }) = block_on(inbox.recv()) {
        let permit = block_on(pace.reserve(0)).expect("it is never closed");
        let (reply, turn) = reply();
        pace.send(permit, reply);
        let turn = block_on(turn).expect("the pace does not panic");
        thread::sleep(turn.saturating_duration_since(Instant::now()));
        done.send(text.split_whitespace().count());
    }
}

fn main() {
    let begun = Instant::now();
    let pool = Pool::new(4, 200);
    // Any executor will do. A thread that waits is one.
    let words = block_on(async {
        let mut answers = Vec::new();
        for n in 0..100 {
            let text = format!("job number {n} {}", "has a few words ".repeat(n % 7));
            answers.push(pool.submit(text).await.expect("it is open"));
        }
        println!("submitted after {:?}: most of that was waiting for room", begun.elapsed());
        let mut words = 0;
        for answer in answers {
            words += answer.await.expect("answered");
        }
        words
    });
    println!("{words} words after {:?}, at 200 jobs per second", begun.elapsed());
    pool.close();
}
