//! `align factors`: models of answers, why they say what they say, and whether they agree.

use std::io::Write;
use std::path::Path;

use align_core::persist::{replace_file, write_json};
use align_factors::attribution::{Attributions, BandConfig, Method, importance_bands, share_bands};
use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::run::single;
use crate::args::{DeviceArgs, FactorsCommand, FactorsCompareArgs, FactorsExplainArgs};
use crate::context::Context;
use crate::stages::{compared, importance_table, models_in, open_model};
use crate::{interrupt, report};

pub(super) fn run(command: &FactorsCommand) -> Result<()> {
    match command {
        FactorsCommand::Fit(args) => single(args, "factors"),
        FactorsCommand::Explain(args) => explain(args),
        FactorsCommand::Compare(args) => compare(args),
    }
}

/// Attributions of rows of a file, and a table of importances.
fn explain(args: &FactorsExplainArgs) -> Result<()> {
    if let [first, _, ..] = &models_in(&args.model)?[..] {
        bail!("{} holds several models: name one, such as {}", args.model.display(), first.display());
    }
    let context = context(&args.device)?;
    let folder = models_in(&args.model)?.remove(0);
    let model = open_model(&folder, &context.device)?;
    let attributions = model.explain(&args.data, args.rows.map(Into::into), method(args)?)?;
    for warning in &attributions.warnings {
        eprintln!("warning: {warning}");
    }
    let factors: Vec<String> = model.encoder.factors().names().map(str::to_owned).collect();
    let text = if args.csv { csv(&factors, &attributions) } else { lines(&factors, &attributions) };
    match &args.out {
        Some(out) => replace_file(out, |file| file.write_all(text.as_bytes()))?,
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
    }
    let bands = BandConfig::default();
    let (importances, shares) =
        (importance_bands(&attributions, &bands)?, share_bands(&attributions, &bands)?);
    eprintln!("{}", importance_table(&factors, &importances, &shares));
    let method = serde_json::to_value(attributions.method)?;
    eprintln!(
        "{} rows, method {}; bands hold 95 % of 1000 samples of rows; sums are off by {:.1e} at most",
        attributions.scores.len(),
        method["kind"].as_str().unwrap_or_default(),
        attributions.residual()
    );
    Ok(())
}

/// The method that was asked for, with what was said of its samples.
fn method(args: &FactorsExplainArgs) -> Result<Option<Method>> {
    let Some(name) = &args.method else { return Ok(None) };
    let mut table = json!({ "kind": name });
    if let Some(pairs) = args.pairs {
        table["pairs"] = pairs.into();
    }
    if let Some(seed) = args.seed {
        table["seed"] = seed.into();
    }
    let method = serde_json::from_value(table).with_context(|| format!("--method {name}"))?;
    Ok(Some(method))
}

/// One object a row.
fn lines(factors: &[String], attributions: &Attributions) -> String {
    let row = |(index, (values, score)): (usize, (&[f64], &f64))| {
        let named: Map<String, Value> =
            factors.iter().zip(values).map(|(factor, value)| (factor.clone(), (*value).into())).collect();
        let line =
            json!({ "row": index + 1, "score": score, "base": attributions.base, "attributions": named });
        format!("{line}\n")
    };
    attributions.values.rows().zip(&attributions.scores).enumerate().map(row).collect()
}

/// A table with a column for every factor.
fn csv(factors: &[String], attributions: &Attributions) -> String {
    let mut text = String::from("row,score,base");
    for factor in factors {
        text.push(',');
        text.push_str(&quoted(factor));
    }
    text.push('\n');
    for (index, (values, score)) in attributions.values.rows().zip(&attributions.scores).enumerate() {
        text.push_str(&format!("{},{score},{}", index + 1, attributions.base));
        values.iter().for_each(|value| text.push_str(&format!(",{value}")));
        text.push('\n');
    }
    text
}

/// A field of a CSV file, in quotes if it needs them.
fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

/// The agreement of models in folders.
fn compare(args: &FactorsCompareArgs) -> Result<()> {
    let found = compared(
        &args.models,
        args.data.as_deref(),
        args.rows.into(),
        args.top.into(),
        &context(&args.device)?,
    )?;
    println!("{}", found.text());
    if let Some(out) = &args.out {
        write_json(out, &found)?;
        let page = out.with_extension("html");
        report::draw_consistency(&found, &page)?;
        println!("report: {}", page.display());
    }
    Ok(())
}

/// What opens models outside a run.
fn context(args: &DeviceArgs) -> Result<Context> {
    Ok(Context {
        device: args.device.open()?,
        run: Path::new("").to_owned(),
        resume: false,
        interrupt: interrupt::install(),
        said: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(quoted("age"), "age");
        assert_eq!(quoted("happy, \"very\""), "\"happy, \"\"very\"\"\"");
    }
}
