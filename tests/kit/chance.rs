//! Seeded decisions: the same on every machine. `SLUICE_SEED` replays one case, `SLUICE_CASES`
//! multiplies the number of cases for a longer run.

/// A small generator (splitmix64): good enough to choose operations, easy to replay.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn between(&mut self, min: usize, max: usize) -> usize {
        min + self.below(max - min + 1)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Bytes that compress about as well as text.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| b'a' + (self.next() % 7) as u8).collect()
    }
}

/// The one seed to replay, if there is one.
pub fn replayed() -> Option<u64> {
    let text = std::env::var("SLUICE_SEED").ok()?;
    let text = text.trim();
    let seed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(seed.expect("SLUICE_SEED is a number, decimal or 0x..."))
}

/// The factor by which the number of cases is multiplied.
pub fn cases_factor() -> usize {
    std::env::var("SLUICE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The seeds of a test: always the same ones, or the one to replay.
pub fn seeds(first: u64, cases: usize) -> Vec<u64> {
    match replayed() {
        Some(seed) => vec![seed],
        None => (0..(cases * cases_factor()) as u64).map(|case| first + case).collect(),
    }
}

/// Prints how to replay a case, if its thread panics while this value lives.
#[derive(Debug)]
pub struct Replay {
    pub binary: &'static str,
    pub test: &'static str,
    pub seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { binary, test, seed } = self;
            eprintln!("to replay: SLUICE_SEED={seed} cargo test --test {binary} {test}");
        }
    }
}
