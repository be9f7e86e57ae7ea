//! The compactor: keeps levels within their limits and read paths short.
//!
//! Owns:      the tables it is writing, and the choice of what to merge next.
//! Receives:  Compact, from callers; and the signal that a version changed.
//! Sends:     Install to the version manager.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed, or the engine has failed.
//!
//! A job that fails changes nothing: its outputs are removed, its inputs stay. What is to blame is set
//! aside for a while (`state.rs`), and jobs that do not need it go on at once.

pub mod message;
mod run;
mod state;

use crate::backoff::LASTING;
use crate::failure::{Concern, Failure, Party};
use crate::kernel::mailbox::{Inbox, Mailbox};
use crate::kernel::reply::{Reply, reply};
use crate::shared::{Counters, Shared};
use crate::trouble::Asked;
use crate::version_manager::message::{InstallFailure, VersionMessage};
use futures::FutureExt;
use message::CompactorMessage;
use sluicedb_storage::compact::{Claims, Job, Step, manual, pick};
use sluicedb_storage::key::Span;
use sluicedb_storage::version::{RangeId, SliceMeta};
use state::Setbacks;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The actor. Driven by a thread of its own: it reads and writes tables.
#[derive(Debug)]
pub struct Compactor {
    shared: Arc<Shared>,
    inbox: Inbox<CompactorMessage>,
    versions: Mailbox<VersionMessage>,
    claims: Claims,
    setbacks: Setbacks,
    /// For whom merging is shown to be in trouble.
    shown: BTreeSet<Option<RangeId>>,
    asked: Asked,
}

/// How a job ended.
enum Ended {
    /// Installed.
    Done,
    /// The version moved on under it; pick again.
    Conflict,
    /// Failed; what is to blame is set aside.
    Failed(Failure),
}

impl Compactor {
    /// A compactor that installs through `versions`.
    pub fn new(
        shared: Arc<Shared>,
        inbox: Inbox<CompactorMessage>,
        versions: Mailbox<VersionMessage>,
    ) -> Self {
        Self {
            shared,
            inbox,
            versions,
            claims: Claims::new(),
            setbacks: Setbacks::default(),
            shown: BTreeSet::new(),
            asked: Asked::default(),
        }
    }

    /// The loop. Nothing in it waits for what failed: that is set aside, and the rest goes on.
    pub async fn run(mut self) {
        loop {
            match self.next_message().await {
                Next::Compact(span, reply) => {
                    let result = self.compact_span(&span).await;
                    reply.send(result);
                }
                Next::Due => {}
                Next::Stop => return,
            }
            while let Some(job) = self.pick() {
                self.execute(job).await;
                // A caller's request goes before the next automatic job.
                if !self.inbox.is_empty() {
                    break;
                }
            }
        }
    }

    async fn next_message(&mut self) -> Next {
        if self.shared.is_stopped() {
            return Next::Stop;
        }
        let next_try = self.setbacks.next_try(self.shared.runtime.now());
        let mut alarm = std::pin::pin!(self.shared.until(next_try).fuse());
        futures::select_biased! {
            message = self.inbox.recv().fuse() => match message {
                Some(CompactorMessage::Compact { span, reply }) => Next::Compact(span, reply),
                None => Next::Stop,
            },
            () = self.shared.compaction_due.wait().fuse() => Next::Due,
            () = alarm => Next::Due,
        }
    }

    fn pick(&mut self) -> Option<Job> {
        if self.shared.is_stopped() {
            return None;
        }
        let (version, now) = (self.shared.version(), self.shared.runtime.now());
        self.setbacks.prune(&version);
        self.show();
        if self.shared.attempts.is_asked(&mut self.asked) {
            self.setbacks.try_now(now);
        }
        let set_aside = self.setbacks.set_aside(now)?;
        let job = pick(&version, &self.shared.config.compaction, &self.claims, &set_aside);
        if job.is_none() && set_aside.is_empty() {
            self.setbacks.nothing_due();
            self.show();
        }
        job
    }

    /// Merges everything in `span` to the bottom, except the ranges where that fails.
    async fn compact_span(&mut self, span: &Span) -> Result<(), Failure> {
        let (mut given_up, mut first) = (BTreeSet::new(), Ok(()));
        loop {
            if let Some(failure) = self.shared.stopped_by() {
                return Err(failure);
            }
            let step = manual(&self.shared.version(), span, &self.claims, &given_up);
            match step {
                // One job at a time runs in here, so nothing can be in the way.
                Step::Done | Step::Busy => return first,
                Step::Job(job) => {
                    let range = job.range;
                    if let Ended::Failed(failure) = self.execute(job).await {
                        given_up.insert(range);
                        first = first.and(Err(failure));
                    }
                }
            }
        }
    }

    /// Runs one job, claimed meanwhile: the claims also remember where each level's picks go on.
    async fn execute(&mut self, job: Job) -> Ended {
        let (range, is_move) = (job.range, job.is_move);
        let inputs: Vec<_> = job.slices().map(|(_, slice)| slice.number()).collect();
        let claim = self.claims.claim(&job);
        let mut ended = self.execute_claimed(&job).await;
        if let Ended::Failed(failure) = &ended
            && self.shared.use_reserve(failure)
        {
            ended = self.execute_claimed(&job).await;
        }
        self.claims.release(claim);
        match &ended {
            Ended::Done if !is_move => {
                self.shared.job_succeeded();
                self.setbacks.succeeded(&inputs);
                for number in inputs {
                    self.shared.damage.forget(number);
                }
            }
            Ended::Done | Ended::Conflict => {}
            Ended::Failed(failure) => {
                if self.shared.is_stopped() || self.shared.job_failed(failure) {
                    return ended;
                }
                self.shared.damage.note(failure);
                let now = self.shared.runtime.now();
                let pause = self.setbacks.failed(range, &inputs, failure, now);
                tracing::warn!(%range, %failure, ?pause, "a compaction failed; its inputs are set aside");
                Counters::add(&self.shared.counters.job_retries, 1);
                let concern = (!failure.is_no_space()).then_some(range);
                // Nobody is turned away because of something that may be over in a moment.
                if concern.is_none() || failure.is_damage() || pause >= LASTING {
                    self.shown.insert(concern);
                    let concern = Concern { party: Party::Compaction, range: concern };
                    self.shared.degrade(concern, failure.clone());
                    // Flushes that wait for room in L0 have to know that it does not come.
                    self.shared.flush_due.set();
                }
            }
        }
        self.show();
        ended
    }

    /// Takes back the troubles that are over.
    fn show(&mut self) {
        if self.shown.is_empty() {
            return;
        }
        let concerns = self.setbacks.concerns();
        let shared = &self.shared;
        self.shown.retain(|range| {
            let lasts = concerns.contains(range);
            if !lasts {
                shared.recover(Concern { party: Party::Compaction, range: *range });
                shared.flush_due.set();
            }
            lasts
        });
    }

    async fn execute_claimed(&mut self, job: &Job) -> Ended {
        let mut written = match run::write(&self.shared, job) {
            Ok(written) => written,
            Err(failure) => return Ended::Failed(failure),
        };
        let edit = job.edit(written.slices().to_vec());
        let bytes_written = written.slices().iter().map(SliceMeta::file_bytes).sum();
        let (reply, answer) = reply();
        let Ok(permit) = self.versions.reserve(1).await else {
            return Ended::Failed(self.shared.why_stopped());
        };
        let message = VersionMessage::Install {
            edit: Box::new(edit),
            tables: written.handles(),
            flushed: None,
            reply,
        };
        written.hand_over();
        if permit.send(message).is_err() {
            return Ended::Failed(self.shared.why_stopped());
        }
        match answer.await {
            Ok(Ok(())) => {
                let counters = &self.shared.counters;
                Counters::add(&counters.compactions, 1);
                if job.is_move {
                    Counters::add(&counters.trivial_moves, 1);
                } else {
                    Counters::add(&counters.compaction_bytes_read, job.input_bytes());
                    Counters::add(&counters.compaction_bytes_written, bytes_written);
                }
                Ended::Done
            }
            Ok(Err(InstallFailure::Conflict(what))) => {
                tracing::debug!(%what, "a compaction lost its inputs");
                written.take_back();
                Ended::Conflict
            }
            Ok(Err(InstallFailure::NotInstalled(failure))) => {
                written.take_back();
                Ended::Failed(failure)
            }
            Ok(Err(InstallFailure::Failed(failure))) => Ended::Failed(failure),
            Err(_) => Ended::Failed(self.shared.why_stopped()),
        }
    }
}

enum Next {
    Compact(Span, Reply<Result<(), Failure>>),
    Due,
    Stop,
}
