//! Space on the disk that is set aside for the time when the disk is full. With it deletes can be
//! logged, memory can be flushed, tables can be merged, and the database can be closed and opened.
//!
//! It is one file without content. It is let go of as a whole, and set aside anew when there is
//! room again. It is cut when less is wanted. It outlives the process, and nothing is lost with it.
//! Its methods block on the disk.
//!
//! It does not decide when to do that, nor how much to set aside.

use crate::error::{Error, Result};
use crate::filename::FileKind;
use crate::vfs::Vfs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Written so much at a time where blocks cannot be promised.
const FILL_BYTES: u64 = 64 << 10;

/// The reserve of one database. What it holds can be asked at any time, without waiting for whoever
/// changes it.
#[derive(Debug)]
pub struct SpaceReserve {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    bytes: AtomicU64,
    spent: AtomicBool,
    turn: Mutex<()>,
}

/// The right to change a reserve; one party at a time has it. Held while the disk works.
#[derive(Debug)]
pub struct ReserveTurn<'a> {
    reserve: &'a SpaceReserve,
    _only: MutexGuard<'a, ()>,
}

impl SpaceReserve {
    /// What an earlier incarnation set aside in `dir`, if it did.
    pub fn adopt(vfs: &Arc<dyn Vfs>, dir: &Path) -> Self {
        let path = FileKind::Reserve.path(dir);
        // What cannot be told, or is no file, is taken for nothing, and made anew.
        let bytes = vfs.open(&path).and_then(|file| file.len()).unwrap_or(0);
        Self {
            vfs: Arc::clone(vfs),
            path,
            bytes: AtomicU64::new(bytes),
            spent: AtomicBool::new(false),
            turn: Mutex::new(()),
        }
    }

    /// What is set aside, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Was it let go of, and not set aside anew since?
    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// Waits for the right to change it. Not on an executor thread.
    pub fn turn(&self) -> ReserveTurn<'_> {
        // It guards no data: what there is stands in the atomics.
        let only = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        ReserveTurn { reserve: self, _only: only }
    }

    fn set(&self, bytes: u64, spent: bool) {
        self.bytes.store(bytes, Ordering::Release);
        self.spent.store(spent, Ordering::Release);
    }

    fn fill(&self, held: u64, bytes: u64) -> Result<()> {
        let io = |op, e| Error::io(op, &self.path, e);
        let file = if held == 0 {
            // One of an unknown size may be there.
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
        // Not zeros: those may take no space.
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
    /// Sets aside so much in all.
    ///
    /// # Errors
    /// If there is no room. What was set aside before stays.
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

    /// Keeps so much of it, which is less than there is.
    ///
    /// # Errors
    /// If the file cannot be cut. What was set aside before stays.
    pub fn cut_to(&self, bytes: u64) -> Result<()> {
        let reserve = self.reserve;
        let cut = reserve.vfs.open_rw(&reserve.path).and_then(|file| file.set_len(bytes));
        cut.map_err(|e| Error::io("cut", &reserve.path, e))?;
        reserve.bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    /// Lets go of it; returns what that gave, in bytes.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn release(&self) -> Result<u64> {
        let reserve = self.reserve;
        let bytes = reserve.bytes();
        if bytes == 0 {
            return Ok(0);
        }
        let given = match reserve.vfs.remove(&reserve.path) {
            Ok(()) => bytes,
            // Somebody else took it away.
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            Err(e) => return Err(Error::io("remove", &reserve.path, e)),
        };
        reserve.set(0, true);
        Ok(given)
    }

    /// None is wanted any more.
    ///
    /// # Errors
    /// If the file cannot be removed.
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
