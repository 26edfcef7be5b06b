//! The training step, its optimizer, the outer loop, observers and bit-exact resume.
//!
//! | topic | where |
//! | --- | --- |
//! | what a step minimises | [`Objective`], [`Loss`], [`NextToken`], [`RecomputedNextToken`] |
//! | one optimizer step | [`Learner`], [`OptimizerConfig`], [`Schedule`], [`AdamW`] |
//! | the outer loop | [`Algorithm`], [`run()`], [`RunPlan`], [`Supervised`] |
//! | who watches | [`Observer`], [`Console`], [`JsonLines`], [`TensorBoard`], [`Interrupt`] |
//! | going on after an end | [`resume`], [`CheckpointPlan`], [`checkpoint`], [`RunFolder`] |
//!
//! An optimizer step divides the **sum** of the loss over all its microbatches by the number of tokens (or pairs) that
//! count in all of them, so that microbatches are a matter of memory and nothing else. Everything random is keyed by
//! seed and step, so a checkpoint holds weights, moments and counts, and resuming gives the same bits.
//!
//! # Examples
//! Fine-tuning a table of next-token scores on one completion, over and over:
//! ```
//! use align_core::{Completions, Demonstrations};
//! use align_testkit::{BigramLm, device, train_device};
//! use align_train::{BatchesFn, Console, Learner, NextToken, OptimizerConfig, RunPlan, Supervised, evaluate, run};
//!
//! let batch = Demonstrations::from(Completions::from_rows(&[vec![0]], &[vec![1, 2, 0]], &device()));
//! let model = BigramLm::independent(&[0.0; 3], &train_device());
//! let config = OptimizerConfig { learning_rate: 0.1.try_into()?, ..OptimizerConfig::default() };
//! let data = batch.clone();
//! let mut tuning =
//!     Supervised::new(Learner::new(model, config, 50)?, NextToken, BatchesFn(move |_| Ok(vec![data.clone()])));
//!
//! run(&mut tuning, &RunPlan::new(50), &mut [&mut Console::every(25)])?;
//! let metrics = evaluate(tuning.learner().model(), &NextToken, &[batch])?;
//! assert!(metrics.get("perplexity").unwrap() < 1.2); // from 3
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adamw;
pub mod checkpoint;
mod console;
mod differences;
mod error;
mod folder;
mod gradients;
mod jsonl;
mod learner;
mod manifest;
mod metrics;
mod next_token;
mod objective;
mod observer;
mod optimizer;
#[cfg(feature = "progress")]
mod progress;
mod run;
mod schedule;
mod state;
mod supervised;
mod tensorboard;

pub use adamw::{AdamW, Moments};
pub use checkpoint::{Best, CheckpointError, CheckpointPlan, Goal, OnDamage};
pub use console::Console;
pub use differences::{Difference, differences};
pub use error::TrainError;
pub use folder::{FolderError, RunFolder, RunInfo, RunRecord};
pub use gradients::{Parameter, StepGradients, parameters};
pub use jsonl::JsonLines;
pub use learner::Learner;
pub use manifest::{FileHash, hash_all, sha256};
pub use metrics::Metrics;
pub use next_token::{NextToken, RecomputedNextToken};
pub use objective::{Loss, Objective};
pub use observer::{Control, Interrupt, Observer, ObserverFn};
pub use optimizer::{Group, OptimizerConfig};
#[cfg(feature = "progress")]
pub use progress::Progress;
pub use run::{Algorithm, Ended, RunPlan, resume, run};
pub use schedule::Schedule;
pub use state::OPTIMIZER_FILE;
pub use supervised::{Batches, BatchesFn, Evaluation, Supervised, evaluate};
pub use tensorboard::TensorBoard;
