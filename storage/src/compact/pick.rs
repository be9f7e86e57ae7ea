//! Version + scores -> the next job.

use super::job::{Claims, Inputs, Job};
use super::options::CompactionOptions;
use super::score::scores;
use crate::version::{RangeVersion, TableHandle, Version};
use std::sync::Arc;

/// How many tables of a level are compared for the cheapest pick, from the round-robin cursor on.
const WINDOW: usize = 8;
/// A pick grows by neighbours that cost no further target, up to this many tables.
const GROWTH: usize = 8;

/// The most urgent job that can run beside `claims`; `None` when no level is due. Claim it before
/// asking again.
pub fn pick(version: &Version, options: &CompactionOptions, claims: &Claims) -> Option<Job> {
    for due in scores(version, options).into_iter().take_while(|due| due.score >= 1.0) {
        let range = version.range(due.range)?;
        let job = match due.level {
            0 => pick_l0(range, options, claims),
            level => pick_level(range, level, options, claims),
        };
        if job.is_some() {
            return job;
        }
    }
    None
}

/// Everything in L0 that no running job holds, with what it overlaps in L1.
fn pick_l0(range: &RangeVersion, options: &CompactionOptions, claims: &Claims) -> Option<Job> {
    // One L0 job per range: a second one would have to prove that it skips nothing older.
    if claims.touches(range.id, 0) {
        return None;
    }
    let job = with_targets(range, vec![Inputs { level: 0, tables: range.l0.to_vec() }], 1, options);
    if claims.admits(&job) {
        return Some(job);
    }
    // L1 is busy somewhere below the newest tables: try the oldest ones, closed under "older and
    // overlapping". Walking from the oldest, a prefix is closed by itself.
    (1..range.l0.len()).rev().find_map(|count| {
        let oldest = range.l0[range.l0.len() - count..].to_vec();
        let job = with_targets(range, vec![Inputs { level: 0, tables: oldest }], 1, options);
        claims.admits(&job).then_some(job)
    })
}

/// One table of a level and some neighbours: the one that drags the least along, from the cursor on.
fn pick_level(
    range: &RangeVersion,
    level: u8,
    options: &CompactionOptions,
    claims: &Claims,
) -> Option<Job> {
    let tables = range.level(level)?.tables();
    let start = claims.cursor(range.id, level).map_or(0, |after| {
        let at = tables.partition_point(|table| table.meta().max_key <= *after);
        if at == tables.len() { 0 } else { at }
    });
    let cost = |at: usize| {
        let meta = tables[at].meta();
        let targets = range.overlapping(level + 1, &meta.min_key, &meta.max_key);
        let bytes: u64 = targets.iter().map(|table| table.meta().file_bytes).sum();
        (bytes as f64 / meta.file_bytes.max(1) as f64, targets.len())
    };
    let admitted = |at: usize| {
        let job = one_level(range, level, &tables[at..=at], options);
        claims.admits(&job).then_some(job)
    };
    let order = (0..tables.len()).map(|step| (start + step) % tables.len());
    let mut window: Vec<(f64, usize)> = Vec::new();
    for at in order {
        if admitted(at).is_some() {
            window.push((cost(at).0, at));
            if window.len() == WINDOW {
                break;
            }
        }
    }
    let (_, at) = window.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    let mut best = admitted(at)?;
    // Neighbours to the right that overlap no further target come along for free.
    for end in at + 1..tables.len().min(at + GROWTH) {
        let wider = one_level(range, level, &tables[at..=end], options);
        let targets = |job: &Job| job.tables().filter(|(l, _)| *l == level + 1).count();
        let large = wider.input_bytes() > options.grandparent_bytes_max();
        if best.is_move || targets(&wider) != targets(&best) || large || !claims.admits(&wider) {
            break;
        }
        best = wider;
    }
    Some(best)
}

fn one_level(
    range: &RangeVersion,
    level: u8,
    tables: &[Arc<TableHandle>],
    options: &CompactionOptions,
) -> Job {
    with_targets(range, vec![Inputs { level, tables: tables.to_vec() }], level + 1, options)
}

/// Completes inputs by what they overlap in the output level; a move where nothing overlaps.
fn with_targets(
    range: &RangeVersion,
    inputs: Vec<Inputs>,
    output_level: u8,
    options: &CompactionOptions,
) -> Job {
    let mut job = Job::new(range, inputs, output_level);
    let targets = {
        let (min, max) = job.bounds();
        range.overlapping(output_level, min, max)
    };
    if !targets.is_empty() {
        let mut inputs = std::mem::take(&mut job.inputs);
        inputs.push(Inputs { level: output_level, tables: targets });
        return Job::new(range, inputs, output_level);
    }
    let overlap: u64 = job.grandparents.iter().map(|table| table.meta().file_bytes).sum();
    job.is_move =
        options.moves && overlap <= options.grandparent_bytes_max() && is_disjoint(&job, options);
    job
}

/// Could the inputs be one run as they are? With one table per level, only a single table can.
fn is_disjoint(job: &Job, options: &CompactionOptions) -> bool {
    let mut tables: Vec<_> = job.tables().map(|(_, table)| table.meta()).collect();
    tables.sort_by(|a, b| a.min_key.cmp(&b.min_key));
    let one_per_level = options.table_bytes_max == u64::MAX && tables.len() > 1;
    !one_per_level && tables.windows(2).all(|pair| pair[0].max_key < pair[1].min_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::RangeId;
    use crate::version::testing::{handle, version_of};

    const MIB: u64 = 1 << 20;

    fn options() -> CompactionOptions {
        CompactionOptions {
            level_base_bytes: MIB,
            table_bytes_max: MIB,
            // Every table is a flush.
            shards: 1,
            ..CompactionOptions::balanced()
        }
    }

    /// (level, numbers) of each input, the output level, and whether it is a move.
    type Shape = (Vec<(u8, Vec<u64>)>, u8, bool);

    fn shape(job: &Job) -> Shape {
        let numbers = |inputs: &Inputs| inputs.tables.iter().map(|t| t.number().0).collect();
        let inputs = job.inputs.iter().map(|inputs| (inputs.level, numbers(inputs))).collect();
        (inputs, job.output_level, job.is_move)
    }

    fn t(number: u64, min: &str, max: &str, mib: u64) -> Arc<TableHandle> {
        handle(number, min.as_bytes(), max.as_bytes(), mib * MIB)
    }

    #[test]
    fn versions_and_the_jobs_they_call_for() {
        let cases: Vec<(&str, Version, Option<Shape>)> = vec![
            ("nothing is due", version_of(vec![t(3, "a", "z", 1)], vec![]), None),
            (
                "four overlapping tables and what they overlap below",
                version_of(
                    vec![
                        t(9, "c", "d", 1),
                        t(8, "a", "e", 1),
                        t(7, "b", "c", 1),
                        t(6, "a", "b", 1),
                    ],
                    vec![vec![t(2, "a", "a", 1), t(3, "e", "g", 1), t(4, "h", "z", 1)]],
                ),
                Some((vec![(0, vec![9, 8, 7, 6]), (1, vec![2, 3])], 1, false)),
            ),
            (
                "disjoint tables over nothing move",
                version_of(
                    vec![
                        t(9, "g", "h", 1),
                        t(8, "e", "f", 1),
                        t(7, "c", "d", 1),
                        t(6, "a", "b", 1),
                    ],
                    vec![vec![t(2, "m", "z", 1)]],
                ),
                Some((vec![(0, vec![9, 8, 7, 6])], 1, true)),
            ),
            (
                "overlapping tables over nothing are merged",
                version_of(
                    vec![
                        t(9, "a", "h", 1),
                        t(8, "e", "f", 1),
                        t(7, "c", "d", 1),
                        t(6, "a", "b", 1),
                    ],
                    vec![],
                ),
                Some((vec![(0, vec![9, 8, 7, 6])], 1, false)),
            ),
            (
                "the table that drags the least along",
                version_of(
                    vec![],
                    vec![
                        vec![t(5, "a", "c", 6), t(6, "d", "f", 6)],
                        vec![t(1, "a", "b", 20), t(2, "c", "d", 20), t(3, "f", "g", 1)],
                    ],
                ),
                Some((vec![(1, vec![6]), (2, vec![2, 3])], 2, false)),
            ),
            (
                "nothing below: a move",
                version_of(vec![], vec![vec![t(5, "a", "c", 6), t(6, "d", "f", 6)]]),
                Some((vec![(1, vec![5])], 2, true)),
            ),
            (
                "no move onto a mountain of grandparents",
                version_of(
                    vec![],
                    vec![
                        vec![t(5, "a", "z", 12)],
                        vec![],
                        vec![t(1, "a", "m", 6), t(2, "n", "z", 6)],
                    ],
                ),
                Some((vec![(1, vec![5])], 2, false)),
            ),
            (
                "neighbours that cost nothing come along",
                version_of(
                    vec![],
                    vec![
                        vec![t(5, "b", "c", 4), t(6, "d", "e", 4), t(7, "f", "zz", 4)],
                        vec![t(1, "a", "f", 1), t(2, "zz", "zzz", 50)],
                    ],
                ),
                Some((vec![(1, vec![5, 6]), (2, vec![1])], 2, false)),
            ),
        ];
        for (name, version, want) in cases {
            crate::version::check::check(&version).unwrap();
            let job = pick(&version, &options(), &Claims::new());
            assert_eq!(job.as_ref().map(shape), want, "{name}");
        }
    }

    #[test]
    fn picks_go_round_the_level_and_around_running_jobs() {
        let tables = || {
            (0..20).map(|n| {
                let key = format!("k{n:02}");
                t(n + 1, &key, &key, 1)
            })
        };
        let below = (0..20).map(|n| {
            let key = format!("k{n:02}");
            t(n + 31, &key, &format!("{key}x"), 1)
        });
        let version = version_of(vec![], vec![tables().collect(), below.collect()]);
        let mut claims = Claims::new();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let job = pick(&version, &options(), &claims).expect("due");
            assert!(seen.insert(job.inputs[0].tables[0].number()), "picked again while running");
            let _ = claims.claim(&job);
        }
        assert!(pick(&version, &options(), &claims).is_none(), "all of it is claimed");
        // Released, the round goes on from its cursor.
        let mut claims = Claims::new();
        let mut order = Vec::new();
        for _ in 0..3 {
            let job = pick(&version, &options(), &claims).expect("due");
            order.push(job.inputs[0].tables[0].number().0);
            let claim = claims.claim(&job);
            claims.release(claim);
        }
        assert_eq!(order, [1, 2, 3]);
    }

    #[test]
    fn l0_waits_for_its_own_job_but_its_oldest_tables_go_around_a_busy_l1() {
        let l0 = vec![t(9, "a", "z", 1), t(8, "a", "c", 1), t(7, "b", "c", 1), t(6, "a", "b", 1)];
        let version = version_of(
            l0,
            vec![vec![t(2, "a", "d", 6), t(3, "m", "p", 6)], vec![t(1, "m", "n", 1)]],
        );
        let range = version.range(RangeId::FIRST).unwrap();
        let busy = one_level(range, 1, &range.level(1).unwrap().tables()[1..], &options());
        let mut claims = Claims::new();
        let busy = claims.claim(&busy);
        let job = pick_l0(range, &options(), &claims).unwrap();
        assert_eq!(shape(&job), (vec![(0, vec![8, 7, 6]), (1, vec![2])], 1, false));
        let held = claims.claim(&job);
        claims.release(busy);
        assert!(pick_l0(range, &options(), &claims).is_none());
        claims.release(held);
        let job = pick_l0(range, &options(), &claims).unwrap();
        assert_eq!(job.inputs[0].tables.len(), 4);
    }

    #[test]
    fn tombstones_are_dropped_only_over_nothing_older() {
        let version = version_of(
            (0..4).map(|n| t(20 - n, "a", "z", 1)).collect(),
            vec![vec![t(5, "a", "z", 1)], vec![t(4, "c", "f", 1)], vec![t(3, "m", "p", 1)]],
        );
        let job = pick(&version, &options(), &Claims::new()).unwrap();
        for (key, may) in [
            ("a", true),
            ("c", false),
            ("d", false),
            ("f", false),
            ("g", true),
            ("n", false),
            ("q", true),
        ] {
            assert_eq!(job.may_drop_tombstone(key.as_bytes()), may, "{key}");
        }
    }
}
