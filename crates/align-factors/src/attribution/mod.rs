//! Additive attributions: what every factor adds to every score, `f(x) = φ₀ + Σ_j φ_j(x)`.
//!
//! | method | of which models | cost of a row | exact |
//! | --- | --- | --- | --- |
//! | [`closed`] | sums of terms of one and two columns: linear, additive, factorisation machines | a score | yes |
//! | [`tree_interventional`] | forests | a walk for each row of the background | yes |
//! | [`exact`] | all, up to 12 factors | 2ᵈ scores for each row of the background | yes |
//! | [`permutation`] | all | 2·pairs·(d−1)+2 scores for each row of the background | in pairwise models |
//! | [`expected_gradients`] | networks | 2·pairs gradients | in pairwise models |
//! | [`tree_path`] | forests, against their own training | a walk | yes, for a game of its own |
//!
//! The first four compute one and the same number, the interventional Shapley value of the game `v(S) = E_b f(x on S, b
//! elsewhere)`: where two of them apply they agree, and models explained by different ones can be compared. Expected gradients
//! are another member of the family of additive attributions (Aumann–Shapley values), equal to it for pairwise models.
//! [`explain`] takes the cheapest exact one.
//!
//! **Correlated factors.** Masking replaces a factor whatever the others are, so rows are scored that may not occur; see
//! [`Baseline`]. **Groups.** Columns of one factor are switched together by every method. **What to attribute.** A single
//! number: the output of a regression, the expected class of an ordinal model, a logit or a margin. Probabilities saturate.
//!
//! That arXiv 2402.12398 uses additive attributions is stated in its abstract; which of these it uses is not, and the choice
//! of methods, baselines and defaults is ours.

mod attributions;
mod baseline;
mod closed;
mod exact;
mod expected_gradients;
mod importance;
mod method;
mod permutation;
mod question;
mod tree_interventional;
mod tree_path;
mod tree_walk;

pub use attributions::{AttributionWarning, Attributions, Precision};
pub use baseline::{Baseline, BaselineConfig};
pub use closed::{Curve, Terms, closed};
pub use exact::{MOST_ENUMERATED, exact};
pub use expected_gradients::{expected_gradients, network_gradients};
pub use importance::{Band, BandConfig, importance_bands, importances, share_bands};
pub use method::{Method, Structure, explain};
pub use permutation::{along_orders, drawn_orders, permutation};
pub use tree_interventional::tree_interventional;
pub use tree_path::tree_path;
