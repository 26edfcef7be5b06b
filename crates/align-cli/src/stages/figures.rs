//! Figures by name: what a stage found, in the one form that claims read.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{read_json, write_json};
use crate::recipe::source::nearest_of;

/// In the stage's folder.
const FIGURES: &str = "figures.json";

/// Curves by what they are of and by name, one for each repetition. A single number is a curve of one point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Figures(BTreeMap<String, BTreeMap<String, Vec<Vec<f64>>>>);

impl Figures {
    /// What a stage left behind, if it left any.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(FIGURES))
    }

    /// Writes them into the stage's folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&folder.join(FIGURES), self)?)
    }

    /// Adds the curve of one repetition.
    pub(super) fn add_curve(&mut self, by: &str, curve: &str, points: Vec<f64>) {
        self.0.entry(by.to_owned()).or_default().entry(curve.to_owned()).or_default().push(points);
    }

    /// Adds the number of one repetition.
    pub(super) fn add(&mut self, by: &str, curve: &str, value: f64) {
        self.add_curve(by, curve, vec![value]);
    }

    /// The repetitions of another seed's after these.
    pub(crate) fn append(&mut self, other: Self) {
        for (by, curves) in other.0 {
            for (curve, repetitions) in curves {
                self.0.entry(by.clone()).or_default().entry(curve).or_default().extend(repetitions);
            }
        }
    }

    /// The curves of one thing, a repetition each.
    pub(crate) fn curves(&self, by: Option<&str>, curve: Option<&str>) -> Result<Vec<Vec<f64>>> {
        let named = |wanted: Option<&str>, key: &str, known: Vec<&String>| -> Result<String> {
            let names: Vec<String> = known.into_iter().cloned().collect();
            match (wanted, &names[..]) {
                (None, [only]) => Ok(only.clone()),
                (None, _) => bail!("say `{key}`, one of {}", names.join(", ")),
                (Some(wanted), _) if names.iter().any(|name| name == wanted) => Ok(wanted.to_owned()),
                (Some(wanted), _) => match nearest_of(wanted, &names) {
                    Some(nearest) => bail!("there is no `{key}` `{wanted}`; did you mean `{nearest}`?"),
                    None => bail!("there is no `{key}` `{wanted}`, but {}", names.join(", ")),
                },
            }
        };
        let by = named(by, "by", self.0.keys().collect())?;
        let curve = named(curve, "curve", self.0[&by].keys().collect())?;
        Ok(self.0[&by][&curve].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_name_and_collected_over_seeds() {
        let mut figures = Figures::default();
        figures.add("one", "slope", 1.0);
        figures.add_curve("one", "gap", vec![3.0, 4.0]);
        let mut other = Figures::default();
        other.add("one", "slope", 2.0);
        figures.append(other);
        assert_eq!(figures.curves(None, Some("slope")).unwrap(), [[1.0], [2.0]]);
        assert_eq!(figures.curves(Some("one"), Some("gap")).unwrap(), [[3.0, 4.0]]);
        let error = figures.curves(Some("one"), Some("slop")).unwrap_err().to_string();
        assert_eq!(error, "there is no `curve` `slop`; did you mean `slope`?");
        let error = figures.curves(Some("one"), None).unwrap_err().to_string();
        assert_eq!(error, "say `curve`, one of gap, slope");
    }
}
