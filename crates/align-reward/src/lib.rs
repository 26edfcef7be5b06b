//! Reward models: learning a score from preference pairs, bringing it to a scale, judging with it.
//!
//! | topic | where |
//! | --- | --- |
//! | the ranking loss, its objective | [`ranking_loss`], [`centering`], [`squared_scores`], [`BradleyTerryObjective`] |
//! | what is trained, and what it becomes | [`Scorer`], [`Judge`] |
//! | agreement with labels | [`evaluate_pairs`], [`compare`], [`PairReport`] |
//! | mean 0, deviation 1 | [`ReferenceScores`], [`Target`], [`Normalized`] |
//! | several judges as one | [`Ensemble`], [`Aggregate`], [`Disagreement`] |
//! | an ensemble on disk | [`Manifest`] |
//! | the best of n answers, for every n | [`best_of_n`] |
//! | gold against proxy | [`overoptimization`] |
//! | rewards made of rewards | [`Scaled`], [`Clipped`], [`LengthPenalized`], [`StopRequired`], [`WeightedSum`] |
//! | a reward model with a tokenizer of its own | [`Retokenized`] |
//! | a reward that a server computes (feature `http`) | `RemoteReward` |
//! | a model that reads two answers at once, and as a folder | [`Pairwise`], [`PairForm`], [`PairwiseManifest`] |
//! | an oracle whose answers are kept in a file | [`Recorded`] |
//! | a language model that judges over HTTP (feature `http`) | `RemoteJudge` |
//! | microbatches, wrong labels on purpose | [`microbatches`], [`LabelFlips`] |
//!
//! # Examples
//! A reward of one's own is a closure; its shape is put around it:
//! ```
//! use align_core::{Completions, Reward, RewardFn};
//! use align_reward::{Clipped, NoStop, StopRequired};
//! use align_testkit::device;
//!
//! let length = RewardFn(|c: &Completions| {
//!     c.response.mask.clone().int().sum_dim(1).squeeze_dim::<1>(1).float()
//! });
//! let reward = StopRequired {
//!     reward: Clipped { reward: length, limit: 2.0 },
//!     stop_token_ids: vec![9],
//!     without: NoStop::Subtract(1.0),
//! };
//! let completions = Completions::from_rows(&[vec![1], vec![1]], &[vec![2, 3, 9], vec![2, 3, 4]], &device());
//! assert_eq!(reward.score(&completions).to_data().iter::<f32>().collect::<Vec<_>>(), [2.0, 1.0]);
//! ```

mod aggregate;
pub mod best_of_n;
mod bradley_terry;
mod ensemble;
mod error;
mod evaluate;
mod folder;
#[cfg(feature = "http")]
mod http;
mod normalize;
pub mod overoptimization;
mod pairs;
mod pairwise;
mod pairwise_folder;
mod recorded;
#[cfg(feature = "http")]
mod remote;
#[cfg(feature = "http")]
mod remote_judge;
mod retokenized;
mod scorer;
mod shape;

pub use aggregate::{Aggregate, Divisor};
pub use bradley_terry::{BradleyTerryObjective, centering, ranking_loss, squared_scores};
pub use ensemble::{Disagreement, Ensemble, MemberScores, Members};
pub use error::RewardError;
pub use evaluate::{PairReport, compare, evaluate_pairs, finite_scores};
pub use folder::{EnsembleError, LabelNoise, Manifest, Member};
#[cfg(feature = "http")]
pub use http::RemoteError;
pub use normalize::{Normalized, ReferenceScores, Target};
pub use pairs::{LabelFlips, microbatches};
pub use pairwise::{PairForm, Pairwise};
pub use pairwise_folder::{PairwiseError, PairwiseManifest};
pub use recorded::{RecordError, Recorded};
#[cfg(feature = "http")]
pub use remote::{RemoteConfig, RemoteReward, RequestForm};
#[cfg(feature = "http")]
pub use remote_judge::{RemoteJudge, RemoteJudgeConfig};
pub use retokenized::{OwnTokens, Retokenized};
pub use scorer::{Judge, Scorer};
pub use shape::{Clipped, LengthPenalized, NoStop, Scaled, StopRequired, WeightedSum};
