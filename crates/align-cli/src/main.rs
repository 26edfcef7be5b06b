//! The `align` command: recipes that take a checkpoint and preferences to an aligned model.

mod args;
mod commands;
mod context;
mod data;
mod device;
mod drive;
mod expert_weights;
mod fusion;
mod held;
mod help;
mod interrupt;
mod judge;
mod language_model;
mod oracle;
mod progress;
mod recipe;
mod report;
mod results;
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
        Err(error) => report_failure(&error),
    }
}

/// Says on standard error why the command ended early: 130 after Ctrl-C, 1 after an error; clap itself exits with 2.
fn report_failure(error: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        eprintln!("{interrupted}");
        if interrupted.saved_in.is_some() {
            eprintln!("go on with: {}", resume_command(std::env::args()));
        }
        return ExitCode::from(130);
    }
    // Whoever reads our output may stop reading, as `head` does.
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        // Some errors end in the words of their cause.
        let text = cause.to_string();
        if !last.ends_with(&text) {
            eprintln!("  because: {text}");
        }
        last = text;
    }
    ExitCode::FAILURE
}

/// The command that was given, with `--resume`, as a shell reads it.
fn resume_command(words: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    words
        .filter(|word| word != "--resume" && word != "--overwrite")
        .chain(["--resume".to_owned()])
        .map(|word| match !word.is_empty() && word.chars().all(plain) {
            true => word,
            false => format!("'{}'", word.replace('\'', r"'\''")),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_resume_can_be_pasted_into_a_shell() {
        let words = ["align", "run", "my recipe.toml", "--overwrite", "title=it's"].map(str::to_owned);
        assert_eq!(resume_command(words.into_iter()), r"align run 'my recipe.toml' 'title=it'\''s' --resume");
    }
}
