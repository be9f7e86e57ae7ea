//! Which neighbours go down together with the slice that was picked.

use super::*;

/// L1 over L2.
fn levels(upper: &[Slice], lower: &[Slice]) -> Version {
    version_of(vec![], vec![upper.to_vec(), lower.to_vec()])
}

/// Planted: neighbours come along whatever the level has; whatever they overlap.
#[test]
fn neighbours_come_along_where_that_is_worth_it() {
    let last = t(3, "zz", "zzz", 50);
    let free = [t(1, "a", "f", 1), t(2, "zz", "zzz", 50)];
    let cheap = [t(1, "a", "c", 1), t(2, "d", "e", 1), last.clone()];
    let dear = [t(1, "a", "c", 1), t(2, "d", "e", 2), last];
    let upper =
        |mib: [u64; 3]| [t(5, "b", "c", mib[0]), t(6, "d", "e", mib[1]), t(7, "f", "zz", mib[2])];
    let cases: [(&str, Version, &[u64], &[u64]); 4] = [
        ("those that cost nothing", levels(&upper([1, 1, 8]), &free), &[5, 6], &[1]),
        ("while the level has too much", levels(&upper([1, 1, 10]), &cheap), &[5, 6], &[1, 2]),
        ("and not longer", levels(&upper([2, 0, 9]), &cheap), &[5], &[1]),
        ("and only if they are worth it", levels(&upper([1, 0, 11]), &dear), &[5], &[1]),
    ];
    for (name, version, inputs, targets) in cases {
        crate::version::check::check(&version).unwrap();
        let job = pick(&version, &options(), &Claims::new(), &NONE);
        let want = (vec![(1, inputs.to_vec()), (2, targets.to_vec())], 2, false);
        assert_eq!(job.as_ref().map(shape), Some(want), "{name}");
    }
}

/// Planted: the wider job may do anything; what the neighbour alone costs does not count; the bound
/// in bytes holds for neighbours that cost nothing, too; a product that overflows.
#[test]
fn no_neighbour_spoils_a_pick() {
    let lands = CompactionOptions { landing_runs_max: 10, table_bytes_max: 4 * MIB, ..options() };
    let picked = |version: &Version, options: &CompactionOptions, set_aside: &[u64]| {
        let names = version.slices().map(|(_, _, slice)| slice.name());
        let set_aside = names.filter(|name| set_aside.contains(&name.table.0)).collect();
        let job = pick(version, options, &Claims::new(), &set_aside).expect("L1 is due");
        (shape(&job).0[0].1.clone(), job.task)
    };
    let upper = [t(5, "b", "c", 2), t(6, "d", "e", 2), t(7, "f", "zz", 10)];
    let lower = [t(1, "a", "c", 1), t(2, "d", "e", 2), t(3, "zz", "zzz", 50)];
    let version = levels(&upper, &lower);
    assert_eq!(picked(&version, &lands, &[]), (vec![5, 6], JobTask::Merge));
    let endless = CompactionOptions { drain_ratio: u64::MAX, ..lands.clone() };
    assert_eq!(picked(&version, &endless, &[]), (vec![5, 6], JobTask::Merge));
    assert_eq!(picked(&version, &lands, &[2]), (vec![5], JobTask::Merge), "it would land");
    let mut range = RangeVersion::clone(&version.ranges()[0]);
    let (landed, over) = (Some(Landed { epoch: 1, at_ms: 0 }), t(4, "d", "e", 1));
    let over = Slice::new(SliceMeta { landed, ..over.meta().clone() }, Arc::clone(over.handle()));
    range.layers = range.layers.with(Place::Landing(2, 0), vec![over]);
    let version = Version::new(vec![Arc::new(range)], ObsoleteFiles::new());
    assert_eq!(picked(&version, &lands, &[]), (vec![5], JobTask::Merge), "it would land");
    // Five for two, although both together are ten for seven.
    let upper = [t(5, "b", "c", 5), t(6, "d", "e", 1), t(7, "f", "zz", 10)];
    let lower = [t(1, "a", "c", 2), t(2, "d", "e", 5), t(3, "zz", "zzz", 50)];
    let version = levels(&upper, &lower);
    assert_eq!(picked(&version, &lands, &[]), (vec![5], JobTask::Merge));
    // The job is large, and the neighbour adds nothing.
    let upper = [t(5, "b", "c", 3), t(6, "d", "e", 1), t(7, "f", "zz", 10)];
    let lower = [t(1, "a", "e", 4), t(3, "zz", "zzz", 50)];
    let version = levels(&upper, &lower);
    assert_eq!(picked(&version, &options(), &[]), (vec![5, 6], JobTask::Merge));
}
