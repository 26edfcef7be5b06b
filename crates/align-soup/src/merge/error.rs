//! What can go wrong when models are merged, and what is unusual without being wrong.

use std::fmt;
use std::ops::RangeInclusive;

use super::method::Method;
use super::parameters::{Parameter, Value};
use crate::error::SoupError;
use crate::mix::FloatDtype;

/// Which model an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The base model.
    Base,
    /// A model, by its position in the list without the base.
    Model(usize),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("the base model"),
            Self::Model(index) => write!(f, "models[{index}]"),
        }
    }
}

/// Why a merge was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The method has no such parameter.
    #[error("`{method}` takes no `{parameter}`, it takes {}", taken(*method))]
    NotTaken {
        /// The method.
        method: Method,
        /// The parameter.
        parameter: Parameter,
    },
    /// A number where a flag belongs, or the like.
    #[error("`{parameter}` must be {expected}, found {found}")]
    Kind {
        /// The parameter.
        parameter: Parameter,
        /// What it must be.
        expected: &'static str,
        /// What was given.
        found: Value,
    },
    /// A parameter is outside its range.
    #[error("`{parameter}`{} must be {expected}, found {found}", of(*member))]
    Range {
        /// The parameter.
        parameter: Parameter,
        /// Whose, if it is a model's.
        member: Option<Member>,
        /// The range.
        expected: &'static str,
        /// What was given.
        found: Value,
    },
    /// A parameter without default was not given.
    #[error("`{method}` needs `{parameter}`{}", of(*member))]
    Missing {
        /// The method.
        method: Method,
        /// The parameter.
        parameter: Parameter,
        /// Whose, if it is a model's.
        member: Option<Member>,
    },
    /// Values were given for another number of models.
    #[error("`{parameter}` needs one value for each of {models} models, found {found}")]
    ValueCount {
        /// The parameter.
        parameter: Parameter,
        /// How many models there are.
        models: usize,
        /// How many values there are.
        found: usize,
    },
    /// Proportions cannot be negative.
    #[error(
        "the `weight` of {member} is {found}: `{method}` divides by the sum of the weights, so they are proportions and \
         must not be negative; task_arithmetic subtracts{}",
        unnormalized(*method)
    )]
    NegativeWeight {
        /// The method.
        method: Method,
        /// Whose weight.
        member: Member,
        /// The weight.
        found: f64,
    },
    /// Weights that are divided by their sum sum to zero.
    #[error("`{method}` divides by the sum of the weights, which is {sum}{}", unnormalized(*method))]
    WeightSum {
        /// The method.
        method: Method,
        /// The sum.
        sum: f64,
    },
    /// DELLA's probabilities leave (0, 1).
    #[error(
        "density ± epsilon of {member} must lie strictly between 0 and 1, found {density} ± {epsilon}; give an `epsilon` \
         below the smaller of density and 1 − density"
    )]
    KeepProbability {
        /// Whose.
        member: Member,
        /// Mean probability to keep.
        density: f64,
        /// Half of the spread.
        epsilon: f64,
    },
    /// Too few or too many models.
    #[error("`{method}` takes {} beside the base, found {found}", count(expected))]
    ModelCount {
        /// The method.
        method: Method,
        /// How many it takes.
        expected: RangeInclusive<usize>,
        /// How many there are.
        found: usize,
    },
    /// There are not as many models as parameters.
    #[error("the parameters are for {expected} models beside the base, found {found}")]
    Models {
        /// How many the parameters are for.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A base model is needed.
    #[error("`{method}` needs a base model")]
    BaseMissing {
        /// The method.
        method: Method,
    },
    /// A base model is not possible.
    #[error("`{method}` has no base model; give that model as one of the others")]
    BaseNotTaken {
        /// The method.
        method: Method,
    },

    /// A tensor has different shapes.
    #[error(
        "tensor `{tensor}` of {member} has shape {found:?}, expected {expected:?}; tensors are never cropped to fit"
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// Whose shape differs.
        member: Member,
        /// The shape of the others.
        expected: Vec<usize>,
        /// This model's shape.
        found: Vec<usize>,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor `{tensor}` of {member} holds {count} values that are not finite")]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// Whose tensor it is.
        member: Member,
        /// How many values are NaN or infinite.
        count: u64,
    },
    /// The result does not fit its type.
    #[error(
        "{count} values of the merged tensor `{tensor}` overflow {dtype}; choose a type with a larger range"
    )]
    Overflow {
        /// The tensor.
        tensor: String,
        /// The type of the result.
        dtype: FloatDtype,
        /// How many values became infinite.
        count: u64,
    },
    /// The directions cancel, so that there is no mean direction.
    #[error(
        "the weighted directions of tensor `{tensor}` sum to zero, so that multislerp has no point to project from; change \
         the weights"
    )]
    NoDirection {
        /// The tensor.
        tensor: String,
    },
    /// The models are not alike (ingredient 0 is the base where there is one, the models follow).
    #[error(transparent)]
    Soup(#[from] SoupError),
}

/// Something unusual that does not stop a merge.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MergeWarning {
    /// Two tensors point in opposite directions: there is no shortest arc, and the chord goes through zero.
    Antipodal {
        /// The tensor.
        tensor: String,
        /// Their cosine.
        cosine: f64,
    },
    /// Model stock's t left [0, 1]: the result lies beyond the base or the mean.
    StockOutside {
        /// The tensor.
        tensor: String,
        /// The t found, of the row farthest out.
        t: f64,
        /// Whether it was clamped.
        clamped: bool,
    },
}

impl fmt::Display for MergeWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Antipodal { tensor, cosine } => write!(
                f,
                "tensor `{tensor}`: the two ends are opposite (cosine {cosine:.6}), so they are mixed linearly and \
                 nearly cancel"
            ),
            Self::StockOutside { tensor, t, clamped } => write!(
                f,
                "tensor `{tensor}`: model stock's t = {t:.6} is outside [0, 1]{}",
                if *clamped {
                    " and was clamped"
                } else {
                    "; `clamp: true` keeps the result between base and mean"
                }
            ),
        }
    }
}

fn of(member: Option<Member>) -> String {
    member.map_or_else(String::new, |member| format!(" of {member}"))
}

fn taken(method: Method) -> String {
    let names: Vec<_> = method.parameters().iter().map(|rule| rule.parameter.name()).collect();
    names.join(", ")
}

fn unnormalized(method: Method) -> &'static str {
    match method {
        Method::Linear | Method::TaskArithmetic => "; or set `normalize: false`",
        Method::MultiSlerp => "; or set `normalize_weights: false`",
        _ => "",
    }
}

fn count(range: &RangeInclusive<usize>) -> String {
    match (*range.start(), *range.end()) {
        (1, 1) => "one model".to_owned(),
        (least, most) if least == most => format!("{least} models"),
        (1, _) => "at least one model".to_owned(),
        (least, _) => format!("at least {least} models"),
    }
}
