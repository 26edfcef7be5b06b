//! The numbers of dynamic weights, checked where they are read.

use align_core::number::{NonNegative, Positive};
use serde::{Deserialize, Serialize};

use crate::matching::{Candidates, Objective, Search};
use crate::row_error::WeighingError;

/// The largest grid of one row.
const MOST_CANDIDATES: usize = 1_000_000;

/// Which experts act at one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Experts {
    /// Each is searched alone and the one with the least loss is applied, as published. It is chosen because the distance can
    /// be met along its shift, and not because it is right: see [`matching`](crate::matching).
    #[default]
    OneAtATime,
    /// Two experts with a weight each, over both grids; of equal losses the least sum of weights.
    Joint,
}

/// How far the fused model is to move where there are several experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// As far as the experts did on average: the same choice as by the sum of losses over experts, as published.
    #[default]
    Mean,
    /// Along each expert's shift as far as that expert did. An expert that hardly moved is easily matched; those below
    /// [`DynamicConfig::skip_below`] are left out.
    Own,
}

/// The range of one expert's weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The smallest weight.
    pub lower: NonNegative,
    /// The largest weight.
    pub upper: NonNegative,
}

/// The search for weights at each token.
///
/// # Examples
/// ```
/// use align_fusion::{Search, Weighing};
///
/// let weighing: Weighing = serde_json::from_str(r#"{ "kind": "dynamic", "search": "grid", "upper": 1.5 }"#)?;
/// let Weighing::Dynamic(config) = weighing else { unreachable!() };
/// assert_eq!((config.search, config.upper.get(), config.step.get()), (Search::Grid, 1.5, 0.1));
/// assert!(serde_json::from_str::<Weighing>(r#"{ "kind": "dynamic", "step": 0 }"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynamicConfig {
    /// The smallest weight. 0, as published; a negative one would invert the expert.
    pub lower: NonNegative,
    /// The largest weight. 2, as published; where the large base is very sure the weight ends here.
    pub upper: NonNegative,
    /// The longest step of the grid. 0.1, as published: 21 candidates, both ends among them.
    pub step: Positive,
    /// How the least loss is found. The grid and Newton's method: a few passes more than the grid, and up to half a step nearer.
    pub search: Search,
    /// Which distances are matched. Both, as published.
    pub objective: Objective,
    /// Which experts act at one token. One, as published.
    pub experts: Experts,
    /// How far to move where there are several. The mean, which is what is published.
    pub targets: Targets,
    /// Where a + b is below this the weight is 1 (or the end of the range next to it): the fused distribution hardly depends
    /// on it. 1e-6, about what f32 scores can tell from nothing.
    pub skip_below: NonNegative,
    /// A range for each expert, instead of `lower` and `upper`. None.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<Bounds>,
}

impl Default for DynamicConfig {
    fn default() -> Self {
        Self {
            lower: NonNegative::literal(0.0),
            upper: NonNegative::literal(2.0),
            step: Positive::literal(0.1),
            search: Search::default(),
            objective: Objective::default(),
            experts: Experts::default(),
            targets: Targets::default(),
            skip_below: NonNegative::literal(1e-6),
            bounds: Vec::new(),
        }
    }
}

impl DynamicConfig {
    pub(super) fn check(&self, experts: usize) -> Result<(), WeighingError> {
        if !self.bounds.is_empty() && self.bounds.len() != experts {
            return Err(WeighingError::Bounds { experts, bounds: self.bounds.len() });
        }
        for expert in 0..experts {
            let Bounds { lower, upper } = self.bounds(expert);
            if lower > upper {
                return Err(WeighingError::EmptyRange { expert, lower: lower.get(), upper: upper.get() });
            }
        }
        let joint = self.experts == Experts::Joint;
        if joint && experts != 2 {
            return Err(WeighingError::JointNeedsTwo { experts });
        }
        if joint && self.targets == Targets::Own {
            return Err(WeighingError::JointNeedsMean);
        }
        if joint && self.objective != Objective::Both {
            return Err(WeighingError::JointNeedsBoth);
        }
        let counts = (0..experts).map(|expert| {
            let Bounds { lower, upper } = self.bounds(expert);
            Candidates::steps(lower.get(), upper.get(), self.step.get()) + 1.0
        });
        let found = if joint { counts.product() } else { counts.fold(0.0, f64::max) };
        if found > MOST_CANDIDATES as f64 {
            return Err(WeighingError::TooManyCandidates { found, most: MOST_CANDIDATES });
        }
        Ok(())
    }

    /// The range of one expert's weight.
    pub fn bounds(&self, expert: usize) -> Bounds {
        self.bounds.get(expert).copied().unwrap_or(Bounds { lower: self.lower, upper: self.upper })
    }

    pub(super) fn candidates(&self, expert: usize) -> Candidates {
        let Bounds { lower, upper } = self.bounds(expert);
        Candidates::new(lower.get(), upper.get(), self.step.get())
    }
}
