//! The command line: what `--help` shows.

use std::path::PathBuf;

use align_core::number::{Fraction, NonNegative, NumberError, Positive, UnitInterval};
use burn::tensor::{DType, Device};
use clap::{Args, Parser, Subcommand};

use crate::device::{DeviceChoice, DeviceError, DtypeChoice};
use crate::help;

/// Align language models: from a checkpoint and preferences to an aligned checkpoint.
///
/// Models are Hugging Face folders (config.json, safetensors, tokenizer.json) or hub ids (org/name). Recipes are TOML;
/// any key can be overridden as `table.key=value`, and every run writes back the recipe it ran, defaults spelt out.
#[derive(Debug, Parser)]
#[command(name = "align", version, max_term_width = 110, arg_required_else_help = true, after_help = help::ALIGN)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a recipe of stages: data, fine-tunes, soup, reward model, PPO, evaluation, report
    #[command(after_help = help::RUN)]
    Run(RecipeArgs),
    /// Make a small model with fresh weights from a recipe
    #[command(after_help = help::INIT)]
    Init(RecipeArgs),
    /// Fine-tune on demonstrations (or pretrain on text)
    #[command(after_help = help::SFT)]
    Sft(RecipeArgs),
    /// Train a reward model on preference pairs
    #[command(after_help = help::REWARD)]
    Reward(RecipeArgs),
    /// Align a policy with PPO; with a soup as its reference this is SALSA
    #[command(after_help = help::PPO)]
    Ppo(RecipeArgs),
    /// Train on preference pairs directly: DPO, IPO, SimPO and their relatives; KTO on rated answers
    #[command(after_help = help::DPO)]
    Dpo(RecipeArgs),
    /// Play against oneself on a preference oracle, towards an equilibrium: INPO, SPPO, Nash-MD
    #[command(after_help = help::NASH)]
    Nash(RecipeArgs),
    /// Learn from fresh answers that an oracle compares: online DPO, XPO
    #[command(after_help = help::ONLINE)]
    Online(RecipeArgs),
    /// Filter answers by a reward and fine-tune on the best, with a KL prior
    #[command(after_help = help::SUPERHF)]
    Superhf(RecipeArgs),
    /// Average the weights of checkpoints, tensor by tensor from disk
    #[command(after_help = help::SOUP)]
    Soup(SoupArgs),
    /// Complete prompts
    #[command(after_help = help::GENERATE)]
    Generate(GenerateArgs),
    /// Talk to a model
    #[command(after_help = help::CHAT)]
    Chat(ChatArgs),
    /// The log-probability of every token given those before it
    #[command(after_help = help::LOGPROBS)]
    Logprobs(LogprobsArgs),
    /// Score completions or pairs with a reward model
    #[command(after_help = help::SCORE)]
    Score(ScoreArgs),
    /// Evaluate models on held-out prompts, from a recipe
    #[command(after_help = help::EVAL)]
    Eval(RecipeArgs),
    /// Draw many answers a prompt, keep the best, and see what the best of n is worth, from a recipe
    #[command(after_help = help::BON)]
    Bon(RecipeArgs),
    /// Draw report.html from finished runs
    #[command(after_help = help::REPORT)]
    Report(ReportArgs),
    /// Look at data as the model will see it
    #[command(subcommand)]
    Data(DataCommand),
    /// Find out whether devices, a model and a data file will work, and what to do if not
    #[command(after_help = help::DOCTOR)]
    Doctor(DoctorArgs),
    /// The recipes that come with align
    #[command(subcommand)]
    Recipes(RecipesCommand),
}

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Where to compute: flex (CPU), wgpu[:i], cuda[:i] or auto
    #[arg(long, default_value = "flex", value_name = "D")]
    pub(crate) device: DeviceChoice,
}

/// Where a model is used, and in what.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// The type of the weights in memory: f32, bf16 or f16. The CPU computes in f32 whatever it holds: half the memory
    /// there, and slower
    #[arg(long, default_value = "f32", value_name = "T")]
    pub(crate) dtype: DtypeChoice,
    /// Adapters in PEFT's form, put over the model
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
}

impl LoadArgs {
    /// Starts the device and makes sure that it takes the type.
    pub(crate) fn open(&self) -> Result<(Device, DType), DeviceError> {
        let device = self.device.device.open()?;
        let dtype = self.dtype.on(&device, self.device.device)?;
        Ok((device, dtype))
    }
}

#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// A recipe file, or the name of a built-in recipe
    pub(crate) recipe: PathBuf,
    /// Overrides such as `training.learning_rate=1e-4`; in a recipe of stages, `stage.table.key=value`
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Go on with an interrupted run
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) resume: bool,
    /// Replace what an earlier run left in the output folder
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SoupArgs {
    /// The checkpoint folders to average; policies often start from the first
    #[arg(required = true, num_args = 1.., value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
    /// Where the soup goes
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// One weight per model, summing to 1 [default: equal]
    #[arg(long, value_delimiter = ',', value_name = "A,B,…")]
    pub(crate) weights: Vec<f64>,
    /// Divide the weights by their sum
    #[arg(long)]
    pub(crate) normalize: bool,
    /// The type to write: f32, f16, bf16 or f64 [default: the first model's]
    #[arg(long, value_name = "T")]
    pub(crate) dtype: Option<String>,
    /// Average although tokenizers, configurations or recorded ancestors differ
    #[arg(long)]
    pub(crate) force: bool,
    /// Replace the output folder if it exists
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// A number in its range.
fn number<T: TryFrom<f64, Error = NumberError>>(text: &str) -> Result<T, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    T::try_from(value).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// How many tokens to produce at most
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    /// Divides the logits; 0 is greedy
    #[arg(long, default_value = "1", value_name = "T", value_parser = number::<NonNegative>)]
    pub(crate) temperature: NonNegative,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub(crate) top_k: usize,
    /// Keep the smallest set of tokens with this much probability
    #[arg(long, default_value = "1", value_name = "P", value_parser = number::<Fraction>)]
    pub(crate) top_p: Fraction,
    /// Keep tokens at least this likely relative to the most likely one
    #[arg(long, default_value = "0", value_name = "P", value_parser = number::<UnitInterval>)]
    pub(crate) min_p: UnitInterval,
    /// Divide the scores of tokens that occurred (1 is off)
    #[arg(long, default_value = "1", value_name = "R", value_parser = number::<Positive>)]
    pub(crate) repetition_penalty: Positive,
    /// Stop at this text (may be given several times)
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Draws are keyed by it: the same seed gives the same text, in any batch
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["prompt", "data"])))]
pub(crate) struct GenerateArgs {
    /// A model folder or hub id
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    /// One prompt, as text; no template is applied
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// A file of rows with `prompt` or `messages`; messages go through the chat template
    #[arg(long, value_name = "F.jsonl")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Rows computed at once
    #[arg(long, default_value_t = 16, value_name = "B")]
    pub(crate) batch: usize,
    /// One JSON object a line: prompt, completion, token_ids, logprobs, finish_reason
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// A model folder or hub id, with a chat template
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    /// A system message to start with
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogprobsArgs {
    /// A model folder or hub id
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    /// Rows with `text`, `prompt` and `completion`, or `messages`
    #[arg(long, value_name = "F.jsonl")]
    pub(crate) data: PathBuf,
    /// Write here instead of to standard output
    #[arg(long, value_name = "F")]
    pub(crate) out: Option<PathBuf>,
    /// Add the tokenizer's own special tokens to `text`
    #[arg(long)]
    pub(crate) add_special_tokens: bool,
    /// Rows computed at once
    #[arg(long, default_value_t = 8, value_name = "B")]
    pub(crate) batch: usize,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// A reward model folder or hub id
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    /// Rows with `prompt` and `completion`, `messages`, or `chosen` and `rejected`
    #[arg(long, value_name = "F.jsonl")]
    pub(crate) data: PathBuf,
    /// Write here instead of to standard output
    #[arg(long, value_name = "F")]
    pub(crate) out: Option<PathBuf>,
    /// Rows computed at once
    #[arg(long, default_value_t = 8, value_name = "B")]
    pub(crate) batch: usize,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// Where the report goes [default: report.html in the first run]
    #[arg(long, value_name = "F.html")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Show rows as tokens, with what counts in the loss marked
    #[command(after_help = help::PREVIEW)]
    Preview(PreviewArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// A data file
    pub(crate) data: PathBuf,
    /// The model whose tokenizer and template are used
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    /// How many rows
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) rows: usize,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A model folder to try
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<String>,
    /// A data file to try
    #[arg(long, value_name = "F")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecipesCommand {
    /// List the built-in recipes
    Ls,
    /// Copy a built-in recipe to a file
    Cp {
        /// Its name, as `ls` shows it
        name: String,
        /// Where to [default: NAME.toml in this folder]
        to: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
