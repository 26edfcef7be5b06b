//! One task of the comparison with PyTorch, in a process of its own; `run.py` calls it in turn with `theirs.py`.
//!
//! `compare TASK VOCABULARY ROUNDS` prints one line of JSON: tokens a second (the median over the rounds, after one round
//! that is not counted), tokens a second of processor time, and the peak of resident memory, whole and above what the process held before the model.
//!
//! The model is a Llama of hidden 512, 8 layers of 8 heads, FFN 1376, without tied embeddings; the batch is 8 × 256 tokens.
//! `whole-adapters`, `backward-adapters` and `blockwise-adapters` train adapters of rank 8 on queries and values instead of the weights.
//! For `ppo` it is one of hidden 128, 4 layers, FFN 352, and a round is an iteration: 64 responses of 32 tokens to prompts of 16,
//! scored, four epochs of one optimiser step each; critic and reward model are as large as the policy.
//! `dpo` is described in `dpo.rs`; `dpo-files VOCABULARY ROUNDS FOLDER` writes the weights and pairs it begins with. `superhf`
//! compares our own algorithms with each other, see `superhf.rs`; it takes the model of `ppo`.

mod dpo;
mod superhf;

use std::path::Path;
use std::time::Instant;

use align_core::{CausalLm, Completions, Demonstrations, Draws, Frozen, RecomputingLm, TokenBatch};
use align_models::{
    GenerateOptions, LoraConfig, Prompt, RewardModel, SamplingConfig, Transformer, TransformerConfig,
    ValueModel, generate,
};
use align_ppo::{Ppo, PpoConfig, PpoParts};
use align_train::{Algorithm, Learner, NextToken, OptimizerConfig};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, activation};
use serde_json::{Value, json};

const ROWS: usize = 8;
const WIDTH: usize = 256;
const PROMPT: usize = 64;
const NEW: usize = 128;
/// Sequences of a PPO iteration, tokens of a prompt and of a response.
const PPO: [usize; 3] = [64, 16, 32];
const USAGE: &str = "compare (forward|logits|train|backward|whole|blockwise|whole-adapters|blockwise-adapters|steady|generate1|generate16|ppo|dpo|dpo2|steady-dpo|superhf) VOCABULARY ROUNDS, or compare dpo-files VOCABULARY ROUNDS FOLDER";

fn main() {
    align_kernels::tune_allocator();
    // `cargo bench` without a task and `cargo test` come here too.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [task, vocabulary, rounds, folder @ ..] = arguments.as_slice() else {
        return println!("{USAGE}");
    };
    let vocabulary: usize = vocabulary.parse().expect(USAGE);
    let rounds: usize = rounds.parse().expect(USAGE);
    // Inside the pool, so that small operations do not hop between threads.
    rayon::scope(|scope| scope.spawn(|_| run(task, vocabulary, rounds, folder)));
}

fn run(task: &str, vocabulary: usize, rounds: usize, folder: &[String]) {
    let before = memory("VmRSS");
    let device = Device::flex();
    let small = matches!(task, "ppo" | "superhf");
    let [hidden, layers, heads, ffn] = if small { [128, 4, 4, 352] } else { [512, 8, 8, 1376] };
    let config = TransformerConfig {
        intermediate_size: ffn,
        tied: false,
        ..TransformerConfig::llama(vocabulary, hidden, layers, heads)
    };
    let model = Transformer::init(&config, &Draws::new(1), &device);
    let (kind, model) = match task.strip_suffix("-adapters") {
        Some(task) => (task, model.with_adapters(&LoraConfig::default(), &Draws::new(4))),
        None => (task, model),
    };
    let rows = |count: usize, width: usize, salt: usize| -> Vec<Vec<u32>> {
        let id = |row: usize, column: usize| (row * 7919 + column * 104_729 + salt) % vocabulary;
        (0..count).map(|row| (0..width).map(|column| id(row, column) as u32).collect()).collect()
    };
    match kind {
        "dpo" | "dpo2" => return dpo::run(model, kind, vocabulary, rounds, before, &device),
        "steady-dpo" => return dpo::steady(model, vocabulary, rounds, before, &device),
        "dpo-files" => {
            return dpo::write(&model, vocabulary, rounds, Path::new(folder.first().expect(USAGE)));
        }
        "superhf" => return superhf::run(&model, vocabulary, rounds, rows(8, PPO[1], 1)),
        _ => {}
    }
    // The first token of each row is its prompt: everything after it is predicted, as with labels = ids.
    let completions = |count: usize, width: usize| {
        let rows = rows(count, width, 1);
        let (prompts, responses): (Vec<_>, Vec<_>) =
            rows.iter().map(|row| (row[..1].to_vec(), row[1..].to_vec())).unzip();
        Completions::from_rows(&prompts, &responses, &device)
    };
    let batch = completions(ROWS, WIDTH);
    let (mut tokens, mut flat) = (ROWS * WIDTH, Vec::new());
    let mut step: Box<dyn FnMut()> = match kind {
        "forward" => Box::new(|| {
            model.token_log_probs(&batch, 1.0).log_probs.sum().into_scalar::<f32>();
        }),
        "logits" => {
            let batch = TokenBatch::left_padded(&rows(ROWS, WIDTH, 1), &device);
            let model = &model;
            Box::new(move || drop(model.logits(&batch)))
        }
        "train" => {
            let mut learner = learner(model);
            let batch = Demonstrations::from(batch);
            Box::new(move || drop(learner.step(&NextToken, std::slice::from_ref(&batch)).expect("a step")))
        }
        // Forward and backward as training does it, without an optimizer: what block-wise recomputation competes with.
        "backward" => {
            let model = model.train();
            Box::new(move || {
                let loss = model.token_log_probs(&batch, 1.0).log_probs.mean().neg();
                drop(GradientsParams::from_grads(loss.backward(), &model));
            })
        }
        // The same with all logits in the graph at once, as one would write it in plain operations.
        "whole" => {
            let model = model.train();
            Box::new(move || {
                let [b, t] = [ROWS, WIDTH - 1];
                let logits = model.logits(&batch.joined()).slice([0..b, 0..t]);
                let targets = batch.response.ids.clone().reshape([b, t, 1]);
                let log_probs: Tensor<3> = activation::log_softmax(logits, 2).gather(2, targets);
                drop(GradientsParams::from_grads(log_probs.mean().neg().backward(), &model));
            })
        }
        "blockwise" => {
            let model = model.train();
            Box::new(move || {
                drop(model.backward_blockwise(&batch, 1.0, |found| found.log_probs.mean().neg()));
            })
        }
        // Many steps on a small batch: does memory grow?
        "steady" => {
            let batch = Demonstrations::from(completions(2, 32));
            tokens = 2 * 32;
            let mut learner = learner(model);
            let flat = &mut flat;
            Box::new(move || {
                drop(learner.step(&NextToken, std::slice::from_ref(&batch)).expect("a step"));
                flat.push(memory("VmRSS"));
            })
        }
        "generate1" | "generate16" => {
            let count = if kind == "generate1" { 1 } else { 16 };
            tokens = count * NEW;
            let prompts = Prompt::numbered(rows(count, PROMPT, 1));
            let model = Frozen::new(&model);
            Box::new(move || {
                let sampling = SamplingConfig {
                    temperature: 0.0.try_into().expect("zero is allowed"),
                    max_new_tokens: NEW,
                    never_stop: true,
                    ..SamplingConfig::default()
                };
                let options = GenerateOptions::new(&sampling, Draws::new(1));
                let generation = generate(&model, &prompts, &options).expect("a generation");
                assert_eq!(generation.rows.iter().map(|row| row.response.len()).sum::<usize>(), count * NEW);
            })
        }
        "ppo" => {
            let [sequences, prompt, response] = PPO;
            tokens = sequences * response;
            let mut ppo = ppo(&model, rows(sequences, prompt, 1));
            let mut step = 0;
            Box::new(move || {
                ppo.iterate(step).expect("an iteration");
                step += 1;
            })
        }
        other => panic!("unknown task {other}: {USAGE}"),
    };
    let found = timed(rounds, || {
        step();
        tokens
    });
    drop(step);
    let extra = match (flat.get(flat.len() / 5), flat.last()) {
        (Some(early), Some(late)) => json!({ "rss_mib_at_one_fifth": early, "rss_mib_at_end": late }),
        _ => json!({}),
    };
    found.print(task, vocabulary, before, extra);
}

/// How fast rounds were.
struct Timed {
    /// Tokens a second, the median over the rounds.
    speed: f64,
    /// Tokens a second of processor time, all rounds together.
    thrift: f64,
}

/// Makes one round that is not counted and then `rounds` that are; a round returns how many tokens it took.
fn timed(rounds: usize, mut round: impl FnMut() -> usize) -> Timed {
    round();
    let (processor, mut all) = (processor_seconds(), 0);
    let speeds: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let tokens = round();
            all += tokens;
            tokens as f64 / start.elapsed().as_secs_f64()
        })
        .collect();
    Timed { speed: median(&speeds), thrift: all as f64 / (processor_seconds() - processor) }
}

impl Timed {
    fn print(&self, task: &str, vocabulary: usize, before: f64, extra: Value) {
        let peak = memory("VmHWM");
        let tenth = |value: f64| (value * 10.0).round() / 10.0;
        let mut found = json!({
            "task": task,
            "vocabulary": vocabulary,
            "tokens_per_s": tenth(self.speed),
            "tokens_per_cpu_s": tenth(self.thrift),
            "peak_rss_mib": peak.round(),
            "above_start_mib": (peak - before).round(),
        });
        for (name, value) in extra.as_object().into_iter().flatten() {
            found[name] = value.clone();
        }
        println!("{found}");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ppo(model: &Transformer, prompts: Vec<Vec<u32>>) -> Ppo<Transformer, ValueModel> {
    let [sequences, _, response] = PPO;
    let config = PpoConfig {
        rollout_batch: sequences,
        minibatch: Some(sequences),
        microbatch: sequences,
        total_episodes: 1000 * sequences,
        num_ppo_epochs: 4,
        response_length: response,
        ..PpoConfig::default()
    };
    let parts = PpoParts {
        policy: model.clone().train(),
        critic: Some(ValueModel::from_transformer(model, &Draws::new(2)).train()),
        reference: Frozen::new(model).into(),
        reward: Box::new(RewardModel::from_transformer(model, &Draws::new(3))),
        regularizer: None,
        prompts,
        gold: None,
        anchors: Vec::new(),
    };
    Ppo::new(parts, config).expect("a PPO run")
}

fn learner(model: Transformer) -> Learner<Transformer> {
    Learner::new(model, OptimizerConfig::default(), 1_000_000).expect("a model to train")
}

/// Processor time of all threads so far; what other programs do to the machine falls out of it, but for caches and clocks.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses; user and system time are fields 14 and 15, in hundredths.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A line of `/proc/self/status` in MiB; 0 where there is none.
fn memory(line: &str) -> f64 {
    align_testkit::memory(line).unwrap_or_default()
}
