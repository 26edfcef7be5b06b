//! SuperHF as an [`Algorithm`]: what a checkpoint holds.
//!
//! ```text
//! policy/        weights and optimiser
//! superhf.json   the count of completions
//! ```

use std::fs;
use std::io::Write;
use std::path::Path;

use align_core::persist::replace_file;
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
        let text = serde_json::to_vec_pretty(&state).expect("numbers and names are JSON");
        Ok(replace_file(&folder.join(STATE_FILE), |file| file.write_all(&text))?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(STATE_FILE);
        let bytes = fs::read(&path).map_err(PersistError::read(&path))?;
        let state: State = serde_json::from_slice(&bytes).map_err(|error| PersistError::Damaged {
            path,
            expected: "the state of a SuperHF run".to_owned(),
            found: error.to_string(),
        })?;
        self.policy.restore(&folder.join("policy"))?;
        self.episodes = state.episodes;
        Ok(())
    }
}
