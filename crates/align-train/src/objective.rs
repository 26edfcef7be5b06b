//! What a step minimises.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::metrics::Metrics;

/// Something to minimise over the parameters of `M`, one microbatch at a time.
///
/// The objective of a step is `Σ value / Σ weight` over **all** its microbatches, so how a batch is cut into
/// microbatches changes nothing but rounding. A mean of microbatch means would be another objective.
pub trait Objective<M> {
    /// One microbatch.
    type Batch;

    /// The summed loss of one microbatch and what it is a sum over.
    ///
    /// The model is on the recording device while training and on the plain one while evaluating.
    fn loss(&self, model: &M, batch: &Self::Batch) -> Loss;

    /// The loss and its gradients, of which a microbatch in which nothing counts has none.
    ///
    /// One backward pass over [`loss`](Self::loss); an objective that trades time for memory brings its own.
    fn gradients(&self, model: &M, batch: &Self::Batch) -> (Loss, GradientsParams)
    where
        M: Module,
    {
        let loss = self.loss(model, batch);
        let gradients = match loss.weight > 0.0 && loss.to_f64().is_finite() {
            true => GradientsParams::from_grads(loss.value.backward(), model),
            false => GradientsParams::new(),
        };
        (loss, gradients)
    }

    /// Adds what follows from the averaged metrics, such as a perplexity from a mean loss.
    ///
    /// Called once a step with the weighted means over its microbatches, `loss` among them.
    fn finish(&self, _metrics: &mut Metrics) {}
}

impl<M, O: Objective<M> + ?Sized> Objective<M> for &O {
    type Batch = O::Batch;
    fn loss(&self, model: &M, batch: &Self::Batch) -> Loss {
        (**self).loss(model, batch)
    }
    fn gradients(&self, model: &M, batch: &Self::Batch) -> (Loss, GradientsParams)
    where
        M: Module,
    {
        (**self).gradients(model, batch)
    }
    fn finish(&self, metrics: &mut Metrics) {
        (**self).finish(metrics);
    }
}

/// The loss of one microbatch, not yet divided by anything.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The **sum** over what counts, `[1]`.
    pub value: Tensor<1>,
    /// What it is a sum over: the number of tokens or of pairs that count.
    pub weight: f64,
    /// The parts `value` was added up from, by name; looked at when `value` is not finite, to name the culprit.
    pub terms: Vec<(&'static str, Tensor<1>)>,
    /// Numbers to report; averaged over the step's microbatches by `weight`.
    pub metrics: Metrics,
}

impl Loss {
    /// A loss of one part without metrics of its own.
    pub fn new(value: Tensor<1>, weight: f64) -> Self {
        Self { value, weight, terms: Vec::new(), metrics: Metrics::new() }
    }

    /// With a named part.
    #[must_use]
    pub fn with_term(mut self, name: &'static str, value: Tensor<1>) -> Self {
        self.terms.push((name, value));
        self
    }

    /// With metrics, which replace those of equal name.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics.merge(metrics);
        self
    }

    /// The value on the host.
    pub(crate) fn to_f64(&self) -> f64 {
        scalar(&self.value)
    }

    /// The first part that is not finite, or `loss` where the parts are all finite or not given.
    pub(crate) fn culprit(&self) -> &'static str {
        self.terms.iter().find(|(_, term)| !scalar(term).is_finite()).map_or("loss", |(name, _)| name)
    }
}

fn scalar(tensor: &Tensor<1>) -> f64 {
    tensor.to_data().iter::<f64>().sum()
}
