//! Random histories, each under options of its own.

use crate::case::{self, Setup};
use crate::kit::chance::{Chance, replayed, seeds};
use crate::operation;
use crate::shrink;
use crate::tally::Tally;

fn run_all(test: &str, first_seed: u64, cases: usize, operations: usize) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds(first_seed, cases) {
        let mut chance = Chance::new(seed);
        let setup = Setup::drawn(seed, &mut chance);
        let history = operation::history(&mut chance, operations, false);
        match std::panic::catch_unwind(|| case::run(&setup, &history)) {
            Ok(Ok((seen, _))) => tally.merge(&seen),
            Ok(Err(what)) => shrink::report(test, &setup, &history, what),
            Err(_) => shrink::report(test, &setup, &history, "panicked".to_owned()),
        }
    }
    tally
}

#[test]
fn every_answer_is_the_models() {
    let mut tally = run_all("every_answer_is_the_models", 0, 500, 250);
    tally.merge(&run_all("every_answer_is_the_models", 100_000, 80, 1200));
    eprintln!("{tally:?}");
    if replayed().is_none() {
        tally.demand_all();
    }
}
