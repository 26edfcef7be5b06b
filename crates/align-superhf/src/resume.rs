//! SuperHF as an [`Algorithm`]: what a checkpoint holds.
//!
//! ```text
//! policy/        weights and optimiser
//! superhf.json   the count of completions
//! ```

use std::fs;
use std::path::Path;

use align_core::persist::{read_json, write_json};
use align_core::{Persist, PersistError, Policy};
use align_train::{Algorithm, Metrics, TrainError};
use serde::{Deserialize, Serialize};

use crate::superhf::SuperHf;

/// The state's name inside a checkpoint.
const STATE_FILE: &str = "superhf.json";

/// What has to be remembered beside weights and moments.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Completions sampled so far.
    episodes: u64,
}

impl<P: Policy + Persist> Algorithm for SuperHf<P> {
    fn iterate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        Ok(self.iteration(step)?)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let policy = folder.join("policy");
        fs::create_dir_all(&policy).map_err(PersistError::write(&policy))?;
        self.policy.save(&policy)?;
        let state = State { episodes: self.episodes };
        Ok(write_json(&folder.join(STATE_FILE), &state)?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        let state: State = read_json(&folder.join(STATE_FILE), "the state of a SuperHF run")?;
        self.policy.restore(&folder.join("policy"))?;
        self.episodes = state.episodes;
        Ok(())
    }
}
