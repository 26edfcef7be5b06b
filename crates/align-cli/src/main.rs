//! The `align` command: recipes that take a checkpoint and preferences to an aligned model.

mod args;
mod commands;
mod context;
mod data;
mod device;
mod drive;
mod interrupt;
mod recipe;
mod report;
mod stages;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::context::Interrupted;

fn main() -> ExitCode {
    align_kernels::tune_allocator();
    let cli = Cli::parse();
    // The main thread becomes a worker of the pool: small operations stop hopping threads.
    let mut result = Ok(());
    rayon::scope(|scope| scope.spawn(|_| result = commands::run(cli.command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("{error}");
            eprintln!("go on with: {}", resume_command());
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The command that was given, with `--resume`.
fn resume_command() -> String {
    let mut words: Vec<String> =
        std::env::args().filter(|word| word != "--resume" && word != "--overwrite").collect();
    words.push("--resume".to_owned());
    words.join(" ")
}
