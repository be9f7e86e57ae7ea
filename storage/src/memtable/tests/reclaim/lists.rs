//! Long lists of versions of one key, and the marks of retired versions in them.

use super::super::super::link::loads;
use super::*;

/// The most links that one insert with its `reclaim` may follow, whatever the length of a list: a
/// few for each overwritten version that it examines.
const LOADS_MAX: u64 = 16 * 128;

/// Puts and reclaims. Returns how many links that followed.
fn put_and_reclaim(rig: &mut Rig, key: &[u8], visible: u64, copy_bytes: usize) -> u64 {
    let before = loads::so_far();
    rig.put(key, Kind::Put, b"small");
    rig.writer.reclaim(Seqno(visible), copy_bytes, false);
    loads::so_far() - before
}

/// The number of places in a key's list that a lookup below all of them passes.
fn list_len(rig: &Rig, key: &[u8]) -> u64 {
    let before = loads::so_far();
    assert!(rig.table.pin().get(key, Seqno(0)).version.is_none());
    (loads::so_far() - before) / 2
}

/// Planted: `retire` keeps the mark of the link that moves up.
#[test]
fn a6_a_link_that_moves_up_leaves_its_mark_behind() {
    let mut rig = Rig::new(BufferOptions::default());
    rig.put(b"k", Kind::Put, b"O");
    rig.hold();
    rig.put(b"k", Kind::Put, b"M");
    rig.hold();
    rig.put(b"k", Kind::Put, b"D");
    rig.put(b"k", Kind::Put, b"N");
    rig.reclaim(0);
    rig.held.remove(1);
    rig.reclaim(0);
    // Not visible yet: readers look at 4.
    rig.put(b"k", Kind::Put, b"P");
    let pin = rig.table.pin();
    let at = |upto| {
        let found = pin.get(b"k", Seqno(upto));
        (found.version.map(|version| version.seqno().0), found.passed_cut)
    };
    assert_eq!(at(5), (Some(5), false));
    assert_eq!(at(4), (Some(4), false), "nothing died between 4 and 5");
    assert_eq!(at(3), (Some(1), true), "2 and 3 have died");
    assert_eq!(at(2), (Some(1), true), "2 has died");
}

/// Goal: a lookup that is told of a cut finds a newer visible number. Checked against everything
/// visible, with random read points.
/// Planted: as above.
#[test]
fn a6_a_cut_is_passed_only_below_what_is_visible() {
    for seed in seeds() {
        let mut random = Random(seed);
        for _ in 0..200 {
            let mut rig = Rig::new(BufferOptions::default());
            for _ in 0..60 {
                match random.below(5) {
                    0 => rig.hold(),
                    1 if !rig.held.is_empty() => {
                        let at = random.below(rig.held.len());
                        rig.held.remove(at);
                    }
                    2 => {
                        rig.reclaim(0);
                    }
                    _ => rig.put(b"k", Kind::Put, b"v"),
                }
                let pin = rig.table.pin();
                let found = pin.get(b"k", Seqno(rig.seqno));
                assert!(!found.passed_cut, "seed {seed:#x}");
                for point in &rig.held {
                    let found = pin.get(b"k", point.seqno()).version.map(|v| v.seqno().0);
                    let wanted = model_get(&rig.model, b"k", point.seqno().0).map(|(at, ..)| at);
                    assert_eq!(found, wanted, "seed {seed:#x}");
                }
                drop(pin);
                // The next one is not visible yet.
                let visible = rig.seqno;
                rig.put(b"k", Kind::Put, b"w");
                let passed_cut = rig.table.pin().get(b"k", Seqno(visible)).passed_cut;
                assert!(!passed_cut, "seed {seed:#x}: nobody could have overwritten it");
            }
        }
    }
}

/// Goal: a key that one batch writes very often has one version more afterwards, and later writes
/// to it cost no more than others.
/// Planted: `meet` without its `unseen`.
#[test]
fn b1_a_batch_of_one_key_leaves_one_version() {
    let mut rig = Rig::new(BufferOptions::default());
    rig.put(b"hot", Kind::Put, b"before");
    rig.reclaim(0);
    rig.hold();
    let visible = rig.seqno;
    rig.writer.begin_batch(Seqno(visible + 1));
    for n in 0..100_000_u32 {
        rig.put(b"hot", if n % 3 == 0 { Kind::Delete } else { Kind::Put }, b"");
    }
    assert_eq!(list_len(&rig, b"hot"), 2);
    let found = lookup(&rig.table, b"hot", visible);
    assert_eq!(found.map(|found| found.2), Some(b"before".to_vec()), "not visible yet");
    for n in 0..1_000_u32 {
        let visible = rig.seqno;
        rig.writer.begin_batch(Seqno(visible + 1));
        let loads = put_and_reclaim(&mut rig, &n.to_be_bytes(), visible, 0);
        assert!(loads <= LOADS_MAX, "write {n} followed {loads} links");
    }
    rig.settle();
    let dead = rig.table.reclaim_stats().buffer;
    assert!(dead.live_bytes < 100_000, "{dead:?}");
    rig.check(&mut Random(0xB1));
}

/// Goal: commits to one key that become visible all at once are retired at a bounded cost per
/// write.
/// Planted: `above` is always null, and the holder is searched from the place on.
#[test]
fn b1_thousands_of_commits_to_one_key_are_retired_a_little_at_a_time() {
    let mut rig = Rig::new(BufferOptions::default());
    let mut most = 0;
    for _ in 0..8_000 {
        most = most.max(put_and_reclaim(&mut rig, b"hot", 0, 0));
    }
    assert_eq!(list_len(&rig, b"hot"), 8_000);
    for n in 0..200_u32 {
        let visible = rig.seqno;
        most = most.max(put_and_reclaim(&mut rig, &n.to_be_bytes(), visible, 0));
    }
    println!("{most} links followed by a write, at most");
    assert!(most <= LOADS_MAX, "a write followed {most} links");
    assert_eq!(list_len(&rig, b"hot"), 1);
    rig.check(&mut Random(0xB2));
}

/// Goal: the same if snapshots held each version and are released, and while these versions are
/// moved.
/// Planted: as above; `relocate` without `long_lists`.
#[test]
fn b1_thousands_of_held_versions_cost_no_more_than_few() {
    const HELD: u64 = 2_000;
    let mut rig = Rig::new(BufferOptions::default());
    for _ in 0..HELD {
        rig.put(b"hot", Kind::Put, &[1; 100]);
        rig.hold();
        rig.put(b"cold", Kind::Put, &[2; 200]);
        rig.reclaim(0);
    }
    // The versions of the other key between two read points are dead: a compaction moves the held
    // ones.
    let before = loads::so_far();
    while rig.reclaim(64 << 10).progress {}
    let stats = rig.table.reclaim_stats();
    let moving = loads::so_far() - before;
    println!("{moving} links followed to move {} bytes; {stats:?}", stats.copied_bytes);
    assert!(stats.copied_bytes > 0, "nothing was moved");
    // Once down the list per call, and a few links per entry.
    assert!(moving < 100 * HELD, "{moving} links followed to move what is held");
    rig.held.clear();
    let mut most = 0;
    for n in 0..2_000_u32 {
        let visible = rig.seqno;
        most = most.max(put_and_reclaim(&mut rig, &n.to_be_bytes(), visible, 0));
    }
    println!("{most} links followed by a write, at most");
    assert!(most <= LOADS_MAX, "a write followed {most} links");
    rig.settle();
    rig.check(&mut Random(0xB3));
}

/// Goal: large batches over hot keys leave no more behind than the last of them did.
/// Planted: `reclaim` examines 128 overwritten versions, however many were written.
#[test]
fn b6_large_batches_are_retired_as_fast_as_they_are_written() {
    const KEYS: u64 = 3_000;
    let mut rig = Rig::new(BufferOptions::default());
    let mut most = 0;
    for round in 0..40_u8 {
        let visible = rig.seqno;
        rig.writer.begin_batch(Seqno(visible + 1));
        for key in 0..KEYS {
            rig.put(&key.to_be_bytes(), Kind::Put, &[round; 100]);
        }
        // As the range owner does it: what this batch wrote is not visible yet.
        rig.writer.reclaim(Seqno(visible), 512 << 10, true);
        most = most.max(rig.writer.live().1);
    }
    println!("{most} entries alive at most; {:?}", rig.table.reclaim_stats());
    assert!(most <= 2 * KEYS + KEYS / 8, "{most} entries alive, {KEYS} keys");
    rig.check(&mut Random(0xB6));
}

/// Goal: a reader at an old number follows few links, however often its key was written since: with
/// `Reclaim` because unneeded versions are retired, and without it because links lead far.
/// Planted: `lead_over` leads to the next link only; `far_above` leaps without a check.
#[test]
fn b2_an_old_reader_passes_few_versions_of_a_key() {
    const WRITTEN: u64 = 50_000;
    let points = ReadPoints::new();
    for reclaims in [true, false] {
        let options = BufferOptions::default();
        let reclaim = Reclaim { points: Arc::clone(&points), options };
        let reclaim = reclaims.then_some(reclaim);
        let (table, mut writer) =
            memtable_with(0, MemtableOptions { reclaim, ..MemtableOptions::default() });
        writer.insert(b"a", Seqno(1), Kind::Put, b"1");
        writer.insert(b"k", Seqno(2), Kind::Put, b"2");
        let point = points.hold(Holder::Scan, 1, || Seqno(2));
        let look = |table: &Arc<Memtable>, upto: u64| {
            let before = loads::so_far();
            let found = table.pin().get(b"k", Seqno(upto)).version.map(|found| found.seqno().0);
            let got = loads::so_far() - before;
            let mut cursor = table.cursor(Seqno(upto));
            cursor.seek(b"b").unwrap();
            let shown = cursor.valid().then(|| cursor.seqno().0);
            assert_eq!(shown, found);
            (found, got.max(loads::so_far() - before - got))
        };
        let mut most = 0;
        for seqno in 3..=WRITTEN {
            writer.begin_batch(Seqno(seqno));
            writer.insert(b"k", Seqno(seqno), Kind::Put, &seqno.to_le_bytes());
            if writer.wants_reclaim() {
                writer.reclaim(Seqno(seqno), 64 << 10, false);
            }
            if seqno.is_multiple_of(499) || seqno == WRITTEN {
                let (found, loads) = look(&table, point.seqno().0);
                assert_eq!(found, Some(2), "after {seqno}");
                most = most.max(loads);
            }
        }
        println!("reclaim {reclaims}: {most} links followed at most");
        assert!(most <= 200, "{most} links followed, reclaim {reclaims}");
        if !reclaims {
            // Each version is there, and as near.
            for upto in (2..=WRITTEN).step_by(7) {
                let (found, loads) = look(&table, upto);
                assert_eq!(found, Some(upto));
                assert!(loads <= 200, "{loads} links followed to {upto}");
            }
            assert_eq!(look(&table, 1).0, None);
        }
    }
}
