//! `align soup`.

use align_soup::{FloatDtype, SoupError, SoupOptions, Weights};
use anyhow::{Result, bail};

use crate::args::SoupArgs;
use crate::context::Interrupted;
use crate::interrupt;
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
    let report = match soup_watched("soup", &args.models, &weights, &options, &args.out, &interrupt) {
        Err(SoupError::Interrupted) => return Err(Interrupted { saved_in: None }.into()),
        report => report?,
    };
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", args.out.display());
    Ok(())
}
