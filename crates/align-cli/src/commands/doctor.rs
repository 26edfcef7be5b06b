//! `align doctor`: what works here, what does not, and what to do about it.

use std::collections::BTreeMap;
use std::path::Path;

use align_core::{CausalLm, Completions, Reward, TokenBatch};
use align_data::encode::EncodeOptions;
use align_data::read::{ReadOptions, RowStream};
use anyhow::{Result, bail};
use burn::tensor::{DType, Device};

use super::row::Row;
use crate::args::DoctorArgs;
use crate::context::{encoder, resolve_model, transformer};
use crate::device::DeviceChoice;
use crate::fusion::fusion_file;
use crate::judge::Judge;
use crate::language_model::{OpenModel, tokenizer_folder};

/// How many rows of a file are tried.
const ROWS: usize = 1000;

/// How many broken rows are shown.
const SHOWN: usize = 5;

pub(super) fn run(args: &DoctorArgs) -> Result<()> {
    println!("align {}", env!("CARGO_PKG_VERSION"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("processor: {threads} threads");
    for choice in [DeviceChoice::Flex, DeviceChoice::Wgpu(0), DeviceChoice::Cuda(0)] {
        match choice.open() {
            Ok(_) => println!("device {choice}: works"),
            Err(error) => println!("device {choice}: not here ({error})"),
        }
    }
    let device = DeviceChoice::Auto.open()?;
    let mut healthy = true;
    if let Some(model) = &args.model {
        healthy &= report("model", model, check_model(model, &device));
    }
    if let Some(data) = &args.data {
        let model = args.model.as_deref();
        healthy &= report("data", &data.display().to_string(), check_data(data, model));
    }
    if healthy { Ok(()) } else { bail!("something above needs attention") }
}

/// Prints a finding; true if it is good.
fn report(what: &str, name: &str, finding: Result<String>) -> bool {
    match finding {
        Ok(text) => println!("{what} {name}: {text}"),
        Err(error) => {
            println!("{what} {name}: will not do");
            error.chain().for_each(|cause| println!("  {cause}"));
            return false;
        }
    }
    true
}

fn check_model(reference: &str, device: &Device) -> Result<String> {
    let folder = resolve_model(reference)?;
    if fusion_file(&folder).is_some() {
        return check_fusion(&folder, device);
    }
    let (config, scores) = if Judge::is_in(&folder)? {
        let judge = Judge::open(&folder, device, None)?;
        let one = Completions::from_rows(&[vec![0]], &[vec![0]], device);
        let scores: Vec<f32> = judge.score(&one).into_data().iter().collect();
        let model = judge.first().expect("a folder holds models");
        (model.backbone().config().clone(), scores)
    } else {
        let model = transformer(&folder, device)?;
        let logits = model.logits(&TokenBatch::right_padded(&[vec![0]], device));
        (model.config().clone(), logits.into_data().iter().collect())
    };
    let encoder = encoder(&folder, Some(config.vocab_size), EncodeOptions::default())?;
    if let Some(found) = scores.iter().find(|score| !score.is_finite()) {
        bail!("it computes {found}, expected finite numbers: its weights overflow or are damaged");
    }
    if encoder.stop_ids().is_empty() {
        bail!(
            "it has no stop token, expected one: set eos_token_id in generation_config.json or eos_token in \
             tokenizer_config.json"
        );
    }
    Ok(format!(
        "loads; {} {}, vocabulary {}, context {}, {}, stops at {:?}",
        config.family.model_type(),
        if Judge::is_in(&folder)? { "reward model" } else { "language model" },
        config.vocab_size,
        config.context_length,
        if encoder.template().is_some() { "a chat template" } else { "no chat template" },
        encoder.stop_ids()
    ))
}

/// Opening a fusion runs all of its members.
fn check_fusion(path: &Path, device: &Device) -> Result<String> {
    let model = OpenModel::open(path, device, DType::F32, None)?;
    let encoder = model.encoder(EncodeOptions::default())?;
    let experts = model.fusion().map(|fusion| fusion.experts().join(", ")).unwrap_or_default();
    Ok(format!(
        "loads; a fusion, experts {experts}, vocabulary {}, context {}, stops at {:?}",
        model.lm.vocab_size(),
        model.lm.context_length().map_or("any".to_owned(), |context| context.to_string()),
        encoder.stop_ids()
    ))
}

fn check_data(path: &Path, model: Option<&str>) -> Result<String> {
    let options = ReadOptions { limit: Some(ROWS), skip_bad_rows: true, ..ReadOptions::default() };
    let mut stream = RowStream::<Row>::open(path, &options)?;
    let rows = stream.by_ref().collect::<Result<Vec<_>, _>>()?;
    let skipped = stream.into_skipped();
    if rows.is_empty() && skipped.count == 0 {
        bail!("{} holds no rows, expected at least one", path.display());
    }
    let broken = skipped.listed.iter().map(|(origin, problem)| format!("{origin}: {problem}"));
    expect_whole(skipped.count, broken)?;

    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *kinds.entry(row.kind()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let read =
        if rows.len() == ROWS { format!("the first {ROWS} rows are") } else { "its rows are".to_owned() };
    let mut finding = format!("{read} {}", kinds.join(", "));
    if let Some(model) = model {
        let folder = tokenizer_folder(&resolve_model(model)?)?;
        let encoder = encoder(&folder, None, EncodeOptions::default())?;
        let (mut longest, mut unsuited) = (0, Vec::new());
        for (index, row) in rows.iter().enumerate() {
            match row.previews(&encoder) {
                Ok(previews) => {
                    longest = previews.iter().map(|preview| preview.tokens.len()).fold(longest, usize::max);
                }
                Err(error) => unsuited.push(format!("{}, row {}: {error}", path.display(), index + 1)),
            }
        }
        expect_whole(unsuited.len(), unsuited.into_iter())?;
        finding.push_str(&format!("; they encode, the longest to {longest} tokens"));
    }
    Ok(finding)
}

/// Fails if any rows are broken, showing some of them.
fn expect_whole(count: usize, broken: impl Iterator<Item = String>) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let shown: Vec<String> = broken.take(SHOWN).collect();
    bail!(
        "broken rows: {count}; mend them, or give data.skip_bad_rows=true to pass over them\n  {}",
        shown.join("\n  ")
    )
}
