//! Preference pairs from a model's own answers: drawn two by two, labelled by a judge.

use std::path::Path;

use align_core::Completions;
use align_core::draws::{Draws, Purpose};
use align_data::rows::{Dialogue, Message, Role};
use align_models::{GenerateOptions, Prompt, generate};
use align_reward::finite_scores;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::answers::{completions, sampling_for};
use super::world::write_rows;
use crate::context::Context;
use crate::data;
use crate::judge::judge;
use crate::progress::rows_bar;
use crate::recipe::stage::PairsStage;

/// The pairs, in the stage's folder.
const PAIRS: &str = "preferences.jsonl";

pub(super) fn run(name: &str, stage: &PairsStage, folder: &Path, context: &Context) -> Result<Value> {
    let model = context.language_model(&stage.model)?;
    let encoder = model.encoder(stage.encode.options(model.lm.context_length()))?;
    let prompts = data::prompts(&stage.prompts, &encoder, context)?;
    let judge = judge(&stage.judge, stage.aggregate, &encoder, &prompts, context)?;
    let sampling = sampling_for(&stage.sampling, &encoder);
    let (microbatch, samples) = (stage.microbatch.max(1), 2 * stage.pairs_per_prompt);
    if samples == 0 {
        bail!("`{name}`: `pairs_per_prompt` is 0, expected at least 1");
    }
    let options = GenerateOptions {
        purpose: Purpose::Synthesize,
        samples,
        slots: microbatch,
        ..GenerateOptions::new(&sampling, Draws::new(stage.seed))
    };
    let numbered: Vec<Prompt> = Prompt::numbered(prompts.ids.iter().cloned());
    let (mut rows, mut dropped) = (Vec::new(), 0);
    let bar = rows_bar(name, prompts.ids.len());
    // A few batches of prompts at a time, so that an interruption is noticed.
    let together = (4 * microbatch).div_ceil(samples);
    for (chunk, dialogues) in numbered.chunks(together).zip(prompts.dialogues.chunks(together)) {
        context.check_interrupt()?;
        let answers = model.explained(generate(&*model.lm, chunk, &options))?.rows;
        let batches: Vec<Completions> =
            answers.chunks(microbatch).map(|rows| completions(rows, &model.lm.device())).collect();
        let scores = finite_scores(&judge, &batches)
            .map_err(|error| judge.take_failure().map_or(anyhow::Error::new(error), anyhow::Error::msg))
            .with_context(|| format!("`{name}`: cannot judge answers"))?;
        for ((answers, scores), dialogue) in
            answers.chunks(samples).zip(scores.chunks(samples)).zip(dialogues)
        {
            for (answers, scores) in answers.chunks(2).zip(scores.chunks(2)) {
                let [a, b] = [&answers[0], &answers[1]].map(|answer| encoder.decode(&answer.response));
                match pair(dialogue, [a?, b?], [scores[0], scores[1]]) {
                    Some(row) => rows.push(row),
                    None => dropped += 1,
                }
            }
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    if rows.is_empty() {
        bail!("`{name}`: all {dropped} pairs are empty, the same twice, or equally good: nothing is left");
    }
    let pairs = rows.len();
    eprintln!("{name}: {pairs} pairs; {dropped} dropped, whose sides are empty, the same or equally good");
    write_rows(&folder.join(PAIRS), rows)?;
    Ok(json!({ "pairs": pairs, "dropped": dropped }))
}

/// The better answer is chosen. `None` where neither is better, and of answers that nothing can be learnt from.
fn pair(prompt: &Dialogue, texts: [String; 2], scores: [f64; 2]) -> Option<Value> {
    let [a, b] = &texts;
    if a.trim().is_empty() || b.trim().is_empty() || a == b || scores[0] == scores[1] {
        return None;
    }
    let (better, worse) = if scores[0] > scores[1] { (0, 1) } else { (1, 0) };
    let side = |which: usize| match prompt {
        Dialogue::Text(_) => json!(texts[which]),
        Dialogue::Messages(_) => json!([Message::new(Role::Assistant, texts[which].clone())]),
    };
    Some(json!({
        "prompt": prompt,
        "chosen": side(better),
        "rejected": side(worse),
        "chosen_score": scores[better],
        "rejected_score": scores[worse],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_answer_is_chosen_and_ties_are_dropped() {
        let prompt = Dialogue::Text("q".into());
        let texts = || ["a".to_owned(), "b".to_owned()];
        let row = pair(&prompt, texts(), [0.1, 0.2]).unwrap();
        assert_eq!((&row["chosen"], &row["rejected_score"]), (&json!("b"), &json!(0.1)));
        assert_eq!(pair(&prompt, texts(), [0.2, 0.2]), None);
        assert_eq!(pair(&prompt, ["a".into(), "a".into()], [0.1, 0.2]), None);
        assert_eq!(pair(&prompt, ["a".into(), " ".into()], [0.1, 0.2]), None);
        let turns = Dialogue::Messages(vec![Message::new(Role::User, "q")]);
        let row = pair(&turns, texts(), [0.3, 0.2]).unwrap();
        assert_eq!(row["chosen"], json!([{ "role": "assistant", "content": "a" }]));
    }
}
