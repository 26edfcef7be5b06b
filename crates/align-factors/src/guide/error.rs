//! Why a guided training stopped.

use align_train::TrainError;
use thiserror::Error;

use crate::{FactorsError, ModelError};

/// An error of a training, guided or not.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GuideError {
    /// Knowledge, settings or attributions are wrong, or a loss is not finite.
    #[error(transparent)]
    Factors(#[from] FactorsError),
    /// The data does not suit the loss, or a model of a pool cannot be fitted.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A gradient is not finite, or nothing is trainable.
    #[error(transparent)]
    Train(TrainError),
}

impl From<TrainError> for GuideError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::LossNotFinite { step, term, value } => {
                FactorsError::Loss { term, value, step }.into()
            }
            error => Self::Train(error),
        }
    }
}
