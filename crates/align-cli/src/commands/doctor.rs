//! `align doctor`: what works here, what does not, and what to do about it.

use std::path::Path;

use align_core::{CausalLm, TokenBatch};
use align_data::read::{ReadOptions, RowStream};
use align_data::rows::{DemonstrationRow, FromRow, PreferenceRow, PromptRow};
use align_models::Transformer;
use anyhow::{Result, bail};
use burn::module::Module;
use burn::tensor::Device;

use crate::args::DoctorArgs;
use crate::context::{encoder, resolve_model};
use crate::device::DeviceChoice;

/// How many rows of a file are tried.
const ROWS: usize = 1000;

pub(super) fn run(args: &DoctorArgs) -> Result<()> {
    println!("align {}", env!("CARGO_PKG_VERSION"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("processor: {threads} threads");
    let mut healthy = true;
    for choice in [DeviceChoice::Flex, DeviceChoice::Wgpu(0), DeviceChoice::Cuda(0)] {
        match choice.open() {
            Ok(_) => println!("device {choice}: works"),
            Err(error) => println!("device {choice}: not here ({error})"),
        }
    }
    let device = DeviceChoice::Auto.open()?;
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
    let model = Transformer::from_pretrained(&folder, device)?.valid();
    let config = model.config().clone();
    let encoder = encoder(&folder, Some(config.vocab_size), Default::default())?;
    let logits = model.logits(&TokenBatch::right_padded(&[vec![0]], device));
    let finite = logits.is_finite().all().into_scalar::<bool>();
    if !finite {
        bail!("its scores are not finite: the weights are damaged or overflow in this type");
    }
    let template = if encoder.template().is_some() { "a chat template" } else { "no chat template" };
    if encoder.stop_ids().is_empty() {
        bail!("it has no stop token: set eos_token_id in generation_config.json");
    }
    Ok(format!(
        "loads; {}, {} parameters, vocabulary {}, context {}, {template}, stops at {:?}",
        config.family.model_type(),
        model.num_params(),
        config.vocab_size,
        config.context_length,
        encoder.stop_ids()
    ))
}

fn check_data(path: &Path, model: Option<&str>) -> Result<String> {
    let mut findings = Vec::new();
    for (kind, result) in [
        ("preferences", try_rows::<PreferenceRow>(path)),
        ("demonstrations", try_rows::<DemonstrationRow>(path)),
        ("prompts", try_rows::<PromptRow>(path)),
    ] {
        match result {
            Ok(rows) => findings.push(format!("{rows} rows read as {kind}")),
            Err(error) if findings.is_empty() && kind == "prompts" => return Err(error),
            Err(_) => {}
        }
    }
    if let Some(model) = model {
        let encoder = encoder(&resolve_model(model)?, None, Default::default())?;
        if let Some(row) = RowStream::<DemonstrationRow>::open(path, &ReadOptions::default())?.next() {
            let example = encoder.encode_sft(&row?)?;
            let learnt = example.loss_mask.iter().filter(|counts| **counts).count();
            findings.push(format!("the first row has {} tokens, {learnt} of them learnt", example.ids.len()));
        }
    }
    Ok(findings.join("; "))
}

/// How many of the first rows can be read as this kind.
fn try_rows<T: FromRow>(path: &Path) -> Result<usize> {
    let options = ReadOptions { limit: Some(ROWS), ..ReadOptions::default() };
    Ok(align_data::read::read_rows::<T>(path, &options)?.rows.len())
}
