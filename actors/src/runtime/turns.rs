//! The engine thread that runs turns which callers' threads leave to it, because they are too long
//! or too many.

use crate::counter::Counter;
use crate::runtime::jobs::{Jobs, Kick, Worker};
use std::sync::Arc;

/// Hands turns to that thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns {
    jobs: Jobs,
    handed_on: Arc<Counter>,
}

impl Turns {
    /// The handle, and what the thread must run.
    pub fn new() -> (Self, Vec<Worker>) {
        let (jobs, workers) = Jobs::new(1, 0);
        (Self { jobs, handed_on: Arc::default() }, workers)
    }

    /// A kick whose look runs on that thread.
    pub fn kick(&self, look: impl Fn() + Send + Sync + 'static) -> Kick {
        Kick::new(&self.jobs, look)
    }

    /// What a seat calls to leave its next turn to the thread (`Hooks::kick`). `look` must deliver
    /// what is queued.
    pub fn hand_on(&self, look: impl Fn() + Send + Sync + 'static) -> Box<dyn Fn() + Send + Sync> {
        let (kick, handed_on) = (self.kick(look), Arc::clone(&self.handed_on));
        Box::new(move || handed_on.add(kick.ring().into()))
    }

    /// Turns that wait for the thread.
    pub fn queued(&self) -> usize {
        self.jobs.queued()
    }

    /// Turns that can wait: one for each seat and each look.
    pub fn capacity(&self) -> usize {
        self.jobs.capacity()
    }

    /// Turns handed on so far.
    pub fn handed_on(&self) -> u64 {
        self.handed_on.get()
    }
}
