//! Divided work of one caller runs on several threads.

use super::{ThreadRuntime, cores};
use sluicedb_kernel::sync::lock;
use sluicedb_storage::give_way;
use sluicedb_storage::side_by_side::{Piece, SideBySide};
use std::sync::Mutex;
use std::thread;

impl SideBySide for ThreadRuntime {
    /// On the caller's thread, and on one more for each further core. These threads end with the
    /// pieces. Where none can be started, there are fewer.
    fn run(&self, pieces: Vec<Piece<'_>>) {
        let any = || thread::available_parallelism().map_or(1, usize::from);
        let cores = if self.cores.is_empty() { any() } else { self.cores.len() };
        let helpers = cores.min(pieces.len()).saturating_sub(1);
        let pieces = Mutex::new(pieces.into_iter());
        let next = || lock(&pieces).next();
        let work = || {
            while let Some(piece) = next() {
                piece();
            }
        };
        let help = || {
            cores::stay_on(&self.cores);
            give_way::from_now_on();
            work();
        };
        thread::scope(|scope| {
            for _ in 0..helpers {
                let helper = thread::Builder::new().name("sluice-helper".to_owned());
                if let Err(error) = helper.spawn_scoped(scope, help) {
                    tracing::debug!(%error, "divided work gets fewer threads");
                    break;
                }
            }
            work();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Planted: a piece is taken twice; a panic of a helper stays with it.
    #[test]
    fn every_piece_runs_once_and_a_panic_reaches_the_caller() {
        let runtime = ThreadRuntime::new(&[]);
        for count in [0, 1, 2, 100] {
            let mut done = vec![0; count];
            let pieces = done.iter_mut().map(|done| -> Piece<'_> { Box::new(move || *done += 1) });
            runtime.run(pieces.collect());
            assert_eq!(done, vec![1; count]);
        }
        for bad in 0..4 {
            let pieces = (0..4).map(|at| -> Piece<'_> { Box::new(move || assert_ne!(at, bad)) });
            let pieces = pieces.collect();
            assert!(catch_unwind(AssertUnwindSafe(|| runtime.run(pieces))).is_err());
        }
    }
}
