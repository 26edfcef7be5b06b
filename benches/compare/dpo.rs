//! Preference training with anchors that are cached once; TRL's `DPOTrainer` is the other side.
//!
//! A round is an optimiser step on 8 pairs, no two steps on the same ones. Lengths are log-normal with the medians and the spread of
//! HH's harmless pairs, 90 tokens for prompts and 32 for answers, cut at 160 and 96, so that a row has at most the 256 tokens of the
//! other tasks. Tokens that are padding are not counted. `dpo` takes the 8 pairs at once, `dpo2` two at a time, those of like length
//! together.

use std::path::Path;
use std::time::Instant;

use align_core::draws::Purpose;
use align_core::{Draws, Frozen};
use align_models::Transformer;
use align_nash::{Pair, PairLoss, PairObjective, cache_anchors, microbatches};
use align_train::{Learner, Metrics};
use burn::tensor::Device;
use serde_json::json;

use crate::{learner, memory, timed};

/// Pairs of a step.
const PAIRS: usize = 8;

/// Pairs whose prompts and answers have lengths around these medians, of at most so many tokens.
fn pairs(count: usize, vocabulary: usize, medians: [f64; 2], longest: [usize; 2]) -> Vec<Pair> {
    let draws = Draws::new(5);
    // Three rows of tokens a pair: the prompt and two answers.
    let row = |pair: usize, part: usize| -> Vec<u32> {
        let kind = part.min(1);
        let deviates = draws.normal(Purpose::Synthesize, part as u64, pair as u64);
        let length = (medians[kind] * deviates.exp()).round().clamp(4.0, longest[kind] as f64) as usize;
        let at = 3 * pair + part;
        (0..length).map(|column| ((at * 7919 + column * 104_729 + 1) % vocabulary) as u32).collect()
    };
    (0..count).map(|pair| Pair::labelled(row(pair, 0), row(pair, 1), row(pair, 2))).collect()
}

/// Tokens of both sides, each with its prompt.
fn tokens(pairs: &[Pair]) -> usize {
    pairs.iter().map(|pair| 2 * pair.prompt.len() + pair.responses.iter().map(Vec::len).sum::<usize>()).sum()
}

/// The pairs of all rounds, and of the one that is not counted.
fn all(vocabulary: usize, rounds: usize) -> Vec<Pair> {
    pairs((rounds + 1) * PAIRS, vocabulary, [90.0, 32.0], [160, 96])
}

/// Writes weights and pairs for the other side.
pub(crate) fn write(model: &Transformer, vocabulary: usize, rounds: usize, folder: &Path) {
    model.save_pretrained(&folder.join("model")).expect("a folder that can be written");
    let rows: Vec<_> = all(vocabulary, rounds)
        .iter()
        .map(|pair| {
            let [chosen, rejected] = &pair.responses;
            json!({ "prompt_ids": pair.prompt, "chosen_ids": chosen, "rejected_ids": rejected })
        })
        .collect();
    std::fs::write(folder.join("pairs.json"), json!(rows).to_string()).expect("a folder that can be written");
}

struct Run {
    learner: Learner<Transformer>,
    pairs: Vec<Pair>,
    /// Pairs of a step.
    size: usize,
    /// Pairs that go through the model at once.
    at_once: usize,
    /// Seconds that the anchors took, all pairs together.
    anchoring: f64,
    steps: usize,
    metrics: Vec<Metrics>,
}

impl Run {
    fn new(model: Transformer, mut pairs: Vec<Pair>, size: usize, at_once: usize, device: &Device) -> Self {
        let begun = Instant::now();
        cache_anchors(&Frozen::new(&model), &mut pairs, at_once, device).expect("finite anchors");
        let anchoring = begun.elapsed().as_secs_f64();
        Self { learner: learner(model), pairs, size, at_once, anchoring, steps: 0, metrics: Vec::new() }
    }

    /// The next step; from the start again after the last pair.
    fn step(&mut self, device: &Device) -> usize {
        let first = self.steps * self.size % self.pairs.len();
        let pairs = &self.pairs[first..first + self.size];
        let batches = microbatches(&pairs.iter().collect::<Vec<_>>(), self.at_once, device);
        let objective = PairObjective::new(PairLoss::default());
        self.metrics.push(self.learner.step(&objective, &batches).expect("a step"));
        self.steps += 1;
        tokens(pairs)
    }
}

/// Whole steps; what else is printed is for comparing the numbers, not the speed.
pub(crate) fn run(
    model: Transformer,
    task: &str,
    vocabulary: usize,
    rounds: usize,
    before: f64,
    device: &Device,
) {
    let at_once = if task == "dpo2" { 2 } else { PAIRS };
    let mut run = Run::new(model, all(vocabulary, rounds), PAIRS, at_once, device);
    let found = timed(rounds, || run.step(device));
    let of = |step: &Metrics, name: &str| step.get(name).expect("reported");
    let steps = |name: &str| run.metrics.iter().map(|step| of(step, name)).collect::<Vec<f64>>();
    let extra = json!({
        "anchors_s": run.anchoring,
        "anchored_tokens": tokens(&run.pairs),
        "losses": steps("loss"),
        "logps": [steps("logps/chosen"), steps("logps/rejected")],
    });
    found.print(task, vocabulary, before, extra);
}

/// Many steps on small batches of changing lengths: does memory grow?
pub(crate) fn steady(model: Transformer, vocabulary: usize, rounds: usize, before: f64, device: &Device) {
    let pairs = pairs(32, vocabulary, [16.0, 12.0], [32, 32]);
    let mut run = Run::new(model, pairs, 2, 2, device);
    let mut seen = Vec::new();
    let found = timed(rounds, || {
        let tokens = run.step(device);
        run.metrics.clear();
        seen.push([memory("VmRSS"), memory("VmHWM")]);
        tokens
    });
    let at = |step: usize| seen[step.min(seen.len() - 1)];
    let ([early, early_peak], [late, late_peak]) = (at(rounds / 5), at(rounds));
    let extra = json!({
        "rss_mib_at_one_fifth": early, "rss_mib_at_end": late,
        "peak_mib_at_one_fifth": early_peak, "peak_mib_at_end": late_peak,
    });
    found.print("steady-dpo", vocabulary, before, extra);
}
