//! How many terms of each level a gradient is taken over.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::{Batches, BilevelError, Count, Level, Problem, Sample, Stream};

/// Terms per gradient of each level; all of them where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LevelBatches {
    /// Of f.
    pub upper: Option<Count>,
    /// Of g.
    pub lower: Option<Count>,
}

impl LevelBatches {
    /// As many of both.
    pub fn both(count: Count) -> Self {
        Self { upper: Some(count), lower: Some(count) }
    }

    /// Refuses a batch that begins with none, or with more than there are. One that grows stops growing at all of them.
    pub(crate) fn check<P: Problem>(&self, problem: &P) -> Result<(), BilevelError> {
        let check = |name, count: Option<Count>, level| {
            count.map_or(Ok(()), |count| count.check(name, problem.terms(level)))
        };
        check("the batch of the upper level", self.upper, Level::Upper)?;
        check("the batch of the lower level", self.lower, Level::Lower)
    }

    /// The sample of one stream at an outer and an inner step.
    pub(crate) fn draw<P: Problem>(
        &self,
        stream: Stream,
        problem: &P,
        seed: u64,
        [outer, inner]: [u64; 2],
        sigma: f64,
    ) -> Sample {
        let (count, level) = match stream {
            Stream::InnerUpper | Stream::OuterUpper => (self.upper, Level::Upper),
            Stream::InnerLower | Stream::InnerLowerApart | Stream::OuterLower | Stream::OuterLowerApart => {
                (self.lower, Level::Lower)
            }
        };
        let terms = problem.terms(level);
        let size = count.and_then(|count| NonZeroUsize::new(count.at(outer, sigma).min(terms)));
        Batches::new(seed, size).draw(stream, outer, inner, terms)
    }
}
