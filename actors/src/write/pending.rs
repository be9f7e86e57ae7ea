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
    /// In the log, or queued for it in its final order; poll for the acknowledgement.
    Waiting(Pending),
    /// It was waited for, and this was the answer.
    Failed(WriteFailure),
    /// Nowhere: there was no room. Nothing has happened.
    NotAdmitted(Write, Scope),
    /// Nowhere: it is too much for the caller's thread to find out which ranges it touches. Nothing
    /// has happened.
    NotRouted(Write),
}

/// A write on its way. May outlive the engine, on any thread (INVARIANT(no-block-on-executor)): so
/// it holds no memtable and no file, nor what leads to one.
pub struct Pending {
    pub(super) stage: Stage,
    pub(super) number: Number,
    pub(super) health: Health<Concern, Failure>,
}

pub(super) enum Stage {
    /// To be stamped (`Buffered`), or stamped and synced (`Synced`).
    Answer(Answer<Committed>, Sequencer),
    /// Stamped; some other commit before it is not finished.
    Visible(Seqno, WaitVisible),
}

/// The number of a write on its way.
pub(super) enum Number {
    /// It comes with the acknowledgement.
    Unknown,
    /// It comes when the write is stamped.
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
            // Lets go of the queue: who has the answer may keep this.
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

    /// Resolves once readers see a write that was admitted: with its acknowledgement, or before it
    /// if it was submitted in stages.
    ///
    /// # Errors
    /// Why they never will, or, for a write that was not submitted so, why it is not acknowledged.
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

    /// `None` if the acknowledgement says it: nothing is known before, or the write was refused.
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

    /// Whoever had the write is gone: the engine has stopped, and the log may have it.
    fn lost(&self) -> WriteFailure {
        WriteFailure::unknown(self.health.why_stopped())
    }
}
