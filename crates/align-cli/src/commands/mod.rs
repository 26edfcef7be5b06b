//! The sub-commands.

mod chat;
mod data;
mod doctor;
mod factors;
mod fuse;
mod generate;
mod logprobs;
mod merge;
mod open;
mod recipes;
mod row;
mod run;
mod score;
mod soup;

use anyhow::Result;

use crate::args::{BilevelCommand, Command, DataCommand};

/// Runs what was asked for.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Init(args) => run::single(&args, "init"),
        Command::Sft(args) => run::single(&args, "sft"),
        Command::Reward(args) => run::single(&args, "reward"),
        Command::Ppo(args) => run::single(&args, "ppo"),
        Command::Dpo(args) => run::single(&args, "dpo"),
        Command::Nash(args) => run::single(&args, "nash"),
        Command::Online(args) => run::single(&args, "online"),
        Command::Superhf(args) => run::single(&args, "superhf"),
        Command::Eval(args) => run::single(&args, "eval"),
        Command::Bon(args) => run::single(&args, "bon"),
        Command::Soup(args) => soup::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Generate(args) => generate::run(&args.model, &args.options),
        Command::Chat(args) => chat::run(&args.model, &args.options),
        Command::Logprobs(args) => logprobs::run(&args.model, &args.options),
        Command::Fuse(command) => fuse::run(&command),
        Command::Bilevel(BilevelCommand::Clean(args)) => run::single(&args, "clean"),
        Command::Bilevel(BilevelCommand::Tune(args)) => run::single(&args, "coefficient"),
        Command::Bilevel(BilevelCommand::Design(args)) => run::single(&args, "reward_design"),
        Command::Bilevel(BilevelCommand::Bench(args)) => run::single(&args, "solvers"),
        Command::Factors(command) => factors::run(&command),
        Command::Score(args) => score::run(&args),
        Command::Report(args) => crate::report::run(&args),
        Command::Data(DataCommand::Preview(args)) => data::preview(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Recipes(command) => recipes::run(&command),
    }
}
