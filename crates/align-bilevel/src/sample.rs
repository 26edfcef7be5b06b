//! Which terms of a finite sum a gradient is taken over, drawn by counter.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use align_core::draws::{Draws, Purpose};
use rand::RngExt;

/// The terms a value or gradient is averaged over, and a number by which noise of its own can be drawn again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Indices of the terms; `None` for all of them.
    pub rows: Option<Vec<usize>>,
    /// Names the sample: a problem with noise draws the same noise for the same id, wherever it is evaluated.
    pub id: u64,
}

impl Sample {
    /// All terms.
    pub fn full() -> Self {
        Self { rows: None, id: 0 }
    }

    /// Given terms.
    pub fn of(rows: Vec<usize>) -> Self {
        Self { rows: Some(rows), id: 0 }
    }
}

/// Draws samples, each by what it is for: nothing is advanced, and a resumed run draws what it would have drawn.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    draws: Draws,
    size: Option<NonZeroUsize>,
}

/// Streams of samples that never share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Of the upper level in an inner step.
    InnerUpper,
    /// Of the lower level in an inner step.
    InnerLower,
    /// Of the upper level in an outer step.
    OuterUpper,
    /// Of the lower level in an outer step.
    OuterLower,
    /// A second, independent one of the lower level in an outer step: to see what sharing is worth.
    OuterLowerApart,
    /// The same in an inner step.
    InnerLowerApart,
}

impl Batches {
    /// Samples of `size` terms, distinct within a sample; all terms if it is `None`.
    pub fn new(seed: u64, size: Option<NonZeroUsize>) -> Self {
        Self { draws: Draws::new(seed), size }
    }

    /// The sample of one stream at one outer and one inner step, out of `terms`.
    ///
    /// # Panics
    /// If a sample is larger than the sum: solvers check that before they begin.
    pub fn draw(&self, stream: Stream, outer: u64, inner: u64, terms: usize) -> Sample {
        let mut generator = self.draws.child(stream as u64).child(outer).generator(Purpose::Minibatch, inner);
        let id = generator.random();
        let rows = self.size.map(|size| distinct(size.get(), terms, &mut generator));
        Sample { rows, id }
    }
}

/// `count` different numbers below `terms`, in ascending order, each set as likely as any other (Floyd's algorithm).
///
/// # Source
/// Bentley and Floyd 1987, "A sample of brilliance", <https://doi.org/10.1145/30401.315746>.
fn distinct(count: usize, terms: usize, generator: &mut impl rand::Rng) -> Vec<usize> {
    assert!(count <= terms, "a sample of {count} out of {terms} terms");
    let mut chosen = BTreeSet::new();
    for last in terms - count..terms {
        let drawn = generator.random_range(0..=last);
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_function_of_its_address() {
        let batches = Batches::new(3, NonZeroUsize::new(4));
        let first = batches.draw(Stream::InnerLower, 7, 2, 100);
        assert_eq!(first, batches.draw(Stream::InnerLower, 7, 2, 100));
        for other in [
            batches.draw(Stream::InnerUpper, 7, 2, 100),
            batches.draw(Stream::InnerLower, 2, 7, 100),
            Batches::new(4, NonZeroUsize::new(4)).draw(Stream::InnerLower, 7, 2, 100),
        ] {
            assert_ne!(first, other);
        }
        assert_eq!(Batches::new(3, None).draw(Stream::InnerLower, 0, 0, 9).rows, None);
    }

    #[test]
    fn terms_are_distinct_and_equally_likely() {
        let batches = Batches::new(0, NonZeroUsize::new(3));
        let mut counts = [0u32; 5];
        for outer in 0..20_000 {
            let rows = batches.draw(Stream::OuterUpper, outer, 0, 5).rows.unwrap();
            assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
            rows.into_iter().for_each(|row| counts[row] += 1);
        }
        // Each term is in 3/5 of the samples; five standard errors of a frequency over 20 000 samples are 0.0173.
        assert!(counts.iter().all(|&count| (f64::from(count) / 20_000.0 - 0.6).abs() < 0.0173), "{counts:?}");
    }
}
