//! Puts a large model and small ones together: checks that they fit, and writes the file that stands wherever a model is read.

use std::io::Write;
use std::path::Path;

use align_core::CausalLm as _;
use align_core::persist::replace_file;
use anyhow::{Context as _, Result};
use burn::tensor::DType;
use serde_json::{Value, json};

use crate::context::Context;
use crate::fusion::{FUSION, FusionFile};
use crate::recipe::fusion::FusionConfig;
use crate::recipe::parts::stage_reference;

pub(super) fn run(config: &FusionConfig, folder: &Path, context: &Context) -> Result<Value> {
    // Adapters are folders inside a stage's, models the stage itself.
    let find = |role: &str, reference: &str| {
        let found = match stage_reference(reference) {
            Some(inside) if context.run.join(inside).join("adapter_config.json").is_file() => {
                context.path(reference)
            }
            Some(_) => context.model(reference),
            None => context.model_to_read(reference),
        };
        found.with_context(|| format!("cannot find {role}"))
    };
    let file = FusionFile::with(config.clone(), find)?;
    let opened = file.open(&context.device, DType::F32)?;
    let written = file.config_in(folder, &context.run)?;
    let text = toml::to_string_pretty(&written)?;
    replace_file(&folder.join(FUSION), |out| out.write_all(text.as_bytes()))?;
    let experts = opened.fusion.experts();
    Ok(json!({ "experts": experts, "vocabulary": opened.fusion.vocab_size() }))
}
