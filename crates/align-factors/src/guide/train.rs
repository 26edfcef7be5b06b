//! Training one network, guided or not.

use super::config::first_guided_step;
use super::step::{Guidance, Pull, Source, Trainee, check_labelled};
use super::{FitConfig, GuideConfig, GuideError, TaskLoss};
use crate::models::Net;
use crate::{Design, FactorsError, ImportanceDistribution, Network, Validation};

/// Knowledge, and how a network is pulled towards it.
#[derive(Clone, Debug, PartialEq)]
pub struct Guide {
    /// How.
    pub config: GuideConfig,
    /// q, one mass for each factor. From experts or from training rows, never from rows that are tested on.
    pub knowledge: ImportanceDistribution,
}

/// A network that was fitted.
#[derive(Clone, Debug)]
pub struct Fitted<N> {
    /// The network, without gradients: that of the lowest validation loss, or without validation rows the last.
    pub network: N,
    /// After how many steps it was taken.
    pub step: u64,
    /// Its mean loss of the task on validation rows.
    pub validation: Option<f64>,
    /// What was seen on the way.
    pub looks: Vec<Look>,
    /// Guided steps whose divergence was left out, since the network depended on no factor.
    pub skipped: u64,
}

/// What was seen at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// After how many steps.
    pub step: u64,
    /// The mean loss of the task over the minibatches since the last look.
    pub task: f64,
    /// The mean divergence over the guided steps since the last look, if there were any.
    pub divergence: Option<f64>,
    /// The mean loss of the task on validation rows.
    pub validation: Option<f64>,
}

/// Fits a network to training rows: `task + ½ l2 Σ W²`, and after the warm-up `+ λ D(q, p)` if it is guided.
///
/// p is the importance distribution of a few training rows, drawn anew at every step and attributed along random orders and
/// their reverses. With validation rows, training ends early where they no longer gain, and the network that did best on them
/// is the result. A guide of weight 0 changes nothing, bit for bit. Networks are updated in f32, whatever they are kept in.
///
/// # Errors
/// If a count is 0, λ is negative or not finite, knowledge has another number of factors, a row or label is not finite or the
/// label not one that the loss takes, or the loss becomes NaN or infinite.
///
/// # Source
/// arXiv 2402.12398 for the divergence of importance distributions as a loss; the schedule and all numbers are ours.
pub fn fit<N: Network>(
    network: N,
    train: &Design,
    validation: Option<&Design<Validation>>,
    config: &FitConfig,
    guide: Option<&Guide>,
) -> Result<Fitted<N>, GuideError> {
    let source = Source::new(&network, train, config)?;
    if let Some(validation) = validation {
        check_labelled(config.loss, &validation.rows, &validation.labels)?;
    }
    let guide = guide.map(|guide| Pulling::new(guide, train)).transpose()?.flatten();
    let first = guide.as_ref().map_or(0, |pulling| first_guided_step(pulling.config.warmup, config.steps));
    let mut trainee = Trainee::new(network, config)?;
    let mut watch = Watch::new(config, first);
    for step in 0..config.steps {
        let guidance = guide.as_ref().filter(|_| step >= first).map(|pulling| pulling.at(&source, step));
        let seen = trainee.step(&source, step, guidance)?;
        if watch.look(step + 1, seen, &trainee, validation) {
            break;
        }
    }
    Ok(watch.finish(&trainee))
}

/// A guide with a weight above 0, ready for the data.
struct Pulling<'a> {
    config: &'a GuideConfig,
    pull: Pull,
    baseline: crate::attribution::Baseline,
}

impl<'a> Pulling<'a> {
    /// None if the weight is 0.
    fn new(guide: &'a Guide, train: &Design) -> Result<Option<Self>, GuideError> {
        let Guide { config, knowledge } = guide;
        config.check()?;
        let (expected, found) = (train.factors.len(), knowledge.len());
        if expected != found {
            return Err(FactorsError::ShapeMismatch { expected, found }.into());
        }
        if config.lambda == 0.0 {
            return Ok(None);
        }
        let knowledge = knowledge.smoothed(config.knowledge_smoothing.get());
        let pull = Pull::Towards(knowledge, config.divergence);
        Ok(Some(Self { config, pull, baseline: config.probe.baseline.of(&train.rows) }))
    }

    fn at(&self, source: &Source<'_>, step: u64) -> Guidance {
        Guidance {
            probe: source.probe(step, &self.config.probe, &self.baseline),
            pull: self.pull.clone(),
            lambda: self.config.lambda,
            normalization: self.config.normalization,
            smoothing: self.config.smoothing.get(),
        }
    }
}

/// Looks at a training now and then, and keeps the best network.
pub(super) struct Watch<N> {
    loss: TaskLoss,
    every: u64,
    patience: usize,
    steps: u64,
    /// Looks before this step do not choose.
    first: u64,
    task: Mean,
    divergence: Mean,
    best: Option<(u64, f64, N)>,
    without_gain: usize,
    looks: Vec<Look>,
}

impl<N: Network> Watch<N> {
    pub(super) fn new(config: &FitConfig, first: u64) -> Self {
        Self {
            loss: config.loss,
            every: config.early_stopping.every,
            patience: config.early_stopping.patience,
            steps: config.steps,
            first,
            task: Mean::default(),
            divergence: Mean::default(),
            best: None,
            without_gain: 0,
            looks: Vec::new(),
        }
    }

    /// Takes note of the step before `step`; whether training should end.
    pub(super) fn look(
        &mut self,
        step: u64,
        (task, divergence): (f64, Option<f64>),
        trainee: &Trainee<N>,
        validation: Option<&Design<Validation>>,
    ) -> bool {
        self.task.add(task);
        divergence.into_iter().for_each(|divergence| self.divergence.add(divergence));
        if !step.is_multiple_of(self.every) && step != self.steps {
            return false;
        }
        let measured = validation.map(|validation| {
            let network = trainee.network();
            (validation_loss(self.loss, &network, validation), network)
        });
        self.looks.push(Look {
            step,
            task: self.task.take().expect("a step since the last look"),
            divergence: self.divergence.take(),
            validation: measured.as_ref().map(|(loss, _)| *loss),
        });
        let Some((loss, network)) = measured.filter(|_| step > self.first) else { return false };
        if self.best.as_ref().is_none_or(|(_, least, _)| loss < *least) {
            self.best = Some((step, loss, network));
            self.without_gain = 0;
        } else {
            self.without_gain += 1;
        }
        self.without_gain >= self.patience
    }

    pub(super) fn finish(self, trainee: &Trainee<N>) -> Fitted<N> {
        let (step, validation, network) = match self.best {
            Some((step, loss, network)) => (step, Some(loss), network),
            None => (self.looks.last().map_or(0, |look| look.step), None, trainee.network()),
        };
        Fitted { network, step, validation, looks: self.looks, skipped: trainee.skipped }
    }
}

/// The mean loss of the task on validation rows.
fn validation_loss<N: Network>(loss: TaskLoss, network: &N, validation: &Design<Validation>) -> f64 {
    loss.mean_on_host(&Net::new(network).run(&validation.rows), &validation.labels)
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn take(&mut self) -> Option<f64> {
        let Self { sum, count } = std::mem::take(self);
        (count > 0).then(|| sum / count as f64)
    }
}
