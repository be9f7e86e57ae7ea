//! Reproducible randomness: the same seed gives the same numbers in every release.

/// splitmix64's finisher: a bijection that makes neighbouring numbers look unrelated.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The number below `n`, which is not 0, that these random bits stand for. The bias of at most
/// `n / 2^64` does not matter here.
pub fn scale(bits: u64, n: u64) -> u64 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}

/// A generator; cheap, seedable, not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x9e37_79b9_7f4a_7c15))
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        scale(self.next(), n)
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Zipf-distributed ranks, as YCSB draws them (Gray et al., SIGMOD 1994): rank 0 is the hottest.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// Over `n` ranks with skew `theta` in (0, 1). Takes time proportional to `n`.
    pub fn new(n: u64, theta: f64) -> Self {
        let zeta: f64 = (1..=n).map(|i| (i as f64).powf(-theta)).sum();
        let two = 1.0 + 0.5_f64.powf(theta);
        let n = n as f64;
        let eta = (1.0 - (2.0 / n).powf(1.0 - theta)) / (1.0 - two / zeta);
        Self { n, theta, alpha: 1.0 / (1.0 - theta), zeta, eta }
    }

    /// The rank below `n` that these random bits stand for.
    pub fn rank(&self, bits: u64) -> u64 {
        let u = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let rank = self.n * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.n as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_stays_below_and_reaches_everything() {
        let mut random = Random::new(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[random.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10], "seed 1");
    }

    #[test]
    fn o10_zipf_over_one_rank_or_two_stays_in_range() {
        let mut random = Random::new(3);
        for n in 1..=3 {
            let zipf = Zipf::new(n, 0.99);
            assert!((0..10_000).all(|_| zipf.rank(random.next()) < n), "seed 3, {n} ranks");
        }
    }

    #[test]
    fn zipf_is_skewed_and_in_range() {
        let zipf = Zipf::new(1000, 0.99);
        let mut random = Random::new(2);
        let mut hits = vec![0_u32; 1000];
        for _ in 0..100_000 {
            hits[zipf.rank(random.next()) as usize] += 1;
        }
        assert!(hits[0] > 10_000 && hits[0] > 8 * hits[20], "seed 2: {:?}", &hits[..21]);
        assert!(hits[900..].iter().sum::<u32>() > 0, "seed 2");
    }
}
