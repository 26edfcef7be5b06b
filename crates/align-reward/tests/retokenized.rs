//! A reward in its own tokens: what it is asked, and what happens when a completion has no translation.

use align_core::{Completions, Reward, RewardFn};
use align_reward::{Retokenized, finite_scores};
use align_testkit::device;

/// The sum of a response's ids.
fn sum() -> impl Reward {
    RewardFn(|c: &Completions| {
        let mask = c.response.mask.clone().int();
        (c.response.ids.clone() * mask).sum_dim(1).squeeze_dim::<1>(1).float()
    })
}

fn completions() -> Completions {
    Completions::from_rows(&[vec![1], vec![1, 2]], &[vec![3, 4, 5], vec![6]], &device())
}

#[test]
fn the_reward_sees_translated_rows_of_any_length() {
    // Ids become ten times as large, and every response one token longer.
    let translate = |prompt: &[u32], response: &[u32]| {
        let own: Vec<u32> = response.iter().map(|id| 10 * id).chain([1]).collect();
        Ok((prompt.to_vec(), own))
    };
    let reward = Retokenized::new(sum(), translate, device());
    assert_eq!(finite_scores(&reward, [&completions()]).unwrap(), [121.0, 61.0]);
    // Alone as in a batch.
    let alone = completions().select(&[1]);
    assert_eq!(finite_scores(&reward, [&alone]).unwrap(), [61.0]);
}

#[test]
fn a_completion_without_a_translation_makes_the_batch_nan_and_says_why() {
    let translate = |prompt: &[u32], response: &[u32]| match prompt {
        [1] => Ok((prompt.to_vec(), response.to_vec())),
        _ => Err("an unknown prompt".to_owned()),
    };
    let reward = Retokenized::new(sum(), translate, device());
    let scores: Vec<f32> = reward.score(&completions()).to_data().iter().collect();
    assert!(scores.iter().all(|score| score.is_nan()), "{scores:?}");
    assert_eq!(reward.take_failure().as_deref(), Some("an unknown prompt"));
    assert_eq!(reward.take_failure(), None);
}
