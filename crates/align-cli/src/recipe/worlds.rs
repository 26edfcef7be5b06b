//! Generated worlds.

use align_core::number::{NonNegative, Probability};
use align_data::synthetic::{Skill, TrapWorld};
use serde::{Deserialize, Serialize};

/// The synthetic world of `align_data::synthetic`, written as files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorldStage {
    /// Decides everything that is generated.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Texts to pretrain on.
    pub(crate) pretraining: usize,
    /// Demonstrations to fine-tune on.
    pub(crate) demonstrations: usize,
    /// How good the demonstrator is, from 0 to 1.
    pub(crate) quality: Probability,
    /// Labelled pairs.
    pub(crate) preferences: usize,
    /// The share of labels that are flipped.
    pub(crate) label_noise: Probability,
    /// Prompts to train on.
    pub(crate) prompts: usize,
    /// Prompts to evaluate on.
    pub(crate) held_out_prompts: usize,
}

/// The world of rare traps, `align_data::synthetic::TrapWorld`, written as files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrapsStage {
    /// Decides which words are good.
    #[serde(default)]
    pub(crate) seed: u64,
    /// The probability of each of the 24 traps.
    #[serde(default = "rarity")]
    pub(crate) rarity: f64,
    /// Texts to learn the language from.
    pub(crate) demonstrations: usize,
    /// Labelled pairs.
    pub(crate) preferences: usize,
}

fn rarity() -> f64 {
    TrapWorld::RARITY
}

/// The world whose preferences go round in a circle, `align_data::synthetic::CyclicWorld`, written as files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CyclicStage {
    /// Decides the demonstrations.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Answers of the demonstrator.
    pub(crate) demonstrations: usize,
}

/// The world with a cheap trick, `align_data::synthetic::PatternWorld`, written as files. Gold is the stage itself, the proxy
/// `@stage/proxy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatternStage {
    /// Decides everything that is generated.
    #[serde(default)]
    pub(crate) seed: u64,
    /// What the trick is worth to the proxy; an honest answer has 1.
    pub(crate) hack: NonNegative,
    /// How often the demonstrator is right.
    pub(crate) quality: Probability,
    /// Demonstrations to fine-tune on.
    pub(crate) demonstrations: usize,
    /// Prompts to train on.
    pub(crate) prompts: usize,
    /// Prompts to evaluate on.
    pub(crate) held_out_prompts: usize,
}

/// The world of skills, `align_data::synthetic::SkillsWorld`, written as files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SkillsStage {
    /// Decides the facts, the questions that are held out, and what is said.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Rows to pretrain on about each of the 363 questions.
    pub(crate) pretraining: usize,
    /// Demonstrations of each question that is demonstrated, 60 of a skill.
    pub(crate) demonstrations: usize,
    /// The skills whose demonstrations are also written as one file, `together.jsonl`.
    #[serde(default = "two_skills")]
    pub(crate) together: Vec<Skill>,
}

fn two_skills() -> Vec<Skill> {
    vec![Skill::Addition, Skill::Facts]
}
