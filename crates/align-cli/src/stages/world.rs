//! The synthetic world as files, and its gold reward.

use std::io::Write;
use std::path::Path;

use align_core::persist::{PersistError, replace_file};
use align_core::{Draws, Preference, Reward};
use align_data::rows::{DemonstrationRow, Dialogue};
use align_data::synthetic::{
    CyclicWorld, GoldReward, PatternWorld, Skill, SkillsWorld, TrapWorld, World, WorldConfig,
};
use align_data::tokenizer::Tokenizer as _;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::{read_json, write_json};
use crate::recipe::worlds::{CyclicStage, PatternStage, SkillsStage, TrapsStage, WorldStage};

/// How the world was made, for its gold reward.
const WORLD: &str = "world.json";
/// The same of the world of rare traps.
const TRAPS: &str = "traps.json";
/// Marks the world of circular preferences.
const CYCLIC: &str = "cyclic.json";
/// What the trick is worth in the world that has one.
const PATTERN: &str = "pattern.json";

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

/// The world of rare traps.
pub(super) fn traps(stage: &TrapsStage, folder: &Path) -> Result<Value> {
    // Sets of texts: pairs take 0 and 1.
    const DEMONSTRATIONS: u64 = 2;
    if !(0.0..=0.02).contains(&stage.rarity) {
        bail!("`rarity` is {}, expected 0 to 0.02: there are 24 traps", stage.rarity);
    }
    let world = TrapWorld::with_rarity(stage.seed, stage.rarity);
    TrapWorld::write_tokenizer(folder).with_context(|| format!("cannot write into {}", folder.display()))?;
    write_json(&folder.join(TRAPS), &json!({ "seed": stage.seed, "rarity": stage.rarity }))?;
    let demonstrations = (0..stage.demonstrations).map(|row| {
        let text = world.text(DEMONSTRATIONS, row as u64);
        json!({ "prompt": TrapWorld::prompt(row), "completion": TrapWorld::words(&text) })
    });
    write_rows(&folder.join("demonstrations.jsonl"), demonstrations.collect())?;
    let pairs = world.pairs(stage.preferences).into_iter().enumerate().map(|(row, [better, worse])| {
        json!({
            "prompt": TrapWorld::prompt(row),
            "chosen": TrapWorld::words(&better),
            "rejected": TrapWorld::words(&worse),
        })
    });
    write_rows(&folder.join("preferences.jsonl"), pairs.collect())?;
    let prompts = (0..TrapWorld::PROMPTS).map(|index| json!({ "prompt": TrapWorld::prompt(index) }));
    write_rows(&folder.join("prompts.jsonl"), prompts.collect())?;
    Ok(json!({ "words": TrapWorld::WORDS }))
}

/// The world of circular preferences.
pub(super) fn cyclic(stage: &CyclicStage, folder: &Path) -> Result<Value> {
    CyclicWorld::write_tokenizer(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    write_json(&folder.join(CYCLIC), &json!({ "seed": stage.seed }))?;
    let draws = Draws::new(stage.seed);
    let demonstrations = (0..stage.demonstrations).map(|row| {
        let (prompt, completion) = CyclicWorld::demonstration(&draws, row);
        json!({ "prompt": prompt, "completion": completion })
    });
    write_rows(&folder.join("demonstrations.jsonl"), demonstrations.collect())?;
    let prompts = (0..CyclicWorld::PROMPTS).map(|x| json!({ "prompt": CyclicWorld::prompt(x) }));
    write_rows(&folder.join("prompts.jsonl"), prompts.collect())?;
    Ok(json!({ "prompts": CyclicWorld::PROMPTS }))
}

/// The world with a cheap trick; its proxy lies in a folder of its own.
pub(super) fn pattern(stage: &PatternStage, folder: &Path) -> Result<Value> {
    // Sets of prompts.
    const TRAINING: u64 = 0;
    const HELD_OUT: u64 = 1;
    const DEMONSTRATIONS: u64 = 2;
    PatternWorld::write_tokenizer(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    let proxy = folder.join("proxy");
    std::fs::create_dir_all(&proxy).with_context(|| format!("cannot make {}", proxy.display()))?;
    write_json(&folder.join(PATTERN), &json!({ "hack": 0.0 }))?;
    write_json(&proxy.join(PATTERN), &json!({ "hack": stage.hack }))?;
    let draws = Draws::new(stage.seed);
    let prompts =
        |set, count| (0..count).map(|row| PatternWorld::prompt(&draws, set, row)).collect::<Vec<_>>();
    let rows = |prompts: Vec<String>| prompts.into_iter().map(|prompt| json!({ "prompt": prompt })).collect();
    write_rows(&folder.join("prompts.jsonl"), rows(prompts(TRAINING, stage.prompts)))?;
    write_rows(&folder.join("held_out.jsonl"), rows(prompts(HELD_OUT, stage.held_out_prompts)))?;
    let demonstrations = (0..stage.demonstrations).map(|row| {
        json!({
            "prompt": PatternWorld::prompt(&draws, DEMONSTRATIONS, row),
            "completion": PatternWorld::demonstration(&draws, DEMONSTRATIONS, row, stage.quality.get()),
        })
    });
    write_rows(&folder.join("demonstrations.jsonl"), demonstrations.collect())?;
    Ok(json!({ "hack": stage.hack }))
}

/// The world of skills: a folder for each of them, and what a base model reads.
pub(super) fn skills(stage: &SkillsStage, folder: &Path) -> Result<Value> {
    SkillsWorld::write_tokenizer(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    let world = SkillsWorld::new(stage.seed);
    let rows = |said: Vec<(String, String)>| -> Vec<Value> {
        let row = |(prompt, completion)| json!({ "prompt": prompt, "completion": completion });
        said.into_iter().map(row).collect()
    };
    write_rows(&folder.join("pretrain.jsonl"), rows(world.pretraining(stage.pretraining)))?;
    for skill in Skill::ALL {
        let folder = folder.join(skill.word());
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let shown = world.demonstrations(skill, stage.demonstrations);
        let scrambled =
            shown.iter().map(|(prompt, said)| (prompt.clone(), SkillsWorld::scrambled(said))).collect();
        let held_out = world.held_out(skill).into_iter();
        let right = held_out.map(|question| (question.text(), world.right(question))).collect();
        write_rows(&folder.join("demonstrations.jsonl"), rows(shown))?;
        write_rows(&folder.join("scrambled.jsonl"), rows(scrambled))?;
        write_rows(&folder.join("held_out.jsonl"), rows(right))?;
    }
    let together = stage.together.iter().flat_map(|&skill| world.demonstrations(skill, stage.demonstrations));
    write_rows(&folder.join("together.jsonl"), rows(together.collect()))?;
    Ok(json!({ "skills": Skill::ALL.len() }))
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

pub(super) fn write_rows(path: &Path, rows: Vec<Value>) -> Result<(), PersistError> {
    replace_file(path, |file| rows.iter().try_for_each(|row| writeln!(file, "{row}")))
}

/// The gold reward of a world's folder.
pub(crate) fn gold_of(folder: &Path) -> Result<Option<Box<dyn Reward>>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Traps {
        seed: u64,
        rarity: f64,
    }
    if let Some(Traps { seed, rarity }) = read_json(&folder.join(TRAPS))? {
        return Ok(Some(Box::new(TrapWorld::with_rarity(seed, rarity))));
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pattern {
        hack: f64,
    }
    if let Some(Pattern { hack }) = read_json(&folder.join(PATTERN))? {
        return Ok(Some(Box::new(PatternWorld { hack })));
    }
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

/// The preferences of a world's folder, where they are known: of circular ones, and of gold rewards by Bradley and Terry.
pub(crate) fn preference_of(folder: &Path) -> Result<Option<Box<dyn Preference>>> {
    if folder.join(CYCLIC).exists() {
        return Ok(Some(Box::new(CyclicWorld)));
    }
    Ok(gold_of(folder)?.map(|gold| Box::new(align_core::BradleyTerry(gold)) as Box<dyn Preference>))
}
