//! Training networks so that their reasons are those of knowledge, or of each other.
//!
//! ```text
//! L(θ) = task(θ) + λ · KL(q ‖ p_θ),    p_j = I_j / Σ_k I_k,    I_j = mean over rows of |φ_j|
//! ```
//!
//! | step | where |
//! | --- | --- |
//! | attributions φ that can be differentiated | [`Probe`] |
//! | importances, p and the divergence | [`smoothed_importances`], [`log_shares`], [`divergence_loss`] |
//! | knowledge q from a pool of models | [`fit_pool`]; from experts, [`Knowledge`](crate::Knowledge) |
//! | training towards q | [`fit`]; with a choice of λ, [`fit_grid`] |
//! | training several networks towards each other | [`fit_jointly`] |
//!
//! That the loss penalises a KL divergence of factor-importance distributions is stated in the abstract of arXiv 2402.12398.
//! Its direction, the normalisation, the attributions, λ, the warm-up, the clipping and the pool are our choices.
//!
//! # Examples
//! Knowledge is given a say, and the validation rows say how much of one:
//! ```
//! use align_factors::guide::{FitConfig, Guide, GuideConfig, fit_grid};
//! use align_factors::{Activation, Mlp, Survey, SurveyConfig, Train, Validation};
//!
//! let survey = Survey::new(SurveyConfig::default())?;
//! let (train, validation) = (survey.draw::<Train>(100, 7), survey.draw::<Validation>(400, 7));
//! let network = Mlp::new(12, &[16], Activation::Tanh, 3.0, 7, &align_testkit::device());
//! let guide = Guide { config: GuideConfig::default(), knowledge: survey.true_distribution() };
//! let config = FitConfig { steps: 300, ..FitConfig::default() };
//! let selection = fit_grid(&network, &train, &validation, &config, &guide, &[1.0])?;
//! assert_eq!(selection.best().lambda, 1.0);
//! assert!(selection.best().fitted.validation < selection.unguided().validation);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod error;
mod grid;
mod joint;
mod loss;
mod pool;
mod probe;
mod step;
mod train;

pub use config::{EarlyStopping, FitConfig, GuideConfig};
pub use error::GuideError;
pub use grid::{Candidate, LAMBDAS, Selection, fit_grid};
pub use joint::{Concord, JointConfig, fit_jointly};
pub use loss::{
    TaskLoss, divergence_loss, half_squared_norm, jensen_shannon_loss, log_shares, smoothed_importances,
};
pub use pool::{Pool, PoolConfig, PoolModel, fit_pool};
pub use probe::{Probe, ProbeConfig, antithetic_orders};
pub use train::{Fitted, Guide, Look, fit};
