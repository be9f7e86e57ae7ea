//! A progress bar with rate and time left on stderr. Silent when stderr is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sluicedb::ProgressWatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the bar is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// A bar that watches a counter, so that the code that counts knows nothing of bars.
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

    /// Bytes out of a total that may grow. It is 0 while it is unknown.
    fn growing_bytes(total: &Arc<AtomicU64>, done: &Arc<AtomicU64>) -> Self {
        let style = "{wide_bar} {bytes} of {total_bytes} ({percent}%), {elapsed}";
        let (total, done) = (Arc::clone(total), Arc::clone(done));
        Self::watch(Some(0), style, move |bar| {
            bar.set_length(total.load(Ordering::Relaxed));
            bar.set_position(done.load(Ordering::Relaxed));
        })
    }

    /// Things out of `total`, if it is known.
    pub fn items(total: Option<u64>, done: &Arc<AtomicU64>) -> Self {
        let style = match total {
            Some(_) => "{wide_bar} {human_pos} of {human_len}, {per_sec}, {eta} left",
            None => "{spinner} {human_pos}, {per_sec}, {elapsed}",
        };
        Self::start(total, style, done)
    }

    /// Runs the work, and shows the progress that it tells.
    pub async fn follow<F: IntoFuture>(mut watch: ProgressWatch, work: F) -> F::Output {
        let (done, total) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let _bar = Self::growing_bytes(&total, &done);
        let shows = async {
            while let Some(progress) = watch.changed().await {
                total.store(progress.total_bytes, Ordering::Relaxed);
                done.store(progress.done_bytes, Ordering::Relaxed);
            }
        };
        let (ended, ()) = tokio::join!(work.into_future(), shows);
        ended
    }

    fn start(total: Option<u64>, style: &str, done: &Arc<AtomicU64>) -> Self {
        let done = Arc::clone(done);
        Self::watch(total, style, move |bar| bar.set_position(done.load(Ordering::Relaxed)))
    }

    fn watch(
        total: Option<u64>,
        style: &str,
        look: impl Fn(&ProgressBar) + Send + 'static,
    ) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(style).expect("the templates above are valid"));
        if bar.is_hidden() {
            return Self { bar, watcher: None };
        }
        let watched = bar.clone();
        let watcher = std::thread::spawn(move || {
            while !watched.is_finished() {
                look(&watched);
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
            // It only draws. A panic in it is not worth a second one.
            let _ = watcher.join();
        }
    }
}
