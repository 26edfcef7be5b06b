//! What the method is for in alignment: cleaned preference data, a tuned KL coefficient, a designed reward.
//!
//! | task | upper variable x | lower variable y | where |
//! | --- | --- | --- | --- |
//! | clean or reweight preference data | a weight per pair, or source | a reward model | [`clean`], [`Cleaning`], [`Weights`] |
//! | tune a KL coefficient | log β | a policy | [`tune_kl_coefficient`], [`KlCoefficient`] |
//! | design a reward | the reward | a policy | [`design_reward`], [`RewardDesign`] |
//!
//! Reward models are linear on the host ([`LinearPairs`]) or any Burn module ([`ModulePairs`]); whatever else has a loss for
//! each of its examples implements [`Examples`]. Policies are tables of states and actions, [`Regularized`].

mod clean;
mod cleaning;
mod confidence;
mod examples;
mod fit;
mod flips;
mod kl_coefficient;
mod linear_fit;
mod linear_pairs;
mod metrics;
mod module_pairs;
mod policy;
mod policy_objective;
mod reward_design;
mod synthetic;
mod weights;

pub use clean::{CleanConfig, Cleaned, CleaningWarning, clean};
pub use cleaning::Cleaning;
pub use confidence::{Filtered, filter_by_confidence};
pub use examples::{ExampleSet, Examples, Part, check_split};
pub use fit::{FitConfig, fit};
pub use flips::{Flips, flip_share};
pub use kl_coefficient::{KlCoefficient, KlTuneConfig, KlTuned, tune_kl_coefficient};
pub use linear_pairs::{LinearPairs, PairScores};
pub use metrics::{Detection, auc, detection, effective_sample_size};
pub use module_pairs::{Margins, MarginsFn, ModulePairs};
pub use policy::{PenalizedPolicy, Regularized};
pub use policy_objective::{Demonstrations, GoldReward, PolicyObjective, PreferenceLoss};
pub use reward_design::{DesignConfig, DesignedReward, RewardDesign, design_reward};
pub use synthetic::{LinearWorld, LinearWorldConfig};
pub use weights::Weights;
