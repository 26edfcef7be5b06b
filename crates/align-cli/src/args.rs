//! The command line: what `--help` shows.

use std::num::NonZeroUsize;
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
    /// Merge checkpoints by a mergekit configuration: TIES, DARE, slerp, frankenmerges and the others
    #[command(after_help = help::MERGE)]
    Merge(MergeArgs),
    /// Complete prompts
    #[command(after_help = help::GENERATE)]
    Generate(WithModel<GenerateArgs>),
    /// Talk to a model
    #[command(after_help = help::CHAT)]
    Chat(WithModel<ChatArgs>),
    /// The log-probability of every token given those before it
    #[command(after_help = help::LOGPROBS)]
    Logprobs(WithModel<LogprobsArgs>),
    /// Steer a large model by small ones: sample, score, talk, and see which expert speaks where
    #[command(subcommand, after_help = help::FUSE)]
    Fuse(FuseCommand),
    /// Score completions or pairs with a reward model
    #[command(after_help = help::SCORE)]
    Score(ScoreArgs),
    /// Fit models to tables of answers, explain them, guide their reasons and compare them
    #[command(subcommand, after_help = help::FACTORS)]
    Factors(FactorsCommand),
    /// Tune what stands above a training: the weights of its data, a KL coefficient, a reward
    #[command(subcommand, after_help = help::BILEVEL)]
    Bilevel(BilevelCommand),
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
        let dtype = self.dtype.on(&device, &self.device.device)?;
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
    #[command(flatten)]
    pub(crate) begin: BeginArgs,
}

/// How a run is begun.
#[derive(Debug, Args)]
pub(crate) struct BeginArgs {
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
    /// The checkpoint folders to average; policies often start from the first. With --base or --as-adapter: LoRA adapters
    #[arg(required = true, num_args = 1.., value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
    /// The base that the models are adapters of: their merged weights are averaged, never their factors
    #[arg(long, value_name = "DIR", conflicts_with = "search")]
    pub(crate) base: Option<PathBuf>,
    /// Write the soup of adapters as one adapter with the same product; its rank is the sum of theirs
    #[arg(long, conflicts_with_all = ["base", "dtype", "search"])]
    pub(crate) as_adapter: bool,
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
    #[command(flatten)]
    pub(crate) search: SoupSearchArgs,
}

/// Soups that are evaluated. The output is then the folder of a run: model/, path.json, weights.json, map.json, report.html.
#[derive(Debug, Args)]
#[command(next_help_heading = "Search and map (DIR is then a run's folder, with model/ and report.html)")]
#[command(group(clap::ArgGroup::new("search").args(["greedy", "learned", "map"]).multiple(true)))]
pub(crate) struct SoupSearchArgs {
    /// Keep a model only if the soup does not get worse with it
    #[arg(long, conflicts_with_all = ["weights", "learned", "dtype", "force"])]
    pub(crate) greedy: bool,
    /// Learn the weights on --data
    #[arg(long, conflicts_with_all = ["weights", "dtype", "force"], requires = "data")]
    pub(crate) learned: bool,
    /// Draw the figure on the plane through three models
    #[arg(long, conflicts_with_all = ["dtype", "force"])]
    pub(crate) map: bool,
    /// The figure: nll or exact_match on --data, or one that --eval measures
    #[arg(long, default_value = "nll", value_name = "NAME", requires = "search")]
    pub(crate) metric: String,
    /// Held-out rows with `prompt` and `completion`, `messages` or `text`
    #[arg(long, value_name = "F.jsonl", requires = "search")]
    pub(crate) data: Option<PathBuf>,
    /// The keys of an eval recipe, without arms
    #[arg(long, value_name = "F.toml", requires = "search")]
    pub(crate) eval: Option<PathBuf>,
    /// What shares learnt weights: model or layer [default: model]
    #[arg(long, value_name = "PART", requires = "learned")]
    pub(crate) by: Option<String>,
    /// Steps that weights are learnt for [default: 100]
    #[arg(long, value_name = "N", requires = "learned")]
    pub(crate) steps: Option<u32>,
    /// Points along the longer side of the map [default: 17]
    #[arg(long, value_name = "N", requires = "map")]
    pub(crate) points: Option<u32>,
    /// How far the map goes beyond the models, as a share of their extent [default: 0.25]
    #[arg(long, value_name = "X", requires = "map")]
    pub(crate) margin: Option<f64>,
    /// Go on with an interrupted search or map
    #[arg(long, conflicts_with = "overwrite", requires = "search")]
    pub(crate) resume: bool,
    /// Where to compute: flex (CPU), wgpu[:i], cuda[:i] or auto
    #[arg(long, default_value = "flex", value_name = "D", requires = "search")]
    pub(crate) device: DeviceChoice,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// A configuration in mergekit's YAML
    #[arg(value_name = "CONFIG.yml")]
    pub(crate) config: PathBuf,
    /// Where the merged model goes
    #[arg(value_name = "OUT", required_unless_present = "dry_run")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the output folder if it exists
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Decides what DARE and DELLA drop
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Largest file of weights, such as 5GB, 500MB or a number of bytes
    #[arg(long, default_value = "5GB", value_name = "SIZE", value_parser = size)]
    pub(crate) max_shard_size: u64,
    /// Merge although rows of the embeddings mean different tokens, or a filter is in no tensor's name
    #[arg(long)]
    pub(crate) force: bool,
    /// Print what every tensor of the result is made of, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A number of bytes, with KB, MB or GB (powers of ten) behind it or nothing.
fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a size such as 5GB, 500MB or 100000, found {text:?}");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let factor = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(expected()),
    };
    let number: u64 = number.trim().parse().map_err(|_| expected())?;
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(expected)
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

/// A model and what is done with it.
#[derive(Debug, Args)]
pub(crate) struct WithModel<T: Args> {
    /// A model folder or hub id, or a fusion's file
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) options: T,
}

/// A fusion and what is done with it.
#[derive(Debug, Args)]
pub(crate) struct WithFusion<T: Args> {
    /// A fusion's file, or a folder with a fusion.toml
    pub(crate) fusion: String,
    #[command(flatten)]
    pub(crate) options: T,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FuseCommand {
    /// Complete prompts
    #[command(after_help = help::FUSE_GENERATE)]
    Generate(WithFusion<GenerateArgs>),
    /// The log-probability of every token given those before it
    #[command(after_help = help::FUSE_LOGPROBS)]
    Logprobs(WithFusion<LogprobsArgs>),
    /// Negative log-likelihood and exact match of completions
    #[command(after_help = help::FUSE_EVAL)]
    Eval(WithFusion<FuseEvalArgs>),
    /// Talk to the fusion
    #[command(after_help = help::FUSE_CHAT)]
    Chat(WithFusion<ChatArgs>),
    /// Write the experts' weights at every token, and draw them over the text
    #[command(after_help = help::FUSE_EXPLAIN)]
    Explain(WithFusion<ExplainArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct FuseEvalArgs {
    /// Rows with `prompt` and `completion`, or `chosen`
    #[arg(long, value_name = "F.jsonl")]
    pub(crate) data: PathBuf,
    /// Answer every prompt greedily too, and count the answers that are the completion, token by token
    #[arg(long)]
    pub(crate) exact_match: bool,
    /// How many tokens such an answer may have at most
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    /// Rows computed at once
    #[arg(long, default_value_t = 8, value_name = "B")]
    pub(crate) batch: usize,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("explained").required(true).args(["prompt", "data"])))]
pub(crate) struct ExplainArgs {
    /// One prompt, as text; no template is applied
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// What follows the prompt [default: what the fusion says]
    #[arg(long, value_name = "TEXT", requires = "prompt")]
    pub(crate) completion: Option<String>,
    /// Rows with `prompt`, and perhaps `completion`; the fusion answers those without
    #[arg(long, value_name = "F.jsonl")]
    pub(crate) data: Option<PathBuf>,
    /// Where weights.jsonl and report.html go
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Rows computed at once
    #[arg(long, default_value_t = 8, value_name = "B")]
    pub(crate) batch: usize,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["prompt", "data"])))]
pub(crate) struct GenerateArgs {
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

#[derive(Debug, Subcommand)]
pub(crate) enum FactorsCommand {
    /// Fit models, guided by knowledge and not, from a recipe
    #[command(after_help = help::FACTORS_FIT)]
    Fit(RecipeArgs),
    /// What every factor adds to every score of a model
    #[command(after_help = help::FACTORS_EXPLAIN)]
    Explain(FactorsExplainArgs),
    /// Whether models have the same reasons
    #[command(after_help = help::FACTORS_COMPARE)]
    Compare(FactorsCompareArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FactorsExplainArgs {
    /// A model's folder, as `align factors fit` writes it: RUN/models/NAME
    #[arg(value_name = "FOLDER")]
    pub(crate) model: PathBuf,
    /// A CSV or Parquet file with the columns the model knows; labels are not needed
    #[arg(long, value_name = "F")]
    pub(crate) data: PathBuf,
    /// Explain the first N rows [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<NonZeroUsize>,
    /// How: auto, closed, exact, permutation, expected_gradients, tree_interventional or tree_path [default: as when it was fitted]
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Pairs of orders or points of a method that samples
    #[arg(long, value_name = "N", requires = "method")]
    pub(crate) pairs: Option<usize>,
    /// Decides what a method samples
    #[arg(long, value_name = "S", requires = "method")]
    pub(crate) seed: Option<u64>,
    /// A CSV table instead of JSON lines
    #[arg(long)]
    pub(crate) csv: bool,
    /// Write here instead of to standard output
    #[arg(long, value_name = "F")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FactorsCompareArgs {
    /// Folders of models, or of fits with all their models
    #[arg(required = true, value_name = "FOLDER")]
    pub(crate) models: Vec<PathBuf>,
    /// Explain all of them on these rows; without it, importances are those of each model's own test rows, and no order is certified
    #[arg(long, value_name = "F")]
    pub(crate) data: Option<PathBuf>,
    /// At most so many rows, from the first on
    #[arg(long, default_value = "300", value_name = "N")]
    pub(crate) rows: NonZeroUsize,
    /// How many factors count as the first ones
    #[arg(long, default_value = "4", value_name = "K")]
    pub(crate) top: NonZeroUsize,
    /// Write all figures here, and the drawings beside it as F.html
    #[arg(long, value_name = "F.json")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BilevelCommand {
    /// Weigh preference pairs so that a reward model trained on them does well on trusted pairs
    #[command(after_help = help::BILEVEL_CLEAN)]
    Clean(RecipeArgs),
    /// Tune a KL coefficient over a table of choices
    #[command(after_help = help::BILEVEL_TUNE)]
    Tune(RecipeArgs),
    /// Design a reward whose own policy does what is wanted, over a table of choices
    #[command(after_help = help::BILEVEL_DESIGN)]
    Design(RecipeArgs),
    /// Run solvers side by side on a problem whose answer is known
    #[command(after_help = help::BILEVEL_BENCH)]
    Bench(RecipeArgs),
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
mod tests;
