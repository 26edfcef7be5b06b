//! One step of a training: where its rows come from, and what it minimises.

use align_core::Draws;
use align_core::draws::Purpose;
use align_train::{Learner, Loss, Metrics, Objective, OptimizerConfig};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rand::seq::index;

use super::loss::{
    divergence_loss, half_squared_norm, jensen_shannon_loss, log_shares, smoothed_importances,
};
use super::{FitConfig, GuideError, Probe, ProbeConfig, TaskLoss, antithetic_orders};
use crate::attribution::Baseline;
use crate::models::{check_finite, first_parameter};
use crate::{
    Design, Divergence, Factors, ImportanceDistribution, Matrix, ModelError, Network, Normalization,
};

/// Attributions below this are rounding of 0.
const NOTHING: f64 = 1e-12;

/// What the networks of one training read.
pub(super) struct Source<'a> {
    rows: &'a Matrix,
    factors: &'a Factors,
    on_device: (Tensor<2>, Tensor<1>),
    batch: usize,
    draws: Draws,
    device: Device,
    dtype: DType,
}

impl<'a> Source<'a> {
    /// Training rows, on the device of the network.
    pub(super) fn new<N: Network>(
        network: &N,
        train: &'a Design,
        config: &FitConfig,
    ) -> Result<Self, GuideError> {
        config.check()?;
        check_labelled(config.loss, &train.rows, &train.labels)?;
        let Some((device, dtype)) = first_parameter(network) else {
            panic!("a network has parameters");
        };
        let shape = [train.rows.len(), train.rows.width()];
        let rows = TensorData::new(train.rows.values().to_vec(), shape);
        let labels = TensorData::new(train.labels.clone(), [train.labels.len()]);
        let on_device =
            (Tensor::from_data(rows, (&device, dtype)), Tensor::from_data(labels, (&device, dtype)));
        let (batch, draws) = (config.batch.min(train.rows.len()), Draws::new(config.seed));
        Ok(Self { rows: &train.rows, factors: &train.factors, on_device, batch, draws, device, dtype })
    }

    /// The minibatch of one step.
    fn minibatch(&self, step: u64) -> (Tensor<2>, Tensor<1>) {
        let mut rng = self.draws.generator(Purpose::Minibatch, step);
        let drawn = index::sample(&mut rng, self.rows.len(), self.batch);
        let drawn: Vec<i32> = drawn.into_iter().map(|row| row as i32).collect();
        let drawn: Tensor<1, Int> = Tensor::from_data(TensorData::new(drawn, [self.batch]), &self.device);
        let (rows, labels) = &self.on_device;
        (rows.clone().select(0, drawn.clone()), labels.clone().select(0, drawn))
    }

    /// The rows and orders that are attributed at one step. They have a stream of their own, so that guidance moves no other draw.
    pub(super) fn probe(&self, step: u64, config: &ProbeConfig, baseline: &Baseline) -> Probe {
        const PROBES: u64 = 1;
        let mut rng = self.draws.child(PROBES).generator(Purpose::Minibatch, step);
        let count = config.rows.min(self.rows.len());
        let drawn = index::sample(&mut rng, self.rows.len(), count).into_vec();
        let orders = antithetic_orders(count, self.factors.len(), config.pairs, &mut rng);
        Probe::new(&self.rows.select(&drawn), &orders, self.factors, baseline, (&self.device, self.dtype))
    }
}

/// Which way a network's importances are pulled.
#[derive(Clone, Debug)]
pub(super) enum Pull {
    /// Towards a distribution.
    Towards(ImportanceDistribution, Divergence),
    /// Towards each other.
    Among(Vec<ImportanceDistribution>),
}

/// The guidance of one step.
#[derive(Clone, Debug)]
pub(super) struct Guidance {
    pub(super) probe: Probe,
    pub(super) pull: Pull,
    pub(super) lambda: f64,
    pub(super) normalization: Normalization,
    pub(super) smoothing: f64,
}

/// A network in training.
pub(super) struct Trainee<N> {
    learner: Learner<N>,
    objective: Guided,
    /// Guided steps in which no attribution was above rounding.
    pub(super) skipped: u64,
}

impl<N: Network> Trainee<N> {
    pub(super) fn new(network: N, config: &FitConfig) -> Result<Self, GuideError> {
        let optimizer = OptimizerConfig {
            learning_rate: config.learning_rate,
            max_grad_norm: config.max_grad_norm,
            ..OptimizerConfig::default()
        };
        let learner = Learner::new(network, optimizer, config.steps)?;
        Ok(Self { learner, objective: Guided { loss: config.loss, l2: config.l2.get() }, skipped: 0 })
    }

    /// One optimizer step: the loss of the task on its minibatch, and the divergence if it was guided.
    pub(super) fn step(
        &mut self,
        source: &Source<'_>,
        step: u64,
        guidance: Option<Guidance>,
    ) -> Result<(f64, Option<f64>), GuideError> {
        let (rows, labels) = source.minibatch(step);
        let metrics = self.learner.step(&self.objective, &[Batch { rows, labels, guidance }])?;
        self.skipped += u64::from(metrics.get(SKIPPED).is_some());
        Ok((metrics.get(TASK).expect("every step has a task"), metrics.get(DIVERGENCE)))
    }

    /// The network as it is, without gradients.
    pub(super) fn network(&self) -> N {
        self.learner.model().valid()
    }
}

const TASK: &str = "task";
const DIVERGENCE: &str = "divergence";
const SKIPPED: &str = "skipped";

/// `task + l2 · ½ Σ W² + λ D`.
struct Guided {
    loss: TaskLoss,
    l2: f64,
}

struct Batch {
    rows: Tensor<2>,
    labels: Tensor<1>,
    guidance: Option<Guidance>,
}

impl<N: Network> Objective<N> for Guided {
    type Batch = Batch;

    fn loss(&self, network: &N, batch: &Batch) -> Loss {
        let task = self.loss.mean(network.forward(batch.rows.clone()), batch.labels.clone());
        let mut metrics = Metrics::new().with(TASK, scalar(&task));
        let mut total = task.clone();
        if self.l2 > 0.0
            && let Some(norm) = half_squared_norm(network)
        {
            total = total + norm.mul_scalar(self.l2);
        }
        let Some(guidance) = &batch.guidance else {
            return Loss::new(total, 1.0).with_term(TASK, task).with_metrics(metrics);
        };
        let attributions = guidance.probe.attributions(network);
        if scalar(&attributions.clone().detach().abs().max()) <= NOTHING {
            metrics.set(SKIPPED, 1.0);
            return Loss::new(total, 1.0).with_term(TASK, task).with_metrics(metrics);
        }
        let importances = smoothed_importances(attributions, guidance.smoothing);
        let log_p = log_shares(importances, guidance.normalization);
        let divergence = match &guidance.pull {
            Pull::Towards(q, divergence) => divergence_loss(log_p, q, *divergence),
            Pull::Among(others) => jensen_shannon_loss(log_p, others),
        };
        metrics.set(DIVERGENCE, scalar(&divergence));
        let total = total + divergence.clone().mul_scalar(guidance.lambda);
        Loss::new(total, 1.0).with_term(TASK, task).with_term(DIVERGENCE, divergence).with_metrics(metrics)
    }
}

fn scalar(tensor: &Tensor<1>) -> f64 {
    tensor.to_data().iter::<f64>().sum()
}

/// Refuses rows with missing values, and labels that the loss cannot take.
pub(super) fn check_labelled(loss: TaskLoss, rows: &Matrix, labels: &[f64]) -> Result<(), ModelError> {
    const MODEL: &str = "a network";
    check_finite(MODEL, rows, labels)?;
    let binary = |label: &f64| *label == 0.0 || *label == 1.0;
    match labels.iter().position(|label| loss == TaskLoss::Logistic && !binary(label)) {
        Some(row) => Err(ModelError::NotBinary { model: MODEL, row, label: labels[row] }),
        None => Ok(()),
    }
}
