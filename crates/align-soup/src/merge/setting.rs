//! Parameters as a configuration gives them: numbers, gradients over layers, and by parts of tensors' names.

use std::collections::BTreeMap;

use super::config_error::{ConfigError, Place, Problem};
use super::document::{At, Content, nearest_of};
use super::parameters::{Kind, Parameter};

/// A value that may change from the first layer to the last: v_0 … v_n, interpolated linearly at t ∈ [0, 1]. One value is
/// a constant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gradient(Vec<f64>);

impl Gradient {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        match at.content() {
            Content::List(_) => at.items()?.iter().map(At::number).collect::<Result<_, _>>().map(Self),
            _ => at.number().map(|number| Self(vec![number])),
        }
    }

    /// The value at `t`: (1 − f)·v_i + f·v_{i+1} with i + f = t·n. Truth values do not mix: v_i stands for them.
    fn at(&self, kind: Kind, t: f64) -> f64 {
        let scaled = t * (self.0.len() - 1) as f64;
        let low = scaled as usize;
        if kind == Kind::Flag {
            return self.0[low];
        }
        let high = (low + 1).min(self.0.len() - 1);
        let fraction = scaled - low as f64;
        (1.0 - fraction) * self.0[low] + fraction * self.0[high]
    }
}

/// A value for the tensors whose name contains `filter`.
#[derive(Clone, Debug)]
struct Case {
    /// `None` for every tensor.
    filter: Option<String>,
    value: Gradient,
    place: Place,
}

/// A parameter: the first case whose filter is in the tensor's name decides; a plain value is one case without a filter.
#[derive(Clone, Debug)]
pub(crate) struct Setting(Vec<Case>);

impl Setting {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let case = |at: &At<'_>| -> Result<Case, ConfigError> {
            at.only(&["filter", "value"])?;
            let filter = at.get("filter")?.map(|filter| filter.text().map(str::to_owned)).transpose()?;
            let filter = filter.filter(|filter| filter != "*");
            Ok(Case { filter, value: Gradient::read(&at.require("value")?)?, place: at.place() })
        };
        match at.content() {
            Content::Map(_) => Ok(Self(vec![case(at)?])),
            Content::List(items) if items.iter().any(|item| matches!(item.content, Content::Map(_))) => {
                at.items()?.iter().map(case).collect::<Result<_, _>>().map(Self)
            }
            _ => Ok(Self(vec![Case { filter: None, value: Gradient::read(at)?, place: at.place() }])),
        }
    }

    /// The value for a tensor at `t`; `None` if no case is for it.
    fn at(&self, kind: Kind, tensor: &str, t: f64) -> Option<f64> {
        let applies = |case: &&Case| case.filter.as_deref().is_none_or(|filter| tensor.contains(filter));
        self.0.iter().find(applies).map(|case| case.value.at(kind, t))
    }
}

/// The parameters given at one place: with a model, a slice, or at the top.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(BTreeMap<String, Setting>);

impl Settings {
    /// Reads a map of parameters; `known` refuses names by an error.
    pub(crate) fn read(
        at: Option<&At<'_>>,
        known: impl Fn(&str, &At<'_>) -> Result<(), ConfigError>,
    ) -> Result<Self, ConfigError> {
        let Some(at) = at else { return Ok(Self::default()) };
        let mut settings = BTreeMap::new();
        for (name, value) in at.entries()? {
            known(name, &value)?;
            if *value.content() != Content::Nothing {
                settings.insert(name.to_owned(), Setting::read(&value)?);
            }
        }
        Ok(Self(settings))
    }

    /// The value of a parameter for a tensor at `t`, if it is given here.
    pub(crate) fn at(&self, parameter: Parameter, tensor: &str, t: f64) -> Option<f64> {
        self.0.get(parameter.name())?.at(parameter.kind(), tensor, t)
    }

    /// Refuses a filter that is in none of `names`.
    pub(crate) fn expect_matches(&self, names: &[&str]) -> Result<(), ConfigError> {
        for case in self.0.values().flat_map(|setting| &setting.0) {
            let Some(filter) = case.filter.as_deref() else { continue };
            if !names.iter().any(|name| name.contains(filter)) {
                let mut parts: Vec<&str> = names.iter().flat_map(|name| name.split('.')).collect();
                parts.sort_unstable();
                parts.dedup();
                let problem = Problem::UnmatchedFilter {
                    filter: filter.to_owned(),
                    nearest: nearest_of(filter, &parts),
                };
                return Err(ConfigError::At { place: Box::new(case.place.clone()), problem });
            }
        }
        Ok(())
    }
}
