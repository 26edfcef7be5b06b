//! A large model steered at decoding time by small ones: proxy tuning, task arithmetic on logits, dynamic logits fusion.
//!
//! Tuning a small model moves its next-token scores. The same movement, added to the scores of a large model that was never
//! tuned, gives much of what tuning the large one would: what the small model learnt, with what the large one knows. Nothing
//! but scores is needed, so the large model, the data and the experts may belong to three people. The price is running all
//! of them.
//!
//! With P the large base, Q the small base, Q_t the experts tuned from it, and `v_t = log Q_t − log Q`:
//!
//! ```text
//! F1   log P̃ = log P + Σ_t α_t v_t − log Z                     fusion
//! F2   one expert, α = 1 everywhere                            proxy tuning
//! F3   α* = argmin (f(α) − a)² + (g(α) − b)²                   one expert, at every token anew
//!      f = KL(P̃ ‖ P), g = KL(P ‖ P̃), a = KL(Q_1 ‖ Q), b = KL(Q ‖ Q_1)
//! F4   argmin Σ_t (f − a_t)² + (g − b_t)²                      several experts
//! ```
//!
//! F3 asks that the large model move as far from its base as the expert moved from its own. Where both know as much the
//! weight is 1; where the large base is surer than the small one it is larger, where it is flatter, smaller.
//!
//! | topic | where |
//! | --- | --- |
//! | the model | [`Fusion`], [`Expert`] |
//! | weights: the same everywhere, or found at every token | [`Weighing`], [`Step`], [`Fusion::explain`] |
//! | the search on one row | [`matching`], [`tilt`] |
//! | a model with examples before every row | [`Prefixed`] |
//! | whether ids mean the same | [`same_vocabulary`], [`Vocabulary`] |
//! | a model of another tokenizer | [`VocabularyMap`], [`Mapped`] |
//! | what can go wrong | [`FusionError`], [`RowError`], [`VocabularyError`], … |
//!
//! # Neighbours
//! With weights that never change, fusion is a product of powers, which [`LogLinear`](align_models::LogLinear) computes on the
//! device:
//!
//! | method | as a product |
//! | --- | --- |
//! | proxy tuning, emulated fine-tuning | `P¹ · Q_1¹ · Q⁻¹` |
//! | DExperts: expert and anti-expert | `P¹ · Q_good^α · Q_bad^(−α)`; here the anti-expert is the small base |
//! | task arithmetic on logits | `P¹ · Π Q_t^(α_t) · Q^(−Σ α_t)` |
//! | contrastive decoding | `P¹ · Q⁻¹`, no expert |
//! | ensemble | `Π P_i^(w_i)` |
//!
//! Proxy tuning is also the expert with the difference of the bases added: the formula does not know which of the two is
//! steered. Task arithmetic *on weights* merges the small experts into one (`align-soup`), which is then the only expert.
//!
//! # What several experts' loss cannot say
//! F4 is `T·[(f − ā)² + (g − b̄)²]` and a constant, with the *mean* targets. So nothing in it knows which expert is right: of
//! several experts the search uses the one whose direction can reach the mean size best. That is no routing, and gently tuned
//! experts are picked about as often as chance would. Two experts with free weights may have several exact solutions, three or
//! more have a continuum. A fixed weight of 1 for each of several experts shifts far too much.
//!
//! # Traps closed here
//! Weights are per row and per token, never per batch. Shifts are differences of large numbers and are taken in f32 or better,
//! whatever the models compute in. Temperature and filters come after fusion. The same token goes to every member, each with
//! its own cache, positions and padding. Scoring finds the weights that sampling used. Vocabularies of equal size and other
//! strings are told apart by [`same_vocabulary`]. An expert that equals its base leaves the base as it is, and
//! [`Fusion::check_direction`] refuses it. A row whose scores are no distribution stops its generation, with member, row, step
//! and token named.
//!
//! # Source
//! Liu, Han, Wang, Tsvetkov, Choi, Smith 2024, "Tuning language models by proxy", <https://arxiv.org/abs/2401.08565>; Fan, Lu,
//! Wei, Tian, Qu, Chen, Cheng 2024, "On giant's shoulders: effortless weak to strong by dynamic logits fusion",
//! <https://arxiv.org/abs/2406.15480>. The loss of F3 is not convex, nor has it one minimum only: [`matching`].
//!
//! # Examples
//! The small model learnt to like token 0 a little more. The large one is surer of token 1, so the same movement needs nearly
//! twice the weight:
//! ```
//! use align_core::{CausalLm, Completions, Draws};
//! use align_fusion::{Expert, Fusion, Weighing};
//! use align_models::{GenerateOptions, Prompt, SamplingConfig, generate};
//! use align_testkit::{BigramLm, device};
//!
//! let model = |logits: [f32; 4]| BigramLm::independent(&logits, &device());
//! let (large, small) = (model([0.0, 4.0, 0.0, 0.0]), model([0.0, 2.0, 0.0, 0.0]));
//! let tuned = model([0.5, 2.0, 0.0, 0.0]);
//! let fusion = Fusion::new(
//!     Box::new(&large),
//!     Box::new(&small),
//!     vec![Expert::new("task", Box::new(&tuned))],
//!     Weighing::default(), // dynamic
//! )?;
//!
//! // It is sampled as any model is, and scored: the weights are found again.
//! let sampling = SamplingConfig { max_new_tokens: 3, never_stop: true, ..SamplingConfig::default() };
//! let options = GenerateOptions::new(&sampling, Draws::new(7));
//! let drawn = generate(&fusion, &Prompt::numbered([vec![0]]), &options)?;
//! let completions = drawn.to_completions(&device());
//! let scored = fusion.token_log_probs(&completions, 1.0).log_probs;
//! assert_eq!(scored.to_data(), drawn.raw_log_probs(&device()).to_data());
//!
//! let steps = fusion.explain(&completions)?;
//! assert!(steps[0].iter().all(|step| step.weights[0] > 1.9), "{steps:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod decoder;
mod error;
mod fusion;
mod mapped;
pub mod matching;
mod prefixed;
mod row_error;
mod scores;
pub mod tilt;
mod vocabulary;
mod weighing;

pub use error::{FusionError, PrefixError, VocabularyError};
pub use fusion::{Expert, Fusion};
pub use mapped::Mapped;
pub use matching::{Objective, Search};
pub use prefixed::{Placement, Prefixed};
pub use row_error::{Member, RowError, WeighingError};
pub use vocabulary::{MapCounts, MapOptions, Trailing, Vocabulary, VocabularyMap, same_vocabulary};
pub use weighing::{Bounds, DynamicConfig, Experts, Row, Step, Targets, Weighing};
