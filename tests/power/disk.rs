//! A private file system in a file, and how its power is cut.
//!
//! Everything is mounted in this process's mount namespace, on loop devices that clear themselves.
//! So nothing is left behind but the file itself, not even after SIGKILL.

use crate::kit::chance::Chance;
use rustix::fs::Advice;
use rustix::ioctl;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Command;

const IMAGE_BYTES: u64 = 768 << 20;
const PAGE_BYTES: u64 = 4096;
/// How often the test looks whether a loop device is gone. Each look takes about a millisecond.
const LOOKS_MAX: usize = 30_000;

/// `EXT4_IOC_SHUTDOWN` (the same number as on XFS).
const SHUTDOWN: ioctl::Opcode = ioctl::opcode::read::<u32>(b'X', 125);

/// The fate of the file system's own journal at the cut.
#[derive(Clone, Copy, Debug)]
pub enum Journal {
    /// The part in memory is lost as well.
    Dropped = 2,
    /// It is written first, without the data that it does not cover.
    Flushed = 1,
}

/// An ext4 in a file.
pub struct Disk {
    image: PathBuf,
    root: PathBuf,
    mounted: bool,
}

impl Disk {
    /// A new file system in `home`, not mounted.
    pub fn make(home: &Path) -> io::Result<Self> {
        let disk = Self { image: home.join("image"), root: home.join("root"), mounted: false };
        fs::create_dir_all(&disk.root)?;
        File::create(&disk.image)?.set_len(IMAGE_BYTES)?;
        command("mkfs.ext4", |c| {
            c.args(["-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"])
                .arg(&disk.image)
        })?;
        Ok(disk)
    }

    /// A copy of `image` in `home`, not mounted.
    pub fn copy_of(image: &Path, home: &Path) -> io::Result<Self> {
        let disk = Self { image: home.join("image"), root: home.join("root"), mounted: false };
        fs::create_dir_all(&disk.root)?;
        copy(image, &disk.image)?;
        Ok(disk)
    }

    /// The directory of the database.
    pub fn dir(&self) -> PathBuf {
        self.root.join("db")
    }

    /// Mounts it; the kernel replays its journal.
    pub fn mount(&mut self) -> io::Result<()> {
        command("mount", |c| {
            c.args(["-t", "ext4", "-o", "loop,nodiscard"]).arg(&self.image).arg(&self.root)
        })?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it; no file of it may be open. After the return nothing is written to the image any
    /// more: on a busy machine the loop device disappears later than the mount, and its cache would
    /// be written into the next mount.
    pub fn unmount(&mut self) -> io::Result<()> {
        command("umount", |c| c.arg(&self.root))?;
        self.mounted = false;
        for _ in 0..LOOKS_MAX {
            let devices = output("losetup", |c| c.arg("--associated").arg(&self.image))?;
            if devices.trim_ascii().is_empty() {
                return Ok(());
            }
        }
        Err(io::Error::other("its loop device does not let go of the image"))
    }

    /// Keeps the image as it is now, unmounted.
    pub fn keep_as(&self, image: &Path) -> io::Result<()> {
        copy(&self.image, image)
    }

    /// Makes the kernel write back a few random stretches of random log files, as it does by itself
    /// when memory is short or pages are old.
    pub fn write_back_some(&self, chance: &mut Chance) -> io::Result<()> {
        for entry in fs::read_dir(self.dir())? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "wal") || chance.one_in(3) {
                continue;
            }
            // The file may be removed or renamed at this moment.
            let Ok(file) = File::open(&path) else { continue };
            let pages = (file.metadata()?.len() / PAGE_BYTES).max(1) as usize;
            for _ in 0..chance.between(1, 3) {
                let first = chance.below(pages) as u64;
                let count = chance.between(1, 4) as u64;
                let len = NonZeroU64::new(count * PAGE_BYTES);
                // The kernel writes dirty pages back before it drops them.
                rustix::fs::fadvise(&file, first * PAGE_BYTES, len, Advice::DontNeed)?;
            }
        }
        Ok(())
    }

    /// Cuts the power: from now on nothing reaches the image.
    pub fn cut(&self, journal: Journal) -> io::Result<()> {
        let root = File::open(&self.root)?;
        // SAFETY: the call with this number reads one `u32` through its pointer.
        let how = unsafe { ioctl::Setter::<SHUTDOWN, u32>::new(journal as u32) };
        // SAFETY: as above; on any other file system the number is refused.
        unsafe { ioctl::ioctl(&root, how) }?;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let _ = command("umount", |c| c.arg("--lazy").arg(&self.root));
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    command("cp", |c| c.arg("--sparse=always").arg(from).arg(to))
}

/// Runs a command to its end. Its error output becomes the error.
pub fn command(name: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> io::Result<()> {
    output(name, with).map(drop)
}

/// As `command`; returns its output.
fn output(name: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> io::Result<Vec<u8>> {
    let mut command = Command::new(name);
    let output = with(&mut command).output();
    let output = output.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(io::Error::other(format!("{name}: {text} ({})", output.status)))
}
