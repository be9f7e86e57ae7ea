//! The compaction planner: chooses what is merged next, so that levels keep within their limits and
//! read paths stay short. Workers do it.
//!
//! Owns:      the claims and the choice, what is set aside, the request of a caller.
//! Receives:  Compact, from callers; a Report, from a worker; and the signal that a version changed.
//! Sends:     jobs, each with its claim, to workers that are idle.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed, or the engine has failed.
//!
//! A job that fails changes nothing: its outputs are removed, its inputs stay. What is to blame is set
//! aside for a while (`state.rs`), and jobs that do not need it go on at once.

pub mod message;
mod state;
#[cfg(test)]
mod tests;

use crate::failure::trouble::Asked;
use crate::failure::{Concern, Failure, Party};
use crate::kernel::mailbox::{Inbox, Mailbox};
use crate::kernel::reply::Reply;
use crate::shared::{Counters, Shared};
use futures::FutureExt;
use message::{Ended, PlannerMessage, Report};
use sluicedb_storage::compact::{ClaimedJob, Claims, Job, Step, manual, pick};
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Span;
use sluicedb_storage::version::RangeId;
use state::Setbacks;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

/// The actor. Driven by a thread of its own: to choose among many tables takes its time.
#[derive(Debug)]
pub struct CompactionPlanner {
    shared: Arc<Shared>,
    inbox: Inbox<PlannerMessage>,
    workers: Vec<Worker>,
    reports: Inbox<Report>,
    claims: Claims,
    /// Of the caller whose turn it is; the next ones wait in the mailbox.
    request: Option<Request>,
    setbacks: Setbacks,
    /// For whom merging is shown to be in trouble.
    shown: BTreeSet<Option<RangeId>>,
    asked: Asked,
}

/// A worker as the planner sees it: it has one job at most.
#[derive(Debug)]
struct Worker {
    jobs: Mailbox<ClaimedJob>,
    runs: Option<Purpose>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A level is due.
    Due,
    /// A caller asked for it.
    Request,
}

/// A span that somebody wants merged to the bottom, except the ranges where that fails.
#[derive(Debug)]
struct Request {
    span: Span,
    reply: Reply<Result<(), Failure>>,
    given_up: BTreeSet<RangeId>,
    first: Result<(), Failure>,
}

impl From<PlannerMessage> for Request {
    fn from(message: PlannerMessage) -> Self {
        let PlannerMessage::Compact { span, reply } = message;
        Self { span, reply, given_up: BTreeSet::new(), first: Ok(()) }
    }
}

enum Next {
    Compact(Request),
    Ended(Report),
    Due,
    Stop,
}

impl CompactionPlanner {
    /// A planner for the workers behind these mailboxes, who have room for one job each.
    pub fn new(
        shared: Arc<Shared>,
        inbox: Inbox<PlannerMessage>,
        workers: Vec<Mailbox<ClaimedJob>>,
        reports: Inbox<Report>,
    ) -> Self {
        let workers = workers.into_iter().map(|jobs| Worker { jobs, runs: None }).collect();
        Self {
            shared,
            inbox,
            workers,
            reports,
            claims: Claims::new(),
            request: None,
            setbacks: Setbacks::default(),
            shown: BTreeSet::new(),
            asked: Asked::default(),
        }
    }

    /// The loop. Nothing in it waits for one job, or for what failed: the rest goes on.
    pub async fn run(mut self) {
        loop {
            match self.next_message().await {
                Next::Compact(request) => self.request = Some(request),
                Next::Ended(report) => self.ended(report),
                Next::Due => {}
                Next::Stop => return,
            }
            self.follow();
            self.hand_out();
        }
    }

    async fn next_message(&mut self) -> Next {
        if self.shared.is_stopped() {
            return Next::Stop;
        }
        let next_try = self.setbacks.next_try(self.shared.runtime.now());
        let mut alarm = pin!(self.shared.until(next_try).fuse());
        let (inbox, taken) = (&mut self.inbox, self.request.is_some());
        let next_request =
            async move { if taken { std::future::pending().await } else { inbox.recv().await } };
        let mut next_request = pin!(next_request.fuse());
        futures::select_biased! {
            report = self.reports.recv().fuse() => report.map_or(Next::Stop, Next::Ended),
            message = next_request => {
                message.map_or(Next::Stop, |message| Next::Compact(message.into()))
            }
            () = self.shared.compaction_due.wait().fuse() => Next::Due,
            () = alarm => Next::Due,
        }
    }

    /// Tables may have gone, or have been left to another range.
    fn follow(&mut self) {
        let version = self.shared.version();
        self.setbacks.prune(&version);
        self.claims.prune(&version);
        self.show();
    }

    /// Gives idle workers what there is to do.
    fn hand_out(&mut self) {
        while let Some(idle) = self.workers.iter().position(|worker| worker.runs.is_none()) {
            let Some((job, purpose)) = self.choose() else { return };
            let Ok(permit) = self.workers[idle].jobs.try_reserve(1) else { return };
            // The claims also remember where each level's picks go on.
            if permit.send(self.claims.claim(job)).is_err() {
                // The worker has gone, and so will everybody.
                return;
            }
            self.workers[idle].runs = Some(purpose);
            Counters::add(&self.shared.counters.compactions_begun, 1);
        }
    }

    /// The next job. A caller's request goes first, and no other job is begun before it is answered:
    /// one after the other would be in its way.
    fn choose(&mut self) -> Option<(Job, Purpose)> {
        while !self.shared.is_stopped() {
            let next_request = || self.inbox.try_recv().map(Request::from);
            let Some(request) = self.request.take().or_else(next_request) else {
                return self.pick().map(|job| (job, Purpose::Due));
            };
            let step =
                manual(&self.shared.version(), &request.span, &self.claims, &request.given_up);
            match step {
                Step::Done => request.reply.send(request.first),
                Step::Job(job) => {
                    self.request = Some(request);
                    return Some((job, Purpose::Request));
                }
                // Each job that is in the way reports when it has ended.
                Step::Busy => {
                    self.request = Some(request);
                    return None;
                }
            }
        }
        None
    }

    fn pick(&mut self) -> Option<Job> {
        let (version, now) = (self.shared.version(), self.shared.runtime.now());
        if self.shared.attempts.is_asked(&mut self.asked) {
            self.setbacks.try_now(now);
        }
        let set_aside = self.setbacks.set_aside(now)?;
        let job = pick(&version, &self.shared.config.compaction, &self.claims, &set_aside);
        // What runs may be what failed, tried again.
        if job.is_none() && set_aside.is_empty() && self.claims.is_empty() {
            self.setbacks.nothing_due();
            self.show();
        }
        job
    }

    /// A job is over. What it held may be picked again from here on.
    fn ended(&mut self, report: Report) {
        let Report { worker, job, ended } = report;
        let purpose = self.workers[worker].runs.take();
        if let (Some(Purpose::Request), Some(request), Ended::Failed(failure)) =
            (purpose, &mut self.request, &ended)
        {
            request.given_up.insert(job.range);
            request.first = request.first.clone().and(Err(failure.clone()));
        }
        match &ended {
            Ended::Done if !job.is_move => {
                self.shared.job_succeeded();
                let inputs = input_tables(&job);
                self.setbacks.succeeded(&inputs);
                for number in inputs {
                    self.shared.damage.forget(number);
                }
            }
            Ended::Done | Ended::Conflict => {}
            Ended::Failed(failure) => self.failed(&job, failure),
        }
        self.show();
    }

    fn failed(&mut self, job: &Job, failure: &Failure) {
        if self.shared.is_stopped() || self.shared.job_failed(failure) {
            return;
        }
        self.shared.damage.note(failure);
        let (range, now) = (job.range, self.shared.runtime.now());
        let pause = self.setbacks.failed(range, &input_tables(job), failure, now);
        tracing::warn!(%range, %failure, ?pause, "a compaction failed; its inputs are set aside");
        Counters::add(&self.shared.counters.job_retries, 1);
        // What is shown for it is out of date.
        self.shown.remove(&(!failure.is_no_space()).then_some(range));
    }

    /// Shows the troubles that there are, and takes back those that are over.
    fn show(&mut self) {
        let troubles = self.setbacks.troubles();
        let shared = &self.shared;
        let concern = |range| Concern { party: Party::Compaction, range };
        let mut changed = false;
        self.shown.retain(|range| {
            let lasts = troubles.contains_key(range);
            if !lasts {
                shared.recover(concern(*range));
                changed = true;
            }
            lasts
        });
        for (range, failure) in troubles {
            if self.shown.insert(range) {
                shared.degrade(concern(range), failure);
                changed = true;
            }
        }
        if changed {
            // Flushes that wait for room in L0 have to know whether it comes.
            shared.flush_due.set();
        }
    }
}

fn input_tables(job: &Job) -> Vec<FileNumber> {
    job.slices().map(|(_, slice)| slice.number()).collect()
}
