//! Self-play as an [`Algorithm`]: what a checkpoint holds.
//!
//! ```text
//! policy/         weights and optimiser
//! pairs.jsonl     the pairs of the present iteration, anchors and all
//! self_play.json  answers of earlier policies, counts
//! ```

use std::fs;
use std::io::Write;
use std::path::Path;

use align_core::persist::{read_json, replace_file, write_json};
use align_core::{Persist, PersistError, Policy};
use align_train::{Algorithm, Metrics, TrainError};
use serde::{Deserialize, Serialize};

use super::evaluate::Opponents;
use super::{Collected, SelfPlay};
use crate::batch::Pair;

/// The state's name inside a checkpoint.
const STATE_FILE: &str = "self_play.json";
/// The pairs' name inside a checkpoint.
const PAIRS_FILE: &str = "pairs.jsonl";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Comparisons so far.
    calls: u64,
    opponents: Opponents,
    /// How many lines [`PAIRS_FILE`] has.
    pairs: usize,
}

/// A line of [`PAIRS_FILE`].
#[derive(Serialize, Deserialize)]
struct Line {
    pair: Pair,
    drawn: [f32; 2],
}

impl<P: Policy + Persist> Algorithm for SelfPlay<P> {
    fn iterate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        Ok(self.step(step)?)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let policy = folder.join("policy");
        fs::create_dir_all(&policy).map_err(PersistError::write(&policy))?;
        self.learner.save(&policy)?;
        replace_file(&folder.join(PAIRS_FILE), |file| {
            let mut file = std::io::BufWriter::new(file);
            for (pair, drawn) in self.collected.pairs.iter().zip(&self.collected.drawn) {
                serde_json::to_writer(&mut file, &Line { pair: pair.clone(), drawn: *drawn })?;
                file.write_all(b"\n")?;
            }
            file.flush()
        })?;
        let state =
            State { calls: self.calls, opponents: self.opponents.clone(), pairs: self.collected.pairs.len() };
        Ok(write_json(&folder.join(STATE_FILE), &state)?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        let state: State = read_json(&folder.join(STATE_FILE), "the state of a self-play run")?;
        let lines = read_pairs(&folder.join(PAIRS_FILE), state.pairs)?;
        self.learner.restore(&folder.join("policy"))?;
        let (pairs, drawn) = lines.into_iter().map(|line| (line.pair, line.drawn)).unzip();
        self.collected = Collected { pairs, drawn, ..Collected::default() };
        self.calls = state.calls;
        self.opponents = state.opponents;
        Ok(())
    }
}

/// Reads the pairs of a checkpoint, all of them.
fn read_pairs(path: &Path, count: usize) -> Result<Vec<Line>, PersistError> {
    let text = fs::read_to_string(path).map_err(PersistError::read(path))?;
    let damaged = |found| PersistError::Damaged {
        path: path.to_owned(),
        expected: format!("{count} pairs, one a line"),
        found,
    };
    let lines: Vec<Line> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(error.to_string()))?;
    if lines.len() == count { Ok(lines) } else { Err(damaged(format!("{} pairs", lines.len()))) }
}
