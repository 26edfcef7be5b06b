//! Preferences without a reward between: self-play towards an equilibrium, direct losses, and games that are solved exactly.
//!
//! A preference need not come from a score: three answers can beat one another in a circle, several criteria can disagree, a
//! judge may only ever compare. Then there is no best answer, but a policy that no other beats: the Nash policy of the game
//! that is regularised towards a reference. INPO approaches it by self-play, with the loss of a pair and nothing else.
//!
//! | topic | where |
//! | --- | --- |
//! | INPO, online and iterative DPO, SPPO, XPO, Nash-MD | [`SelfPlay`], [`SelfPlayConfig`], [`self_play::Method`] |
//! | losses of pairs as functions | [`loss`] |
//! | the same as a recipe names them, and as a step minimises them | [`PairLoss`], [`PairObjective`] |
//! | answers rated one by one | [`KtoObjective`] |
//! | pairs with anchors computed once | [`Pair`], [`cache_anchors`], [`microbatches`] |
//! | games with few answers, solved | [`game`] |
//! | the game of a small language model, enumerated or sampled | [`LmGame`], [`sampled_duality_gap`] |
//! | best and worst of K by knockout | [`game::Tournament`] |
//!
//! The crate knows no reward model: it knows [`Preference`](align_core::Preference). A reward is one by
//! [`BradleyTerry`](align_core::BradleyTerry), several criteria by [`PreferenceMixture`](align_core::PreferenceMixture), a
//! closure by [`PreferenceFn`](align_core::PreferenceFn); pairwise models, judges over HTTP and recorded answers are in `align-reward`.
//!
//! # Departures from the papers
//! Nash-MD's gradient multiplies whole answers' log-ratios, where TRL's multiplies each token's own. IPO sums over tokens as the papers
//! have it; TRL's division by length is an option. Both say so where they stand.
//!
//! # Examples
//! Three answers beat one another in a circle. The policy begins with a liking for the first and ends where nobody beats it:
//! ```
//! use align_core::{Completions, Frozen, PreferenceFn};
//! use align_nash::{LmGame, SelfPlay, SelfPlayConfig, SelfPlayParts};
//! use align_testkit::{BigramLm, train_device};
//! use burn::tensor::{Tensor, TensorData};
//!
//! // Token k beats token k + 1 nine times in ten.
//! let oracle = || PreferenceFn(|first: &Completions, second: &Completions| {
//!     let ids = |side: &Completions| side.response.ids.to_data().iter::<i64>().collect::<Vec<_>>();
//!     let wins = |(a, b): (&i64, &i64)| [0.5f32, 0.9, 0.1][(b - a).rem_euclid(3) as usize];
//!     let answers: Vec<f32> = ids(first).iter().zip(&ids(second)).map(wins).collect();
//!     let count = answers.len();
//!     Tensor::from_data(TensorData::new(answers, [count]), &first.response.ids.device())
//! });
//! let start = BigramLm::independent(&[0.6f32.ln(), 0.3f32.ln(), 0.1f32.ln()], &train_device());
//! let reference = Frozen::new(&start);
//! let game = LmGame::enumerate(&oracle(), &reference, &[vec![0]], 1, &[], 0.1, 3)?;
//! let parts = SelfPlayParts {
//!     policy: start,
//!     reference: Box::new(reference),
//!     oracle: Box::new(oracle()),
//!     prompts: vec![vec![0]],
//!     held_out: Vec::new(),
//!     measures: Vec::new(),
//! };
//! let config: SelfPlayConfig = serde_json::from_str(
//!     r#"{ "method": { "kind": "inpo", "eta": 0.5, "tau": 0.1 }, "labels": "soft", "iterations": 25, "response_length": 1,
//!          "prompts_per_iteration": 2048, "minibatch": 512, "microbatch": 512, "num_epochs": 5,
//!          "optimizer": { "learning_rate": 0.1, "max_grad_norm": 0.0, "schedule": { "kind": "linear" } } }"#,
//! )?;
//! let mut inpo = SelfPlay::new(parts, config)?;
//! for step in 0..inpo.plan().steps() {
//!     inpo.step(step)?;
//! }
//! let (before, after) = (game.reference_gap(), game.duality_gap(inpo.policy()));
//! assert!(before > 0.1 && after < before / 5.0, "{before} {after}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
pub mod game;
mod kto;
mod lm_game;
pub mod loss;
mod objective;
mod pair_loss;
pub mod self_play;

pub use batch::{AnchorNotFinite, Pair, PairBatch, cache_anchors, microbatches, row_sums, sequence_sums};
pub use kto::{KtoBatch, KtoConfig, KtoObjective, Mismatched, Rated, kto_microbatches, mismatched_rows};
pub use lm_game::{GapOptions, LmGame, LmGameError, LmGap, Responses, SampledGap, sampled_duality_gap};
pub use objective::{NashMdObjective, PairObjective, ReinforceBatch};
pub use pair_loss::{PairLoss, PairView};
pub use self_play::{SelfPlay, SelfPlayConfig, SelfPlayError, SelfPlayParts};
