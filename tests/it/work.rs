//! The statistics about compactions, their cost in space, and the causes of waits agree with each
//! other.

use crate::harness::{Simulated, fill};
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use sluicedb::{Db, LandingStats, LevelInfo, Options, StallStats, Stats, WriteOptions};
use sluicedb_actors::runtime::Runtime;
use sluicedb_storage::vfs::{Fault, OperationKind};
use std::time::Duration;

/// Levels that are soon full, so that every kind of compaction happens.
fn options(keeps: bool) -> Options {
    let mut options = settings::tiny();
    options.table_bytes_max = 4 << 10;
    options.drain_ratio = 1;
    options.keep_trigger = if keeps { 1.0 } else { f64::INFINITY };
    options
}

fn agree(stats: &Stats, levels: &[LevelInfo]) {
    let sum = |of: fn(&sluicedb::LevelStats) -> u64| stats.by_level.iter().map(of).sum::<u64>();
    let written = stats.flush_bytes + stats.compaction_bytes_written;
    assert_eq!(sum(|level| level.bytes_written), written, "{:?}", stats.by_level);
    assert_eq!(sum(|level| level.bytes_read), stats.compaction_bytes_read);
    let l0 = stats.by_level[0];
    assert_eq!((l0.bytes_written, l0.bytes_taken_over), (stats.flush_bytes, 0));
    assert!((0_u8..).zip(&stats.by_level).all(|(n, level)| level.level == n));
    let shards = || levels.iter().flat_map(|level| &level.shards);
    let numbers: [fn(&LandingStats) -> u64; 4] =
        [|s| s.runs, |s| s.tables, |s| s.bytes, |s| s.micros];
    for of in numbers {
        let (drains, keeps) = (shards().map(|s| of(&s.drains)), shards().map(|s| of(&s.keeps)));
        assert_eq!(drains.sum::<u64>(), of(&stats.drains), "{levels:?}");
        assert_eq!(keeps.sum::<u64>(), of(&stats.keeps), "{levels:?}");
    }
    let debts = levels.iter().map(|level| level.debt_bytes);
    assert_eq!(debts.sum::<u64>(), stats.compaction_debt_bytes);
    for shard in shards().filter(|shard| shard.tables > 0) {
        assert!(shard.entries > 0 && shard.entries * 100 > shard.bytes, "{shard:?}");
    }
}

/// Planted: keeps counted as drains; landed bytes counted as written; an empty shard left out.
#[test]
fn t000_18_what_was_done_adds_up_over_levels_and_shards() {
    for keeps in [false, true] {
        let home = Simulated::with(18, options(keeps));
        let db = home.open();
        for round in 0..20 {
            home.run(fill(&db, 200, 40 + round));
            home.run(db.flush()).unwrap();
            home.simulator.settle();
            agree(&db.stats(), &db.level_info());
        }
        let stats = db.stats();
        assert!(stats.drains.runs > 0 && (stats.keeps.runs > 0) == keeps, "{:?}", stats.decisions);
        let [l0, l1, ..] = stats.by_level[..] else { panic!("{:?}", stats.by_level) };
        assert!(l0.bytes_read == 0 || l0.bytes_read < l0.bytes_written, "{l0:?}: much has landed");
        assert!(l1.bytes_written > 0 && l1.bytes_read > 0 && l1.bytes_taken_over > 0, "{l1:?}");
        home.run(db.close()).unwrap();
        let db = home.open();
        let again: u64 = db.stats().by_level.iter().map(|level| level.bytes_written).sum();
        assert_eq!(again, 0, "since it was opened");
        home.run(db.close()).unwrap();
    }
}

#[test]
fn space_is_told_by_the_byte_that_can_be_read() {
    let mut options = settings::tiny();
    options.l0_trigger_tables = 1000;
    options.l0_tables_max = 2000;
    options.write_buffer_bytes = Some(4 << 20);
    options.memtable_bytes = Some(512 << 10);
    let home = Simulated::with(3, options);
    let db = home.open();
    assert!(db.stats().space_amplification() < 0.001, "there is nothing");
    for times in 1..=3_u32 {
        home.run(fill(&db, 2000, 100));
        home.run(db.flush()).unwrap();
        let (found, stats) = (db.stats().space_amplification(), db.stats());
        assert!((found / f64::from(times) - 1.0).abs() < 0.15, "{times}: {found} of {stats:?}");
    }
    home.run(db.compact()).unwrap();
    let stats = db.stats();
    assert_eq!(stats.table_file_bytes, stats.table_bytes);
    assert_eq!(stats.live_bytes, stats.table_bytes, "nothing is hidden, so it is exact");
    assert_eq!(stats.compaction_debt_bytes, 0);
}

/// From now on operations of this kind on tables fail.
fn fail(home: &Simulated, kind: OperationKind) {
    home.faults.arm(Fault::of(kind).named(".sst").sticky());
    if kind == OperationKind::Create {
        home.faults.arm(Fault::of(kind).named(".tmp").sticky());
    }
}

/// Writes until there is no room, then waits for room for a second.
fn wait_in_vain(home: &Simulated, db: &Db) {
    let mut refused = 0;
    for n in 0..100_000_u32 {
        if home
            .run(db.put_with(n.wrapping_mul(0x9E37_79B1).to_be_bytes(), vec![0; 1000], NO_WAIT))
            .is_err()
        {
            refused += 1;
        }
        home.simulator.settle();
        if refused == 50 {
            let deadline = home.simulator.now() + Duration::from_secs(1);
            home.run(db.put_with("late", vec![0; 60_000], WriteOptions::new().by(deadline)))
                .unwrap_err();
            return;
        }
    }
    panic!("there is always room");
}

/// Planted: a cause that is determined after the wait; the L0 of any range named for a wait at one.
#[test]
fn waits_are_counted_by_what_was_short() {
    let one = settings::tiny;
    let two = || {
        let mut options = settings::tiny();
        options.initial_split_keys = vec![vec![0x80]];
        options
    };
    let roomy = || {
        let mut options = settings::tiny();
        options.memtable_bytes = Some(256 << 10);
        options.log_segment_bytes = 16 << 20;
        options.initial_split_keys = (1..16).map(|n| vec![16 * n as u8]).collect();
        options
    };
    let no_landings = || {
        let mut options = settings::tiny();
        options.landing_runs_max = 0;
        options
    };
    let cases = [
        ("range memory", two(), Some(OperationKind::Create)),
        ("memory", roomy(), Some(OperationKind::Create)),
        ("l0", no_landings(), Some(OperationKind::Read)),
        // Refused at once: only deletes may wait here.
        ("none", one(), None),
    ];
    for (cause, options, fault) in cases {
        let home = Simulated::with(9, options);
        let db = home.open();
        match fault {
            Some(kind) => fail(&home, kind),
            None => home.disk.set_capacity(Some(home.disk.used_bytes() + (40 << 10))),
        }
        wait_in_vain(&home, &db);
        let stats = db.stats();
        let of = |stall: &StallStats| (stall.cause, stall.waits);
        let stalls: Vec<_> = stats.stalls.iter().map(of).collect();
        let waited: Vec<_> = stalls.iter().filter(|(_, waits)| *waits > 0).collect();
        let want = fault.map(|_| (cause, 1));
        assert_eq!(waited, want.iter().collect::<Vec<_>>(), "{stats:?}");
        let waits = stats.stalls.iter().map(|stall| stall.waits).sum::<u64>();
        let micros = stats.stalls.iter().map(|stall| stall.micros).sum::<u64>();
        assert_eq!(waits, stats.waits_local + stats.waits_global, "{cause}");
        assert_eq!(micros, stats.wait_micros_local + stats.wait_micros_global, "{cause}");
    }
}
