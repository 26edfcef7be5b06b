//! What stages that draw answers share.

use align_core::Completions;
use align_data::encode::Encoder;
use align_models::{Generated, SamplingConfig};
use burn::tensor::Device;

/// The recipe's sampling, ending answers where the model does unless it says otherwise.
pub(super) fn sampling_for(config: &SamplingConfig, encoder: &Encoder) -> SamplingConfig {
    let mut sampling = config.clone();
    if sampling.stop_token_ids.is_empty() && !sampling.never_stop {
        sampling.stop_token_ids = encoder.stop_ids().to_vec();
    }
    sampling
}

/// Answers as a batch.
pub(super) fn completions(rows: &[Generated], device: &Device) -> Completions {
    let (prompts, responses): (Vec<_>, Vec<_>) =
        rows.iter().map(|row| (row.prompt.clone(), row.response.clone())).unzip();
    Completions::from_rows(&prompts, &responses, device)
}
