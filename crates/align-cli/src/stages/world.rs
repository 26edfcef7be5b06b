//! The synthetic world as files, and its gold reward.

use std::io::Write;
use std::path::Path;

use align_core::Reward;
use align_core::persist::{PersistError, replace_file};
use align_data::rows::{DemonstrationRow, Dialogue};
use align_data::synthetic::{GoldReward, World, WorldConfig};
use align_data::tokenizer::Tokenizer as _;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::write_json;
use crate::recipe::stage::WorldStage;

/// How the world was made, for its gold reward.
const WORLD: &str = "world.json";

pub(super) fn run(stage: &WorldStage, folder: &Path) -> Result<Value> {
    let config = WorldConfig { seed: stage.seed, ..WorldConfig::default() };
    let world = World::new(config.clone());
    let seed = stage.seed;
    let text = |prompts: Vec<String>| prompts.into_iter().map(|prompt| json!({ "prompt": prompt })).collect();
    world.write_tokenizer(folder).with_context(|| format!("cannot write into {}", folder.display()))?;
    write_json(&folder.join(WORLD), &config)?;
    let texts = world.pretraining_texts(stage.pretraining, seed);
    write_rows(&folder.join("texts.jsonl"), texts.into_iter().map(|text| json!({ "text": text })).collect())?;
    let demonstrations = world.demonstrations(stage.demonstrations, stage.quality.get(), seed);
    write_rows(&folder.join("demonstrations.jsonl"), demonstrations.iter().map(demonstration).collect())?;
    let preferences = world.preferences(stage.preferences, stage.label_noise.get(), seed);
    let pairs = preferences.iter().map(|row| {
        json!({
            "prompt": row.prompt.plain_text(),
            "chosen": row.chosen.plain_text(),
            "rejected": row.rejected.plain_text(),
        })
    });
    write_rows(&folder.join("preferences.jsonl"), pairs.collect())?;
    write_rows(&folder.join("prompts.jsonl"), text(world.prompts(stage.prompts, seed)))?;
    write_rows(&folder.join("held_out.jsonl"), text(world.held_out_prompts(stage.held_out_prompts, seed)))?;
    Ok(json!({ "words": world.tokenizer()?.vocab_size() }))
}

fn demonstration(row: &DemonstrationRow) -> Value {
    let text = |dialogue: &Dialogue| dialogue.plain_text();
    match row {
        DemonstrationRow::Completion { prompt, completion } => {
            json!({ "prompt": text(prompt), "completion": text(completion) })
        }
        DemonstrationRow::Text { text } => json!({ "text": text }),
        DemonstrationRow::Messages { messages, .. } => json!({ "messages": messages }),
    }
}

fn write_rows(path: &Path, rows: Vec<Value>) -> Result<(), PersistError> {
    replace_file(path, |file| rows.iter().try_for_each(|row| writeln!(file, "{row}")))
}

/// The gold reward of a world's folder.
pub(crate) fn gold_of(folder: &Path) -> Result<Option<Box<dyn Reward>>> {
    let path = folder.join(WORLD);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: WorldConfig =
        serde_json::from_slice(&text).with_context(|| format!("{} is no world", path.display()))?;
    if !(2..=12).contains(&config.colours) || !(4..=40).contains(&config.things) {
        bail!("{}: expected 2 to 12 colours and 4 to 40 things", path.display());
    }
    let world = World::new(config);
    let tokenizer = world.tokenizer()?;
    Ok(Some(Box::new(GoldReward::new(world, tokenizer))))
}
