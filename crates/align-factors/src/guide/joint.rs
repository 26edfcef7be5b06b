//! Several networks that are trained to agree on their reasons.

use align_core::number::{Positive, UnitInterval};
use serde::{Deserialize, Serialize};

use super::config::{check_lambda, first_guided_step};
use super::loss::smoothed_importances;
use super::step::{Guidance, Pull, Source, Trainee, check_labelled};
use super::train::Watch;
use super::{FitConfig, Fitted, GuideError, Probe, ProbeConfig};
use crate::{Design, Divergence, FactorsError, ImportanceDistribution, Network, Normalization, Validation};

/// How networks are pulled towards each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JointConfig {
    /// λ. Default 1.
    pub lambda: f64,
    /// What agreement means. Default: each towards the mean of the others, by `KL(q‖p)`.
    pub agreement: Concord,
    /// Steps between two looks at the other networks. Default 10: their distributions move slowly, and a look costs a forward
    /// pass of each.
    pub refresh: u64,
    /// How importances become p. Default their ratio.
    pub normalization: Normalization,
    /// The share of steps before guidance sets in. Default 0.2.
    pub warmup: UnitInterval,
    /// s in `|φ| ≈ √(φ² + s²)`, in the units of the scores. Default 1e-3.
    pub smoothing: Positive,
    /// How attributions are estimated.
    pub probe: ProbeConfig,
}

/// What it means for networks to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Concord {
    /// Each is near the mean of the others.
    MeanOfOthers {
        /// How far it is from it.
        #[serde(default)]
        divergence: Divergence,
    },
    /// The generalised Jensen–Shannon divergence of all is small.
    JensenShannon {},
}

impl Default for JointConfig {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            agreement: Concord::MeanOfOthers { divergence: Divergence::default() },
            refresh: 10,
            normalization: Normalization::default(),
            warmup: UnitInterval::literal(0.2),
            smoothing: Positive::literal(1e-3),
            probe: ProbeConfig::default(),
        }
    }
}

impl JointConfig {
    /// Refuses a weight that is negative or not finite, and counts of 0.
    ///
    /// # Errors
    /// [`FactorsError::InvalidWeight`] or [`FactorsError::InvalidCount`].
    pub fn check(&self) -> Result<(), FactorsError> {
        check_lambda(self.lambda)?;
        if self.refresh == 0 {
            return Err(FactorsError::InvalidCount { name: "refresh", least: 1, found: 0 });
        }
        self.probe.check()
    }
}

/// Fits several networks on one device side by side, with an optimizer each. All see the same minibatches, rows and orders; each
/// is pulled towards what the others' importances were at the last look, which are constants to it. Networks of different
/// kinds are [`AnyNetwork`](crate::AnyNetwork)s.
///
/// A network that ends early is no longer trained, and the others go on looking at where it ended; the result is its best.
///
/// # Errors
/// As [`fit`](super::fit); [`FactorsError::InvalidCount`] for fewer than two networks.
///
/// # Source
/// arXiv 2402.12398 penalises the difference of factor explanations among models (its abstract); that each sees the others as
/// constants, and how often, is ours.
pub fn fit_jointly<N: Network>(
    networks: Vec<N>,
    train: &Design,
    validation: Option<&Design<Validation>>,
    config: &FitConfig,
    joint: &JointConfig,
) -> Result<Vec<Fitted<N>>, GuideError> {
    joint.check()?;
    if networks.len() < 2 {
        let found = networks.len();
        return Err(FactorsError::InvalidCount { name: "networks", least: 2, found }.into());
    }
    if let Some(validation) = validation {
        check_labelled(config.loss, &validation.rows, &validation.labels)?;
    }
    let source = Source::new(&networks[0], train, config)?;
    let baseline = joint.probe.baseline.of(&train.rows);
    // None where nothing is guided.
    let first = (joint.lambda > 0.0).then(|| first_guided_step(joint.warmup, config.steps));
    let mut members = Vec::with_capacity(networks.len());
    for network in networks {
        let trainee = Trainee::new(network, config)?;
        members.push(Member { trainee, watch: Watch::new(config, first.unwrap_or(0)), ended: false });
    }
    let mut seen: Vec<Option<ImportanceDistribution>> = vec![None; members.len()];
    for step in 0..config.steps {
        let guided = first.filter(|&first| step >= first);
        let probe = guided.map(|_| source.probe(step, &joint.probe, &baseline));
        let refresh = guided.is_some_and(|first| (step - first).is_multiple_of(joint.refresh));
        if let Some(probe) = probe.as_ref().filter(|_| refresh) {
            seen =
                members.iter().map(|member| member.distribution(probe, joint)).collect::<Result<_, _>>()?;
        }
        for (index, member) in members.iter_mut().enumerate().filter(|(_, member)| !member.ended) {
            let guidance = probe.as_ref().and_then(|probe| {
                let others = seen.iter().enumerate().filter(|&(other, _)| other != index);
                let others: Vec<_> = others.filter_map(|(_, p)| p.clone()).collect();
                let pull = pull_towards(others, joint.agreement)?;
                Some(Guidance {
                    probe: probe.clone(),
                    pull,
                    lambda: joint.lambda,
                    normalization: joint.normalization,
                    smoothing: joint.smoothing.get(),
                })
            });
            let seen = member.trainee.step(&source, step, guidance)?;
            member.ended = member.watch.look(step + 1, seen, &member.trainee, validation);
        }
        if members.iter().all(|member| member.ended) {
            break;
        }
    }
    Ok(members.into_iter().map(|member| member.watch.finish(&member.trainee)).collect())
}

struct Member<N> {
    trainee: Trainee<N>,
    watch: Watch<N>,
    ended: bool,
}

impl<N: Network> Member<N> {
    /// The importance distribution on a probe; none while the network depends on no factor.
    fn distribution(
        &self,
        probe: &Probe,
        joint: &JointConfig,
    ) -> Result<Option<ImportanceDistribution>, GuideError> {
        let attributions = probe.attributions(&self.trainee.network());
        let importances = smoothed_importances(attributions, joint.smoothing.get());
        let importances: Vec<f64> = importances.to_data().iter::<f64>().collect();
        match ImportanceDistribution::of(&importances, joint.normalization) {
            Ok(p) => Ok(Some(p)),
            Err(FactorsError::DegenerateExplanation) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The pull of the others, if there are any that can be explained.
fn pull_towards(others: Vec<ImportanceDistribution>, agreement: Concord) -> Option<Pull> {
    let first = others.first()?;
    match agreement {
        Concord::JensenShannon {} => Some(Pull::Among(others)),
        Concord::MeanOfOthers { divergence } => {
            let mut sum = vec![0.0; first.len()];
            for other in &others {
                sum.iter_mut().zip(other.iter()).for_each(|(sum, mass)| *sum += mass);
            }
            Some(Pull::Towards(ImportanceDistribution::from_weights(sum), divergence))
        }
    }
}
