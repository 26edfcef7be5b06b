//! Named numbers of one step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names and values, ordered by name; names follow TRL (`objective/kl`, `policy/clipfrac_avg`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// No metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more value, for building in a chain.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: f64) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a value; an older one of that name is replaced.
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        self.0.insert(name.into(), value);
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Takes over all values of `other`; those of equal name are replaced.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Every name behind `prefix`: `loss` becomes `eval/loss`.
    #[must_use]
    pub fn prefixed(self, prefix: &str) -> Self {
        Self(self.0.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect())
    }

    /// The weighted mean of every name over the parts that have it: `Σ wᵢ xᵢ / Σ wᵢ`.
    ///
    /// Parts of weight 0 (microbatches in which nothing counts) do not enter.
    pub fn mean(parts: &[(f64, Self)]) -> Self {
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (weight, part) in parts.iter().filter(|(weight, _)| *weight > 0.0) {
            for (name, value) in &part.0 {
                let sum = sums.entry(name).or_default();
                sum.0 += weight * value;
                sum.1 += weight;
            }
        }
        Self(sums.into_iter().map(|(name, (sum, weight))| (name.to_owned(), sum / weight)).collect())
    }

    /// Names and values in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<N: Into<String>> FromIterator<(N, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(values: I) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}
