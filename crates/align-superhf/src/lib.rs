//! SuperHF: filter samples by a reward, fine-tune on the best with a KL prior.
//!
//! The simplest method of online alignment: draw N completions a prompt from the present policy, score them, keep the best,
//! take an ordinary supervised step on that with a KL term to the starting model, and sample again. No value network, no
//! ratio, no advantages; the price is N times the sampling. Each step is a step of Bayesian inference seen from afar: the
//! prior is where the model starts, the filter is the evidence.
//!
//! | topic | where |
//! | --- | --- |
//! | the algorithm | [`SuperHf`], [`SuperHfParts`] |
//! | its numbers, under the names people know | [`SuperHfConfig`], [`config`], [`GroupPlan`] |
//! | which completions are learnt: the best K, RAFT, ReST | [`Filter`], [`filter`] |
//! | the loss as functions of tensors | [`loss`] |
//! | the loss as a step minimises it | [`objective`] |
//! | samples without learning: best of N, rejection sampling | [`SuperHf::collect`], [`superbatch`] |
//! | what filter and fit do to one distribution, in closed form | [`ideal`] |
//! | where an answer ends | [`trim`] |
//! | whether all answers become one | [`meteor`] |
//! | calibration and ratings | [`calibration`], [`elo`] |
//! | what is logged | [`report`] |
//!
//! The crate knows neither reward models nor soups: it knows [`Reward`](align_core::Reward) and
//! [`Reference`](align_core::Reference), and any model can be the prior.
//!
//! # Departures from the released code
//! Masks say where tokens come from, cross-entropy and KL look at the same positions, the KL is a mean over examples and means
//! the same at every minibatch size, an end is learnt where there was one, tokens are learnt as they were drawn, no empty
//! answer is scored. Each is explained where it happens: [`loss`], [`superbatch`], [`config`], [`trim`].
//!
//! # Examples
//! A policy that draws tokens of equal chance, and a judge that likes token 2:
//! ```
//! use align_core::{Completions, Frozen, RewardFn};
//! use align_superhf::{SuperHf, SuperHfConfig, SuperHfParts};
//! use align_testkit::{BigramLm, train_device};
//!
//! let start = BigramLm::independent(&[0.0; 4], &train_device());
//! let parts = SuperHfParts {
//!     prior: Box::new(Frozen::new(&start)),
//!     policy: start,
//!     reward: Box::new(RewardFn(|c: &Completions| {
//!         c.response.ids.clone().equal_elem(2).int().sum_dim(1).squeeze_dim::<1>(1).float()
//!     })),
//!     validation: None,
//!     gold: None,
//!     prompts: vec![vec![1], vec![3]],
//! };
//! let config: SuperHfConfig = serde_json::from_str(
//!     r#"{ "superbatch_size": 8, "response_length": 4, "learning_rate": 0.1, "total_episodes": 640,
//!          "lr_schedule": { "kind": "constant" } }"#,
//! )?;
//! let mut superhf = SuperHf::new(parts, config)?;
//! let scores: Vec<f64> = (0..superhf.plan().groups)
//!     .map(|group| Ok(superhf.iteration(group)?.get("objective/scores").expect("reported")))
//!     .collect::<Result<_, align_superhf::SuperHfError>>()?;
//! // From one token in four to more than two.
//! assert!(scores[0] < 1.5 && scores[39] > 2.0, "{scores:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod calibration;
pub mod config;
pub mod elo;
mod ending;
mod error;
pub mod filter;
pub mod ideal;
pub mod loss;
pub mod meteor;
pub mod objective;
pub mod report;
mod resume;
pub mod superbatch;
mod superhf;
pub mod trim;

pub use config::{ConfigError, GroupPlan, SuperHfConfig};
pub use ending::Ending;
pub use error::{Judge, SuperHfError, Warning};
pub use filter::{Chosen, Filter};
pub use superbatch::{Completion, Superbatch};
pub use superhf::{NoPrior, SuperHf, SuperHfParts};
