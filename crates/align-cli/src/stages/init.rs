//! A model with fresh weights, from `config.json` in TOML.

use std::path::Path;

use align_core::Draws;
use align_core::persist::replace_folder;
use align_models::checkpoint::copy_companions;
use align_models::{Transformer, TransformerConfig};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::context::{Context, encoder};
use crate::recipe::parts::MODEL;
use crate::recipe::stage::InitStage;

pub(super) fn run(stage: &InitStage, folder: &Path, context: &Context) -> Result<Value> {
    let tokenizer_folder = tokenizer_folder(&stage.tokenizer, context)?;
    let encoder = encoder(&tokenizer_folder, None, Default::default())?;
    let tokenizer = encoder.tokenizer();
    let special = tokenizer.special();
    let mut config = serde_json::to_value(&stage.config)?;
    let table = config.as_object_mut().expect("a TOML table is an object");
    let words = tokenizer.vocab_size();
    if let Some(found) = table.get("vocab_size").filter(|found| found.as_u64() != Some(words as u64)) {
        bail!("`config.vocab_size` is {found}, and the tokenizer has {words} tokens: leave the key out");
    }
    table.insert("vocab_size".to_owned(), words.into());
    for (key, id) in
        [("bos_token_id", special.bos), ("eos_token_id", special.eos), ("pad_token_id", special.pad)]
    {
        if let Some(id) = id {
            table.entry(key).or_insert_with(|| id.into());
        }
    }
    let config = TransformerConfig::from_json(&config.to_string()).context("`config` describes no model")?;
    let model = Transformer::init(&config, &Draws::new(stage.seed), &context.device);
    replace_folder(&folder.join(MODEL), |folder| -> Result<()> {
        model.save_into(folder, &Default::default())?;
        Ok(copy_companions(&tokenizer_folder, folder)?)
    })?;
    Ok(json!({ "parameters": burn::module::Module::num_params(&model) }))
}

/// A model's folder, or a folder with nothing but a tokenizer.
fn tokenizer_folder(reference: &str, context: &Context) -> Result<std::path::PathBuf> {
    let folder = context.path(reference)?;
    if folder.join("tokenizer.json").exists() { Ok(folder) } else { context.model(reference) }
}
