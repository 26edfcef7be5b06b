//! The error of the penalised hyper-gradient against σ.

use align_bilevel::Difference;
use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::ProblemName;

/// Errors of `∇ψ_σ` on problems with closed forms, their slopes in σ, and the control on which no σ is small enough.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BiasStage {
    /// The penalties, at least two.
    pub(crate) sigmas: Vec<Positive>,
    /// Where errors are measured.
    pub(crate) cases: Vec<BiasCase>,
    /// Measure too how far ψ_σ lies below ψ at x = σ where the lower solution jumps.
    pub(crate) control: bool,
}

impl Default for BiasStage {
    /// Three decades of σ; every problem that knows its answer, and the central difference where it is smooth.
    fn default() -> Self {
        use BiasProblem::{KlCoefficient, RewardDesign};
        let known = [
            ProblemName::Scalar,
            ProblemName::Vector,
            ProblemName::Tied,
            ProblemName::TiedUniform,
            ProblemName::Boxed,
            ProblemName::Portable,
        ];
        let forward = known.map(BiasProblem::Known).into_iter().chain([KlCoefficient, RewardDesign]);
        let forward = forward.map(|problem| BiasCase { problem, difference: Difference::Forward });
        let central =
            BiasCase { problem: BiasProblem::Known(ProblemName::Vector), difference: Difference::Central };
        Self {
            sigmas: [1e-2, 1e-3, 1e-4].map(Positive::literal).to_vec(),
            cases: forward.chain([central]).collect(),
            control: true,
        }
    }
}

/// A problem and a difference quotient.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BiasCase {
    /// Which problem.
    pub(crate) problem: BiasProblem,
    /// Forward, or central where the lower level keeps its minimiser.
    #[serde(default)]
    pub(crate) difference: Difference,
}

/// A problem that knows its hyper-gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BiasProblem {
    /// A problem that solvers run on too.
    Known(ProblemName),
    /// The KL coefficient of three actions.
    KlCoefficient,
    /// A reward whose policy should be what was shown, over three actions.
    RewardDesign,
}

/// Every problem by its word.
const PROBLEMS: [BiasProblem; 8] = [
    BiasProblem::Known(ProblemName::Scalar),
    BiasProblem::Known(ProblemName::Vector),
    BiasProblem::Known(ProblemName::Tied),
    BiasProblem::Known(ProblemName::TiedUniform),
    BiasProblem::Known(ProblemName::Boxed),
    BiasProblem::Known(ProblemName::Portable),
    BiasProblem::KlCoefficient,
    BiasProblem::RewardDesign,
];

impl BiasProblem {
    /// Its word in recipes and results.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Known(name) => name.word(),
            Self::KlCoefficient => "kl_coefficient",
            Self::RewardDesign => "reward_design",
        }
    }
}

impl Serialize for BiasProblem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for BiasProblem {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WORDS: &[&str] = &[
            "scalar",
            "vector",
            "tied",
            "tied_uniform",
            "boxed",
            "portable",
            "kl_coefficient",
            "reward_design",
        ];
        let word = String::deserialize(deserializer)?;
        let found = PROBLEMS.into_iter().find(|problem| problem.word() == word);
        found.ok_or_else(|| serde::de::Error::unknown_variant(&word, WORDS))
    }
}
