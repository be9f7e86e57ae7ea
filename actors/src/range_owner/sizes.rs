//! Sizes of an overlay, for readers that hold no seat.

use crate::counter::Counter;
use sluicedb_storage::memtable::{Memtable, ReclaimStats};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// See the module. The owner writes them with relaxed stores.
#[derive(Debug, Default)]
pub struct OverlaySizes {
    pub(super) active_bytes: AtomicUsize,
    pub(super) sealed_bytes: AtomicUsize,
    pub(super) batches: AtomicU64,
    batches_per_second: AtomicU64,
    pub(super) garbage: AtomicBool,
    pub(super) reclaimed: Reclaimed,
}

/// What the buffers of memtables did that are sealed by now.
#[derive(Debug, Default)]
pub(super) struct Reclaimed {
    compactions: Counter,
    steps: Counter,
    copied_bytes: Counter,
    freed_bytes: Counter,
}

impl Reclaimed {
    /// Adds the totals of a memtable that was just sealed.
    pub(super) fn add(&self, sealed: &ReclaimStats) {
        // Written only under the seat.
        self.compactions.bump(sealed.compactions);
        self.steps.bump(sealed.steps);
        self.copied_bytes.bump(sealed.copied_bytes);
        self.freed_bytes.bump(sealed.reclaimed_bytes);
    }

    /// These totals plus those of the active memtable's buffer.
    fn with(&self, active: ReclaimStats) -> ReclaimStats {
        ReclaimStats {
            buffer: active.buffer,
            compactions: active.compactions + self.compactions.get(),
            steps: active.steps + self.steps.get(),
            copied_bytes: active.copied_bytes + self.copied_bytes.get(),
            reclaimed_bytes: active.reclaimed_bytes + self.freed_bytes.get(),
        }
    }
}

impl OverlaySizes {
    /// Charge of the active memtable.
    pub fn active_bytes(&self) -> usize {
        self.active_bytes.load(Ordering::Relaxed)
    }

    /// Charges of the sealed memtables.
    pub fn sealed_bytes(&self) -> usize {
        self.sealed_bytes.load(Ordering::Relaxed)
    }

    /// Totals of all buffers since the database was opened, and the contents of the buffer of
    /// `active`.
    pub fn reclaim_stats(&self, active: &Memtable) -> ReclaimStats {
        self.reclaimed.with(active.reclaim_stats())
    }

    /// Are there overwritten entries to reclaim?
    pub fn has_garbage(&self) -> bool {
        self.garbage.load(Ordering::Relaxed)
    }

    /// Batches applied per second, as measured last.
    pub fn batches_per_second(&self) -> u64 {
        self.batches_per_second.load(Ordering::Relaxed)
    }

    /// Stores a new measurement.
    pub fn show_heat(&self, batches_per_second: u64) {
        self.batches_per_second.store(batches_per_second, Ordering::Relaxed);
    }

    /// Batches applied.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }
}
