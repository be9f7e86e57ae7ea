//! What a power cut may leave: an image of the disk in which everything unsynced is decided.
//!
//! The image allows exactly what a real disk is allowed. Synced bytes and names do not change
//! unless they were written again. Each 512-byte sector of unsynced bytes is decided separately,
//! and so is each unsynced name. Zeros and garbage replace only bytes that were really unsynced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::super::chance::Chance;
use super::content::{FileContent, PAGE_BYTES, Page};
use super::inode::{DirtyPage, Inode, SECTOR_BYTES};
use super::namespace::{DirEntry, Directory, Disk};

/// Which of the possible disks a power cut leaves. The number is a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrashKind {
    /// Nothing unsynced: no bytes, no lengths, no names.
    DropUnsynced,
    /// Everything that was written, except what a failed sync lost.
    KeepAll,
    /// Each unsynced sector is old, new or a version in between; the length is any in between. All
    /// names.
    RandomSectors(u64),
    /// Each file is new up to a random byte, and old after it. All names.
    TornTail(u64),
    /// The new length, but zeros instead of most of the bytes beyond the old one. All names.
    ZeroExtended(u64),
    /// Unsynced sectors are old, new, zero, random, 0xFF or from another file. All names.
    Garbage(u64),
    /// Each unsynced name is kept or dropped separately; contents are dropped, kept or random per
    /// file.
    RandomDirents(u64),
    /// Names as in `RandomDirents`; any of the rules above for each file.
    Mixed(u64),
}

impl CrashKind {
    /// One of each kind.
    pub fn each(seed: u64) -> [Self; 8] {
        [
            Self::DropUnsynced,
            Self::KeepAll,
            Self::RandomSectors(seed),
            Self::TornTail(seed),
            Self::ZeroExtended(seed),
            Self::Garbage(seed),
            Self::RandomDirents(seed),
            Self::Mixed(seed),
        ]
    }

    fn seed(self) -> u64 {
        match self {
            Self::DropUnsynced | Self::KeepAll => 0,
            Self::RandomSectors(seed)
            | Self::TornTail(seed)
            | Self::ZeroExtended(seed)
            | Self::Garbage(seed)
            | Self::RandomDirents(seed)
            | Self::Mixed(seed) => seed,
        }
    }
}

/// What happens to the unsynced bytes of one file.
#[derive(Clone, Copy)]
enum Rule {
    Drop,
    Keep,
    Sectors,
    Torn,
    ZeroExtended,
    Garbage,
}

/// The image that is left of `disk`.
pub(super) fn image(disk: &Disk, kind: CrashKind) -> Disk {
    let mut chance = Chance(kind.seed());
    let mut dirs = BTreeMap::new();
    let mut ids = BTreeSet::new();
    // Parents sort before their children. So a directory that lost its own name loses all its
    // contents.
    for (path, dir) in &disk.dirs {
        if !is_linked(&dirs, path) {
            continue;
        }
        let names = surviving_names(dir, kind, &mut chance);
        ids.extend(
            names
                .values()
                .filter_map(|e| if let DirEntry::File(id) = e { Some(*id) } else { None }),
        );
        let left = Directory { current: names.clone(), durable: names, unsynced: BTreeMap::new() };
        dirs.insert(path.clone(), Arc::new(left));
    }
    let inodes = ids.iter().map(|&id| {
        let inode = disk.inode(id);
        let content = surviving_content(disk, inode, kind, &mut chance);
        let left = Inode { current: content.clone(), durable: content, ..Inode::default() };
        (id, Arc::new(left))
    });
    let inodes = inodes.collect();
    Disk::with(dirs, inodes, disk.next_inode, disk.settings)
}

fn is_linked(dirs: &BTreeMap<std::path::PathBuf, Arc<Directory>>, path: &Path) -> bool {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        return true; // the root
    };
    let Some((parent, name)) = dirs.get(parent).zip(name.to_str()) else {
        return false;
    };
    parent.current.get(name) == Some(&DirEntry::Dir)
}

fn surviving_names(
    dir: &Directory,
    kind: CrashKind,
    chance: &mut Chance,
) -> BTreeMap<String, DirEntry> {
    match kind {
        CrashKind::DropUnsynced => dir.durable.clone(),
        CrashKind::RandomDirents(_) | CrashKind::Mixed(_) => {
            let mut names = dir.durable.clone();
            for (name, meanings) in &dir.unsynced {
                let choice = chance.below(meanings.len() as u64 + 1) as usize;
                match meanings.get(choice) {
                    Some(Some(entry)) => {
                        names.insert(name.clone(), *entry);
                    }
                    Some(None) => {
                        names.remove(name);
                    }
                    None => {} // the durable meaning
                }
            }
            names
        }
        _ => dir.current.clone(),
    }
}

fn surviving_content(
    disk: &Disk,
    inode: &Inode,
    kind: CrashKind,
    chance: &mut Chance,
) -> FileContent {
    use Rule::{Drop, Garbage, Keep, Sectors, Torn, ZeroExtended};
    let rule = match kind {
        CrashKind::DropUnsynced => Drop,
        CrashKind::KeepAll => Keep,
        CrashKind::RandomSectors(_) => Sectors,
        CrashKind::TornTail(_) => Torn,
        CrashKind::ZeroExtended(_) => ZeroExtended,
        CrashKind::Garbage(_) => Garbage,
        CrashKind::RandomDirents(_) => chance.pick(&[Drop, Keep, Sectors]),
        CrashKind::Mixed(_) => chance.pick(&[Drop, Keep, Sectors, Torn, ZeroExtended, Garbage]),
    };
    let (old, new) = (inode.durable.len(), inode.current.len());
    if matches!(rule, Drop) || (inode.dirty.is_empty() && old == new) {
        return inode.durable.clone();
    }
    let cut = torn_at(inode, chance);
    let mut content = inode.durable.clone();
    // Long enough for all sectors while they are decided; truncated in the end.
    content.set_len(old.max(new));
    for (&number, dirty) in &inode.dirty {
        let current = inode.current.page(number);
        if matches!(rule, Keep) {
            content.put_page(number, current.cloned());
            continue;
        }
        let mut decision = Decision {
            disk,
            number,
            dirty,
            old: bytes_of(inode.durable.page(number)),
            new: bytes_of(current),
            old_len: old,
            cut,
        };
        let page = decision.page(rule, chance);
        content.put_page(number, Some(Arc::new(page)));
    }
    content.set_len(surviving_len(rule, old, new, cut, chance));
    content
}

fn surviving_len(rule: Rule, old: u64, new: u64, cut: u64, chance: &mut Chance) -> u64 {
    match rule {
        Rule::Drop => old,
        Rule::Torn if new >= old => cut.clamp(old, new),
        Rule::ZeroExtended if new > old => old + 1 + chance.below(new - old),
        Rule::Keep | Rule::ZeroExtended => new,
        Rule::Torn | Rule::Sectors | Rule::Garbage => {
            let between = old.min(new) + chance.below(old.abs_diff(new) + 1);
            chance.pick(&[old, new, between])
        }
    }
}

/// An offset in the unsynced part of the file: what is before it arrived, what follows did not.
fn torn_at(inode: &Inode, chance: &mut Chance) -> u64 {
    let page = PAGE_BYTES as u64;
    let grown = inode.current.len() > inode.durable.len();
    let first = inode.dirty.first_key_value().map_or(inode.durable.len(), |(number, dirty)| {
        let at = (0..PAGE_BYTES).find(|&at| dirty.is_written(at)).unwrap_or(0);
        number * page + at as u64
    });
    let end = inode.dirty.last_key_value().map_or(0, |(number, dirty)| {
        let at = (0..PAGE_BYTES).rev().find(|&at| dirty.is_written(at)).unwrap_or(0);
        number * page + at as u64 + 1
    });
    let end = if grown { end.max(inode.current.len()) } else { end };
    first + chance.below(end.saturating_sub(first) + 1)
}

fn bytes_of(page: Option<&Page>) -> [u8; PAGE_BYTES] {
    page.map_or([0; PAGE_BYTES], |page| **page)
}

/// A dirty page whose sectors are being decided.
struct Decision<'a> {
    disk: &'a Disk,
    number: u64,
    dirty: &'a DirtyPage,
    old: [u8; PAGE_BYTES],
    new: [u8; PAGE_BYTES],
    old_len: u64,
    cut: u64,
}

impl Decision<'_> {
    fn page(&mut self, rule: Rule, chance: &mut Chance) -> [u8; PAGE_BYTES] {
        let mut page = self.old;
        for sector in 0..PAGE_BYTES / SECTOR_BYTES {
            if !self.dirty.is_dirty(sector) {
                continue;
            }
            let at = sector * SECTOR_BYTES;
            let target = &mut page[at..at + SECTOR_BYTES];
            match rule {
                Rule::Drop => {}
                Rule::Keep => target.copy_from_slice(&self.new[at..at + SECTOR_BYTES]),
                Rule::Sectors => self.one_version(target, sector, chance),
                Rule::Torn => {
                    let start = self.number * PAGE_BYTES as u64 + at as u64;
                    let kept = self.cut.saturating_sub(start).min(SECTOR_BYTES as u64) as usize;
                    target[..kept].copy_from_slice(&self.new[at..at + kept]);
                }
                Rule::ZeroExtended => {
                    let start = self.number * PAGE_BYTES as u64 + at as u64;
                    if start >= self.old_len && chance.below(4) == 0 {
                        target.copy_from_slice(&self.new[at..at + SECTOR_BYTES]);
                    }
                }
                Rule::Garbage => match chance.below(6) {
                    0 | 1 => self.one_version(target, sector, chance),
                    source => self.overwrite(target, sector, source, chance),
                },
            }
        }
        page
    }

    /// The old contents (already in place), the new ones, or a version in between.
    fn one_version(&self, target: &mut [u8], sector: usize, chance: &mut Chance) {
        let versions = self.dirty.versions(sector);
        match chance.below(versions.len() as u64 + 2) {
            0 => {}
            1 => target.copy_from_slice(&self.new[sector * SECTOR_BYTES..][..SECTOR_BYTES]),
            n => target.copy_from_slice(versions[n as usize - 2]),
        }
    }

    /// Bytes that nobody wrote there, in place of unsynced bytes only.
    fn overwrite(&self, target: &mut [u8], sector: usize, source: u64, chance: &mut Chance) {
        let at = sector * SECTOR_BYTES;
        let foreign = self.foreign_page(chance);
        for (i, byte) in target.iter_mut().enumerate() {
            if self.dirty.is_written(at + i) {
                *byte = match source {
                    2 => 0,
                    3 => 0xff,
                    4 => chance.next() as u8,
                    _ => foreign[at + i],
                };
            }
        }
    }

    /// The same page of some file: disks reuse blocks.
    fn foreign_page(&self, chance: &mut Chance) -> [u8; PAGE_BYTES] {
        let skip = chance.below(self.disk.inodes.len() as u64) as usize;
        let other = self.disk.inodes.values().nth(skip);
        bytes_of(other.and_then(|inode| inode.durable.page(self.number)))
    }
}
