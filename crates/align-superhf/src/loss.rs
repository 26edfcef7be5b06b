//! What a minibatch of kept completions costs.
//!
//! ```text
//! L(θ) = L_CE + C / L_CE + β · L_KL                                                          (2)
//! L_CE = mean over tokens of −log p_θ(y_t | x, y_<t)
//! L_KL = KL(p_0 ‖ p_θ) or KL(p_θ ‖ p_0) over the whole vocabulary, reduced over the same tokens
//! ```
//!
//! Both terms look at the distributions *before* each response token, and at those tokens only: a mask says where each token
//! came from, and nothing is counted from the left.
//!
//! # Departures from the released code
//! Its KL stands one position later than its cross-entropy; ours does not. It sums the examples' KL where the
//! cross-entropy is a mean over tokens, so that β acts four times stronger at minibatch 8 than at 2; ours is a mean
//! ([`KlReduction`]). It floors each example's KL at 0, which hides two sides that are not normalised alike; here both are
//! normalised by the same function, and an exact KL needs no floor.

use align_core::TokenBatch;
use align_core::divergence::{Divergence, Kl, ReverseKl};
use align_core::shape::assert_same_shape;
use burn::tensor::{DType, Int, Tensor, TensorData, activation::log_softmax};
use serde::{Deserialize, Serialize};

/// Which way the KL to the prior is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlDirection {
    /// KL(p_0 ‖ p_θ): every token keeps at least β/(1 + β) of its prior probability, a hard floor against collapse
    /// ([`forward_minimizer`](crate::ideal::forward_minimizer)). As released.
    #[default]
    PriorToPolicy,
    /// KL(p_θ ‖ p_0): the direction of RLHF and of the paper's Bayesian argument; it has no floor.
    PolicyToPrior,
}

/// How the KL of all tokens becomes one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlReduction {
    /// `(1/E) Σ_e (1/|y_e|) Σ_t`: β means the same at every minibatch size. The released β = 0.35 at minibatch 2 is 0.70 here.
    #[default]
    MeanOverExamples,
    /// `(1/T) Σ_e Σ_t`, with T the tokens of all examples: as the cross-entropy.
    TokenMean,
    /// `Σ_e (1/|y_e|) Σ_t`: as released, for replication; β acts stronger in a larger minibatch.
    SumOverExamples,
}

impl KlReduction {
    /// What a token's KL is multiplied by, in an example of `length` tokens out of `examples` with `tokens` in all.
    ///
    /// # Panics
    /// With an example without tokens.
    pub fn weight(self, length: usize, examples: usize, tokens: usize) -> f64 {
        assert!(length > 0 && examples > 0 && tokens > 0, "only examples with tokens have a mean");
        match self {
            Self::MeanOverExamples => 1.0 / (length * examples) as f64,
            Self::TokenMean => 1.0 / tokens as f64,
            Self::SumOverExamples => 1.0 / length as f64,
        }
    }
}

/// `−log p(y)` of each row's token.
///
/// # Shapes
/// Normalised log-probabilities `[N, V]`, `targets` `[N]` → `[N]`.
///
/// # Units
/// Nats per token.
///
/// # Gradient
/// Through `log_policy`; of the scores below it `softmax − 1_y`.
///
/// # Panics
/// If there are not as many targets as rows.
pub fn token_cross_entropy(log_policy: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [n, _] = log_policy.dims();
    assert_same_shape("loss::token_cross_entropy", [[n], targets.dims()]);
    log_policy.gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1).neg()
}

/// The KL between policy and prior at each row, over the whole vocabulary.
///
/// # Shapes
/// Normalised log-probabilities `[N, V]` each → `[N]`.
///
/// # Units
/// Nats per token.
///
/// # Gradient
/// Through `log_policy`; the prior is a constant. Of the scores below it `p − p_0` for [`KlDirection::PriorToPolicy`],
/// `p (log(p/p_0) − KL)` for [`KlDirection::PolicyToPrior`].
///
/// # Panics
/// If the shapes differ.
pub fn token_kl(log_policy: Tensor<2>, log_prior: Tensor<2>, direction: KlDirection) -> Tensor<1> {
    let log_prior = log_prior.without_autodiff();
    match direction {
        KlDirection::PriorToPolicy => ReverseKl.exact(log_policy, log_prior),
        KlDirection::PolicyToPrior => Kl::default().exact(log_policy, log_prior),
    }
}

/// Scores as normalised log-probabilities, in f32 at least.
///
/// # Shapes
/// `[N, V]` → `[N, V]`, in nats.
pub(crate) fn log_probs(scores: Tensor<2>) -> Tensor<2> {
    let scores = match scores.dtype() {
        DType::F16 | DType::BF16 => scores.cast(DType::F32),
        _ => scores,
    };
    log_softmax(scores, 1)
}

/// Below this cross-entropy the inverse-loss penalty goes on along its tangent: it would explode.
pub const INVERSE_LOSS_FLOOR: f64 = 1e-4;

/// What the inverse-loss penalty makes of a cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InverseLoss {
    /// `L + C/L`.
    pub value: f64,
    /// `1 − C/L²`: what the cross-entropy's gradient is multiplied by. Negative below √C.
    pub slope: f64,
    /// Whether L was below [`INVERSE_LOSS_FLOOR`].
    pub guarded: bool,
}

/// `L + C/L` and its slope: least at L = √C, below which it pushes the loss up, away from states of low entropy.
///
/// # Source
/// The released code's `inverse_loss_penalty`, which its authors dropped. The guard is ours.
///
/// # Examples
/// ```
/// let found = align_superhf::loss::inverse_loss(0.5, 0.1);
/// assert!((found.value - 0.7).abs() < 1e-12 && (found.slope - 0.6).abs() < 1e-12);
/// ```
pub fn inverse_loss(cross_entropy: f64, coefficient: f64) -> InverseLoss {
    let at = cross_entropy.max(INVERSE_LOSS_FLOOR);
    let slope = 1.0 - coefficient / (at * at);
    let value = at + coefficient / at + slope * (cross_entropy - at);
    InverseLoss { value, slope, guarded: cross_entropy < INVERSE_LOSS_FLOOR }
}

/// The coefficients of equation (2).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSettings {
    /// β.
    pub kl_coef: f64,
    /// Which way the KL is taken.
    pub direction: KlDirection,
    /// How it is reduced.
    pub reduction: KlReduction,
    /// C.
    pub inverse_loss: f64,
}

/// The parts of equation (2), `[1]` each.
#[derive(Clone, Debug)]
pub struct LossTerms {
    /// L_CE, nats per token.
    pub cross_entropy: Tensor<1>,
    /// L_KL, before β.
    pub kl: Tensor<1>,
    /// L.
    pub total: Tensor<1>,
}

/// Equation (2) for one minibatch whose scores are all there: for checks and small models. Training goes through
/// [`SuperHfObjective`](crate::objective::SuperHfObjective), which gives the same numbers without holding them.
///
/// # Shapes
/// Scores before each response token, `[B, R, V]` each; `response` `[B, R]` → `[1]` each.
///
/// # Gradient
/// Through `policy` only, and not under a false mask.
///
/// # Panics
/// If the shapes disagree or no token counts.
///
/// # Source
/// Mukobi et al. 2023, <https://arxiv.org/abs/2310.16763>, in the form of the released code.
pub fn superhf_loss(
    policy: Tensor<3>,
    prior: Tensor<3>,
    response: &TokenBatch,
    settings: &LossSettings,
) -> LossTerms {
    let [b, r, _] = policy.dims();
    assert_same_shape("loss::superhf_loss", [policy.dims(), prior.dims()]);
    assert_same_shape("loss::superhf_loss", [[b, r], response.ids.dims()]);
    let counted = Counted::of(response);
    assert!(counted.tokens() > 0, "loss::superhf_loss: expected at least one token that counts");
    let (policy, prior) = (log_probs(counted.rows(policy)), log_probs(counted.rows(prior)));
    let cross_entropy = token_cross_entropy(policy.clone(), counted.targets.clone()).mean();
    let weights =
        counted.spread(|length| settings.reduction.weight(length, counted.examples(), counted.tokens()));
    let kl = token_kl(policy, prior, settings.direction);
    let weights = TensorData::new(weights, [counted.tokens()]);
    let weights = Tensor::from_data(weights, (&kl.device().without_autodiff(), kl.dtype()));
    let kl = (kl * weights).sum();
    let inverse = match settings.inverse_loss {
        0.0 => cross_entropy.clone(),
        coefficient => {
            let at: f64 = cross_entropy.to_data().iter::<f64>().sum();
            let found = inverse_loss(at, coefficient);
            // The value is that of L + C/L, the gradient its tangent's.
            cross_entropy.clone() * found.slope + (found.value - found.slope * at)
        }
    };
    LossTerms { total: inverse + kl.clone() * settings.kl_coef, cross_entropy, kl }
}

/// Where tokens count, as rows of a matrix: padding is left out before anything is computed.
pub(crate) struct Counted {
    /// Places in `[B·R]`, `[N]`.
    places: Tensor<1, Int>,
    /// The tokens there, `[N]`.
    pub(crate) targets: Tensor<1, Int>,
    /// Tokens of each example that has some.
    lengths: Vec<usize>,
}

impl Counted {
    pub(crate) fn of(response: &TokenBatch) -> Self {
        let mask = response.mask.to_data();
        let places: Vec<i64> =
            (0..).zip(mask.iter::<bool>()).filter_map(|(at, counts)| counts.then_some(at)).collect();
        let targets: Vec<i64> = response.rows().into_iter().flatten().map(i64::from).collect();
        let tensor = |values: Vec<i64>| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &response.ids.device().without_autodiff())
        };
        let lengths = response.lengths().into_iter().filter(|length| *length > 0).collect();
        Self { places: tensor(places), targets: tensor(targets), lengths }
    }

    pub(crate) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    pub(crate) fn examples(&self) -> usize {
        self.lengths.len()
    }

    /// `[B, R, E]` → `[N, E]`.
    pub(crate) fn rows(&self, states: Tensor<3>) -> Tensor<2> {
        let [b, r, e] = states.dims();
        states.reshape([b * r, e]).select(0, self.places.clone())
    }

    /// One number for each token, by the length of its example.
    pub(crate) fn spread(&self, weight: impl Fn(usize) -> f64) -> Vec<f64> {
        self.lengths.iter().flat_map(|&length| std::iter::repeat_n(weight(length), length)).collect()
    }
}
