//! Preference games with enumerable responses: exact equilibria, exact distance from them, and exact steps towards them.
//!
//! One prompt, a list of responses, and P(y ≻ y′) for every two of them, which need not come from a score. Two players
//! each choose a policy; the payoff of the first is
//!
//! ```text
//! J(p, q) = P(p ≻ q) − τ KL(p‖π_ref) + τ KL(q‖π_ref)
//! ```
//!
//! For τ > 0 one policy π* is the equilibrium of both. How far a policy is from it, [`PreferenceGame::duality_gap`], comes
//! from the matrix and the policy's own probabilities: a trained model cannot fake a small gap.
//!
//! | topic | where |
//! | --- | --- |
//! | policies over a list of responses | [`LogPolicy`] |
//! | the game, payoffs, best responses, the duality gap | [`PreferenceGame`] |
//! | its equilibrium, by a solver that shares nothing with the dynamics | [`PreferenceGame::nash`] |
//! | INPO's exact step; others to compare it with | [`PreferenceGame::omd_step`] and the steps beside it, [`EtaSchedule`] |
//! | what a step minimises, by pairs and by labels | [`MirrorStep`] |
//! | which η makes the step contract | [`PreferenceGame::rotation`], [`stability_threshold`], [`spectral_radius`] |
//! | the best and the worst of K responses from pairwise answers | [`knockout`], [`Tournament`] |
//! | games to try all this in | [`random_cyclic`] |
//!
//! Everything is in `f64` on the host.
//!
//! # Source
//! Zhang, Yu, Peng, Song, Tian, Huo, Jiang, Mi, Yu 2025 (ICLR), "Iterative Nash policy optimization: aligning LLMs with
//! general preferences via no-regret learning", <https://arxiv.org/abs/2407.00617>; Munos et al. 2023, "Nash learning from
//! human feedback", <https://arxiv.org/abs/2312.00886>. What is ours rather than theirs says so where it stands.
//!
//! # Examples
//! Rock, paper and scissors, where a reference prefers rock. INPO's steps go to the equilibrium once η is above the
//! threshold; the greedy best response, its limit at η = τ, does not:
//! ```
//! use align_nash::game::{PreferenceGame, stability_threshold};
//!
//! let rows = [[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]].map(Vec::from).to_vec();
//! let game = PreferenceGame::new(rows, vec![0.6, 0.3, 0.1], 0.1)?;
//! let nash = game.nash()?;
//! let threshold = stability_threshold(game.tau(), game.rotation(&nash));
//! assert!(0.28 < threshold && threshold < 0.281);
//!
//! let inpo = game.run(60, |_, policy| game.omd_step(policy, 0.5))?;
//! assert!(game.duality_gap(&inpo[59]) < 1e-5);
//! let greedy = game.run(60, |_, policy| Ok(game.best_response(policy)))?;
//! assert!(game.duality_gap(&greedy[59]) > 0.5);
//! # Ok::<(), align_nash::game::GameError>(())
//! ```

mod bradley_terry;
mod cyclic;
mod dynamics;
mod error;
mod mirror;
mod nash;
mod newton;
mod policy;
mod preference_game;
mod stability;
mod tournament;

pub use cyclic::random_cyclic;
pub use dynamics::{DpoReference, EtaSchedule};
pub use error::GameError;
pub use mirror::MirrorStep;
pub use nash::Nash;
pub use policy::LogPolicy;
pub use preference_game::PreferenceGame;
pub use stability::{conservative_threshold, spectral_radius, stability_threshold};
pub use tournament::{Knockout, Tournament, TournamentError, knockout};
