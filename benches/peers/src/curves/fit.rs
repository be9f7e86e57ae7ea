//! A line through costs: `a + b x log2(size)`, by least squares. What a search tree or levels of
//! runs cost grows like that; what does not lie on the line has another cause.

/// Sizes count in megabytes, so `a` is the cost at 1 MB.
pub const UNIT_BYTES: f64 = 1e6;

/// The line, and how far the points are from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    pub a: f64,
    /// What each doubling adds.
    pub b: f64,
    /// The square root of the mean of the squares of the residuals.
    pub residual: f64,
    /// The point that is the furthest from the line, and how far it is above it.
    pub furthest: Residual,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    pub bytes: f64,
    pub above: f64,
    /// As a share of what the line says.
    pub share: f64,
}

impl Fit {
    /// Through pairs of bytes and costs. `None` for less than three different sizes: a line goes
    /// through any two points.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let points: Vec<_> =
            points.iter().map(|(bytes, cost)| (doublings(*bytes), *cost)).collect();
        let mut sizes: Vec<_> = points.iter().map(|(x, _)| *x).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        if sizes.len() < 3 {
            return None;
        }
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x_mean, y_mean) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
        let products = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>();
        let squares = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum::<f64>();
        let b = products / squares;
        let a = y_mean - b * x_mean;
        let line = |x: f64| a + b * x;
        let residual = points.iter().map(|(x, y)| (y - line(*x)).powi(2)).sum::<f64>() / count;
        let above = |(x, y): &(f64, f64)| (y - line(*x)).abs();
        let (x, y) = points.iter().copied().max_by(|p, q| above(p).total_cmp(&above(q)))?;
        let furthest = Residual {
            bytes: x.exp2() * UNIT_BYTES,
            above: y - line(x),
            share: (y - line(x)) / line(x),
        };
        Some(Self { a, b, residual: residual.sqrt(), furthest })
    }

    pub fn at(&self, bytes: f64) -> f64 {
        self.a + self.b * doublings(bytes)
    }
}

/// How often 1 MB has to be doubled for it.
fn doublings(bytes: f64) -> f64 {
    (bytes / UNIT_BYTES).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn a_line_is_found_and_leaves_nothing() {
        let points =
            [MB, 2.0 * MB, 16.0 * MB].map(|bytes| (bytes, 7.0 + 3.0 * (bytes / MB).log2()));
        let fit = Fit::through(&points).expect("three sizes");
        assert!(near(fit.a, 7.0) && near(fit.b, 3.0) && near(fit.residual, 0.0), "{fit:?}");
        assert!(near(fit.at(4.0 * MB), 13.0), "{fit:?}");
    }

    #[test]
    fn what_is_beside_the_line_is_the_residual() {
        // The line is level at 1, as by symmetry.
        let points = [(MB, 0.0), (2.0 * MB, 3.0), (4.0 * MB, 0.0)];
        let fit = Fit::through(&points).expect("three sizes");
        assert!(
            near(fit.a, 1.0) && near(fit.b, 0.0) && near(fit.residual, 2_f64.sqrt()),
            "{fit:?}"
        );
        let Residual { bytes, above, share } = fit.furthest;
        assert!(near(bytes, 2.0 * MB) && near(above, 2.0) && near(share, 2.0), "{fit:?}");
    }

    #[test]
    fn two_sizes_are_no_line() {
        assert_eq!(Fit::through(&[(MB, 1.0), (2.0 * MB, 2.0), (2.0 * MB, 3.0)]), None);
        assert_eq!(Fit::through(&[]), None);
    }
}
