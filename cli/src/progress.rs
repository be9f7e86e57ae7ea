//! A progress bar with rate and time left on stderr. Silent when stderr is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the bar is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// A bar that watches a counter, so that whoever counts does not know about bars.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    watcher: Option<std::thread::JoinHandle<()>>,
}

impl Progress {
    /// Bytes out of `total`, if it is known.
    pub fn bytes(total: Option<u64>, done: &Arc<AtomicU64>) -> Self {
        let style = match total {
            Some(_) => {
                "{wide_bar} {bytes} of {total_bytes} ({percent}%), {bytes_per_sec}, {eta} left"
            }
            None => "{spinner} {bytes}, {bytes_per_sec}, {elapsed}",
        };
        Self::start(total, style, done)
    }

    /// Things out of `total`, if it is known.
    pub fn items(total: Option<u64>, done: &Arc<AtomicU64>) -> Self {
        let style = match total {
            Some(_) => "{wide_bar} {human_pos} of {human_len}, {per_sec}, {eta} left",
            None => "{spinner} {human_pos}, {per_sec}, {elapsed}",
        };
        Self::start(total, style, done)
    }

    fn start(total: Option<u64>, style: &str, done: &Arc<AtomicU64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(style).expect("the templates above are valid"));
        if bar.is_hidden() {
            return Self { bar, watcher: None };
        }
        let (watched, done) = (bar.clone(), Arc::clone(done));
        let watcher = std::thread::spawn(move || {
            while !watched.is_finished() {
                watched.set_position(done.load(Ordering::Relaxed));
                watched.tick();
                std::thread::park_timeout(TICK);
            }
        });
        Self { bar, watcher: Some(watcher) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if let Some(watcher) = self.watcher.take() {
            watcher.thread().unpark();
            // It draws; a panic in it is not worth a second one.
            let _ = watcher.join();
        }
    }
}
