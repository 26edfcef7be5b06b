//! The outer loop.

use std::path::Path;
use std::time::Instant;

use crate::checkpoint::{self, CheckpointPlan, OnDamage};
use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::observer::{Control, Observer};

/// One outer iteration: collect, judge, learn.
///
/// Everything random in it is keyed by the seed and the step (`align_core::Draws`), so there is no generator to save.
pub trait Algorithm {
    /// Does iteration `step`, counted from 0.
    ///
    /// # Errors
    /// If the iteration cannot be completed; the run ends and the last checkpoint stands.
    fn iterate(&mut self, step: u64) -> Result<Metrics, TrainError>;

    /// Writes everything needed to go on after the present iteration into an existing folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, folder: &Path) -> Result<(), TrainError>;

    /// Takes over what [`save`](Self::save) wrote, bit for bit.
    ///
    /// # Errors
    /// If a file is missing, damaged or of something else.
    fn restore(&mut self, folder: &Path) -> Result<(), TrainError>;
}

/// How far to go and what to save on the way.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// Iterations in all, those before `start` included.
    pub steps: u64,
    /// Iterations that are complete already; what [`resume`] returned.
    pub start: u64,
    /// Checkpoints, if any.
    pub checkpoints: Option<CheckpointPlan>,
}

impl RunPlan {
    /// From the start, without checkpoints.
    pub fn new(steps: u64) -> Self {
        Self { steps, start: 0, checkpoints: None }
    }

    /// With checkpoints.
    #[must_use]
    pub fn with_checkpoints(mut self, plan: CheckpointPlan) -> Self {
        self.checkpoints = Some(plan);
        self
    }

    /// After `start` iterations.
    #[must_use]
    pub fn from(mut self, start: u64) -> Self {
        self.start = start;
        self
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All iterations are complete.
    Finished,
    /// An observer stopped it after so many iterations; with checkpoints planned, it was saved there.
    Stopped {
        /// Completed iterations.
        step: u64,
    },
}

/// Iterates, reports and saves.
///
/// Adds `timing_s/step`, the seconds of the iteration, to what the algorithm reports. The last iteration is saved in
/// any case, and so is the one after which an observer stops the run.
///
/// # Errors
/// If the algorithm, an observer or a checkpoint fails. What was saved before stands.
pub fn run(
    algorithm: &mut dyn Algorithm,
    plan: &RunPlan,
    observers: &mut [&mut dyn Observer],
) -> Result<Ended, TrainError> {
    for observer in observers.iter_mut() {
        observer.started(plan.start, plan.steps)?;
    }
    let mut latest = Metrics::new();
    for step in plan.start..plan.steps {
        let begun = Instant::now();
        let metrics = algorithm.iterate(step)?.with("timing_s/step", begun.elapsed().as_secs_f64());
        latest.merge(metrics.clone());
        let complete = step + 1;

        let mut control = Control::Continue;
        for observer in observers.iter_mut() {
            if observer.iterated(complete, &metrics)? == Control::Stop {
                control = Control::Stop;
            }
        }
        if let Some(checkpoints) = &plan.checkpoints {
            let due = checkpoints.every > 0 && complete % checkpoints.every == 0;
            if due || complete == plan.steps || control == Control::Stop {
                let folder =
                    checkpoint::write(checkpoints, complete, &latest, |folder| algorithm.save(folder))?;
                for observer in observers.iter_mut() {
                    observer.saved(complete, &folder)?;
                }
            }
        }
        if control == Control::Stop && complete < plan.steps {
            finish(observers, complete)?;
            return Ok(Ended::Stopped { step: complete });
        }
    }
    finish(observers, plan.steps)?;
    Ok(Ended::Finished)
}

fn finish(observers: &mut [&mut dyn Observer], step: u64) -> Result<(), TrainError> {
    observers.iter_mut().try_for_each(|observer| observer.finished(step))
}

/// Restores the newest checkpoint and gives the number of completed iterations, for [`RunPlan::from`].
///
/// # Errors
/// If there is no whole checkpoint, it was made with another recipe, or it does not fit the algorithm.
pub fn resume(
    algorithm: &mut dyn Algorithm,
    plan: &CheckpointPlan,
    on_damage: OnDamage,
) -> Result<u64, TrainError> {
    let checkpoint = checkpoint::newest(&plan.folder, on_damage)?;
    checkpoint::same_recipe(&checkpoint, plan)?;
    algorithm.restore(&checkpoint.path)?;
    Ok(checkpoint.state.step)
}
