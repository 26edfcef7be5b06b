//! Trainings that keep an average of their weights: `average = { kind = "ema" }` and `{ kind = "lawa" }`.
//!
//! A step is one iteration of the stage's loop: an optimiser step of `sft`, `reward`, `dpo`, `nash` and `online`, an iteration
//! of `ppo`, a group of `superhf`. The average is in every checkpoint, so that an interrupted training goes on with the same
//! one, bit for bit. Of a model with adapters the merged weights are averaged, never the factors.

use std::path::Path;

use align_core::Persist;
use align_models::{Transformer, ValueModel};
use align_nash::SelfPlay;
use align_ppo::Ppo;
use align_soup::{Ema, Lawa, SoupError, uniform};
use align_superhf::SuperHf;
use align_train::{Algorithm, Batches, Metrics, Objective, Supervised, TrainError};
use anyhow::Result;

use super::adapters::Adapted;
use super::warned::Warns;
use crate::recipe::average::AverageConfig;

/// An algorithm with the model it trains.
pub(super) trait Trains: Algorithm {
    type Model: Adapted;

    /// As it stands.
    fn trained(&self) -> &Self::Model;
}

impl<M, O, D> Trains for Supervised<M, O, D>
where
    M: Adapted + Persist,
    O: Objective<M>,
    D: Batches<Batch = O::Batch>,
{
    type Model = M;

    fn trained(&self) -> &M {
        self.learner().model()
    }
}

macro_rules! trains_policy {
    ($($algorithm:ty),+) => {
        $(impl Trains for $algorithm {
            type Model = Transformer;

            fn trained(&self) -> &Transformer {
                self.policy()
            }
        })+
    };
}
trains_policy!(Ppo<Transformer, ValueModel>, SelfPlay<Transformer>, SuperHf<Transformer>);

/// An average under way.
enum Average<M> {
    Ema(Box<Ema<M>>),
    Lawa(Lawa<M>),
}

/// A training, and its average if one was asked for.
pub(super) struct Averaged<'a, A: Trains> {
    algorithm: &'a mut A,
    average: Option<(u64, Average<A::Model>)>,
}

impl<'a, A: Trains> Averaged<'a, A> {
    /// Begins at the model as it stands, before its first step of `steps`.
    pub(super) fn new(algorithm: &'a mut A, config: Option<&AverageConfig>, steps: u64) -> Result<Self> {
        let average = match config {
            None => None,
            Some(config) => {
                config.check(steps)?;
                let average = match config {
                    AverageConfig::Ema { decay, .. } => {
                        Average::Ema(Box::new(Ema::new(&algorithm.trained().dense(), *decay)?))
                    }
                    AverageConfig::Lawa { last, .. } => Average::Lawa(Lawa::new(algorithm.trained(), *last)?),
                };
                Some((config.every(), average))
            }
        };
        Ok(Self { algorithm, average })
    }

    /// The averaged model.
    pub(super) fn finish(self) -> Result<Option<A::Model>, SoupError> {
        match self.average {
            None => Ok(None),
            Some((_, Average::Ema(ema))) => Ok(Some(ema.model())),
            Some((_, Average::Lawa(lawa))) => {
                let merged: Vec<A::Model> = lawa.snapshots().map(Adapted::dense).collect();
                uniform(&merged).map(Some)
            }
        }
    }
}

impl<A: Trains> Algorithm for Averaged<'_, A> {
    fn iterate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        let metrics = self.algorithm.iterate(step)?;
        if let Some((every, average)) = &mut self.average
            && (step + 1).is_multiple_of(*every)
        {
            match average {
                Average::Ema(ema) => {
                    ema.update(&self.algorithm.trained().dense()).map_err(TrainError::algorithm)?;
                }
                Average::Lawa(lawa) => lawa.take(self.algorithm.trained()),
            }
        }
        Ok(metrics)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.algorithm.save(folder)?;
        match &self.average {
            None => Ok(()),
            Some((_, Average::Ema(ema))) => ema.save(folder).map_err(TrainError::algorithm),
            Some((_, Average::Lawa(lawa))) => lawa.save(folder).map_err(TrainError::algorithm),
        }
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        self.algorithm.restore(folder)?;
        match &mut self.average {
            None => Ok(()),
            Some((_, Average::Ema(ema))) => ema.restore(folder).map_err(TrainError::algorithm),
            Some((_, Average::Lawa(lawa))) => lawa.restore(folder).map_err(TrainError::algorithm),
        }
    }
}

impl<A: Trains + Warns> Warns for Averaged<'_, A> {
    fn warnings(&mut self) -> Vec<String> {
        self.algorithm.warnings()
    }
}
