//! Which neighbours go down together with the slice that was picked.

use super::*;

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
    let upper = || vec![t(5, "b", "c", 2), t(6, "d", "e", 2), t(7, "f", "zz", 10)];
    let lower = || vec![t(1, "a", "c", 1), t(2, "d", "e", 2), t(3, "zz", "zzz", 50)];
    let version = version_of(vec![], vec![upper(), lower()]);
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
    let upper = vec![t(5, "b", "c", 5), t(6, "d", "e", 1), t(7, "f", "zz", 10)];
    let lower = vec![t(1, "a", "c", 2), t(2, "d", "e", 5), t(3, "zz", "zzz", 50)];
    let version = version_of(vec![], vec![upper, lower]);
    assert_eq!(picked(&version, &lands, &[]), (vec![5], JobTask::Merge));
    // The job is large, and the neighbour adds nothing.
    let upper = vec![t(5, "b", "c", 3), t(6, "d", "e", 1), t(7, "f", "zz", 10)];
    let lower = vec![t(1, "a", "e", 4), t(3, "zz", "zzz", 50)];
    let version = version_of(vec![], vec![upper, lower]);
    assert_eq!(picked(&version, &options(), &[]), (vec![5, 6], JobTask::Merge));
}
