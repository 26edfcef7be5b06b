//! What can go wrong while training.

use align_core::PersistError;

use crate::checkpoint::CheckpointError;
use crate::folder::FolderError;

/// Why a run stopped before its end. Nothing that was saved is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss became NaN or infinite; the parameters are those before the step.
    #[error(
        "optimizer step {step}: `{term}` is {value}, expected a finite number; the parameters were not changed"
    )]
    LossNotFinite {
        /// The optimizer step, counted from 0.
        step: u64,
        /// The part of the loss.
        term: &'static str,
        /// The loss it made.
        value: f64,
    },
    /// The loss is finite and its gradient is not; the parameters are those before the step.
    #[error(
        "optimizer step {step}: the gradient is not finite in {}; the parameters were not changed",
        list(tensors)
    )]
    GradientNotFinite {
        /// The optimizer step, counted from 0.
        step: u64,
        /// Paths of the tensors.
        tensors: Vec<String>,
    },
    /// At the first step some trainable tensors got no gradient: they would silently not be trained.
    #[error(
        "optimizer step {step}: expected a non-zero gradient in every trainable tensor, found none in {} of {trainable}: {}; \
         freeze them, or list them in `allow_zero_gradient` if that is meant",
        tensors.len(),
        list(tensors)
    )]
    NotTrained {
        /// The optimizer step, counted from 0.
        step: u64,
        /// Paths of the tensors.
        tensors: Vec<String>,
        /// How many tensors are trainable.
        trainable: usize,
    },
    /// Every microbatch of the step has weight 0.
    #[error(
        "optimizer step {step}: expected at least one token or pair that counts, found none in {microbatches} microbatches"
    )]
    NothingCounts {
        /// The optimizer step, counted from 0.
        step: u64,
        /// How many microbatches there were.
        microbatches: usize,
    },
    /// Every held-out batch has weight 0.
    #[error("expected at least one token or pair that counts, found none in {batches} held-out batches")]
    NothingToEvaluate {
        /// How many batches there were.
        batches: usize,
    },
    /// All parameters of the model are frozen.
    #[error("expected a model with trainable parameters, found {tensors} tensors, all of them frozen")]
    NothingToTrain {
        /// How many tensors the model has.
        tensors: usize,
    },
    /// One parameter stands at two paths; they would drift apart at the first step.
    #[error("expected every parameter at one path, found the same parameter at `{first}` and `{second}`")]
    SharedParameter {
        /// One path.
        first: String,
        /// The other.
        second: String,
    },
    /// Saving or restoring failed.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// A checkpoint is unusable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The run folder is unusable.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A part of the algorithm failed: its data, its reward, its sampler.
    #[error("iteration failed")]
    Algorithm(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TrainError {
    /// Wraps the error of an algorithm's part, for use with `map_err`.
    pub fn algorithm(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Algorithm(error.into())
    }
}

/// The first ten names, quoted, and how many more there are.
fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(10).map(|name| format!("`{name}`")).collect();
    let rest = names.len().saturating_sub(shown.len());
    let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    format!("{}{more}", shown.join(", "))
}
