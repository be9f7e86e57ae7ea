//! The reserve: disk space that is set aside for a full disk. With it, deletes can be logged,
//! memory can be flushed, tables can be merged, and the database can be closed and opened.
//!
//! It is one file without contents. It is released as a whole, and set aside again when there is
//! enough space. It is truncated when less is wanted. It outlives the process, and losing it loses
//! no data.
//!
//! It does not decide when to do that, nor how much to set aside.

use crate::error::{Error, Result};
use crate::filename::FileKind;
use crate::sync::lock;
use crate::vfs::Vfs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes per write if the file system cannot guarantee blocks.
const FILL_BYTES: u64 = 64 << 10;

/// The reserve of one database. Its state can be read at any time, without waiting for a change in
/// progress.
#[derive(Debug)]
pub struct SpaceReserve {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    bytes: AtomicU64,
    spent: AtomicBool,
    /// How often it was released.
    releases: AtomicU64,
    turn: Mutex<()>,
}

/// The right to change a reserve. One caller at a time has it, and holds it during disk operations.
#[derive(Debug)]
pub struct ReserveTurn<'a> {
    reserve: &'a SpaceReserve,
    _only: MutexGuard<'a, ()>,
}

impl SpaceReserve {
    /// The reserve that an earlier incarnation set aside in `dir`, if any. Blocks on the disk.
    pub fn adopt(vfs: &Arc<dyn Vfs>, dir: &Path) -> Self {
        let path = FileKind::Reserve.path(dir);
        // If the size is unknown, or the path is no file, it counts as nothing and is created
        // again.
        let bytes = vfs.open(&path).and_then(|file| file.len()).unwrap_or(0);
        Self {
            vfs: Arc::clone(vfs),
            path,
            bytes: AtomicU64::new(bytes),
            spent: AtomicBool::new(false),
            releases: AtomicU64::new(0),
            turn: Mutex::new(()),
        }
    }

    /// The bytes that are set aside.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Was it released, and not set aside again since?
    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// How often it was released. Whoever reads this before an attempt knows, when there was no
    /// space, whether there is more since. A release counts before the bytes are gone from
    /// [`bytes`](Self::bytes), and after they are free.
    pub fn releases(&self) -> u64 {
        self.releases.load(Ordering::Acquire)
    }

    /// Waits for the right to change it, which may take as long as a disk operation. Not for
    /// executor threads.
    pub fn turn(&self) -> ReserveTurn<'_> {
        // The mutex guards no data: the state is in the atomics.
        let only = lock(&self.turn);
        ReserveTurn { reserve: self, _only: only }
    }

    fn set(&self, bytes: u64, spent: bool) {
        self.bytes.store(bytes, Ordering::Release);
        self.spent.store(spent, Ordering::Release);
    }

    fn fill(&self, held: u64, bytes: u64) -> Result<()> {
        let io = |op, e| Error::io(op, &self.path, e);
        let file = if held == 0 {
            // There may be a file of unknown size.
            match self.vfs.remove(&self.path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(io("remove", e)),
                _ => self.vfs.create(&self.path).map_err(|e| io("create", e))?,
            }
        } else {
            self.vfs.open_rw(&self.path).map_err(|e| io("open", e))?
        };
        if file.allocate(bytes).map_err(|e| io("allocate", e))? {
            return Ok(());
        }
        // Not zeros: a file system may store those without space.
        let mut chunk = vec![0; FILL_BYTES as usize];
        let mut offset = held;
        while offset < bytes {
            let mut word = offset | 1;
            for slot in chunk.chunks_exact_mut(8) {
                word = word.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
                slot.copy_from_slice(&word.to_le_bytes());
            }
            let length = (bytes - offset).min(FILL_BYTES);
            file.write_all_at(&chunk[..length as usize], offset).map_err(|e| io("write", e))?;
            offset += length;
        }
        file.sync_data().map_err(|e| io("sync", e))
    }
}

impl ReserveTurn<'_> {
    /// Grows the reserve to `bytes` in total. Blocks on the disk.
    ///
    /// # Errors
    /// `Io` if there is no space. What was set aside before stays.
    pub fn grow_to(&self, bytes: u64) -> Result<()> {
        let reserve = self.reserve;
        let held = reserve.bytes();
        if let Err(error) = reserve.fill(held, bytes) {
            if held == 0 {
                let _ = reserve.vfs.remove(&reserve.path);
            }
            return Err(error);
        }
        reserve.set(bytes, false);
        Ok(())
    }

    /// Shrinks the reserve to `bytes`, which must be less than it has. Blocks on the disk.
    ///
    /// # Errors
    /// `Io` if the file cannot be truncated. What was set aside before stays.
    pub fn cut_to(&self, bytes: u64) -> Result<()> {
        let reserve = self.reserve;
        let cut = reserve.vfs.open_rw(&reserve.path).and_then(|file| file.set_len(bytes));
        cut.map_err(|e| Error::io("cut", &reserve.path, e))?;
        reserve.bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    /// Releases the reserve. Returns the number of bytes that became free. Blocks on the disk.
    ///
    /// # Errors
    /// `Io` if the file cannot be removed.
    pub fn release(&self) -> Result<u64> {
        let reserve = self.reserve;
        let bytes = reserve.bytes();
        if bytes == 0 {
            return Ok(0);
        }
        let given = match reserve.vfs.remove(&reserve.path) {
            Ok(()) => bytes,
            // It was removed by somebody else.
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            Err(e) => return Err(Error::io("remove", &reserve.path, e)),
        };
        if given > 0 {
            reserve.releases.fetch_add(1, Ordering::Release);
        }
        reserve.set(0, true);
        Ok(given)
    }

    /// Removes the reserve because none is wanted any more. Blocks on the disk.
    ///
    /// # Errors
    /// `Io` if the file cannot be removed.
    pub fn give_up(&self) -> Result<()> {
        self.release()?;
        self.reserve.set(0, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::MemVfs;

    #[test]
    fn a8f_a_reserve_takes_space_grows_and_gives_all_of_it_back() {
        for can_map in [true, false] {
            let mem = MemVfs::new();
            mem.set_can_map(can_map);
            let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
            let dir = Path::new("/");
            let reserve = SpaceReserve::adopt(&vfs, dir);
            assert_eq!((reserve.bytes(), reserve.is_spent()), (0, false));
            reserve.turn().grow_to(100 << 10).unwrap();
            assert!(mem.used_bytes() >= 100 << 10);
            reserve.turn().grow_to(200 << 10).unwrap();
            assert!(mem.used_bytes() >= 200 << 10);
            let reserve = SpaceReserve::adopt(&vfs, dir);
            assert_eq!(reserve.bytes(), 200 << 10, "it outlives its owner");
            reserve.turn().grow_to(400 << 10).unwrap();
            reserve.turn().cut_to(200 << 10).unwrap();
            assert_eq!((reserve.bytes(), mem.used_bytes()), (200 << 10, 200 << 10));
            mem.set_capacity(Some(mem.used_bytes()));
            assert!(reserve.turn().grow_to(300 << 10).unwrap_err().is_no_space());
            assert_eq!(
                (reserve.bytes(), reserve.turn().release().unwrap()),
                (200 << 10, 200 << 10)
            );
            assert!(reserve.is_spent() && mem.used_bytes() == 0);
            assert_eq!(reserve.turn().release().unwrap(), 0);
            reserve.turn().grow_to(64 << 10).unwrap();
            assert!(!reserve.is_spent());
            mem.set_capacity(Some(mem.used_bytes()));
            assert_eq!(reserve.turn().release().unwrap(), 64 << 10);
            mem.set_capacity(Some(mem.used_bytes()));
            assert!(reserve.turn().grow_to(64 << 10).unwrap_err().is_no_space());
            assert!(reserve.is_spent() && vfs.list(dir).unwrap().is_empty());
        }
    }
}
