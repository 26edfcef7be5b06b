//! `align merge`.

use align_soup::SoupError;
use align_soup::merge::{FolderMergeError, MergeConfig, MergeOptions, MergePlan};
use anyhow::Result;

use crate::args::MergeArgs;
use crate::context::Interrupted;
use crate::interrupt;
use crate::stages::{local_or_hub, merge_watched};

pub(super) fn run(args: &MergeArgs) -> Result<()> {
    let config = MergeConfig::read(&args.config)?;
    let options = MergeOptions {
        seed: args.seed,
        overwrite: args.overwrite,
        max_shard_bytes: args.max_shard_size,
        allow_different_tokenizers: args.force,
        allow_unmatched_filters: args.force,
    };
    if args.dry_run {
        let plan = MergePlan::new(&config, &local_or_hub, &options)?;
        for warning in plan.warnings() {
            eprintln!("warning: {warning}");
        }
        print!("{plan}");
        eprintln!(
            "{} tensors, {} layers, {} bytes; nothing was written",
            plan.tensors(),
            plan.layers(),
            plan.bytes()
        );
        return Ok(());
    }
    let out = args.out.as_deref().expect("clap asks for it without --dry-run");
    let interrupt = interrupt::install();
    let report = match merge_watched("merge", &config, &local_or_hub, &options, out, &interrupt) {
        Err(FolderMergeError::Folder(error)) if matches!(*error, SoupError::Interrupted) => {
            return Err(Interrupted { saved_in: None }.into());
        }
        report => report?,
    };
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", out.display());
    Ok(())
}
