//! What a sampling test needs: means with their errors, frequencies, goodness of fit.

/// The mean of a sample and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The sample mean.
    pub value: f64,
    /// Its standard error, from the sample variance (n − 1).
    pub standard_error: f64,
}

impl Mean {
    /// Of at least two numbers.
    ///
    /// # Panics
    /// With fewer than two.
    pub fn of(sample: &[f64]) -> Self {
        assert!(sample.len() >= 2, "a standard error needs at least two numbers");
        let n = sample.len() as f64;
        let value = sample.iter().sum::<f64>() / n;
        let variance = sample.iter().map(|x| (x - value).powi(2)).sum::<f64>() / (n - 1.0);
        Self { value, standard_error: (variance / n).sqrt() }
    }

    /// Panics unless the mean lies within `errors` standard errors of what was expected. Five are exceeded by chance less
    /// than once in a million; with a fixed seed the test never flickers.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn assert_near(&self, expected: f64, errors: f64) {
        let distance = (self.value - expected).abs();
        assert!(
            distance <= errors * self.standard_error,
            "mean {} is {:.2} standard errors of {:e} away from {expected}, allowed {errors}",
            self.value,
            distance / self.standard_error,
            self.standard_error
        );
    }
}

/// How often each of `v` outcomes occurred.
///
/// # Panics
/// If an outcome is not below `v`.
pub fn counts(outcomes: impl IntoIterator<Item = usize>, v: usize) -> Vec<usize> {
    let mut counts = vec![0; v];
    for outcome in outcomes {
        counts[outcome] += 1;
    }
    counts
}

/// Panics unless every frequency lies within `errors` binomial standard errors of its probability; an outcome of
/// probability 0 must not occur.
///
/// # Panics
/// If the lengths differ or a frequency is too far off.
#[track_caller]
pub fn assert_frequencies(counts: &[usize], probabilities: &[f64], errors: f64) {
    assert_eq!(counts.len(), probabilities.len(), "one probability for each outcome");
    let n = counts.iter().sum::<usize>() as f64;
    for (outcome, (&count, &p)) in counts.iter().zip(probabilities).enumerate() {
        let (seen, standard_error) = (count as f64 / n, (p * (1.0 - p) / n).sqrt());
        assert!(
            (seen - p).abs() <= errors * standard_error,
            "outcome {outcome}: frequency {seen} of {n} draws, probability {p}, standard error {standard_error:e}"
        );
    }
}

/// Pearson's statistic `Σ (observed − expected)² / expected`; about `outcomes − 1 ± √(2 (outcomes − 1))` if the
/// probabilities are right.
///
/// # Panics
/// If the lengths differ.
pub fn pearson(counts: &[usize], probabilities: &[f64]) -> f64 {
    assert_eq!(counts.len(), probabilities.len(), "one probability for each outcome");
    let n = counts.iter().sum::<usize>() as f64;
    counts.iter().zip(probabilities).map(|(&count, p)| (count as f64 - n * p).powi(2) / (n * p)).sum()
}
