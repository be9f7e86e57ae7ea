//! A known example of leveled compaction with toy numbers, played step by step with the options of
//! `CompactionOptions::seed`.
//!
//! L0 is compacted when it has 3 tables, and level N may have 10 x 10^N entries. The example
//! contradicts this formula twice, and the test follows the formula:
//!
//! - The example compacts L1 at 30 entries, because they are "more than 10 x ratio". But 10 x 10^1
//!   is 100, so here L1 grows until it has 100.
//! - The example flushes 5 entries at a time and lets L0 have 2 such tables. But those are 10
//!   entries, the limit of L0 (10 x 10^0), so L0 would be compacted in the second step. Here a
//!   flush has 3.

use super::*;
use crate::version::testing::{meta, version_of};
use crate::version::{ObsoleteFiles, TableHandle};

/// L0, L1 and so on: the entries of their tables, newest first.
type Shape = Vec<Vec<u64>>;

struct Example {
    options: CompactionOptions,
    levels: Shape,
}

impl Example {
    fn new() -> Self {
        let options = CompactionOptions {
            level_base_entries: 10,
            l0_entries_max: 10,
            l0_trigger: 3,
            ..CompactionOptions::seed()
        };
        Self { options, levels: vec![Vec::new()] }
    }

    fn version(&self) -> Version {
        let mut number = 100;
        let mut level = |entries: &Vec<u64>| -> Vec<Slice> {
            let slices = entries.iter().map(|entries| {
                number -= 1;
                let mut meta = meta(number, b"a", b"z", 100 * entries);
                meta.entries = *entries;
                Slice::whole(&TableHandle::unopened(meta.into(), ObsoleteFiles::new()))
            });
            slices.collect()
        };
        let l0 = level(&self.levels[0]);
        version_of(l0, self.levels[1..].iter().map(level).collect())
    }

    /// Flushes this many new keys. Returns the levels that were compacted, in order.
    fn flush(&mut self, entries: u64) -> Vec<u8> {
        self.levels[0].insert(0, entries);
        let mut went = Vec::new();
        loop {
            let version = self.version();
            let (claims, set_aside) = (Claims::new(), BTreeSet::new());
            let situation = Situation {
                version: &version,
                ranges: version.ranges(),
                options: &self.options,
                claims: &claims,
                set_aside: &set_aside,
                now_ms: 0,
                quiet_since_ms: 0,
                resting: None,
                bursts: None,
                merges: true,
            };
            let Some(job) = pick(&situation, &mut Rounds::default()) else { return went };
            let (from, to) = (job.input_place().level(), job.output.level());
            assert_eq!(to, from + 1, "one level at a time");
            self.levels.resize(self.levels.len().max(usize::from(to) + 1), Vec::new());
            for level in [from, to] {
                let taken = job.slices().filter(|(place, _)| place.level() == level).count();
                let there = self.levels[usize::from(level)].len();
                assert_eq!(taken, there, "all of both levels");
                self.levels[usize::from(level)].clear();
            }
            self.levels[usize::from(to)] = vec![job.entries_about()];
            went.push(from);
        }
    }
}

/// Planted: a limit of `base x ratio` for L0 as well; `>` for `>=`.
#[test]
fn t003_02_the_known_example_goes_down_where_its_formula_says() {
    let mut example = Example::new();
    let shape = |example: &Example| example.levels.clone();
    // Steps 1 and 2: L0 has one table, then two.
    assert_eq!((example.flush(3), shape(&example)), (vec![], vec![vec![3]]));
    assert_eq!((example.flush(3), shape(&example)), (vec![], vec![vec![3, 3]]));
    // Step 3: L0 has three tables, and they become one in L1.
    assert_eq!((example.flush(3), shape(&example)), (vec![0], vec![vec![], vec![9]]));
    // Steps 4 to 6: the same again, merged with the table in L1.
    assert_eq!(example.flush(3), [0_u8; 0]);
    assert_eq!(example.flush(3), [0_u8; 0]);
    assert_eq!((example.flush(3), shape(&example)), (vec![0], vec![vec![], vec![18]]));
    // Step 7, by the formula: L1 grows until it has 100 entries.
    let mut flushes = 6;
    loop {
        let went = example.flush(3);
        flushes += 1;
        if went.contains(&1) {
            assert_eq!(went, [0, 1], "a cascade");
            break;
        }
        let l1 = example.levels[1][0];
        assert!(l1 < 100, "{l1}");
    }
    // 11 times 9 are 99, which is not enough.
    assert_eq!((flushes, shape(&example)), (36, vec![vec![], vec![], vec![108]]));
    // L1 is empty now, so L0 becomes one table in L1. L2 may have 1,000 entries.
    example.flush(3);
    example.flush(3);
    assert_eq!((example.flush(3), shape(&example)), (vec![0], vec![vec![], vec![9], vec![108]]));
}

#[test]
fn t003_02_the_known_examples_flushes_of_five_fill_l0_by_their_entries() {
    let mut example = Example::new();
    assert_eq!(example.flush(5), [0_u8; 0]);
    assert_eq!(example.flush(5), [0], "2 tables, but 10 entries");
}
