//! `align soup`.

use std::path::Path;

use align_soup::{FloatDtype, SoupError, SoupOptions, Source as Ingredient, Weights, soup_adapters};
use anyhow::{Result, bail};
use toml::{Table, Value};

use super::run::one_stage;
use crate::args::{BeginArgs, DeviceArgs, SoupArgs, SoupSearchArgs};
use crate::context::Interrupted;
use crate::interrupt;
use crate::recipe::source::Source;
use crate::recipe::stage::Stage;
use crate::stages::soup_watched;

pub(super) fn run(args: &SoupArgs) -> Result<()> {
    if !args.weights.is_empty() && args.weights.len() != args.models.len() {
        bail!(
            "{} models and {} weights: expected one weight for each model",
            args.models.len(),
            args.weights.len()
        );
    }
    let weights = match (args.weights.as_slice(), args.normalize) {
        ([], _) => Weights::uniform(args.models.len())?,
        (weights, true) => Weights::normalized(weights)?,
        (weights, false) => Weights::new(weights)?,
    };
    if args.search.greedy || args.search.learned || args.search.map {
        return search(args, &weights);
    }
    let dtype = args.dtype.as_deref().map(str::parse::<FloatDtype>).transpose()?;
    let options = SoupOptions {
        dtype,
        allow_different_tokenizers: args.force,
        allow_different_configs: args.force,
        allow_different_ancestors: args.force,
        overwrite: args.overwrite,
        ..SoupOptions::default()
    };
    if args.as_adapter {
        let soup = soup_adapters(&args.models, &weights, &options, &args.out)?;
        eprintln!("{} modules, of rank {} at most", soup.modules, soup.rank);
        println!("{}", args.out.display());
        return Ok(());
    }
    let sources: Vec<Ingredient> = args
        .models
        .iter()
        .map(|model| match &args.base {
            None => Ingredient::from(model),
            Some(base) => Ingredient::adapted(base, model),
        })
        .collect();
    let interrupt = interrupt::install();
    let report = match soup_watched("soup", &sources, &weights, &options, &args.out, &interrupt) {
        Err(SoupError::Interrupted) => return Err(Interrupted { saved_in: None }.into()),
        report => report?,
    };
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", args.out.display());
    Ok(())
}

/// A recipe of one stage, from what the command line says.
fn search(args: &SoupArgs, weights: &Weights) -> Result<()> {
    let stage =
        Stage::from_value(&Source::parse("align soup", "")?, Value::Table(table(args, weights)?), "")?;
    let (resume, device) = (args.search.resume, args.search.device);
    let begin = BeginArgs { resume, overwrite: args.overwrite, device: DeviceArgs { device } };
    one_stage(&stage, &args.out, &begin)
}

fn table(args: &SoupArgs, weights: &Weights) -> Result<Table> {
    let search = &args.search;
    let models = args.models.iter().map(|model| Value::from(model.display().to_string()));
    let mut stage = Table::new();
    stage.insert("name".into(), "soup".into());
    stage.insert("kind".into(), "soup".into());
    stage.insert("models".into(), models.collect::<Vec<_>>().into());
    if !args.weights.is_empty() {
        stage.insert("weights".into(), weights.as_slice().to_vec().into());
    }
    if search.learned {
        let mut learned = Table::new();
        let rows = search.data.as_deref().map(rows).expect("clap demands --data");
        learned.insert("data".into(), rows);
        learned.extend(search.by.clone().map(|by| ("by".into(), by.into())));
        learned.extend(search.steps.map(|steps| ("steps".into(), steps.into())));
        stage.insert("learned".into(), learned.into());
    }
    if search.greedy {
        stage.insert("greedy".into(), measured(search)?.into());
    }
    if search.map {
        let mut map = measured(search)?;
        map.extend(search.points.map(|points| ("points".into(), points.into())));
        map.extend(search.margin.map(|margin| ("margin".into(), margin.into())));
        stage.insert("map".into(), map.into());
    }
    Ok(stage)
}

/// A figure and what it is measured with.
fn measured(search: &SoupSearchArgs) -> Result<Table> {
    let eval = match (&search.eval, &search.data) {
        (Some(eval), _) => Source::read(eval)?.table().clone(),
        (None, Some(data)) => {
            let mut eval = Table::new();
            eval.insert("answers".into(), rows(data));
            // The likelihood alone needs no answers.
            eval.insert("draw".into(), (search.metric != "nll").into());
            eval
        }
        (None, None) => bail!("soups are evaluated on rows: give --data F.jsonl, or --eval F.toml"),
    };
    Ok(Table::from_iter([
        ("metric".to_owned(), Value::from(search.metric.clone())),
        ("eval".to_owned(), eval.into()),
    ]))
}

fn rows(path: &Path) -> Value {
    Table::from_iter([("path".to_owned(), Value::from(path.display().to_string()))]).into()
}
