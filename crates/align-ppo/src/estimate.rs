//! From a rollout to what is learnt from it: scores are shaped, tokens paid, advantages estimated.

use align_core::masked::Shift;
use align_core::{Regularizer, advantages, masked};
use burn::tensor::{Bool, Tensor, TensorData};

use crate::config::{AdvantageEstimator, PpoConfig};
use crate::rewards::{RewardScaling, RunningMoments, penalize_missing_stop, token_rewards};
use crate::rollout::Rollout;

/// What every token was paid, and what that is worth learning from.
#[derive(Clone, Debug)]
pub struct Estimates {
    /// Scores after empty responses, missing stops and scaling, one for each response.
    pub scores: Vec<f64>,
    /// What the regulariser takes from each token, β included, `[B, R]`; zeros if it stands in the loss.
    pub penalties: Tensor<2>,
    /// Rewards, `[B, R]`, before whitening.
    pub rewards: Tensor<2>,
    /// Â, `[B, R]`, whitened if asked for, weighed where the sampler is corrected for.
    pub advantages: Tensor<2>,
    /// G, `[B, R]`, from unwhitened advantages; only with a critic.
    pub returns: Option<Tensor<2>>,
}

/// Shapes scores, pays tokens and estimates advantages: returns first, whitening second.
///
/// `seen` is the running state of [`RewardScaling::RunningStd`] and takes in the scores.
///
/// # Panics
/// If the estimator needs values and the rollout has none.
pub fn estimate(
    rollout: &Rollout,
    regularizer: &Regularizer,
    config: &PpoConfig,
    seen: &mut RunningMoments,
) -> Estimates {
    let mask = &rollout.completions.response.mask;
    let scores = shape_scores(rollout, config, seen);
    let log_ratio = rollout.old_log_probs.clone() - rollout.reference_log_probs.clone();
    let penalties = regularizer.penalty(log_ratio, mask);
    let rewards = token_rewards(&scores, penalties.clone(), mask);
    let paid = match config.reward_scaling() {
        RewardScaling::Whiten => masked::whiten(rewards.clone(), mask, Shift::Keep),
        _ => rewards.clone(),
    };
    let (advantages, returns) = advantages_of(paid, rollout, config);
    let advantages = match config.importance_cap {
        Some(cap) => advantages * importance_weights(rollout, cap.get()),
        None => advantages,
    };
    Estimates { scores, penalties, rewards, advantages, returns }
}

/// Scores after the rules for empty and unfinished responses, brought to scale.
fn shape_scores(rollout: &Rollout, config: &PpoConfig, seen: &mut RunningMoments) -> Vec<f64> {
    let mut scores = rollout.scores.clone();
    if let Some(constant) = config.empty_response_score {
        for (score, _) in scores.iter_mut().zip(&rollout.content_lengths).filter(|(_, length)| **length == 0)
        {
            *score = constant.get();
        }
    }
    let scores = penalize_missing_stop(&scores, &rollout.stopped, config.missing_stop());
    match config.reward_scaling() {
        RewardScaling::None | RewardScaling::Whiten => scores,
        RewardScaling::Clip(limit) => scores.into_iter().map(|score| score.clamp(-limit, limit)).collect(),
        RewardScaling::RunningStd => {
            seen.update(&scores);
            scores.into_iter().map(|score| score / seen.standard_deviation()).collect()
        }
    }
}

/// Advantages and, with a critic, returns.
fn advantages_of(
    rewards: Tensor<2>,
    rollout: &Rollout,
    config: &PpoConfig,
) -> (Tensor<2>, Option<Tensor<2>>) {
    let mask = &rollout.completions.response.mask;
    let whitened = |advantages: Tensor<2>| {
        if config.whiten_advantages { masked::whiten(advantages, mask, Shift::Subtract) } else { advantages }
    };
    let gamma = config.gamma.get();
    let per_response = |estimator: fn(Tensor<1>, usize) -> Tensor<1>| {
        let totals: Tensor<1> = rewards.clone().sum_dim(1).squeeze_dim(1);
        everywhere(estimator(totals, config.num_generations), mask)
    };
    match config.advantage_estimator {
        AdvantageEstimator::Gae => {
            let values = rollout.values.clone().expect("gae has a critic");
            let gae = advantages::gae(rewards.clone(), values, mask, gamma, config.lam.get());
            (whitened(gae.advantages), Some(gae.returns))
        }
        AdvantageEstimator::PositionBaseline => {
            let to_go = advantages::returns_to_go(rewards.clone(), mask, gamma);
            (advantages::position_baseline(to_go, mask), None)
        }
        AdvantageEstimator::LeaveOneOut => (whitened(per_response(advantages::leave_one_out)), None),
        AdvantageEstimator::GroupNormalized => (per_response(advantages::group_normalized), None),
    }
}

/// One number of each row at all of its tokens.
fn everywhere(per_row: Tensor<1>, mask: &Tensor<2, Bool>) -> Tensor<2> {
    let [b, r] = mask.dims();
    per_row.reshape([b, 1]).expand([b, r]).mask_fill(mask.clone().bool_not(), 0.0)
}

/// `min(π_old / π_sampled, cap)` for every token, `[B, R]`, constants.
///
/// # Source
/// Truncated importance sampling, Ionides 2008; for samplers that differ from the trainer: verl, `rollout_corr`.
fn importance_weights(rollout: &Rollout, cap: f64) -> Tensor<2> {
    let log_weight = rollout.old_log_probs.clone() - rollout.sampled_log_probs.clone();
    let capped: Vec<f64> = log_weight.to_data().iter::<f64>().map(|log| log.exp().min(cap)).collect();
    let like = (&log_weight.device(), log_weight.dtype());
    Tensor::from_data(TensorData::new(capped, log_weight.dims()), like)
}
