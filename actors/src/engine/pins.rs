//! Who holds obsolete tables, and how many bytes of the disk that costs.
//!
//! Computed from two lists when somebody asks: who holds read points (`storage/src/points.rs`), and
//! which obsolete tables are held (`actors/src/version_manager/obsolete.rs`). Both contain numbers
//! of superversions.

use super::Engine;
use crate::version_manager::ObsoleteTable;
use sluicedb_storage::points::{Held, Holder};
use sluicedb_storage::view::View;
use std::time::{Duration, Instant};

/// A holder of a read point, and what stays on the disk because of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The holder. `None` stands for tables that no read point holds: a running lookup or job holds
    /// them.
    pub held: Option<Held>,
    /// How long it has been held, at least.
    pub age: Duration,
    /// Obsolete tables of which it is the oldest holder.
    pub tables: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// The part of those bytes that younger holders need as well.
    pub shared_bytes: u64,
}

impl Engine {
    /// A view with a label. Its age counts from now.
    pub fn labelled_view(&self, label: &str) -> View {
        let (superversion, mut point) = self.pin(Holder::Snapshot);
        point.label(label);
        self.parts.memory.points.notice(self.parts.environment.now());
        View::at(superversion, point)
    }

    /// Who holds what, the oldest holder first. Each obsolete table that is held is counted once.
    pub fn pins(&self) -> Vec<Pin> {
        let points = &self.parts.memory.points;
        let now = self.parts.environment.now();
        points.notice(now);
        let holders = points.holders();
        // Listed after the holders: a holder that is gone since holds nothing any more.
        share_out(holders, &self.obsolete_tables(), now)
    }

    /// The obsolete tables that somebody holds.
    pub fn obsolete_tables(&self) -> Vec<ObsoleteTable> {
        self.parts.files.obsolete.list()
    }

    /// How long the oldest read point has been held, at least. `None` if there is none.
    pub fn oldest_pin(&self) -> Option<Duration> {
        let now = self.parts.environment.now();
        let noticed = self.parts.memory.points.notice(now);
        noticed.map(|noticed| now.saturating_duration_since(noticed))
    }
}

/// Counts each of `tables` for the oldest of `holders` that holds it.
fn share_out(mut holders: Vec<Held>, tables: &[ObsoleteTable], now: Instant) -> Vec<Pin> {
    holders.sort_by_key(|held| (held.superversion, held.noticed, held.seqno));
    let pin = |held| Pin { held, age: Duration::ZERO, tables: 0, bytes: 0, shared_bytes: 0 };
    let mut pins: Vec<_> = holders.into_iter().map(|held| pin(Some(held))).collect();
    let mut nobodys = pin(None);
    let number = |pin: &Pin| pin.held.as_ref().map_or(0, |held| held.superversion);
    for ObsoleteTable { bytes, superversions } in tables {
        let first = pins.partition_point(|pin| number(pin) < superversions.start);
        let holds = |pin: Option<&Pin>| pin.is_some_and(|pin| number(pin) < superversions.end);
        let shared = holds(pins.get(first + 1));
        let pin = if holds(pins.get(first)) { &mut pins[first] } else { &mut nobodys };
        pin.tables += 1;
        pin.bytes += bytes;
        pin.shared_bytes += if shared { *bytes } else { 0 };
    }
    for pin in &mut pins {
        let noticed = pin.held.as_ref().and_then(|held| held.noticed);
        pin.age = noticed.map_or(Duration::ZERO, |noticed| now.saturating_duration_since(noticed));
    }
    pins.extend(Some(nobodys).filter(|pin| pin.tables > 0));
    pins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use sluicedb_storage::key::Seqno;

    fn held(superversion: u64, noticed: Instant) -> Held {
        let seqno = Seqno(superversion);
        let (holder, label, noticed) = (Holder::Scan, None, Some(noticed));
        Held { holder, label, seqno, superversion, noticed }
    }

    fn table(bytes: u64, superversions: std::ops::Range<u64>) -> ObsoleteTable {
        ObsoleteTable { bytes, superversions }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_table_is_counted_for_the_oldest_that_has_it() {
        let begin = Instant::now();
        let tables = [
            table(1, 0..4),
            table(10, 0..9),
            table(100, 4..6),
            table(1_000, 6..9),
            table(10_000, 9..10),
        ];
        let second = Duration::from_secs(1);
        let holders = vec![held(8, begin + 2 * second), held(5, begin + second), held(3, begin)];
        let pins = share_out(holders, &tables, begin + 3 * second);
        let seen = pins.iter().map(|pin| {
            let holder = pin.held.as_ref().map(|held| held.superversion);
            (holder, pin.age.as_secs(), pin.tables, pin.bytes, pin.shared_bytes)
        });
        let want = [
            (Some(3), 3, 2, 11, 10),
            (Some(5), 2, 1, 100, 0),
            (Some(8), 1, 1, 1_000, 0),
            (None, 0, 1, 10_000, 0),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), want);
    }

    proptest! {
        /// Goal: the same sums as a search through all holders finds, and each table once.
        #[test]
        #[allow(clippy::disallowed_methods, reason = "any instant will do")]
        fn shares_add_up(
            numbers in vec(0..20_u64, 0..8),
            spans in vec((0..20_u64, 1..6_u64), 0..12),
        ) {
            let now = Instant::now();
            let one = |(n, (start, len)): (u64, &(u64, u64))| table(1 << n, *start..start + len);
            let tables: Vec<_> = (0..).zip(&spans).map(one).collect();
            let pins = share_out(numbers.iter().map(|n| held(*n, now)).collect(), &tables, now);
            let sum = |of: fn(&Pin) -> u64| pins.iter().map(of).sum::<u64>();
            prop_assert_eq!(sum(|pin| pin.tables), tables.len() as u64);
            let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
            prop_assert_eq!(sum(|pin| pin.bytes), bytes);
            for table in &tables {
                let has = |number: &&u64| table.superversions.contains(number);
                let oldest = numbers.iter().filter(has).min().copied();
                let counted = pins.iter().find(|pin| pin.bytes & table.bytes > 0).expect("once");
                prop_assert_eq!(counted.held.as_ref().map(|held| held.superversion), oldest);
                let shared = numbers.iter().filter(has).count() > 1;
                prop_assert_eq!(counted.shared_bytes & table.bytes > 0, shared);
            }
        }
    }
}
