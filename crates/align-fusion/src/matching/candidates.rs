//! The weights that are tried.

/// Weights from `lower` to `upper` in equal steps, both ends among them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidates {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) step: f64,
    pub(crate) count: usize,
}

impl Candidates {
    /// Steps no longer than `step`. Where it does not divide the range they are a little shorter, so that the upper end is tried.
    pub(crate) fn new(lower: f64, upper: f64, step: f64) -> Self {
        let steps = Self::steps(lower, upper, step);
        let step = if steps == 0.0 { 0.0 } else { (upper - lower) / steps };
        Self { lower, upper, step, count: steps as usize + 1 }
    }

    /// How many steps that takes, as a number that cannot overflow.
    pub(crate) fn steps(lower: f64, upper: f64, step: f64) -> f64 {
        // A quotient such as 2/0.1 may come out a rounding above 20.
        ((upper - lower) / step - 1e-9).ceil().max(0.0)
    }

    /// The weight of an index.
    pub(crate) fn at(&self, index: usize) -> f64 {
        if index + 1 == self.count { self.upper } else { self.lower + self.step * index as f64 }
    }

    /// Whether a weight is an end of the range beyond which one could go: 0 is not, negative weights are never meant.
    pub(crate) fn is_end(&self, alpha: f64) -> bool {
        alpha == self.upper || (alpha == self.lower && alpha > 0.0)
    }

    /// Whether a loss of this slope at an end goes on falling beyond it.
    pub(crate) fn falls_outwards(&self, alpha: f64, slope: f64) -> bool {
        (alpha == self.upper && slope < 0.0) || (alpha == self.lower && alpha > 0.0 && slope > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Candidates;

    #[test]
    fn the_published_range_has_21_candidates_with_both_ends() {
        let candidates = Candidates::new(0.0, 2.0, 0.1);
        assert_eq!((candidates.count, candidates.at(0), candidates.at(20)), (21, 0.0, 2.0));
        assert_eq!(candidates.at(10), 1.0);
    }

    #[test]
    fn a_step_that_does_not_divide_the_range_is_shortened() {
        let candidates = Candidates::new(0.5, 1.2, 0.3);
        assert_eq!((candidates.count, candidates.at(3)), (4, 1.2));
        assert!((candidates.step - 0.7 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn a_range_of_one_weight_has_one_candidate() {
        let candidates = Candidates::new(1.0, 1.0, 0.1);
        assert_eq!((candidates.count, candidates.at(0), candidates.step), (1, 1.0, 0.0));
    }
}
