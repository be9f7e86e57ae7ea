//! Compactions, step by step.

use super::super::extent::room;
use super::*;

fn small_steps(step_bytes: usize) -> BufferOptions {
    BufferOptions { step_bytes, ..BufferOptions::default() }
}

/// Goal: INVARIANT(offsets-add-up).
/// Planted: `mark_dead` moves bytes in the destination's space for an entry in the source.
#[test]
fn t001_06_the_end_is_what_is_live_and_dead() {
    for seed in [0x5EED_0601_u64, 0x5EED_0602] {
        println!("seed {seed:#x}");
        let mut random = Random(seed);
        let mut rig = Rig::new(small_steps(7_777));
        let mut compactions = 0;
        for _ in 0..6_000 {
            match random.below(10) {
                0..=3 => {
                    let bytes = if random.below(200) == 0 { 150_000 } else { random.below(900) };
                    rig.add(bytes);
                }
                4..=6 if !rig.live.is_empty() => {
                    let at = random.below(rig.live.len());
                    let number = *rig.live.keys().nth(at).unwrap();
                    rig.mark_dead(number);
                }
                _ => {
                    if !rig.buffer.is_compacting() && rig.buffer.wants_compaction() {
                        rig.buffer.start();
                        compactions += 1;
                    }
                    for _ in 0..10 {
                        rig.step();
                    }
                }
            }
            let extent = &rig.buffer.writing;
            assert_eq!(extent.end() - extent.start(), extent.space.total());
            let stats = rig.buffer.stats();
            assert_eq!(stats.entries + rig.gone.entries, rig.next);
            assert_eq!(stats.content_bytes + rig.gone.content_bytes, rig.content_bytes);
        }
        rig.check();
        assert!(compactions > 5, "{compactions} compactions");
    }
}

/// Planted: a compaction copies entries that were dead when it started.
#[test]
fn t001_07_any_step_size_moves_any_mixture() {
    let room = room(ChunkClass::Small) as usize;
    for step_bytes in [1, 4, 7, 64, 1024, 64 << 10] {
        for mixture in ["all live", "all dead", "alternating", "large"] {
            let mut rig = Rig::new(small_steps(step_bytes));
            let bytes = if mixture == "large" { room * 5 / 2 } else { 300 };
            let count = match (mixture, step_bytes) {
                ("large", 1..=7) => 2,
                ("large", _) => 6,
                (_, 1) => 60,
                _ => 600,
            };
            for at in 0..count {
                let number = rig.add(bytes);
                if mixture == "all dead" || mixture == "alternating" && at % 2 == 0 {
                    rig.mark_dead(number);
                }
            }
            let live = rig.buffer.stats().live_bytes;
            let chunks = rig.buffer.stats().allocated_bytes / ChunkClass::Small.bytes() as u64;
            let end = rig.buffer.start();
            assert_eq!(end, live);
            rig.run();
            rig.check();
            let stats = rig.buffer.stats();
            assert_eq!(
                (stats.live_bytes, stats.dead_bytes),
                (live, 0),
                "{mixture} by {step_bytes}"
            );
            assert_eq!(rig.vacated.len() as u64, chunks, "every chunk of the source is given back");
            assert_eq!(rig.gone.entries, (count - rig.live.len()) as u64);
        }
    }
}

/// Goal: an entry dies at every stage of its move.
/// Planted: `copy` does not read the source's state again before it commits.
#[test]
fn t001_08_an_entry_dies_before_during_and_after_its_copy() {
    for die_after_steps in 0..40 {
        let mut rig = Rig::new(small_steps(100));
        let numbers: Vec<_> = (0..6).map(|_| rig.add(500)).collect();
        let end = rig.buffer.start();
        for _ in 0..die_after_steps {
            rig.step();
        }
        if !rig.buffer.is_compacting() {
            break;
        }
        rig.mark_dead(numbers[3]);
        let fresh = rig.add(100);
        rig.run();
        rig.check();
        let extent = &rig.buffer.writing;
        let states: Vec<_> = extent.check().unwrap().into_iter().map(|(state, _)| state).collect();
        use EntryState::{Dead, Filler, Live};
        assert_eq!(states, [Live, Live, Live, Dead, Live, Live, Filler, Live]);
        // The dead entry had its place in the destination; the fresh one had not.
        let dead = extent.space.dead_bytes - extent.space.padded_bytes;
        let fresh = rig.live[&fresh].0.bytes() as u64;
        assert_eq!(end, extent.space.live_bytes + dead - fresh);
        // The next compaction drops what this one had to copy.
        rig.buffer.start();
        rig.run();
        rig.check();
        assert_eq!(rig.buffer.stats().dead_bytes, 0);
    }
}

#[test]
fn a_class_of_which_a_full_buffer_has_few_chunks_is_not_worth_it() {
    let (kib, mib) = (1 << 10, 1 << 20);
    for (full_bytes, largest) in [
        (4 * kib, ChunkClass::Small),
        (mib - 1, ChunkClass::Small),
        (mib, ChunkClass::Medium),
        (4 * mib, ChunkClass::Large),
        (usize::MAX, ChunkClass::Large),
    ] {
        assert_eq!(ChunkClass::largest_for(full_bytes), largest, "full at {full_bytes} bytes");
    }
}

/// Planted: `downgrade_below` without `downgrade_ratio`.
#[test]
fn t001_11_classes_change_by_p_and_do_not_swing() {
    let with = |preference| BufferOptions { preference, ..BufferOptions::default() };
    let (kib, mib) = (1_u64 << 10, 1_u64 << 20);
    for (preference, up) in [
        (0.0, [mib, 4 * mib]),
        (0.5, [512 * kib, 2 * mib]),
        (0.75, [256 * kib, mib]),
        (1.0, [0, 0]),
    ] {
        let options = with(preference);
        assert_eq!(options.upgrade_above(ChunkClass::Small), Some(up[0]));
        assert_eq!(options.upgrade_above(ChunkClass::Medium), Some(up[1]));
        assert_eq!(options.upgrade_above(ChunkClass::Large), None);
        assert_eq!(options.downgrade_below(ChunkClass::Small), None);
        assert_eq!(options.downgrade_below(ChunkClass::Medium), Some(up[0] / 2));
        assert_eq!(options.downgrade_below(ChunkClass::Large), Some(up[1] / 2));
    }
    let options = with(0.75);
    assert_eq!(options.wanted(ChunkClass::Small, 256 * kib), ChunkClass::Small);
    assert_eq!(options.wanted(ChunkClass::Small, 256 * kib + 1), ChunkClass::Medium);
    assert_eq!(options.wanted(ChunkClass::Small, 5 * mib), ChunkClass::Large);
    assert_eq!(options.wanted(ChunkClass::Medium, 128 * kib), ChunkClass::Medium);
    assert_eq!(options.wanted(ChunkClass::Medium, 128 * kib - 1), ChunkClass::Small);
    assert_eq!(options.wanted(ChunkClass::Large, 100 * kib), ChunkClass::Small);
    // Grows and shrinks around a threshold by less than the distance between up and down.
    let mut random = Random(0x5EED_1101);
    let (mut class, mut live, mut changes) = (ChunkClass::Small, 256 * kib, 0);
    for _ in 0..10_000 {
        live = (live + random.next() % (32 * kib)).saturating_sub(16 * kib).clamp(140 * kib, mib);
        let wanted = options.wanted(class, live);
        changes += u32::from(wanted != class);
        class = wanted;
    }
    assert!(changes <= 1, "{changes} changes");
}

/// Planted: `step` passes dead entries without counting them.
#[test]
fn t001_12_a_step_is_bounded() {
    let mut rig = Rig::new(BufferOptions::default());
    let mut random = Random(0x5EED_1201);
    for _ in 0..3_000 {
        let bytes = if random.below(20) == 0 { 200_000 + random.below(400_000) } else { 50 };
        let number = rig.add(bytes);
        if random.below(10) < 7 {
            rig.mark_dead(number);
        }
    }
    rig.buffer.start();
    let (mut most_copied, mut most_dead) = (0, 0);
    loop {
        let step = rig.step();
        (most_copied, most_dead) =
            (most_copied.max(step.copied_bytes), most_dead.max(step.dead_visited));
        if step.finished {
            break;
        }
    }
    assert_eq!((most_copied, most_dead), (64 << 10, 10));
    rig.check();
}

/// Goal: allocated minus released bytes are in use, and nothing is left in the end.
/// Planted: `merge` forgets the chunks of the fresh extent.
#[test]
fn t001_14_every_chunk_is_accounted_for() {
    for abandon_after in [0, 5, 200, usize::MAX] {
        let mut rig = Rig::new(small_steps(512));
        let mut random = Random(0x5EED_1401);
        let mut steps = 0;
        for _ in 0..8_000 {
            let number = rig.add(random.below(2_000));
            if random.below(10) < 6 {
                rig.mark_dead(number);
            }
            if !rig.buffer.is_compacting() && rig.buffer.wants_compaction() {
                rig.buffer.start();
            }
            for _ in 0..4 {
                if rig.buffer.is_compacting() && steps < abandon_after {
                    rig.step();
                    steps += 1;
                }
            }
        }
        rig.check();
        let in_use = rig.buffer.stats().allocated_bytes;
        let mut chunks = rig.buffer.take_chunks();
        rig.live.clear();
        assert_eq!(chunks.iter().map(|chunk| chunk.bytes() as u64).sum::<u64>(), in_use);
        assert_eq!(rig.buffer.stats().allocated_bytes, 0);
        chunks.extend(rig.vacated.drain(..).map(|vacated| vacated.chunk));
        let all: usize = chunks.iter().map(Chunk::bytes).sum();
        rig.buffer.recycle(chunks);
        assert_eq!(rig.pool.held_bytes(), all, "what was taken has come back");
        if abandon_after == usize::MAX {
            assert!(all as u64 > 2 * in_use, "compactions had released much");
        }
    }
}

/// Goal: padding does not start the next compaction by itself.
/// Planted: `is_worth_it` counts padding.
#[test]
fn padding_is_not_worth_a_compaction() {
    let mut rig = Rig::new(BufferOptions { dead_ratio: 0.01, ..BufferOptions::default() });
    rig.add(100);
    rig.buffer.start();
    rig.add(100);
    rig.run();
    assert!(rig.buffer.stats().dead_bytes > 60_000, "the rest of the first chunk is filled");
    assert!(!rig.buffer.wants_compaction());
    rig.check();
}
