//! Compactions of a large buffer, which take only the closed extents that are worth it.

use super::super::extent::room;
use super::*;

/// A buffer that has reached chunks of the largest class.
fn large(step_bytes: usize) -> Rig {
    let mut rig =
        Rig::new(BufferOptions { preference: 1.0, step_bytes, ..BufferOptions::default() });
    rig.add(1);
    rig.buffer.start();
    rig.run();
    assert_eq!(rig.buffer.stats().class, ChunkClass::Large);
    rig
}

const MIB: usize = 1 << 20;

/// Adds `bytes` of entries of about 4 KiB. Out of ten, `dying_of_ten` die.
fn add(rig: &mut Rig, bytes: usize, dying_of_ten: u64) {
    for _ in 0..bytes / 4_000 {
        let number = rig.add(4_000);
        if number % 10 < dying_of_ten {
            rig.mark_dead(number);
        }
    }
}

/// Goal: cold entries stay where they are, and hot ones shrink.
/// Planted: a pick takes every extent; a pick takes those with the least dead first.
#[test]
fn only_parts_with_much_dead_are_copied() {
    let mut rig = large(64 << 10);
    let cold: Vec<_> = (0..20 * MIB / 4_000).map(|_| rig.add(4_000)).collect();
    add(&mut rig, 20 * MIB, 4);
    add(&mut rig, 40 * MIB, 9);
    assert!(rig.buffer.has_closed_extents() && rig.buffer.wants_compaction());
    let cold_at: Vec<_> = cold.iter().map(|number| rig.live[number].0).collect();
    let before = rig.buffer.stats();
    let to_copy = rig.buffer.start();
    rig.run();
    rig.check();
    let after = rig.buffer.stats();
    let freed = before.dead_bytes - after.dead_bytes;
    assert!(to_copy * 4 < freed, "{to_copy} copied for {freed}");
    assert_eq!(after.live_bytes, before.live_bytes);
    let moved = cold.iter().zip(&cold_at).filter(|(number, at)| rig.live[number].0 != **at).count();
    // One extent has the last of the cold entries and the first of the hot ones.
    assert!(moved < 2 * 2 * MIB / 4_000, "{moved} of {} cold entries were moved", cold.len());
}

/// Goal: the next compaction continues in the destination of the last one, up to a limit, so that
/// not each of them makes a seam.
/// Planted: `merge` never remembers the destination.
#[test]
fn compactions_fill_one_destination_after_the_other() {
    let mut rig = large(64 << 10);
    let mut compactions = 0;
    let mut padded_most = 0;
    while compactions < 60 {
        add(&mut rig, 2 * MIB, 9);
        if rig.buffer.has_closed_extents() && rig.buffer.wants_compaction() {
            rig.buffer.start();
            rig.run();
            compactions += 1;
            padded_most = padded_most.max(rig.buffer.space().padded_bytes);
        }
    }
    rig.check();
    let stats = rig.buffer.stats();
    let destinations =
        stats.live_bytes.div_ceil(room(ChunkClass::Large) * DESTINATION_CHUNKS as u64);
    assert!(destinations >= 2, "{stats:?}");
    assert!(padded_most < (destinations + 2) * 2 * MIB as u64, "{padded_most} for {destinations}");
    assert!(rig.buffer.closed.len() < 20, "{}", rig.buffer.closed.len());
}

/// Goal: INVARIANT(offsets-add-up) in closed extents: entries of all sizes die in every extent, at
/// every stage of a compaction.
/// Planted: `mark_dead` takes an entry of a closed extent for one of the writing extent; a
/// destination's end ignores what was in it before; `start_with_all` ignores the closed extents.
#[test]
fn parts_add_up_under_random_work() {
    let (mut of_parts, mut of_all, mut large_entries) = (0, 0, 0);
    for seed in [0x5EED_2001_u64, 0x5EED_2002, 0x5EED_2003] {
        println!("seed {seed:#x}");
        let mut random = Random(seed);
        let mut rig = large(50_000);
        for _ in 0..40_000 {
            match random.below(100) {
                0..=49 => {
                    let is_large = random.below(2_000) == 0;
                    large_entries += u32::from(is_large);
                    let bytes = if is_large { 5 * MIB / 2 } else { random.below(6_000) };
                    rig.add(bytes);
                }
                50..=92 if !rig.live.is_empty() => {
                    // Mostly recent entries, as with hot keys.
                    let span = if random.below(3) > 0 { 40 } else { rig.next };
                    let near = rig.next - (random.next() % span.min(rig.next)) - 1;
                    if let Some(number) = rig.live.range(..=near).next_back().map(|(n, _)| *n) {
                        rig.mark_dead(number);
                    }
                }
                _ => {
                    if !rig.buffer.is_compacting() && rig.buffer.wants_compaction() {
                        rig.buffer.start();
                        of_parts += u32::from(!rig.buffer.compacts_all);
                        of_all += u32::from(rig.buffer.compacts_all);
                    }
                    for _ in 0..20 {
                        rig.step();
                    }
                }
            }
            let stats = rig.buffer.stats();
            assert_eq!(stats.entries + rig.gone.entries, rig.next);
            assert_eq!(stats.content_bytes + rig.gone.content_bytes, rig.content_bytes);
        }
        rig.check();
        rig.run();
        rig.check();
        let in_use = rig.buffer.stats().allocated_bytes;
        rig.live.clear();
        let chunks = rig.buffer.take_chunks();
        assert_eq!(chunks.iter().map(|chunk| chunk.bytes() as u64).sum::<u64>(), in_use);
        assert_eq!(rig.buffer.stats().allocated_bytes, 0);
    }
    println!(
        "{of_parts} compactions of parts, {of_all} of everything, {large_entries} large entries"
    );
    assert!(of_parts > 20 && of_all > 2 && large_entries > 10);
}
