//! Runs the binary in a directory of its own.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// What one run of the binary gave.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    /// Exit code 0, or the whole story.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.text(), self.err);
        self
    }

    /// This exit code and a message that contains `message`; nothing on stdout.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, message: &str) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.text(), self.err);
        assert!(self.err.contains(message), "no {message:?} in: {}", self.err);
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A directory with a database path in it.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and returns its path as text.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// `sluice <command> <db> <rest>` on the database `db`.
    pub(crate) fn sluice(&self, command: &str, rest: &[&str]) -> Ran {
        self.on("db", command, rest)
    }

    /// The same on another database.
    pub(crate) fn on(&self, db: &str, command: &str, rest: &[&str]) -> Ran {
        let db = self.path(db).display().to_string();
        sluice(&[&[command, &db], rest].concat(), b"")
    }

    /// With something on stdin.
    pub(crate) fn fed(&self, command: &str, rest: &[&str], stdin: &[u8]) -> Ran {
        let db = self.path("db").display().to_string();
        sluice(&[&[command, &db], rest].concat(), stdin)
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path("db")
    }

    /// All entries of a database as JSON lines: what two databases must agree on.
    pub(crate) fn dump(&self, db: &str) -> String {
        self.on(db, "scan", &["--json"]).ok().text()
    }
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).env_remove("NO_COLOR");
    command
}

pub(crate) fn sluice(args: &[&str], stdin: &[u8]) -> Ran {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = stdin.to_vec();
    // A command that does not read stdin closes it: not a failure of the test.
    let feeder = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let err = String::from_utf8(stderr).unwrap();
    Ran { code: status.code().expect("ended by itself"), out: stdout, err }
}

/// The files below `root`, with their contents.
pub(crate) fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let content = std::fs::read(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), content));
            }
        }
    }
    found.sort();
    found
}
