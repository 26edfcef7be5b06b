//! `align fuse`: the commands that read a model, for a fusion, and the experts' weights at every token.

use std::path::{Path, PathBuf};

use align_core::{CausalLm as _, Draws};
use align_data::encode::{EncodeError, EncodeOptions, Encoder};
use align_data::read::{ReadOptions, read_rows};
use align_data::rows::{DemonstrationRow, Dialogue, FromRow, PromptRow, RowProblem};
use align_models::{GenerateOptions, Prompt, generate};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::generate::warn_of_no_end;
use super::open::{Opened, Text, open, sampling};
use super::{chat, generate, logprobs};
use crate::args::{ExplainArgs, FuseCommand, FuseEvalArgs, LoadArgs, WithFusion};
use crate::context::{Context, resolve_model};
use crate::expert_weights::{self, Summary, WEIGHTS, fusion_weights};
use crate::fusion::{FUSION, fusion_file};
use crate::interrupt;
use crate::language_model::OpenModel;
use crate::report;
use crate::stages::Bench;

pub(super) fn run(command: &FuseCommand) -> Result<()> {
    match command {
        FuseCommand::Generate(on) => generate::run(known(on)?, &on.options),
        FuseCommand::Logprobs(on) => logprobs::run(known(on)?, &on.options),
        FuseCommand::Chat(on) => chat::run(known(on)?, &on.options),
        FuseCommand::Eval(on) => eval(known(on)?, &on.options),
        FuseCommand::Explain(on) => explain(known(on)?, &on.options),
    }
}

/// The fusion that was named, which a model alone is not.
fn known<T: Args>(on: &WithFusion<T>) -> Result<&str> {
    if fusion_file(&resolve_model(&on.fusion)?).is_none() {
        bail!(
            "`{0}` is no fusion: expected its file, or a folder with {FUSION}; of a model alone say `--model {0}`",
            on.fusion
        );
    }
    Ok(&on.fusion)
}

/// What `align eval` computes of rows with answers, of one fusion.
fn eval(fusion: &str, args: &FuseEvalArgs) -> Result<()> {
    let (model, context) = opened(fusion, &args.load)?;
    let stage = serde_json::from_value(json!({
        "answers": { "path": args.data },
        "draw": args.exact_match,
        "sampling": { "temperature": 0.0, "max_new_tokens": args.max_new_tokens },
        "microbatch": args.batch,
    }))?;
    let bench = Bench::open(&stage, &model, &context)?;
    let figures = bench.figures(&model, &context)?;
    let mut line = json!({ "rows": bench.rows() });
    for name in ["nll", "exact_match"] {
        if let Some(spread) = figures.get(name) {
            line[name] = json!(spread.mean);
            line[format!("{name}_error")] = json!(spread.error);
        }
    }
    println!("{line}");
    Ok(())
}

/// The model, and what a stage would run in.
fn opened(fusion: &str, load: &LoadArgs) -> Result<(OpenModel, Context)> {
    let (device, dtype) = load.open()?;
    let model = OpenModel::open(&resolve_model(fusion)?, &device, dtype, load.adapter.as_deref())?;
    let context = Context {
        device,
        run: PathBuf::new(),
        resume: false,
        interrupt: interrupt::install(),
        said: Default::default(),
    };
    Ok((model, context))
}

/// A question, perhaps with what follows it.
struct Asked {
    prompt: Dialogue,
    completion: Option<Dialogue>,
}

impl FromRow for Asked {
    const KIND: &'static str = "prompt";

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        if !row.contains_key("completion") && !row.contains_key("chosen") {
            return Ok(Self { prompt: PromptRow::from_row(row)?.prompt, completion: None });
        }
        match DemonstrationRow::from_row(row)? {
            DemonstrationRow::Completion { prompt, completion } => {
                Ok(Self { prompt, completion: Some(completion) })
            }
            DemonstrationRow::Messages { .. } | DemonstrationRow::Text { .. } => Err(RowProblem::WrongType {
                field: "prompt".into(),
                expected: "a prompt, and perhaps its completion",
                found: "messages or text alone".into(),
            }),
        }
    }

    fn prompt(&self) -> Option<&Dialogue> {
        Some(&self.prompt)
    }
}

impl Asked {
    /// Prompt and response; the response of a completion ends as one that is learnt does.
    fn encode(&self, encoder: &Encoder) -> Result<(Vec<u32>, Option<Vec<u32>>), EncodeError> {
        match &self.completion {
            None => Ok((encoder.encode_prompt(&self.prompt)?, None)),
            Some(completion) => {
                let both = encoder.encode_completion(&self.prompt, completion)?;
                Ok((both.prompt, Some(both.response)))
            }
        }
    }
}

/// Writes the weights behind answers that are given or drawn, and draws them.
fn explain(fusion: &str, args: &ExplainArgs) -> Result<()> {
    let Opened { model, encoder: as_text } = open(fusion, &args.load)?;
    // A prompt of the command line stands as it is; rows of a file are asked as they would be learnt.
    let (asked, encoder) = match (&args.prompt, &args.data) {
        (Some(prompt), _) => {
            let completion = args.completion.clone().map(Dialogue::Text);
            (vec![Asked { prompt: Dialogue::Text(prompt.clone()), completion }], as_text)
        }
        (None, Some(path)) => (
            read_rows::<Asked>(path, &ReadOptions::default())?.rows,
            model.encoder(EncodeOptions::default())?,
        ),
        (None, None) => unreachable!("the command line asks for one of them"),
    };
    let mut rows = Vec::new();
    for (at, row) in asked.iter().enumerate() {
        let encoded = row.encode(&encoder).with_context(|| format!("cannot use row {}", at + 1))?;
        match model.lm.context_length() {
            Some(context) if encoded.0.len() + encoded.1.as_ref().map_or(0, Vec::len) > context => {
                bail!("row {} is longer than the fusion's context of {context} tokens", at + 1)
            }
            _ => rows.push(encoded),
        }
    }
    answer(&model, &encoder, args, &mut rows)?;
    let pairs =
        rows.iter().map(|(prompt, response)| (prompt.as_slice(), response.as_deref().unwrap_or_default()));
    let texts = fusion_weights(&model, &title(fusion), pairs, &encoder, args.batch)?
        .expect("what was named is a fusion");
    if texts.is_empty() {
        bail!("there is no answer with a token, expected at least one");
    }
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    expert_weights::write(&args.out, &texts)?;
    let report = args.out.join(report::FILE);
    let page = report::fusion::page(&title(fusion), &texts);
    align_core::persist::replace_file(&report, |file| std::io::Write::write_all(file, page.as_bytes()))?;
    println!("{}", Summary::table(&Summary::of(&texts)));
    println!("weights: {}\nreport: {}", args.out.join(WEIGHTS).display(), report.display());
    Ok(())
}

/// Lets the fusion answer rows that have no answer.
fn answer(
    model: &OpenModel,
    encoder: &Encoder,
    args: &ExplainArgs,
    rows: &mut [(Vec<u32>, Option<Vec<u32>>)],
) -> Result<()> {
    let unanswered: Vec<&mut (Vec<u32>, Option<Vec<u32>>)> =
        rows.iter_mut().filter(|(_, response)| response.is_none()).collect();
    if unanswered.is_empty() {
        return Ok(());
    }
    let sampling = sampling(&args.sampling, encoder);
    warn_of_no_end(&sampling);
    let text = Text(encoder);
    let options = GenerateOptions {
        detokenize: Some(&text),
        slots: args.batch.max(1),
        ..GenerateOptions::new(&sampling, Draws::new(args.sampling.seed))
    };
    let prompts = Prompt::numbered(unanswered.iter().map(|(prompt, _)| prompt.clone()));
    let answers = model.explained(generate(&*model.lm, &prompts, &options))?;
    for ((_, response), answer) in unanswered.into_iter().zip(answers.rows) {
        *response = Some(answer.response);
    }
    Ok(())
}

/// What a fusion is called: its folder, or its file's own name.
fn title(fusion: &str) -> String {
    let path = Path::new(fusion);
    let named = match path.file_name() {
        Some(name) if name == FUSION => path.parent().and_then(Path::file_name),
        Some(_) => path.file_stem(),
        None => None,
    };
    named.map_or_else(|| "fusion".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fusion_is_called_by_its_folder_or_its_own_name() {
        assert_eq!(title("runs/mine/both/fusion.toml"), "both");
        assert_eq!(title("runs/mine/both"), "both");
        assert_eq!(title("sums.toml"), "sums");
        assert_eq!(title("fusion.toml"), "fusion");
    }
}
