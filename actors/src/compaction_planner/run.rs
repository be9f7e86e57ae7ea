//! The planner's loop: which job has ended, who asks, what is due, and which worker gets it.

use super::message::{Assignment, Ended, PlannerMessage, Report};
use super::state::whose;
use super::{CompactionPlanner, Purpose, Request, Worker};
use crate::admission::pressure::l0_has_slack;
use crate::failure::{Concern, Failure, Party};
use crate::progress::Progress;
use crate::range_owner::{RangeEntry, Superversion};
use futures::FutureExt;
use sluicedb_storage::compact::{Job, ManualStep, Situation, pick};
use sluicedb_storage::version::{RangeId, SliceName, Version};
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::{Duration, Instant};

/// The longest sleep before the planner looks at what is due by time alone.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// The debt from which on a worker does not pause.
const URGENT: f64 = 2.0;

enum Next {
    Compact(PlannerMessage),
    Ended(Report),
    Due,
    Stop,
}

impl CompactionPlanner {
    /// The loop. It never waits for one job, or for a job that failed: the others go on. It looks
    /// before anything wakes it: nobody may ever write to what was opened.
    pub async fn run(mut self) {
        while !self.failures.is_stopped() {
            let version = self.follow();
            self.hand_out(&version);
            match self.next_message().await {
                Next::Compact(message) => self.request = Some(self.request(message)),
                Next::Ended(report) => self.ended(report),
                Next::Due => {}
                Next::Stop => return,
            }
        }
    }

    async fn next_message(&mut self) -> Next {
        let now = self.environment.now();
        let next_try = self.setbacks.next_try(now);
        let next_try = next_try.into_iter().chain(self.next_due(now));
        let next_try = next_try.chain(self.bursts.next_end(now)).min();
        let mut alarm = pin!(self.environment.until(next_try).fuse());
        let (inbox, taken) = (&mut self.inbox, self.request.is_some());
        let next_request =
            async move { if taken { std::future::pending().await } else { inbox.recv().await } };
        let mut next_request = pin!(next_request.fuse());
        futures::select_biased! {
            report = self.reports.recv().fuse() => report.map_or(Next::Stop, Next::Ended),
            message = next_request => message.map_or(Next::Stop, Next::Compact),
            () = self.due.compaction.wait().fuse() => Next::Due,
            () = alarm => Next::Due,
        }
    }

    /// When something is due by time alone, if an idle worker could merge it. If none is idle, the
    /// next worker to end wakes the planner.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        if !self.workers.iter().any(|worker| worker.runs.is_none() && !worker.moves_only) {
            return None;
        }
        let now_ms = self.environment.unix_ms();
        let at = self.agenda.next_ms(now_ms)?;
        // The time of day may be set, so the planner looks again after a while.
        Some(now + Duration::from_millis(at - now_ms).min(LONGEST_WAIT))
    }

    /// Follows the current version: forgets what is set aside, claimed or counted for tables and
    /// ranges that are gone.
    fn follow(&mut self) -> Version {
        let superversion = self.topology.superversion.load_full();
        let version = self.files.version(&superversion);
        self.follow_bursts(&superversion);
        let written = |at: usize| superversion.ranges[at].owner.sizes.batches();
        let (options, now_ms) = (&self.environment.config.compaction, self.environment.unix_ms());
        self.setbacks.prune(&version);
        if self.agenda.follow(&version, written, options, now_ms) {
            let ranges: BTreeSet<_> = version.ranges().iter().map(|range| range.id).collect();
            self.claims.prune(&ranges);
            self.counts.prune(&ranges);
        }
        self.show();
        version
    }

    /// Gives jobs to idle workers until there are no more jobs or no more idle workers.
    fn hand_out(&mut self, version: &Version) {
        loop {
            let idle = |moves_only| {
                let fits = |w: &Worker| w.runs.is_none() && w.moves_only == moves_only;
                self.workers.iter().position(fits)
            };
            let (merging, moving) = (idle(false), idle(true));
            if merging.is_none() && moving.is_none() {
                return;
            }
            let Some((job, purpose)) = self.choose(version, merging.is_some()) else { return };
            let chosen = if job.is_metadata_only() { moving.or(merging) } else { merging };
            let Some(idle) = chosen else { return };
            let Ok(permit) = self.workers[idle].jobs.try_reserve(1) else { return };
            let request = self.request.as_ref().filter(|request| purpose == request.purpose());
            let shown = request.map(|request| request.shown.clone());
            let urgent = shown.is_some();
            self.counts.decisions.note(&job, self.environment.unix_ms());
            let debt = if urgent { URGENT } else { job.why.score };
            // The claims also remember where each level's next pick begins.
            let job = self.claims.claim(job);
            if permit.send(Assignment { job, debt, shown }).is_err() {
                // The worker is gone: the engine is stopping.
                return;
            }
            self.workers[idle].runs = Some(purpose);
            self.counts.compactions_begun.add(1);
        }
    }

    /// The next job. A caller's request goes first. Until it is answered no other merge begins,
    /// because merges one after the other would be in its way. Jobs that need no merge are short
    /// and go on beside it, so that a long request does not keep L0 from landing.
    fn choose(&mut self, version: &Version, merges: bool) -> Option<(Job, Purpose)> {
        while !self.failures.is_stopped() {
            let mut request = self.request.take();
            if request.is_none() {
                request = self.inbox.try_recv().map(|message| self.request(message));
            }
            let Some(request) = request else {
                return self.pick(version, merges).map(|job| (job, Purpose::Due));
            };
            // If the caller has dropped it, nobody wants the request any more.
            let Some(shown) = request.shown.upgrade() else { continue };
            let total_bytes = request.done_bytes + request.order.bytes_left(version);
            shown.update(|progress| {
                let total_bytes = total_bytes.max(progress.done_bytes);
                Some(Progress { total_bytes, ..*progress })
            });
            match request.order.step(version, &self.claims) {
                // Jobs that are installed but not reported yet are counted first.
                ManualStep::Done if self.runs(request.purpose()) => {
                    self.request = Some(request);
                    return None;
                }
                ManualStep::Done => request.reply.send(request.first),
                ManualStep::Job(job) if merges || job.is_metadata_only() => {
                    let purpose = request.purpose();
                    self.request = Some(request);
                    return Some((*job, purpose));
                }
                // Each job that is in the way reports when it has ended.
                ManualStep::Job(_) | ManualStep::Busy => {
                    self.request = Some(request);
                    return self.pick(version, false).map(|job| (job, Purpose::Due));
                }
            }
        }
        None
    }

    /// Is a job with this purpose under way?
    fn runs(&self, purpose: Purpose) -> bool {
        self.workers.iter().any(|worker| worker.runs == Some(purpose))
    }

    fn request(&mut self, message: PlannerMessage) -> Request {
        self.requests += 1;
        let PlannerMessage::Compact { order, shown, reply } = message;
        Request { number: self.requests, order, shown, reply, first: Ok(()), done_bytes: 0 }
    }

    /// Looks for flushes, and for those that follow each other fast.
    fn follow_bursts(&mut self, superversion: &Superversion) {
        let config = &self.environment.config;
        let fills = |range: &RangeEntry| {
            let runs = range.stable.own.compaction(&config.compaction).l0_trigger;
            let owner = &range.owner;
            let (active, full) = (owner.sizes.active_bytes(), owner.budget.memtable_bytes);
            !range.sealed.is_empty() || active > full / (runs + 1)
        };
        self.bursts.follow(superversion, self.environment.now(), fills);
    }

    /// The ranges whose L0 waits for the next flush. A flush that may have to wait for room in L0
    /// must not be waited for, nor one that fails.
    fn bursts(&self, now: Instant) -> BTreeSet<RangeId> {
        let bursts = self.bursts.ranges(now);
        if bursts.is_empty() {
            return bursts;
        }
        let (superversion, config) = (self.topology.superversion.load(), &self.environment.config);
        let waits = |range: &&RangeEntry| {
            bursts.contains(&range.id())
                && l0_has_slack(&range.stable, config)
                && self.failures.trouble(Party::Flush, range.id()).is_none()
        };
        superversion.ranges.iter().filter(waits).map(RangeEntry::id).collect()
    }

    fn pick(&mut self, version: &Version, merges: bool) -> Option<Job> {
        let (now, now_ms) = (self.environment.now(), self.environment.unix_ms());
        if self.failures.attempts.is_asked(&mut self.asked) {
            self.setbacks.try_now(now);
        }
        let set_aside = self.setbacks.set_aside(now)?;
        let situation = Situation {
            version,
            ranges: &self.agenda.due(version, now_ms),
            options: &self.environment.config.compaction,
            claims: &self.claims,
            set_aside: &set_aside,
            now_ms,
            quiet_since_ms: self.agenda.quiet_since_ms(),
            resting: Some(&self.agenda.resting()),
            bursts: Some(&self.bursts(now)),
            merges,
        };
        let job = pick(&situation, &mut self.rounds);
        // A running job may be the retry of what failed, so nothing may run here.
        if job.is_none() && merges && set_aside.is_empty() && self.claims.is_empty() {
            self.setbacks.nothing_due();
            self.show();
        }
        job
    }

    /// Handles a report. From here on the job's tables may be picked again.
    /// INVARIANT(claims-apart): the report brings the job, and its claim, back.
    fn ended(&mut self, report: Report) {
        let Report { worker, job, ended } = report;
        let purpose = self.workers[worker].runs.take();
        // A job of a cancelled request may end now. It does not count for the current request.
        if let Some(request) = &mut self.request
            && purpose == Some(request.purpose())
        {
            match &ended {
                Ended::Done { .. } => request.done_bytes += job.input_bytes(),
                Ended::Failed(failure) => {
                    request.order.given_up.insert(job.range);
                    request.first = request.first.clone().and(Err(failure.clone()));
                }
                Ended::Conflict | Ended::Off => {}
            }
        }
        match &ended {
            Ended::Done { tables: 0 } => self.setbacks.edited(),
            Ended::Done { .. } => {
                self.failures.attempts.job_succeeded();
                self.setbacks.succeeded(&input_names(&job));
            }
            Ended::Conflict | Ended::Off => {}
            Ended::Failed(failure) => self.failed(&job, failure),
        }
        self.show();
    }

    fn failed(&mut self, job: &Job, failure: &Failure) {
        if self.failures.is_stopped() || self.failures.job_failed(failure) {
            return;
        }
        self.failures.damage.note(failure);
        let (range, now) = (job.range, self.environment.now());
        let inputs = input_names(job);
        let pause = self.setbacks.failed(range, &inputs, failure, now);
        tracing::warn!(%range, %failure, ?pause, "a compaction failed; its inputs are set aside");
        self.failures.attempts.retries.add(1);
        // The failure shown for it is out of date.
        self.shown.remove(&whose(range, &inputs, failure));
    }

    /// Shows the current troubles, and withdraws those that are over.
    fn show(&mut self) {
        let troubles = self.setbacks.troubles();
        let failures = &self.failures;
        let concern = |range| Concern { party: Party::Compaction, range };
        let mut changed = false;
        self.shown.retain(|range| {
            let lasts = troubles.contains_key(range);
            if !lasts {
                failures.recover(concern(*range));
                changed = true;
            }
            lasts
        });
        for (range, failure) in troubles {
            if self.shown.insert(range) {
                failures.degrade(concern(range), failure);
                changed = true;
            }
        }
        if changed {
            // Flushes that wait for room in L0 must learn whether it can come.
            self.due.flush.set();
        }
    }
}

/// The job's inputs by the names that they have in the version, also where the job has cut them.
pub(super) fn input_names(job: &Job) -> Vec<SliceName> {
    job.gone().map(|(_, slice)| slice.name()).collect()
}
