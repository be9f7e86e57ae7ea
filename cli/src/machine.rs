//! The machine that a measurement was made on. Everything here is best effort and only printed.

use serde_json::{Value, json};
use std::path::Path;

/// The machine, as far as `/proc` tells.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Model name of the first processor.
    pub cpu: String,
    /// Processors this process may use.
    pub cores: usize,
    /// Memory in bytes; 0 when unknown.
    pub memory: u64,
    /// Kernel and architecture.
    pub system: String,
    /// File system under the database.
    pub file_system: String,
}

impl Machine {
    /// Inspects the machine. `dir` is the directory of the database.
    pub fn look(dir: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into());
        let memory = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
            .map_or(0, |kib| kib << 10);
        let kernel = read("/proc/sys/kernel/osrelease");
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let system =
            format!("{} {} {}", std::env::consts::OS, kernel.trim(), std::env::consts::ARCH);
        let file_system = file_system(&read("/proc/self/mounts"), dir);
        Self { cpu, cores, memory, system, file_system }
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cores": self.cores, "memory_bytes": self.memory,
            "system": self.system, "file_system": self.file_system,
        })
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let Self { cpu, cores, memory, system, file_system } = self;
        let memory = crate::units::bytes(*memory);
        format!("{cpu}, {cores} cores, {memory} of memory, {system}, {file_system}")
    }
}

/// The type of the mount that `dir` is on: the one with the longest matching mount point.
fn file_system(mounts: &str, dir: &Path) -> String {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(point, _)| dir.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map_or_else(|| "unknown file system".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts = "a / ext4 rw\nb /nonexistent/x xfs rw\nc /nonexistent/x/y tmpfs rw\n";
        assert_eq!(file_system(mounts, Path::new("/nonexistent/x/z")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/nonexistent/x/y/db")), "tmpfs");
        assert_eq!(file_system(mounts, Path::new("/nonexistent/xx")), "ext4");
        assert_eq!(file_system("", Path::new("/")), "unknown file system");
    }
}
