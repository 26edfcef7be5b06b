//! PPO as an [`Algorithm`]: what a checkpoint holds.
//!
//! ```text
//! policy/      weights and optimiser
//! critic/      weights and optimiser, if there is one
//! reference/   weights, if it moves
//! ppo.json     β, running statistics, what was measured on the first rollout, the count of responses
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use align_core::persist::{read_json, write_json};
use align_core::regularizer::Coefficient;
use align_core::{Critic, Persist, PersistError, Policy};
use align_train::{Algorithm, Metrics, TrainError};
use serde::{Deserialize, Serialize};

use crate::anchor::Anchor;
use crate::error::PpoError;
use crate::occupancy::Base;
use crate::ppo::Ppo;
use crate::rewards::RunningMoments;

/// The state's name inside a checkpoint.
const STATE_FILE: &str = "ppo.json";

/// What has to be remembered beside weights and moments.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Responses collected so far.
    episodes: u64,
    /// β, wherever it has been steered to.
    coefficient: Coefficient,
    /// Of all scores so far.
    moments: RunningMoments,
    /// The first rollout: length and score.
    first: Option<(f64, f64)>,
    /// The first rollout: how its scores spread and agree with the gold judge's. Absent from older checkpoints.
    #[serde(default)]
    base: Option<Base>,
    /// Whether there is a critic.
    critic: bool,
    /// Whether the reference moves.
    moving: bool,
}

impl<P: Policy + Persist, C: Critic + Persist> Algorithm for Ppo<P, C> {
    fn iterate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        Ok(self.iteration(step)?)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.policy.save(&subfolder(folder, "policy")?)?;
        if let Some(critic) = &self.critic {
            critic.save(&subfolder(folder, "critic")?)?;
        }
        if let Anchor::Moving(moving) = &self.reference {
            moving.save(&subfolder(folder, "reference")?)?;
        }
        let state = State {
            episodes: self.episodes,
            coefficient: self.regularizer.coefficient.clone(),
            moments: self.moments,
            first: self.first,
            base: self.base,
            critic: self.critic.is_some(),
            moving: matches!(self.reference, Anchor::Moving(_)),
        };
        Ok(write_json(&folder.join(STATE_FILE), &state)?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        let state: State = read_json(&folder.join(STATE_FILE), "the state of a PPO run")?;
        let moving = matches!(self.reference, Anchor::Moving(_));
        let what = match (state.critic, self.critic.is_some(), state.moving, moving) {
            (true, false, ..) => Some("has a critic"),
            (false, true, ..) => Some("has no critic"),
            (.., true, false) => Some("has a moving reference"),
            (.., false, true) => Some("has a fixed reference"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(PpoError::OtherSetUp { what }.into());
        }
        self.policy.restore(&folder.join("policy"))?;
        if let Some(critic) = &mut self.critic {
            critic.restore(&folder.join("critic"))?;
        }
        if let Anchor::Moving(moving) = &mut self.reference {
            moving.restore(&folder.join("reference"))?;
        }
        self.episodes = state.episodes;
        self.regularizer.coefficient = state.coefficient;
        self.moments = state.moments;
        self.first = state.first;
        self.base = state.base;
        Ok(())
    }
}

fn subfolder(folder: &Path, name: &str) -> Result<PathBuf, PersistError> {
    let path = folder.join(name);
    fs::create_dir_all(&path).map_err(PersistError::write(&path))?;
    Ok(path)
}
