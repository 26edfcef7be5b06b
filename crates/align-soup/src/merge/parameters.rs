//! The numbers of a merge, checked when they are set.

use std::fmt;
use std::str::FromStr;

use super::error::{Member, MergeError};
use super::method::{BaseRule, Consensus, Method, ParameterRule, Scope, Sparsifier};

/// A parameter of a merge method, by its name in mergekit's configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parameter {
    /// `weight`: how much a model counts.
    Weight,
    /// `density`: share of a task vector that is kept.
    Density,
    /// `gamma`: share of the largest changes that breadcrumbs drops.
    Gamma,
    /// `epsilon`: half of the spread of DELLA's keep probabilities around the density.
    Epsilon,
    /// `scale`: factor of passthrough.
    Scale,
    /// `normalize`: divide by the sum of the weights.
    Normalize,
    /// `normalize_weights`: the same in multislerp.
    NormalizeWeights,
    /// `rescale`: give a sparse task vector the L1 norm it had before.
    Rescale,
    /// `lambda`: factor of the merged task vector.
    Lambda,
    /// `t`: fraction of the way from the base model to the other.
    T,
    /// `nuslerp_row_wise`: directions run along the first axis rather than the last.
    RowWise,
    /// `nuslerp_flatten`: a tensor is one direction rather than one for each row.
    Flatten,
    /// `eps`: added to norms in multislerp, and the norm below which there is no mean direction.
    Eps,
    /// `filter_wise`: model stock's t for each row rather than for the tensor.
    FilterWise,
    /// `clamp`: keep model stock's t in [0, 1]. Ours; mergekit does not clamp.
    Clamp,
    /// `select_topk`: share of the positions, by variance, that SCE keeps.
    SelectTopK,
    /// `max_iter`: steps of the Karcher mean at most.
    MaxIter,
    /// `tol`: norm of the step at which the Karcher mean has converged.
    Tol,
    /// `int8_mask`: stores mergekit's masks in eight bits. Accepted, without effect: no mask is stored here.
    Int8Mask,
}

impl Parameter {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Weight,
        Self::Density,
        Self::Gamma,
        Self::Epsilon,
        Self::Scale,
        Self::Normalize,
        Self::NormalizeWeights,
        Self::Rescale,
        Self::Lambda,
        Self::T,
        Self::RowWise,
        Self::Flatten,
        Self::Eps,
        Self::FilterWise,
        Self::Clamp,
        Self::SelectTopK,
        Self::MaxIter,
        Self::Tol,
        Self::Int8Mask,
    ];

    /// The name in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Density => "density",
            Self::Gamma => "gamma",
            Self::Epsilon => "epsilon",
            Self::Scale => "scale",
            Self::Normalize => "normalize",
            Self::NormalizeWeights => "normalize_weights",
            Self::Rescale => "rescale",
            Self::Lambda => "lambda",
            Self::T => "t",
            Self::RowWise => "nuslerp_row_wise",
            Self::Flatten => "nuslerp_flatten",
            Self::Eps => "eps",
            Self::FilterWise => "filter_wise",
            Self::Clamp => "clamp",
            Self::SelectTopK => "select_topk",
            Self::MaxIter => "max_iter",
            Self::Tol => "tol",
            Self::Int8Mask => "int8_mask",
        }
    }

    /// What its values are: a number, a flag or a count.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Normalize
            | Self::NormalizeWeights
            | Self::Rescale
            | Self::RowWise
            | Self::Flatten
            | Self::FilterWise
            | Self::Clamp
            | Self::Int8Mask => Kind::Flag,
            Self::MaxIter => Kind::Count,
            _ => Kind::Number,
        }
    }

    /// The range of its numbers, and whether `value` is in it.
    fn admits(self, value: f64) -> (bool, &'static str) {
        let unit = (0.0..=1.0).contains(&value);
        match self {
            Self::Density | Self::Gamma | Self::SelectTopK | Self::T => (unit, "in [0, 1]"),
            Self::Epsilon => ((0.0..0.5).contains(&value), "in [0, 0.5)"),
            Self::Eps | Self::Tol => (value > 0.0 && value.is_finite(), "positive and finite"),
            _ => (value.is_finite(), "finite"),
        }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of [`Parameter::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown merge parameter `{found}`")]
pub struct UnknownParameter {
    /// The name.
    pub found: String,
}

impl FromStr for Parameter {
    type Err = UnknownParameter;

    fn from_str(name: &str) -> Result<Self, UnknownParameter> {
        Self::ALL
            .into_iter()
            .find(|parameter| parameter.name() == name)
            .ok_or_else(|| UnknownParameter { found: name.to_owned() })
    }
}

/// What the values of a parameter are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A real number.
    Number,
    /// True or false.
    Flag,
    /// A whole number, not negative.
    Count,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Flag => "true or false",
            Self::Count => "a whole number, not negative",
        }
    }
}

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A real number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// A whole number.
    Count(u32),
}

impl Value {
    /// What it is.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Number(_) => Kind::Number,
            Self::Flag(_) => Kind::Flag,
            Self::Count(_) => Kind::Count,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => value.fmt(f),
            Self::Flag(value) => value.fmt(f),
            Self::Count(value) => value.fmt(f),
        }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Count(value)
    }
}

/// A merge method with its numbers, for so many models beside the base.
///
/// What is not given has mergekit's default. Each value is checked when it is set, the whole when it is used (or by
/// [`check`](Self::check)).
///
/// # Examples
/// ```
/// use align_soup::merge::{MergeParameters, Method, Parameter};
///
/// let ties = MergeParameters::new(Method::Ties, 2)
///     .with(Parameter::Weight, 1.0)?
///     .with_each(Parameter::Density, &[0.5, 0.3])?;
/// ties.check()?;
/// assert!(MergeParameters::new(Method::Slerp, 1).with(Parameter::Density, 0.5).is_err());
/// # Ok::<(), align_soup::merge::MergeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MergeParameters {
    method: Method,
    models: usize,
    /// The rules of the method and the values given: one for [`Scope::Shared`], else one for each model.
    given: Vec<(ParameterRule, Vec<Option<Value>>)>,
}

impl MergeParameters {
    /// The method with its defaults, for `models` models beside the base.
    pub fn new(method: Method, models: usize) -> Self {
        let slots = |rule: &ParameterRule| match rule.scope {
            Scope::Shared => 1,
            Scope::PerModel => models,
        };
        let given = method.parameters().into_iter().map(|rule| (rule, vec![None; slots(&rule)])).collect();
        Self { method, models, given }
    }

    /// Sets a shared parameter, or that of every model.
    ///
    /// # Errors
    /// If the method does not take it, or the value is of another kind or outside its range.
    pub fn with(mut self, parameter: Parameter, value: impl Into<Value>) -> Result<Self, MergeError> {
        self.set(parameter, value)?;
        Ok(self)
    }

    /// Sets a parameter of each model.
    ///
    /// # Errors
    /// As [`with`](Self::with), and if there is not one value for each model.
    pub fn with_each(mut self, parameter: Parameter, values: &[f64]) -> Result<Self, MergeError> {
        let found = values.len();
        if found != self.models {
            return Err(MergeError::ValueCount { parameter, models: self.models, found });
        }
        for (model, &value) in values.iter().enumerate() {
            self.set_model(parameter, model, value)?;
        }
        Ok(self)
    }

    /// Sets a shared parameter, or that of every model.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn set(&mut self, parameter: Parameter, value: impl Into<Value>) -> Result<(), MergeError> {
        let value = value.into();
        let slots = self.slots(parameter, value, None)?;
        slots.fill(Some(value));
        Ok(())
    }

    /// Sets the parameter of one model.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    ///
    /// # Panics
    /// If the parameter is shared, or there is no such model.
    pub fn set_model(
        &mut self,
        parameter: Parameter,
        model: usize,
        value: impl Into<Value>,
    ) -> Result<(), MergeError> {
        let value = value.into();
        let slots = self.slots(parameter, value, Some(Member::Model(model)))?;
        slots[model] = Some(value);
        Ok(())
    }

    fn slots(
        &mut self,
        parameter: Parameter,
        value: Value,
        member: Option<Member>,
    ) -> Result<&mut [Option<Value>], MergeError> {
        let method = self.method;
        let Some((rule, slots)) = self.given.iter_mut().find(|(rule, _)| rule.parameter == parameter) else {
            return Err(MergeError::NotTaken { method, parameter });
        };
        assert!(
            member.is_none() || rule.scope == Scope::PerModel,
            "set_model: `{parameter}` is shared by all models"
        );
        if value.kind() != parameter.kind() {
            return Err(MergeError::Kind { parameter, expected: parameter.kind().name(), found: value });
        }
        if let Value::Number(number) = value {
            let (admitted, expected) = parameter.admits(number);
            if !admitted {
                return Err(MergeError::Range { parameter, member, expected, found: value });
            }
        }
        Ok(slots)
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The number of models beside the base.
    pub fn models(&self) -> usize {
        self.models
    }

    /// Fails unless the method can run with these numbers: nothing is missing, weights can be normalised where they
    /// are, probabilities are probabilities, and there are as many models as the method takes.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn check(&self) -> Result<(), MergeError> {
        let (method, expected) = (self.method, self.method.models());
        if !expected.contains(&self.models) {
            return Err(MergeError::ModelCount { method, expected, found: self.models });
        }
        for (rule, slots) in self.given.iter().filter(|(rule, _)| rule.default.is_none()) {
            if let Some(model) = slots.iter().position(Option::is_none) {
                let member = (rule.scope == Scope::PerModel).then_some(Member::Model(model));
                return Err(MergeError::Missing { method, parameter: rule.parameter, member });
            }
        }
        if self.divides_by_the_sum() {
            let weights = self.numbers(Parameter::Weight);
            let proportions = method.base() != BaseRule::Required;
            if let Some(model) = weights.iter().position(|weight| proportions && *weight < 0.0) {
                let (member, found) = (Member::Model(model), weights[model]);
                return Err(MergeError::NegativeWeight { method, member, found });
            }
            let sum: f64 = weights.iter().sum();
            if sum.abs() < SMALLEST_SUM || !sum.is_finite() {
                return Err(MergeError::WeightSum { method, sum });
            }
        }
        if method.sparsifier() == Sparsifier::RandomByRank {
            let pairs = self.numbers(Parameter::Density).into_iter().zip(self.numbers(Parameter::Epsilon));
            for (model, (density, epsilon)) in pairs.enumerate() {
                let whole = density == 0.0 || density == 1.0;
                if !whole && (density - epsilon <= 0.0 || density + epsilon >= 1.0) {
                    return Err(MergeError::KeepProbability {
                        member: Member::Model(model),
                        density,
                        epsilon,
                    });
                }
            }
        }
        Ok(())
    }

    /// Fails unless the method has a base where it needs one, and none where it knows none.
    pub(crate) fn check_base(&self, has_base: bool) -> Result<(), MergeError> {
        let method = self.method;
        match (method.base(), has_base) {
            (BaseRule::Required, false) => Err(MergeError::BaseMissing { method }),
            (BaseRule::Counted, true) => Err(MergeError::BaseNotTaken { method }),
            _ => Ok(()),
        }
    }

    /// Fails unless there are as many models as the numbers were given for.
    pub(crate) fn check_models(&self, found: usize) -> Result<(), MergeError> {
        match found == self.models {
            true => Ok(()),
            false => Err(MergeError::Models { expected: self.models, found }),
        }
    }

    /// Whether the sum of all weights is a divisor. (Where signs are elected, it is the sum of those that agree, which
    /// is only known value by value.)
    fn divides_by_the_sum(&self) -> bool {
        match self.method {
            Method::NuSlerp => true,
            Method::MultiSlerp => self.flag(Parameter::NormalizeWeights),
            Method::Linear => self.flag(Parameter::Normalize),
            method => {
                method.rule(Parameter::Weight).is_some()
                    && method.consensus() == Consensus::Sum
                    && self.flag(Parameter::Normalize)
            }
        }
    }

    /// The weights as the method uses them: divided by their sum where it does that.
    pub(super) fn normalized_weights(&self) -> Vec<f64> {
        let mut weights = self.numbers(Parameter::Weight);
        if self.divides_by_the_sum() {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        weights
    }

    /// A parameter of each model.
    pub(super) fn numbers(&self, parameter: Parameter) -> Vec<f64> {
        let (rule, slots) = self.entry(parameter);
        slots
            .iter()
            .map(|given| match given.or(rule.default) {
                Some(Value::Number(number)) => number,
                other => panic!("`{parameter}` is {other:?} after a check"),
            })
            .collect()
    }

    /// A shared number.
    pub(super) fn number(&self, parameter: Parameter) -> f64 {
        self.numbers(parameter)[0]
    }

    /// A shared flag.
    pub(super) fn flag(&self, parameter: Parameter) -> bool {
        let (rule, slots) = self.entry(parameter);
        slots[0].or(rule.default) == Some(Value::Flag(true))
    }

    /// A shared count.
    pub(super) fn count(&self, parameter: Parameter) -> u32 {
        let (rule, slots) = self.entry(parameter);
        match slots[0].or(rule.default) {
            Some(Value::Count(count)) => count,
            other => panic!("`{parameter}` is {other:?} after a check"),
        }
    }

    fn entry(&self, parameter: Parameter) -> &(ParameterRule, Vec<Option<Value>>) {
        let found = self.given.iter().find(|(rule, _)| rule.parameter == parameter);
        found.unwrap_or_else(|| panic!("`{}` takes no `{parameter}`", self.method))
    }
}

/// A sum of weights below this is taken for zero, as in mergekit's task arithmetic.
const SMALLEST_SUM: f64 = 1e-8;
