//! Minibatches of both levels.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::{Batches, BilevelError, Level, Problem, Sample, Stream};

/// How many terms a stochastic method takes gradients over, and from which seed they are drawn.
///
/// Draws are addressed by the outer and inner step: nothing of them is part of a solver's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Of all draws.
    pub seed: u64,
    /// Terms of a sample of f; all of them by default.
    pub upper: Option<NonZeroUsize>,
    /// Terms of a sample of g; all of them by default.
    pub lower: Option<NonZeroUsize>,
}

impl Sampling {
    /// The samples of one outer step.
    ///
    /// # Errors
    /// If a sample is larger than the sum.
    pub(super) fn of<P: Problem>(&self, problem: &P, outer: u64) -> Result<Sampler, BilevelError> {
        let side = |level, size: Option<NonZeroUsize>, name| {
            let (most, found) = (problem.terms(level), size.map_or(1, NonZeroUsize::get));
            match found <= most {
                true => Ok((Batches::new(self.seed, size), most)),
                false => Err(BilevelError::InvalidCount { name, least: 1, most, found }),
            }
        };
        Ok(Sampler {
            upper: side(Level::Upper, self.upper, "the upper batch")?,
            lower: side(Level::Lower, self.lower, "the lower batch")?,
            outer,
        })
    }
}

/// Samples of one outer step.
pub(super) struct Sampler {
    upper: (Batches, usize),
    lower: (Batches, usize),
    outer: u64,
}

impl Sampler {
    /// The outer step that this is of.
    pub(super) fn outer(&self) -> u64 {
        self.outer
    }

    /// The sample of a stream at an inner step.
    pub(super) fn draw(&self, stream: Stream, inner: u64) -> Sample {
        let (batches, terms) = match stream {
            Stream::InnerUpper | Stream::OuterUpper => self.upper,
            Stream::InnerLower | Stream::InnerLowerApart | Stream::OuterLower | Stream::OuterLowerApart => {
                self.lower
            }
        };
        batches.draw(stream, self.outer, inner, terms)
    }
}
