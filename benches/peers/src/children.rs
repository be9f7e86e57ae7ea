//! Processes that measure, and tell their parent a line of JSON for each figure.

use crate::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A child that is stopped when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself, or that is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hands it to the parent.
///
/// # Errors
/// It has no form in JSON.
#[allow(clippy::print_stdout, reason = "that is how it is handed over")]
pub fn tell(figures: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(())
}

/// Runs a child, and adds what it tells to `told`. One that takes longer than `limit` is stopped;
/// what it has told until then counts.
///
/// # Errors
/// It does not start, fails, takes too long, or tells something else.
pub fn listen<T: DeserializeOwned + Send + 'static>(
    command: &mut Command,
    limit: Duration,
    told: &mut Vec<T>,
) -> Result<()> {
    let mut child = Running(command.stdout(Stdio::piped()).spawn()?);
    let lines = BufReader::new(child.0.stdout.take().ok_or("its output is not piped")?).lines();
    let reader = std::thread::spawn(move || {
        lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<Result<Vec<T>>>()
    });
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if begun.elapsed() > limit {
            drop(child);
            told.extend(reader.join().map_err(|_| "the reader died")??);
            return Err("it took too long".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    told.extend(reader.join().map_err(|_| "the reader died")??);
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}
