//! The merge methods by name, with what each one takes: mergekit's names, parameters and defaults.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::parameters::{Parameter, Value};

/// How checkpoints are put together. The names are those of mergekit's `merge_method`.
///
/// δ_k = x_k − b is the task vector of model k, b the base model's tensor, w_k its weight. All methods work on one
/// tensor at a time.
///
/// # Source
/// Rules, names and defaults: mergekit 0.1.5, <https://github.com/arcee-ai/mergekit>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Σ_k w_k x_k, divided by Σ_k w_k where `normalize` is set (Wortsman et al. 2022, arXiv 2203.05482).
    Linear,
    /// Spherical interpolation from the base model to one other by the angle fraction `t` (Shoemake 1985).
    Slerp,
    /// Spherical interpolation of two models by weights, of their task vectors where there is a base model.
    NuSlerp,
    /// Barycentre on the sphere: interpolation in the tangent space at the normalised mean.
    MultiSlerp,
    /// b + λ Σ_k w_k δ_k (Ilharco et al. 2023, arXiv 2212.04089).
    TaskArithmetic,
    /// Trim by magnitude, elect a sign, average those that agree (Yadav et al. 2023, arXiv 2306.01708).
    Ties,
    /// Drop at random and rescale, then add (Yu et al. 2024, arXiv 2311.03099).
    DareLinear,
    /// Drop at random and rescale, then elect a sign as in TIES.
    DareTies,
    /// Drop at random with probabilities by magnitude, then elect a sign (Deep et al. 2024, arXiv 2406.11617).
    Della,
    /// Drop at random with probabilities by magnitude, then add.
    DellaLinear,
    /// Drop the largest and the smallest changes, then add (Davari and Belilovsky 2024, arXiv 2312.06795).
    Breadcrumbs,
    /// Drop the largest and the smallest changes, then elect a sign as in TIES.
    BreadcrumbsTies,
    /// t·mean + (1−t)·b with t from the angle between the task vectors (Jang et al. 2024, arXiv 2403.19522).
    ModelStock,
    /// Select by variance, weigh by energy, elect a sign (Wan et al. 2024, arXiv 2408.07990).
    Sce,
    /// The Riemannian centre of mass of the directions, times the mean norm.
    Karcher,
    /// The one model, times `scale`.
    Passthrough,
}

/// Whether a method has a base model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseRule {
    /// There must be one, and task vectors (or an end of the arc) are taken from it.
    Required,
    /// With one the method works on task vectors, without on the weights themselves.
    Optional,
    /// The method knows no base: a model named as base is one of the models, where it stands in their list.
    Counted,
}

/// What mergekit does with a tensor that only some of the models have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoneRule {
    /// It is an error.
    Refuse,
    /// A tensor that one model alone has is copied.
    Copy,
    /// A tensor that the base alone has is copied; one that too few models have is left out.
    BaseOrSkip,
}

/// Who a parameter is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One value for the merge.
    Shared,
    /// One value for each model (not for a base that is none of the models).
    PerModel,
}

/// One parameter of a method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParameterRule {
    /// Which.
    pub parameter: Parameter,
    /// For whom.
    pub scope: Scope,
    /// What holds where it is not given; `None` if it must be given.
    pub default: Option<Value>,
}

/// How a method makes task vectors sparse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sparsifier {
    /// Not at all.
    None,
    /// Keep the largest.
    Magnitude,
    /// Keep at random.
    Random,
    /// Keep at random, the larger the likelier.
    RandomByRank,
    /// Keep those between the smallest and the largest.
    MiddleRanks,
}

/// How sparse task vectors are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consensus {
    /// Added.
    Sum,
    /// Those added whose sign is that of the sum.
    ElectedSign,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Linear,
        Self::Slerp,
        Self::NuSlerp,
        Self::MultiSlerp,
        Self::TaskArithmetic,
        Self::Ties,
        Self::DareLinear,
        Self::DareTies,
        Self::Della,
        Self::DellaLinear,
        Self::Breadcrumbs,
        Self::BreadcrumbsTies,
        Self::ModelStock,
        Self::Sce,
        Self::Karcher,
        Self::Passthrough,
    ];

    /// The name in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Slerp => "slerp",
            Self::NuSlerp => "nuslerp",
            Self::MultiSlerp => "multislerp",
            Self::TaskArithmetic => "task_arithmetic",
            Self::Ties => "ties",
            Self::DareLinear => "dare_linear",
            Self::DareTies => "dare_ties",
            Self::Della => "della",
            Self::DellaLinear => "della_linear",
            Self::Breadcrumbs => "breadcrumbs",
            Self::BreadcrumbsTies => "breadcrumbs_ties",
            Self::ModelStock => "model_stock",
            Self::Sce => "sce",
            Self::Karcher => "karcher",
            Self::Passthrough => "passthrough",
        }
    }

    /// Whether it has a base model.
    pub const fn base(self) -> BaseRule {
        match self {
            Self::Linear | Self::Karcher | Self::Passthrough => BaseRule::Counted,
            Self::NuSlerp | Self::MultiSlerp => BaseRule::Optional,
            _ => BaseRule::Required,
        }
    }

    /// How many models it takes beside the base.
    pub const fn models(self) -> RangeInclusive<usize> {
        match self {
            Self::Slerp | Self::Passthrough => 1..=1,
            Self::NuSlerp => 2..=2,
            Self::ModelStock => 2..=usize::MAX,
            _ => 1..=usize::MAX,
        }
    }

    /// What it takes, in the order of mergekit's documentation.
    pub fn parameters(self) -> Vec<ParameterRule> {
        use Parameter as P;
        let shared = |parameter, default| ParameterRule { parameter, scope: Scope::Shared, default };
        let each = |parameter, default| ParameterRule { parameter, scope: Scope::PerModel, default };
        let (yes, no) = (Some(Value::Flag(true)), Some(Value::Flag(false)));
        let number = |value| Some(Value::Number(value));
        match self {
            Self::Linear => vec![each(P::Weight, None), shared(P::Normalize, yes)],
            Self::Slerp => vec![shared(P::T, None)],
            Self::NuSlerp => vec![each(P::Weight, None), shared(P::RowWise, no), shared(P::Flatten, yes)],
            Self::MultiSlerp => {
                vec![each(P::Weight, None), shared(P::NormalizeWeights, yes), shared(P::Eps, number(1e-8))]
            }
            Self::ModelStock => vec![shared(P::FilterWise, no), shared(P::Clamp, no)],
            Self::Sce => vec![shared(P::SelectTopK, number(1.0)), shared(P::Int8Mask, no)],
            Self::Karcher => {
                vec![shared(P::MaxIter, Some(Value::Count(10))), shared(P::Tol, number(1e-5))]
            }
            Self::Passthrough => vec![each(P::Scale, number(1.0))],
            // mergekit also takes a `density` and a `rescale` here, and ignores them.
            Self::TaskArithmetic => vec![
                each(P::Weight, None),
                shared(P::Normalize, no),
                shared(P::Lambda, number(1.0)),
                shared(P::Int8Mask, no),
            ],
            _ => {
                let mut rules = vec![each(P::Weight, None), each(P::Density, number(1.0))];
                match self.sparsifier() {
                    Sparsifier::MiddleRanks => rules.push(each(P::Gamma, number(0.01))),
                    Sparsifier::RandomByRank => rules.push(each(P::Epsilon, number(0.15))),
                    Sparsifier::None | Sparsifier::Magnitude | Sparsifier::Random => {}
                }
                let normalize = matches!(self, Self::Ties | Self::Della);
                let rescale = matches!(self.sparsifier(), Sparsifier::Random | Sparsifier::RandomByRank);
                rules.extend([
                    shared(P::Normalize, Some(Value::Flag(normalize))),
                    shared(P::Rescale, Some(Value::Flag(rescale))),
                    shared(P::Lambda, number(1.0)),
                    shared(P::Int8Mask, no),
                ]);
                rules
            }
        }
    }

    /// The rule of one parameter; `None` if the method does not take it.
    pub fn rule(self, parameter: Parameter) -> Option<ParameterRule> {
        self.parameters().into_iter().find(|rule| rule.parameter == parameter)
    }

    /// Whether the result depends on the seed (where a density is below 1).
    pub const fn is_random(self) -> bool {
        matches!(self.sparsifier(), Sparsifier::Random | Sparsifier::RandomByRank)
    }

    /// What mergekit does with an optional tensor that some models lack.
    pub(crate) const fn lone(self) -> LoneRule {
        match self {
            Self::Slerp | Self::NuSlerp => LoneRule::Copy,
            Self::ModelStock => LoneRule::BaseOrSkip,
            _ => LoneRule::Refuse,
        }
    }

    pub(super) const fn sparsifier(self) -> Sparsifier {
        match self {
            Self::Ties => Sparsifier::Magnitude,
            Self::DareLinear | Self::DareTies => Sparsifier::Random,
            Self::Della | Self::DellaLinear => Sparsifier::RandomByRank,
            Self::Breadcrumbs | Self::BreadcrumbsTies => Sparsifier::MiddleRanks,
            _ => Sparsifier::None,
        }
    }

    pub(super) const fn consensus(self) -> Consensus {
        match self {
            Self::Ties | Self::DareTies | Self::Della | Self::BreadcrumbsTies => Consensus::ElectedSign,
            _ => Consensus::Sum,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of [`Method::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown merge method `{found}`, expected one of {}", names())]
pub struct UnknownMethod {
    /// The name.
    pub found: String,
}

fn names() -> String {
    Method::ALL.map(Method::name).join(", ")
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        Self::ALL
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(|| UnknownMethod { found: name.to_owned() })
    }
}
