//! Where and of what it was measured.

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub disk: String,
    pub kernel: String,
    pub date: String,
    pub commit: String,
}

/// What a command prints; nothing where there is no such command.
fn said(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// The value of a line of a file of `/proc`.
fn line(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap_or_default().trim_matches([' ', '\t', ':']).to_owned()
}

impl Machine {
    /// This one, with databases in `dir`.
    pub fn here(dir: &Path) -> Self {
        let memory = line("/proc/meminfo", "MemTotal");
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        let disk = said("df", &["--output=source,fstype", &dir.to_string_lossy()]);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        Self {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory_gib: (kib + (1 << 19)) >> 20,
            disk: disk
                .lines()
                .nth(1)
                .unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            kernel: kernel.unwrap_or_default().trim().to_owned(),
            date: said("date", &["-u", "+%F"]),
            commit: said("git", &["rev-parse", "--short=10", "HEAD"]),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, memory_gib, disk, kernel, date, commit } = self;
        write!(
            f,
            "{processor}, {cores} cores, {memory_gib} GiB; {disk}; Linux {kernel}; {date}, commit \
             {commit}"
        )
    }
}
