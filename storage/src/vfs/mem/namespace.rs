//! Directories of the in-memory disk: which names exist, which of them are durable, and which
//! inodes are still reachable.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::thread::ThreadId;

use super::content::PAGE_BYTES;
use super::inode::Inode;

/// What a name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirEntry {
    File(u64),
    Dir,
}

/// A directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) current: BTreeMap<String, DirEntry>,
    pub(super) durable: BTreeMap<String, DirEntry>,
    /// For each changed name, what it has referred to since the last sync, the current entry last.
    pub(super) unsynced: BTreeMap<String, Vec<Option<DirEntry>>>,
}

impl Directory {
    fn set(&mut self, name: &str, entry: Option<DirEntry>) {
        match entry {
            Some(entry) => self.current.insert(name.to_owned(), entry),
            None => self.current.remove(name),
        };
        self.unsynced.entry(name.to_owned()).or_default().push(entry);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.current);
        self.unsynced.clear();
    }

    fn inodes(&self) -> impl Iterator<Item = u64> {
        let unsynced = self.unsynced.values().flatten().flatten();
        let all = self.current.values().chain(self.durable.values()).chain(unsynced);
        all.filter_map(|entry| if let DirEntry::File(id) = entry { Some(*id) } else { None })
    }
}

/// How a disk with a limited capacity uses space, and when it reports a lack of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SpaceUse {
    /// Ext4, XFS: a page takes space when it is first written or allocated. To overwrite or sync it
    /// takes no more.
    #[default]
    InPlace,
    /// Btrfs, ZFS: an overwritten page takes new space, and frees the old one at the next sync of
    /// its file. To create a name takes a page temporarily. No blocks can be guaranteed.
    CopyOnWrite,
    /// A server, a quota, thin provisioning: every write succeeds, and the sync detects the lack of
    /// space. Pages that have room are durable then; the others are lost as in a failed sync. No
    /// blocks can be guaranteed.
    Delayed,
}

/// What reads return after a failed sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailedSync {
    /// Ext4, XFS: the new bytes, in pages that count as clean, until they leave the cache.
    #[default]
    KeepsNew,
    /// Btrfs: the bytes and the length that the disk has, immediately.
    RevertsToOld,
}

/// What tests can set. A clone of the disk inherits it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) capacity: Option<u64>,
    pub(super) space: SpaceUse,
    pub(super) failed_sync: FailedSync,
    pub(super) can_map: bool,
    pub(super) can_link: bool,
    pub(super) cold_reads: bool,
    pub(super) reads_without_waiting: bool,
}

/// The holders of a file's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// One exclusive holder.
    Exclusive,
    /// This many shared holders.
    Shared(u64),
}

/// The whole disk with its page cache. Clones share all contents.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Arc<Inode>>,
    pub(super) dirs: BTreeMap<PathBuf, Arc<Directory>>,
    pub(super) next_inode: u64,
    pub(super) settings: Settings,
    /// Open handles, mappings and locks per inode. A clone has none.
    pub(super) handles: BTreeMap<u64, u64>,
    pub(super) locked: BTreeMap<u64, Locked>,
    pub(super) operations: u64,
    /// Changing operations beyond this number fail, because the power is off.
    pub(super) power_off_after: Option<u64>,
    /// The next sync by this thread fails and marks its pages clean.
    pub(super) lose_sync_of: Option<ThreadId>,
}

impl Disk {
    pub(super) fn new() -> Self {
        let settings = Settings {
            capacity: None,
            space: SpaceUse::default(),
            failed_sync: FailedSync::default(),
            can_map: true,
            can_link: true,
            cold_reads: false,
            reads_without_waiting: true,
        };
        let root = BTreeMap::from([(PathBuf::from("/"), Arc::default())]);
        Self::with(root, BTreeMap::new(), 1, settings)
    }

    pub(super) fn with(
        dirs: BTreeMap<PathBuf, Arc<Directory>>,
        inodes: BTreeMap<u64, Arc<Inode>>,
        next_inode: u64,
        settings: Settings,
    ) -> Self {
        Self {
            inodes,
            dirs,
            next_inode,
            settings,
            handles: BTreeMap::new(),
            locked: BTreeMap::new(),
            operations: 0,
            power_off_after: None,
            lose_sync_of: None,
        }
    }

    /// The same disk after the death of all processes, with cache and unsynced state.
    pub(super) fn surviving(&self) -> Self {
        let mut disk =
            Self::with(self.dirs.clone(), self.inodes.clone(), self.next_inode, self.settings);
        disk.collect();
        disk
    }

    fn dir_mut(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.dirs.get_mut(path).map(Arc::make_mut).ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn dir(&self, path: &Path) -> io::Result<&Directory> {
        self.dirs.get(path).map(|dir| &**dir).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// What a path refers to.
    pub(super) fn find(&self, path: &Path) -> io::Result<DirEntry> {
        if path == Path::new("/") {
            return Ok(DirEntry::Dir);
        }
        let (dir, name) = split(path)?;
        self.dir(dir)?.current.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// The inode of a file.
    pub(super) fn find_file(&self, path: &Path) -> io::Result<u64> {
        match self.find(path)? {
            DirEntry::File(id) => Ok(id),
            DirEntry::Dir => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path)?;
        let id = self.next_inode;
        if self.dir(dir)?.current.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.room_for_a_name()?;
        let dir = self.dir_mut(dir)?;
        dir.set(name, Some(DirEntry::File(id)));
        self.inodes.insert(id, Arc::default());
        self.next_inode += 1;
        Ok(id)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut ancestors: Vec<_> = path.ancestors().collect();
        ancestors.reverse();
        for path in ancestors {
            match self.find(path) {
                Ok(DirEntry::Dir) => {}
                Ok(DirEntry::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
                Err(_) => {
                    let (dir, name) = split(path)?;
                    self.dir_mut(dir)?.set(name, Some(DirEntry::Dir));
                    self.dirs.insert(path.to_owned(), Arc::default());
                }
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find_file(from)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        match self.find(to) {
            Ok(DirEntry::Dir) => return Err(ErrorKind::IsADirectory.into()),
            Ok(DirEntry::File(same)) if same == id => return Ok(()),
            _ => {}
        }
        self.room_for_a_name()?;
        self.dir_mut(to_dir)?.set(to_name, Some(DirEntry::File(id)));
        self.dir_mut(from_dir)?.set(from_name, None);
        self.collect();
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find_file(from)?;
        let (dir, name) = split(to)?;
        if self.dir(dir)?.current.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !self.settings.can_link {
            return Err(ErrorKind::CrossesDevices.into());
        }
        self.room_for_a_name()?;
        self.dir_mut(dir)?.set(name, Some(DirEntry::File(id)));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let (dir, name) = split(path)?;
        self.dir_mut(dir)?.set(name, None);
        self.collect();
        Ok(())
    }

    /// With copy-on-write, a directory is a tree that is copied when it changes. Removal uses a
    /// reserve.
    fn room_for_a_name(&self) -> io::Result<()> {
        let full = self.free().is_some_and(|free| free < PAGE_BYTES as u64);
        if full && self.settings.space == SpaceUse::CopyOnWrite {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.dir_mut(path)?.sync();
        self.collect();
        Ok(())
    }

    /// Drops inodes that no name, unsynced former name or handle can reach.
    fn collect(&mut self) {
        let reachable: BTreeSet<u64> = self.dirs.values().flat_map(|dir| dir.inodes()).collect();
        let handles = &self.handles;
        self.inodes.retain(|id, _| reachable.contains(id) || handles.contains_key(id));
    }

    pub(super) fn retain_inode(&mut self, id: u64) {
        *self.handles.entry(id).or_default() += 1;
    }

    pub(super) fn release_inode(&mut self, id: u64) {
        let count = self.handles.get_mut(&id).expect("every handle was counted when it was made");
        *count -= 1;
        if *count == 0 {
            self.handles.remove(&id);
            self.collect();
        }
    }

    pub(super) fn inode(&self, id: u64) -> &Inode {
        self.inodes.get(&id).expect("a handle keeps its inode")
    }

    pub(super) fn inode_mut(&mut self, id: u64) -> &mut Inode {
        Arc::make_mut(self.inodes.get_mut(&id).expect("a handle keeps its inode"))
    }

    /// The process id in a lock file.
    pub(super) fn lock_holder(&self, id: u64) -> Option<u32> {
        let mut text = [0; 16];
        let n = self.inode(id).current.read(&mut text, 0);
        std::str::from_utf8(&text[..n]).ok()?.trim().parse().ok()
    }

    /// Bytes of space taken by files that have a name now, or a handle.
    pub(super) fn used(&self) -> u64 {
        let named = self.dirs.values().flat_map(|dir| dir.current.values());
        let named = named.filter_map(|e| if let DirEntry::File(id) = e { Some(*id) } else { None });
        let live: BTreeSet<u64> = named.chain(self.handles.keys().copied()).collect();
        live.iter().map(|id| self.inode(*id).used(self.settings.space)).sum()
    }

    /// Bytes of space left; `None` without a limit.
    pub(super) fn free(&self) -> Option<u64> {
        self.settings.capacity.map(|capacity| capacity.saturating_sub(self.used()))
    }
}

/// Splits a path into the directory and the name in it.
fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str());
    path.parent().zip(name).ok_or_else(|| ErrorKind::InvalidInput.into())
}

/// The canonical form of a path: absolute (the working directory is the root), without dots.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}
