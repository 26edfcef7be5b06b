//! A survey with known reasons, as files.

use std::collections::BTreeMap;
use std::path::Path;

use align_core::Draws;
use align_core::draws::Purpose;
use align_core::number::NonNegative;
use align_core::persist::replace_file;
use align_factors::{Knowledge, Survey, Test, Train, Validation};
use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::recipe::factors::SurveyStage;

/// Answers, what their columns are, and knowledge that is right or wrong: the true importances, the same masses at random
/// factors, and in reverse.
pub(in crate::stages) fn survey(stage: &SurveyStage, folder: &Path) -> Result<Value> {
    if stage.train == 0 || stage.test == 0 {
        bail!("`train` and `test` must be at least 1, found {} and {}", stage.train, stage.test);
    }
    let survey = Survey::new(stage.survey.clone())?;
    survey.write_csv(&folder.join("train.csv"), &survey.draw::<Train>(stage.train, stage.seed))?;
    survey.write_csv(&folder.join("test.csv"), &survey.draw::<Test>(stage.test, stage.seed))?;
    if stage.validation > 0 {
        let answers = survey.draw::<Validation>(stage.validation, stage.seed);
        survey.write_csv(&folder.join("validation.csv"), &answers)?;
    }
    write_toml(&folder.join("schema.toml"), &survey.schema())?;

    let truth = survey.true_distribution().to_vec();
    let reversed: Vec<f64> = truth.iter().rev().copied().collect();
    // In the order of independent normal numbers: every order is as likely.
    let draws = Draws::new(stage.seed);
    let key = |factor: usize| draws.normal(Purpose::Shuffle, 0, factor as u64);
    let mut order: Vec<usize> = (0..truth.len()).collect();
    order.sort_by(|&a, &b| key(a).total_cmp(&key(b)));
    let permuted: Vec<f64> = order.into_iter().map(|factor| truth[factor]).collect();
    for (name, masses) in [("truth", truth), ("permuted", permuted), ("reversed", reversed)] {
        let factors = survey.factors();
        let masses: BTreeMap<String, NonNegative> =
            factors.names().map(str::to_owned).zip(masses.into_iter().map(NonNegative::literal)).collect();
        write_toml(&folder.join(format!("{name}.toml")), &Knowledge::Masses { masses })?;
    }
    Ok(json!({ "factors": survey.width(), "classes": survey.grid().classes() }))
}

fn write_toml(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = toml::to_string_pretty(value)?;
    Ok(replace_file(path, |file| std::io::Write::write_all(file, text.as_bytes()))?)
}
