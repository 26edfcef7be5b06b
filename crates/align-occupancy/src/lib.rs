//! Occupancy measures, correlated proxies, and the χ² that keeps a policy where its proxy can be trusted.
//!
//! A proxy reward may agree with the gold reward wherever a trusted reference goes, and be arbitrary elsewhere. Reward
//! hacking is going elsewhere. How far a policy goes is a matter of its *occupancy*, the distribution of what it visits; the
//! gold reward gained is at least the proxy gain less a multiple of √χ² between the occupancies of policy and reference.
//! Hence the objective here: maximise `J(π, R̃) − λ·√χ²(μ_π‖ν)`, in the place of a KL between the distributions of single
//! actions, which counts rare steps with large consequences as small.
//!
//! | topic | where |
//! | --- | --- |
//! | worlds, policies, what they visit | [`Mdp`], [`TabularPolicy`], [`Occupancy`] |
//! | distances of occupancies, and of actions | [`Divergence`], [`chi_squared`], [`kl`], [`l1`], [`chi_squared_of_product`], [`continuous`] |
//! | agreement of two rewards, λ*, hacking | [`Correlation`] |
//! | what a proxy gain guarantees | [`bound_a`], [`bound_b`], [`worst_case_reward`], [`Audit`] |
//! | the same from samples | [`fisher_interval`], [`effective_sample_size`], [`bootstrap_interval`], [`trimmed_mean`], [`PlugIn`] |
//! | planning without a penalty | [`optimal_policy`], [`value_iteration`], [`nearest_optimal_policy`] |
//! | regularised optima, certified | [`occupancy_optimum`], [`leaving_threshold`], [`action_optimum`], [`bandit_optimum`] |
//! | learning from samples | [`sampled`] |
//! | worlds to try all this in | [`worlds`] |
//!
//! Everything is in `f64` on the host. A quantity of state-action pairs is a vector with (s, a) at `s · A + a`.
//!
//! # Source
//! Laidlaw, Singhal, Dragan 2025, "Correlated proxies: a new definition and improved mitigation for reward hacking",
//! <https://arxiv.org/abs/2403.03185>; bound B is that of Liu, Sun, Zheng 2026, <https://arxiv.org/abs/2604.12086>.
//!
//! # Examples
//! A robot waters tomatoes; its proxy also likes the sprinkler that makes them look watered. A penalty on actions either
//! changes nothing or lets the hack through. The same proxy under √χ² of occupancies, at the weight that theory gives:
//! ```
//! use align_occupancy::worlds::TomatoWorld;
//! use align_occupancy::{Audit, Correlation, Divergence, action_optimum, occupancy_optimum, optimal_policy};
//!
//! let TomatoWorld { mdp, gold, proxy, reference, .. } = TomatoWorld::small();
//! let nu = mdp.occupancy(&reference);
//! let agreement = Correlation::under(&nu, &proxy, &gold)?;
//! assert!(agreement.r > 0.8);
//!
//! // Left alone, the robot stays at the sprinkler.
//! let hack = optimal_policy(&mdp, &proxy)?.policy;
//! assert!(agreement.is_hacked_by(mdp.normalized_return(&hack, &gold)));
//!
//! // KL of actions: little better than the reference, 0.32, at any weight.
//! for lambda in [100.0, 44.0, 20.0] {
//!     let kept = action_optimum(&mdp, &proxy, &reference, Divergence::Kl, lambda)?;
//!     assert!(kept.occupancy.mean(&gold) < 0.33);
//! }
//!
//! // √χ² of occupancies: the tomatoes are watered, and a bound said so without knowing the gold reward beyond r.
//! let lambda = agreement.lambda_star()?;
//! let best = occupancy_optimum(&mdp, &proxy, &reference, Divergence::SqrtChiSquared, lambda)?;
//! assert!(best.occupancy.mean(&gold) > 0.92);
//! assert!(best.score.duality_gap < 1e-9, "no policy does better");
//! let audit = Audit::of(&best.occupancy, &nu, &proxy, &gold)?;
//! assert!(0.8 < audit.bound_a && audit.bound_a < audit.bound_b && audit.bound_b < audit.gold_gain);
//! # Ok::<(), align_occupancy::OccupancyError>(())
//! ```

mod bandit;
mod bounds;
pub mod continuous;
mod correlation;
mod divergence;
mod error;
mod estimates;
mod interior_point;
mod linear;
mod mdp;
mod nearest;
mod occupancy;
mod occupancy_optimum;
mod optimum;
mod planning;
mod policy;
pub mod sampled;
pub mod worlds;

pub use bandit::bandit_optimum;
pub use bounds::{Audit, bound_a, bound_b, worst_case_reward};
pub use correlation::Correlation;
pub use divergence::{Divergence, chi_squared, chi_squared_of_product, kl, l1};
pub use error::{OccupancyError, RowOf, WhichReward};
pub use estimates::{
    Interval, PlugIn, bootstrap_interval, effective_sample_size, fisher_interval, trimmed_mean,
};
pub use mdp::Mdp;
pub use nearest::nearest_optimal_policy;
pub use occupancy::Occupancy;
pub use occupancy_optimum::{leaving_threshold, occupancy_optimum};
pub use optimum::{Optimum, Score, action_optimum};
pub use planning::{Plan, optimal_policy, value_iteration};
pub use policy::TabularPolicy;
