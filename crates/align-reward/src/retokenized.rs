//! A reward whose model reads other tokens than the policy writes.

use std::sync::Mutex;

use align_core::{Completions, Reward};
use burn::tensor::{Device, Tensor};

/// Prompt and response in a reward's own tokens.
pub type OwnTokens = (Vec<u32>, Vec<u32>);

/// A reward that is asked in its own tokens: every completion is translated, usually by putting it into words and through
/// the reward model's own tokenizer and template.
///
/// A completion that cannot be translated makes the rows of its batch NaN, which stops whoever reads them;
/// [`Reward::take_failure`] says why.
///
/// # Examples
/// ```
/// use align_core::{Completions, Reward, RewardFn};
/// use align_reward::Retokenized;
/// use align_testkit::device;
///
/// // The policy writes one token a letter, the reward reads one for two of them.
/// let length = RewardFn(|c: &Completions| c.response.mask.clone().int().sum_dim(1).squeeze_dim::<1>(1).float());
/// let halves = |prompt: &[u32], response: &[u32]| {
///     let half = |ids: &[u32]| ids.chunks(2).map(|pair| pair[0]).collect::<Vec<_>>();
///     Ok((half(prompt), half(response)))
/// };
/// let reward = Retokenized::new(length, halves, device());
/// let completions = Completions::from_rows(&[vec![1]], &[vec![2, 2, 3, 3]], &device());
/// assert_eq!(reward.score(&completions).into_scalar::<f32>(), 2.0);
/// ```
pub struct Retokenized<R, F> {
    reward: R,
    translate: F,
    device: Device,
    failure: Mutex<Option<String>>,
}

impl<R, F> Retokenized<R, F>
where
    F: Fn(&[u32], &[u32]) -> Result<OwnTokens, String> + Send + Sync,
{
    /// Asks `reward`, on `device`, about what `translate` makes of prompts and responses; neither may become empty.
    pub fn new(reward: R, translate: F, device: Device) -> Self {
        Self { reward, translate, device, failure: Mutex::new(None) }
    }

    fn translated(&self, completions: &Completions) -> Result<Completions, String> {
        let (prompts, responses) = (completions.prompt.rows(), completions.response.rows());
        let rows: Vec<OwnTokens> = prompts
            .iter()
            .zip(&responses)
            .map(|(prompt, response)| (self.translate)(prompt, response))
            .collect::<Result<_, _>>()?;
        let (prompts, responses): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        Ok(Completions::from_rows(&prompts, &responses, &self.device))
    }
}

impl<R: Reward, F> Reward for Retokenized<R, F>
where
    F: Fn(&[u32], &[u32]) -> Result<OwnTokens, String> + Send + Sync,
{
    fn score(&self, completions: &Completions) -> Tensor<1> {
        match self.translated(completions) {
            Ok(translated) => self.reward.score(&translated),
            Err(reason) => {
                *self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(reason);
                Tensor::full([completions.batch_size()], f32::NAN, &self.device)
            }
        }
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.reward.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        let own = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        own.or_else(|| self.reward.take_failure())
    }
}

impl<R: std::fmt::Debug, F> std::fmt::Debug for Retokenized<R, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retokenized").field("reward", &self.reward).finish_non_exhaustive()
    }
}
