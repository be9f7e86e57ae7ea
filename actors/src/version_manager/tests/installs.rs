//! Installs that wait one behind the other: what they share, and what each has for itself.

use super::super::install::{GROUP_BYTES_MAX, GROUP_INSTALLS_MAX};
use super::super::message::{Install, InstallFailure, Installed, Work};
use super::*;
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_kernel::reply::{Answer, reply};
use sluicedb_kernel::sync::lock;
use sluicedb_storage::version::{Place, SliceMeta};
use sluicedb_storage::vfs::fault::EIO;
use sluicedb_storage::vfs::{CrashKind, FaultControl};
use std::sync::Mutex;
use std::time::Duration;

/// Chooses no compaction while it is held. So tables stay where the test puts them.
const PLANNER: &str = "sluice-plan";

type Sent = Vec<Answer<Installed>>;

/// An engine with `ranges` ranges, each with one table in L0 and nothing in memory.
fn with_tables(runtime: &Stepped, disk: Arc<dyn Vfs>, dir: &str, ranges: u8) -> Engine {
    let opening = Engine::open(config(dir, ranges), disk, Arc::new(runtime.clone()));
    let engine = runtime.run(PLANNER, opening).expect("an empty directory opens");
    (0..ranges).for_each(|n| put(&engine, [n, 1]));
    runtime.run(PLANNER, engine.flush()).expect("the disk works");
    runtime.run_all_but(&[PLANNER]);
    assert_eq!(places(&engine), vec![Some(Place::L0); ranges.into()]);
    engine
}

/// The place of the only table of each range.
fn places(engine: &Engine) -> Vec<Option<Place>> {
    let place = |layers: &sluicedb_storage::version::Layers| {
        let mut slices = layers.slices();
        let first = slices.next().map(|(place, _)| place);
        assert_eq!(slices.count(), 0);
        first
    };
    engine.superversion().ranges.iter().map(|range| place(&range.stable.layers)).collect()
}

/// What a power cut leaves is opened.
fn places_after_a_power_cut(disk: &MemVfs, dir: &str, ranges: u8) -> Vec<Option<Place>> {
    let (runtime, disk) = (Stepped::new(), disk.crash_clone(CrashKind::DropUnsynced));
    let opening = Engine::open(config(dir, ranges), Arc::new(disk), Arc::new(runtime.clone()));
    let engine = runtime.run(PLANNER, opening).expect("it opens");
    assert_eq!(engine.recovery().changes_replayed, 0, "what became of each change is recorded");
    let places = places(&engine);
    runtime.run("nobody", engine.close()).expect("the disk works");
    places
}

fn message(edit: VersionEdit, gone: Vec<(RangeId, Place, SliceMeta)>) -> (VersionMessage, Sent) {
    let (reply, answer) = reply();
    let (edit, work) = (Box::new(edit), Work::Merged(gone));
    (VersionMessage::Install(Install { edit, tables: Vec::new(), work, reply }), vec![answer])
}

/// Moves the only table of a range, which is in L0 now.
fn moving(engine: &Engine, at: usize, from: Place, to: Option<Place>) -> (VersionMessage, Sent) {
    let range = &engine.superversion().ranges[at];
    let (_, slice) = range.stable.layers.slices().next().expect("it has a table");
    let (id, meta) = (range.id(), slice.meta().clone());
    let edit = VersionEdit {
        deleted: vec![(id, from, meta.name())],
        added: to.map(|to| (id, to, meta.clone())).into_iter().collect(),
        ..VersionEdit::default()
    };
    message(edit, vec![(id, from, meta)])
}

fn down(engine: &Engine, at: usize) -> (VersionMessage, Sent) {
    moving(engine, at, Place::L0, Some(Place::Main(1)))
}

fn send(versions: &Mailbox<VersionMessage>, message: VersionMessage) {
    let permit = versions.try_reserve(1).expect("there is room");
    permit.send(message).expect("it is open");
}

/// Sends all of them before the version manager runs. Returns how each ended.
fn run(
    runtime: &Stepped,
    engine: &Engine,
    installs: impl IntoIterator<Item = (VersionMessage, Sent)>,
) -> Vec<Installed> {
    let mut answers = Vec::new();
    for (message, answer) in installs {
        send(&engine.parts.versions, message);
        answers.extend(answer);
    }
    runtime.run_all_but(&[PLANNER]);
    ends(answers)
}

fn ends(answers: Sent) -> Vec<Installed> {
    let end = |answer: Answer<Installed>| answer.now_or_never().expect("it is answered");
    answers.into_iter().map(|answer| end(answer).expect("by the version manager")).collect()
}

/// For each install, what became of it.
fn kinds(ends: &[Installed]) -> Vec<&'static str> {
    let kind = |end: &Installed| match end {
        Ok(()) => "installed",
        Err(InstallFailure::Conflict(_)) => "conflict",
        Err(InstallFailure::NotInstalled(_)) => "not installed",
        Err(InstallFailure::Failed(_)) => "failed",
    };
    ends.iter().map(kind).collect()
}

/// Edits and syncs so far.
fn counts(engine: &Engine) -> [u64; 2] {
    let counts = &engine.counters().versions;
    [counts.edits.get(), counts.manifest_syncs.get()]
}

fn since(engine: &Engine, before: [u64; 2]) -> [u64; 2] {
    let now = counts(engine);
    [now[0] - before[0], now[1] - before[1]]
}

/// Goal: installs that arrive while the manifest is synced take one further sync, all together, and
/// nobody sees any of them before that.
///
/// Planted: a sync for each; a publication before the sync.
#[test]
fn manifest_before_swap_installs_that_wait_for_a_slow_sync_share_the_next_one() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let engine = with_tables(&runtime, Arc::new(disk.clone()), "/slow-sync", 6);
    let (before, number) = (counts(&engine), engine.superversion().number);
    let (messages, answers): (Vec<_>, Vec<_>) = (1..6).map(|at| down(&engine, at)).unzip();
    let (late, seen) = (Mutex::new(messages), Arc::new(Mutex::new(Vec::new())));
    let (parts, shown) = (&engine.parts, Arc::clone(&seen));
    let (versions, topology) = (parts.versions.clone(), Arc::clone(&parts.topology));
    disk.on_operation(move |_, operation| {
        let is_manifest = operation.path.to_string_lossy().contains("MANIFEST");
        if is_manifest && operation.kind == OperationKind::Sync {
            lock(&shown).push(topology.superversion.load_full().number);
            // The sync takes long: the others become ready meanwhile.
            lock(&late).drain(..).for_each(|message| send(&versions, message));
        }
    });
    let first = run(&runtime, &engine, [down(&engine, 0)]);
    disk.clear_hook();
    assert_eq!(kinds(&first), ["installed"]);
    assert_eq!(kinds(&ends(answers.into_iter().flatten().collect())), ["installed"; 5]);
    assert_eq!(*lock(&seen), [number, number + 1], "one sync for the first, one for the others");
    assert_eq!(since(&engine, before), [6, 2]);
    assert_eq!(engine.superversion().number, number + 2);
    assert_eq!(places(&engine), [Some(Place::Main(1)); 6]);
    assert_eq!(places_after_a_power_cut(&disk, "/slow-sync", 6), [Some(Place::Main(1)); 6]);
}

/// Goal: an install that conflicts is refused alone, and each one is judged by those before it.
///
/// Planted: a conflict that ends the group; installs that are judged by what readers see.
#[test]
fn a_conflict_among_installs_that_share_a_sync_fails_alone() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let engine = with_tables(&runtime, Arc::new(disk.clone()), "/conflict", 3);
    let before = counts(&engine);
    let further = moving(&engine, 0, Place::Main(1), Some(Place::Main(2)));
    let installs = [down(&engine, 0), down(&engine, 0), further, down(&engine, 1)];
    let ends = run(&runtime, &engine, installs);
    assert_eq!(kinds(&ends), ["installed", "conflict", "installed", "installed"]);
    assert_eq!(since(&engine, before), [3, 1]);
    let places_now = [Some(Place::Main(2)), Some(Place::Main(1)), Some(Place::L0)];
    assert_eq!(places(&engine), places_now);
    assert_eq!(places_after_a_power_cut(&disk, "/conflict", 3), places_now);
}

/// Goal: if the sync fails, or a write fails for good, nothing of the group is published, no file
/// is deleted, and everyone is told that the engine has failed.
///
/// Planted: a publication before the sync; those that were appended before the failing write are
/// told that they are installed.
#[test]
fn a_sync_that_fails_publishes_nothing_of_the_installs_that_share_it() {
    let sync = Fault::of(OperationKind::Sync).named("MANIFEST").errno(EIO);
    let third = Fault::of(OperationKind::Write).named("MANIFEST").errno(EIO).after(2);
    for (dir, fault) in [("/failing-sync", sync), ("/failing-write", third)] {
        let (runtime, mem) = (Stepped::new(), MemVfs::new());
        let faulty = FaultVfs::over_mem(&mem);
        let control = faulty.control();
        let engine = with_tables(&runtime, Arc::new(faulty), dir, 4);
        let (number, files) = (engine.superversion().number, tables(&mem, dir));
        control.arm(fault);
        let drop = moving(&engine, 1, Place::L0, None);
        let installs = [down(&engine, 0), drop, down(&engine, 2), down(&engine, 3)];
        let ends = run(&runtime, &engine, installs);
        assert_eq!(kinds(&ends), ["failed"; 4], "{dir}");
        assert!(engine.parts.failures.is_stopped(), "{dir}");
        assert_eq!(engine.superversion().number, number, "{dir}");
        assert_eq!(places(&engine), [Some(Place::L0); 4], "{dir}");
        assert_eq!(tables(&mem, dir), files, "{dir}");
        // The disk may have them all the same, or the first of them.
        let disk = Arc::new(mem.kill_clone());
        let opening = Engine::open(config(dir, 4), disk, Arc::new(runtime.clone()));
        runtime.run(PLANNER, opening).expect("it opens");
    }
}

fn on_a_full_disk(runtime: &Stepped, dir: &str) -> (MemVfs, FaultControl, Engine) {
    let mem = MemVfs::new();
    let faulty = FaultVfs::over_mem(&mem);
    let control = faulty.control();
    let engine = with_tables(runtime, Arc::new(faulty), dir, 3);
    (mem, control, engine)
}

/// Goal: an install that finds no space takes nothing from those before it, which are synced, nor
/// from those behind it, which go into a new manifest if there is room for that.
///
/// Planted: a write without space fails the whole group; the new manifest lacks what was appended
/// before it.
#[test]
fn a8a_no_space_for_one_install_leaves_the_others_that_share_its_sync() {
    let refused = Fault::of(OperationKind::Write).named("MANIFEST").errno(ENOSPC).after(1);
    let (top, moved) = (Some(Place::L0), Some(Place::Main(1)));
    for (dir, fault) in [("/refused", refused.clone()), ("/half", refused.partial_write())] {
        let runtime = Stepped::new();
        let (mem, control, engine) = on_a_full_disk(&runtime, dir);
        control.arm(fault);
        let ends = run(&runtime, &engine, (0..3).map(|at| down(&engine, at)));
        assert_eq!(kinds(&ends), ["installed", "not installed", "installed"]);
        assert_eq!(places(&engine), [moved, top, moved]);
        assert_eq!(places_after_a_power_cut(&mem, dir, 3), [moved, top, moved]);
        assert!(engine.parts.failures.health.is_running());
    }
    let runtime = Stepped::new();
    let (mem, control, engine) = on_a_full_disk(&runtime, "/no-space");
    control.arm(Fault::of(OperationKind::Write).named("MANIFEST").errno(ENOSPC).after(1).sticky());
    let ends = run(&runtime, &engine, (0..3).map(|at| down(&engine, at)));
    assert_eq!(kinds(&ends), ["installed", "not installed", "not installed"]);
    assert_eq!(places(&engine), [moved, top, top]);
    assert_eq!(places_after_a_power_cut(&mem, "/no-space", 3), [moved, top, top]);
    let trouble = engine.parts.failures.trouble_of(crate::failure::Party::Manifest);
    assert!(trouble.is_some_and(|failure| failure.is_no_space()));
    control.disarm();
    let ends = run(&runtime, &engine, (1..3).map(|at| down(&engine, at)));
    assert_eq!(kinds(&ends), ["installed"; 2]);
    assert!(engine.parts.failures.health.is_running());
    assert_eq!(places_after_a_power_cut(&mem, "/no-space", 3), [moved; 3]);
}

/// Goal: a manifest that found no space once is tried again although nobody else has an edit. It is
/// tried often enough to notice space soon, and not all the time.
///
/// Planted: it waits for the next edit of somebody (a database that rests stays degraded); a retry
/// without a pause.
#[test]
fn a8a_a_manifest_that_found_no_space_is_tried_again_by_itself() {
    let runtime = Stepped::new();
    let (mem, control, engine) = on_a_full_disk(&runtime, "/again");
    let full = Fault::of(OperationKind::Write).named("MANIFEST").errno(ENOSPC);
    control.arm(full.times(20));
    assert_eq!(kinds(&run(&runtime, &engine, [down(&engine, 0)])), ["not installed"]);
    let mut passed = 0;
    while !engine.parts.failures.health.is_running() {
        assert!(passed < 30_000, "it stays degraded");
        runtime.advance(Duration::from_millis(10));
        passed += 10;
        runtime.poll("sluice-version");
        runtime.run_all_but(&[PLANNER]);
    }
    assert_eq!(control.fired().len(), 20);
    // From 50 ms on the pauses double, up to half a second.
    assert_eq!(passed, 50 + 100 + 200 + 400 + 16 * 500);
    let ends = run(&runtime, &engine, [down(&engine, 0)]);
    assert_eq!(kinds(&ends), ["installed"]);
    let (top, moved) = (Some(Place::L0), Some(Place::Main(1)));
    assert_eq!(places_after_a_power_cut(&mem, "/again", 3), [moved, top, top]);
}

/// Goal: the outcome of a change is recorded once, by the first edit that is in the manifest.
///
/// Planted: outcomes that stay until the sync (the second edit is refused); outcomes that are
/// forgotten when their edit finds no space (the change stays open).
#[test]
fn prepared_needs_its_record_one_of_several_installs_says_what_became_of_a_change() {
    for (dir, full) in [("/outcomes", false), ("/outcomes-full", true)] {
        let runtime = Stepped::new();
        let (mem, control, engine) = on_a_full_disk(&runtime, dir);
        let excise = engine.replace(vec![span([0, 8], [0, 9])], Content::Nothing);
        runtime.run(PLANNER, excise).expect("the disk works");
        if full {
            control.arm(Fault::of(OperationKind::Write).named("MANIFEST").errno(ENOSPC));
        }
        let before = counts(&engine);
        let ends = run(&runtime, &engine, (0..3).map(|at| down(&engine, at)));
        let first = if full { "not installed" } else { "installed" };
        assert_eq!(kinds(&ends), [first, "installed", "installed"]);
        assert_eq!(since(&engine, before)[1], 1);
        let moved = Some(Place::Main(1));
        let first = if full { Some(Place::L0) } else { moved };
        assert_eq!(places_after_a_power_cut(&mem, dir, 3), [first, moved, moved]);
    }
}

/// Goal: other messages keep their place among installs.
///
/// Planted: the group takes whatever message is next.
#[test]
fn installs_behind_another_message_wait_for_it() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let engine = with_tables(&runtime, Arc::new(disk), "/between", 3);
    let before = counts(&engine);
    let (reply, kept) = reply();
    let between = (VersionMessage::KeepNumbers { reply }, Vec::new());
    let installs = [down(&engine, 0), down(&engine, 1), between, down(&engine, 2)];
    assert_eq!(kinds(&run(&runtime, &engine, installs)), ["installed"; 3]);
    kept.now_or_never().expect("it is answered").expect("by the manager").expect("the disk works");
    assert_eq!(since(&engine, before), [4, 3]);
}

/// Planted: groups without an end.
#[test]
fn a_group_of_installs_is_bounded_in_number_and_in_bytes() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let engine = with_tables(&runtime, Arc::new(disk), "/bounded", 1);
    let before = counts(&engine);
    let nothing = || message(VersionEdit::default(), Vec::new());
    let some = GROUP_INSTALLS_MAX + 3;
    let ends = run(&runtime, &engine, (0..some).map(|_| nothing()));
    assert!(ends.iter().all(Result::is_ok));
    assert_eq!(since(&engine, before), [some as u64, 2]);
    // A span that was excised before anything was flushed. The manifest forgets it at once.
    let lo = Bytes::from(vec![9; GROUP_BYTES_MAX as usize / 2]);
    let masked = vec![(KeyspaceSpan::of_default(Span { lo, hi: None }), Seqno(1))];
    let large = VersionEdit { masked, ..VersionEdit::default() };
    let before = counts(&engine);
    let ends = run(&runtime, &engine, (0..5).map(|_| message(large.clone(), Vec::new())));
    assert!(ends.iter().all(Result::is_ok));
    assert_eq!(since(&engine, before), [5, 3]);
}
