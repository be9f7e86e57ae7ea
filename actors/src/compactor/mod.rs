//! The compactor: keeps levels within their limits and read paths short.
//!
//! Owns:      the tables it is writing, and the choice of what to merge next.
//! Receives:  Compact, from callers; and the signal that a version changed.
//! Sends:     Install to the version manager.
//! Publishes: nothing.
//! Stops:     when its mailbox is closed, or the engine has failed.

pub mod message;
mod run;

use crate::backoff::Backoff;
use crate::failure::Failure;
use crate::kernel::mailbox::{Inbox, Mailbox};
use crate::kernel::reply::reply;
use crate::shared::{Counters, Shared};
use crate::version_manager::message::{InstallFailure, VersionMessage};
use futures::FutureExt;
use message::CompactorMessage;
use sluicedb_storage::compact::{Claims, Job, Step, manual, pick};
use sluicedb_storage::key::Span;
use std::sync::Arc;

/// The actor. Driven by a thread of its own: it reads and writes tables.
#[derive(Debug)]
pub struct Compactor {
    shared: Arc<Shared>,
    inbox: Inbox<CompactorMessage>,
    versions: Mailbox<VersionMessage>,
    claims: Claims,
}

/// How a job ended.
enum Ended {
    /// Installed.
    Done,
    /// The version moved on under it; pick again.
    Conflict,
    /// Failed; try again later.
    Failed(Failure),
}

impl Compactor {
    /// A compactor that installs through `versions`.
    pub fn new(
        shared: Arc<Shared>,
        inbox: Inbox<CompactorMessage>,
        versions: Mailbox<VersionMessage>,
    ) -> Self {
        Self { shared, inbox, versions, claims: Claims::new() }
    }

    /// The loop.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
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
                match self.execute(job).await {
                    Ended::Done => backoff.reset(),
                    Ended::Conflict => {}
                    Ended::Failed(failure) => {
                        if self.shared.is_stopped() {
                            return;
                        }
                        let pause = backoff.after_failure();
                        tracing::warn!(%failure, ?pause, "a compaction failed and will be tried again");
                        Counters::add(&self.shared.counters.job_retries, 1);
                        if !self.shared.pause(pause).await {
                            return;
                        }
                    }
                }
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
        futures::select_biased! {
            message = self.inbox.recv().fuse() => match message {
                Some(CompactorMessage::Compact { span, reply }) => Next::Compact(span, reply),
                None => Next::Stop,
            },
            () = self.shared.compaction_due.wait().fuse() => Next::Due,
        }
    }

    fn pick(&self) -> Option<Job> {
        if self.shared.is_stopped() {
            return None;
        }
        let catalog = self.shared.catalog.load_full();
        pick(&catalog.superversion.version, &self.shared.config.compaction, &self.claims)
    }

    /// Merges everything in `span` to the bottom.
    async fn compact_span(&mut self, span: &Span) -> Result<(), Failure> {
        loop {
            if let Some(failure) = self.shared.stopped_by() {
                return Err(failure);
            }
            let catalog = self.shared.catalog.load_full();
            let step = manual(&catalog.superversion.version, span, &self.claims);
            drop(catalog);
            match step {
                // One job at a time runs in here, so nothing can be in the way.
                Step::Done | Step::Busy => return Ok(()),
                Step::Job(job) => match self.execute(job).await {
                    Ended::Done | Ended::Conflict => {}
                    Ended::Failed(failure) => return Err(failure),
                },
            }
        }
    }

    /// Runs one job, claimed meanwhile: the claims also remember where each level's picks go on.
    async fn execute(&mut self, job: Job) -> Ended {
        let claim = self.claims.claim(&job);
        let ended = self.execute_claimed(job).await;
        self.claims.release(claim);
        ended
    }

    async fn execute_claimed(&mut self, job: Job) -> Ended {
        let mut written = match run::write(&self.shared, &job) {
            Ok(written) => written,
            Err(failure) => return Ended::Failed(failure),
        };
        let edit = job.edit(written.metas().to_vec());
        let bytes_written = written.metas().iter().map(|meta| meta.file_bytes).sum();
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
            Ok(Err(InstallFailure::Failed(failure))) => Ended::Failed(failure),
            Err(_) => Ended::Failed(self.shared.why_stopped()),
        }
    }
}

enum Next {
    Compact(Span, crate::kernel::reply::Reply<Result<(), Failure>>),
    Due,
    Stop,
}
