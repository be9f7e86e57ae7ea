//! Files that nothing names: what interrupted opens, flushes and merges have left.
//!
//! An open removes them before it writes its first table, or its manifest. So opens that are
//! interrupted again and again need no more space than two of them.
//!
//! INVARIANT(leftovers-after-the-log): they are removed only when the manifest is loaded and the
//! whole log was read and found sound. Before that it is not certain what is named: an older
//! manifest may have been put back, and the log is what shows that. Usually the first table is
//! written when the log has been read. Where a table is written before that, and there is something
//! to remove, the log is read once more, only to check it.
//!
//! Why nobody misses them:
//! * The directory is locked, and no actor runs yet. So no reader pins a file, and no change is
//!   under way but those that the manifest has prepared. Their files are kept.
//! * `CURRENT` is durable, and no later manifest counts. The manifest's last edits may not be: the
//!   process that wrote them may have died before their sync. So the manifest is synced first. A
//!   power cut could otherwise undo an edit, and the tables that it has given up would be missing.
//! * A file that was adopted has another name elsewhere, and so has a checkpoint's file. Only the
//!   name in this directory goes.
//! * A number that only such a file had may be given out again by a later open, as if the file had
//!   never reached the disk. No manifest, no checkpoint and no cache knows it.
//! * A removal that a power cut undoes is repeated by the next open.

use crate::error::Result;
use crate::filename::{FileKind, FileNumber};
use crate::side_by_side::{Piece, SideBySide};
use crate::version::{Image, SliceMeta};
use crate::vfs::Vfs;
use crate::wal::SealedSegment;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Tables, log segments, manifests and temporary files that nothing names.
pub(super) struct Leftovers<'a> {
    names: Vec<String>,
    /// The loaded manifest.
    manifest: FileNumber,
    /// Reads the whole log, and fails if it is not sound. `None` once it is known to be.
    judge: Option<&'a (dyn Fn() -> Result<()> + Sync)>,
    removed: Vec<String>,
}

impl<'a> Leftovers<'a> {
    /// Those of `names`, the files of the directory before anything is written, that neither the
    /// loaded `manifest` nor a change that it has prepared names. None, if a table of such a change
    /// is missing.
    pub(super) fn among(
        names: &[String],
        manifest: FileNumber,
        image: &Image,
        judge: &'a (dyn Fn() -> Result<()> + Sync),
    ) -> Self {
        let prepared: BTreeSet<_> =
            image.prepared_slices().map(|(_, slice)| slice.number()).collect();
        let table = |name: &String| match FileKind::parse(name) {
            Some(FileKind::Table(number)) => Some(number),
            _ => None,
        };
        let there: BTreeSet<_> = names.iter().filter_map(table).collect();
        let mut live: BTreeSet<_> = image.slices.values().map(SliceMeta::number).collect();
        live.extend(&prepared);
        let is_left = |name: &&String| match FileKind::parse(name) {
            Some(FileKind::Temp(_)) => true,
            Some(FileKind::Manifest(number)) => number != manifest,
            Some(FileKind::Table(number)) => !live.contains(&number),
            Some(FileKind::Wal(number)) => number < image.log_floor,
            _ => false,
        };
        let mut names: Vec<_> = names.iter().filter(is_left).cloned().collect();
        // Where a prepared table is missing, this may be the wrong manifest: nothing goes.
        if !prepared.is_subset(&there) {
            names.clear();
        }
        Self { names, manifest, judge: Some(judge), removed: Vec::new() }
    }

    /// None, for who only reads.
    pub(super) fn none(manifest: FileNumber) -> Self {
        Self { names: Vec::new(), manifest, judge: None, removed: Vec::new() }
    }

    /// The whole log was read, and is sound.
    pub(super) fn log_is_sound(&mut self) {
        self.judge = None;
    }

    /// Is there nothing to remove?
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Removes them, the first time that it is called. Blocks on the disk: reads the log if nobody
    /// has read all of it. A file that cannot be removed stays until the open has succeeded.
    ///
    /// # Errors
    /// The log is not sound. Then nothing was removed.
    pub(super) fn remove(
        &mut self,
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        side_by_side: &dyn SideBySide,
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let names = std::mem::take(&mut self.names);
        let path = FileKind::Manifest(self.manifest).path(dir);
        if let Some(judge) = self.judge.take() {
            judge()?;
        }
        match vfs.open_rw(&path).and_then(|manifest| manifest.sync_data()) {
            Ok(()) => self.removed = remove_all(vfs, dir, names, side_by_side),
            Err(error) => tracing::debug!(%error, "what was left over stays for now"),
        }
        Ok(())
    }

    /// The names of the files that were removed.
    pub(super) fn into_removed(self) -> Vec<String> {
        self.removed
    }
}

/// Removes the files that the new manifest, `number`, does not need, but for `old_log`. Foreign
/// files stay, and so do files that cannot be removed; the next open tries again.
pub(super) fn sweep(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    (number, image): (FileNumber, &Image),
    old_log: &[SealedSegment],
    side_by_side: &dyn SideBySide,
) -> Vec<String> {
    let live: BTreeSet<_> = image.slices.values().map(SliceMeta::number).collect();
    let is_old_log = |number| old_log.iter().any(|segment| segment.number == number);
    let mut names = match vfs.list(dir) {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "old files are not removed: the directory cannot be listed");
            return Vec::new();
        }
    };
    names.retain(|name| match FileKind::parse(name) {
        None | Some(FileKind::Lock | FileKind::Current | FileKind::Reserve) => false,
        Some(FileKind::Temp(_) | FileKind::Spare(_)) => true,
        Some(FileKind::Manifest(of)) => of < number,
        Some(FileKind::Wal(of)) => of < image.log_floor && !is_old_log(of),
        Some(FileKind::Table(of)) => of < image.next_file_number && !live.contains(&of),
    });
    remove_all(vfs, dir, names, side_by_side)
}

/// Removes these files, in any order. Returns those that have gone, sorted.
fn remove_all(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    mut names: Vec<String>,
    side_by_side: &dyn SideBySide,
) -> Vec<String> {
    names.sort();
    let mut removed = vec![false; names.len()];
    let pieces = names.iter().zip(&mut removed).map(|(name, removed)| -> Piece<'_> {
        Box::new(move || match vfs.remove(&dir.join(name)) {
            Ok(()) => *removed = true,
            Err(error) => tracing::warn!(%error, file = %name, "an old file is not removed"),
        })
    });
    side_by_side.run(pieces.collect());
    names.into_iter().zip(removed).filter_map(|(name, removed)| removed.then_some(name)).collect()
}
