//! Goal: what the protocol promises of the directory, where the engine cannot show it.

use super::*;
use crate::checkpoint::Mode::{Fresh, Incremental};
use crate::vfs::MemVfs;

const DB: [u8; 16] = [7; 16];

fn disk() -> Arc<dyn Vfs> {
    Arc::new(MemVfs::new())
}

fn image(number: u64) -> Image {
    let split = crate::version::Image::of_new_database(FileNumber(number + 1), &[], 1);
    Image { log_floor: FileNumber(number), clean_close: true, ..split }
}

fn begin(vfs: &Arc<dyn Vfs>, mode: Mode) -> Result<Draft> {
    Draft::begin(vfs, Path::new("/copy"), DB, mode, true)
}

fn names(vfs: &Arc<dyn Vfs>) -> Vec<String> {
    let mut names = vfs.list(Path::new("/copy")).unwrap();
    names.sort();
    names
}

#[test]
fn a_draft_that_is_dropped_leaves_an_empty_directory() {
    let vfs = disk();
    let mut draft = begin(&vfs, Fresh).unwrap();
    assert!(matches!(begin(&vfs, Fresh), Err(Error::Locked { .. })), "one at a time");
    vfs.create(Path::new("/copy/000003.sst")).unwrap();
    draft.made([FileNumber(3), FileNumber(4)]);
    drop(draft);
    assert_eq!(names(&vfs), Vec::<String>::new());
    begin(&vfs, Fresh).unwrap().publish(image(9)).unwrap();
    assert_eq!(names(&vfs), ["CURRENT", "LOCK", "MANIFEST-000009"]);
    assert!(matches!(begin(&vfs, Fresh), Err(Error::Exists { .. })));
}

#[test]
fn what_an_interrupted_one_left_is_cleared_away() {
    let vfs = disk();
    begin(&vfs, Fresh).unwrap().publish(image(9)).unwrap();
    for stray in ["000010.sst", "000011.tmp", "MANIFEST-000012", "CURRENT.tmp"] {
        vfs.create(&Path::new("/copy").join(stray)).unwrap();
    }
    drop(begin(&vfs, Incremental).unwrap());
    assert_eq!(names(&vfs), ["CURRENT", "LOCK", "MANIFEST-000009"]);
    let counts = begin(&vfs, Incremental).unwrap().publish(image(12)).unwrap();
    assert_eq!(counts.removed, 1);
    assert_eq!(names(&vfs), ["CURRENT", "LOCK", "MANIFEST-000012"]);
}

#[test]
fn only_an_older_checkpoint_of_the_same_database_gives_way() {
    let vfs = disk();
    begin(&vfs, Incremental).unwrap().publish(image(9)).unwrap();
    let other = Draft::begin(&vfs, Path::new("/copy"), [8; 16], Incremental, true);
    assert!(matches!(other, Err(Error::Exists { .. })));
    let backwards = begin(&vfs, Incremental).unwrap().publish(image(9));
    assert!(matches!(backwards, Err(Error::Exists { .. })), "the numbers rise in one history");
    // As after an open for writing.
    let used = Image { newest_segment: FileNumber(13), ..image(12) };
    begin(&vfs, Incremental).unwrap().publish(used).unwrap();
    assert!(matches!(begin(&vfs, Incremental), Err(Error::Exists { .. })));
    vfs.remove(Path::new("/copy/CURRENT")).unwrap();
    assert!(matches!(begin(&vfs, Incremental), Err(Error::Exists { .. })), "interrupted");
}
