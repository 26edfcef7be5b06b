//! `align soup`.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use align_soup::{FloatDtype, SoupOptions, Weights, soup_folders_observed};
use anyhow::{Result, bail};

use super::open::rows_bar;
use crate::args::SoupArgs;
use crate::interrupt;

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
    let dtype = args.dtype.as_deref().map(str::parse::<FloatDtype>).transpose()?;
    let options = SoupOptions {
        dtype,
        allow_different_tokenizers: args.force,
        allow_different_configs: args.force,
        allow_different_ancestors: args.force,
        overwrite: args.overwrite,
        ..SoupOptions::default()
    };
    let interrupt = interrupt::install();
    let bar = rows_bar("soup", 0).with_style(indicatif::ProgressStyle::with_template(
        "soup {bar:30} {bytes}/{total_bytes} · {binary_bytes_per_sec} · {eta} left",
    )?);
    let report = soup_folders_observed(&args.models, &weights, &options, &args.out, &|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        match interrupt.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    bar.finish_and_clear();
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", args.out.display());
    Ok(())
}
