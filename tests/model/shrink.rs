//! Shortens a failing history: it leaves parts out as long as the case still fails.

use crate::case::{self, Setup};
use crate::operation::Operation;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The limit of runs for that.
const ATTEMPTS: usize = 400;

/// The failure of a case, a panic included; `None` if it passes.
pub fn failure(setup: &Setup, history: &[Operation]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| case::run(setup, history))) {
        Ok(Ok(_)) => None,
        Ok(Err(what)) => Some(what),
        Err(panic) => Some(
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic without a text".to_owned()),
        ),
    }
}

/// A shorter history that still fails, and how.
pub fn shrink(setup: &Setup, history: &[Operation], what: String) -> (Vec<Operation>, String) {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut best = (history.to_vec(), what);
    let mut attempts = 0;
    let mut part = best.0.len().div_ceil(2);
    while part > 0 && attempts < ATTEMPTS {
        let mut at = 0;
        let mut progress = false;
        while at < best.0.len() && attempts < ATTEMPTS {
            let mut shorter = best.0.clone();
            shorter.drain(at..(at + part).min(shorter.len()));
            attempts += 1;
            // With real threads a failure may need luck: give each candidate a second chance.
            let tries = if setup.threads { 3 } else { 1 };
            match (0..tries).find_map(|_| failure(setup, &shorter)) {
                Some(what) => {
                    best = (shorter, what);
                    progress = true;
                }
                None => at += part,
            }
        }
        if !progress || part > 1 {
            part /= 2;
        }
    }
    std::panic::set_hook(quiet);
    best
}

/// Panics with the shortest history found.
pub fn report(test: &str, setup: &Setup, history: &[Operation], what: String) -> ! {
    eprintln!("seed {}: {what}\nshrinking {} operations ...", setup.seed, history.len());
    let (shorter, what) = shrink(setup, history, what);
    eprintln!("setup: {setup:#?}");
    for (index, operation) in shorter.iter().enumerate() {
        eprintln!("  {index}: {operation:?}");
    }
    panic!("{what}\nto replay: SLUICE_SEED={} cargo test --test model {test}", setup.seed);
}
