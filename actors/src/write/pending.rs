//! A write on its way, from its submission to its acknowledgement.

use super::Write;
use crate::failure::health::Health;
use crate::failure::{Concern, Failure, Scope, WriteFailure};
use crate::log_writer::message::Committed;
use sluicedb_kernel::reply::Answer;
use sluicedb_kernel::sequencer::{Sequencer, WaitVisible};
use sluicedb_storage::key::Seqno;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How far a write has come.
pub enum Submitted {
    /// Acknowledged: visible, and as durable as was asked.
    Done(Seqno),
    /// In the log, or queued for it in its final order. Poll for the acknowledgement.
    Waiting(Pending),
    /// Polled to its end. This was the answer.
    Failed(WriteFailure),
    /// Nothing has happened: there was no room.
    NotAdmitted(Write, Scope),
    /// Nothing has happened: the batch is too heavy for the caller's thread to find its ranges.
    NotRouted(Write),
}

/// A write on its way. It may outlive the engine, on any thread, so it holds no memtable, no file
/// and nothing that leads to one (INVARIANT(no-block-on-executor)).
pub struct Pending {
    pub(super) stage: Stage,
    pub(super) number: Number,
    pub(super) health: Health<Concern, Failure>,
}

pub(super) enum Stage {
    /// Waits to be stamped (`Buffered`), or stamped and synced (`Synced`).
    Answer(Answer<Committed>, Sequencer),
    /// Stamped. An earlier commit is not finished.
    Visible(Seqno, WaitVisible),
}

/// What is known of the number of a write on its way.
pub(super) enum Number {
    /// The acknowledgement tells it.
    Unknown,
    /// It is told when the write is stamped.
    Coming(Answer<Seqno>),
    Known(Seqno),
}

impl fmt::Debug for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(seqno) => f.debug_tuple("Done").field(seqno).finish(),
            Self::Waiting(_) => f.write_str("Waiting"),
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
            Self::NotAdmitted(_, scope) => f.debug_tuple("NotAdmitted").field(scope).finish(),
            Self::NotRouted(_) => f.write_str("NotRouted"),
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl Submitted {
    /// Resolves to the acknowledgement of a write that was admitted.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Committed> {
        if let Self::Waiting(pending) = self {
            // Drops the pending stage, and the sequencer with it: a caller may keep `self` for long
            // after the answer.
            *self = match ready!(pending.poll(context)) {
                Ok(seqno) => Self::Done(seqno),
                Err(failure) => Self::Failed(failure),
            };
        }
        match self {
            Self::Done(seqno) => Poll::Ready(Ok(*seqno)),
            Self::Failed(failure) => Poll::Ready(Err(failure.clone())),
            Self::Waiting(_) => unreachable!("it has just been answered"),
            Self::NotAdmitted(..) | Self::NotRouted(_) => {
                unreachable!("only admitted writes are waited for")
            }
        }
    }

    /// Resolves once readers see a write that was admitted. For a write submitted in stages that
    /// may be before its acknowledgement; for others it is the acknowledgement.
    ///
    /// # Errors
    /// Why readers will never see it. For a write that was not submitted in stages: why it is not
    /// acknowledged.
    ///
    /// # Cancellation
    /// No effect.
    pub async fn visible(&mut self) -> Committed {
        if let Self::Waiting(pending) = self
            && let Some(visible) = pending.visible().await
        {
            return visible;
        }
        poll_fn(|context| self.poll(context)).await
    }
}

impl Pending {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Committed> {
        loop {
            match &mut self.stage {
                Stage::Answer(answer, commits) => match Pin::new(answer).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Ok(seqno))) => {
                        if commits.visible() >= seqno.0 {
                            return Poll::Ready(Ok(seqno));
                        }
                        self.stage = Stage::Visible(seqno, commits.wait_visible(seqno.0));
                    }
                    Poll::Ready(Ok(Err(failed))) => return Poll::Ready(Err(failed)),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(self.lost())),
                },
                Stage::Visible(seqno, visible) => {
                    return match Pin::new(visible).poll(context) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(Ok(())) => Poll::Ready(Ok(*seqno)),
                        Poll::Ready(Err(_)) => Poll::Ready(Err(self.lost())),
                    };
                }
            }
        }
    }

    /// `None` if only the acknowledgement can tell: the number is not told earlier, or the write
    /// was refused.
    async fn visible(&mut self) -> Option<Committed> {
        let Stage::Answer(_, commits) = &self.stage else { return None };
        let seqno = match &mut self.number {
            Number::Unknown => return None,
            Number::Known(seqno) => *seqno,
            Number::Coming(stamped) => {
                let seqno = stamped.await.ok()?;
                self.number = Number::Known(seqno);
                seqno
            }
        };
        let visible = commits.wait_visible(seqno.0).await;
        Some(visible.map(|()| seqno).map_err(|_| self.lost()))
    }

    /// Whoever held the write is gone: the engine has stopped, and the log may have it.
    fn lost(&self) -> WriteFailure {
        WriteFailure::unknown(self.health.why_stopped())
    }
}
