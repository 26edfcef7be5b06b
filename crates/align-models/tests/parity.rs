//! The same numbers as transformers, from fixtures made by `fixtures/models/make.py` (versions in `versions.json` there).

use align_core::{CausalLm, Completions, Frozen, TokenBatch};
use align_models::Transformer;
use align_testkit::{device, fixtures, train_device};
use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData, activation::log_softmax};

/// The bound asked for: f32, two layers. What is found is printed by `largest`.
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 18] = [
    "llama",
    "llama-mha-bias-tied",
    "llama3-scaled",
    "llama-linear",
    "llama-dynamic",
    "llama-yarn",
    "mistral",
    "gemma",
    "gemma2",
    "gemma3",
    "qwen2",
    "qwen3",
    "gpt-neox",
    "gpt-neox-sequential",
    "gpt2",
    "llama-bf16",
    "llama-f16",
    "llama-sharded",
];

/// Frequencies depend on the sequence once it is longer than the context; a batch in transformers then depends on its
/// longest row, ours on each row alone. So rows are compared alone, and decoding only within the context.
const DYNAMIC: &str = "llama-dynamic";

struct Fixture {
    model: Transformer,
    rows: Vec<Vec<u32>>,
    log_probs: Vec<Vec<f64>>,
    entropies: Vec<Vec<f64>>,
    top: Vec<Vec<f64>>,
    top_ids: Vec<Vec<usize>>,
    padded: [Vec<f64>; 2],
    greedy: Vec<u32>,
}

fn floats(data: &TensorData) -> Vec<f64> {
    data.iter::<f64>().collect()
}

fn ids(data: &TensorData) -> Vec<u32> {
    data.iter::<i64>().map(|id| id as u32).collect()
}

fn fixture(name: &str) -> Fixture {
    let tensors = fixtures::tensors(&format!("models/{name}/expected.safetensors"));
    let each = |kind: &'static str| (0..3).map(move |row| format!("{kind}.{row}"));
    let numbers = |kind: &'static str| each(kind).map(|name| floats(&tensors[&name])).collect();
    Fixture {
        model: Transformer::from_pretrained(&fixtures::path(&format!("models/{name}")), &device()).unwrap(),
        rows: each("rows").map(|name| ids(&tensors[&name])).collect(),
        log_probs: numbers("log_probs"),
        entropies: numbers("entropies"),
        top: numbers("top"),
        top_ids: each("top_ids")
            .map(|name| ids(&tensors[&name]).iter().map(|&id| id as usize).collect())
            .collect(),
        padded: [floats(&tensors["left"]), floats(&tensors["right"])],
        greedy: ids(&tensors["greedy"]),
    }
}

/// Log-probabilities of every next token, `[B][T][V]`.
fn all_log_probs(model: &impl CausalLm, tokens: &TokenBatch) -> Vec<Vec<Vec<f64>>> {
    let rows = log_softmax(model.logits(tokens), 2);
    let [_, t, v] = rows.dims();
    let flat: Vec<f64> = rows.to_data().iter::<f64>().collect();
    flat.chunks(t * v).map(|row| row.chunks(v).map(<[f64]>::to_vec).collect()).collect()
}

fn difference(found: f64, expected: f64, what: &str) -> f64 {
    let difference = (found - expected).abs();
    assert!(difference <= TOLERANCE, "{what}: found {found}, transformers has {expected}");
    difference
}

fn argmax(row: &[f32]) -> u32 {
    let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
    best.expect("a vocabulary is not empty") as u32
}

#[test]
fn every_family_gives_the_log_probabilities_of_transformers() {
    for name in MODELS {
        let fixture = fixture(name);
        let mut largest = 0.0f64;
        for (index, row) in fixture.rows.iter().enumerate() {
            let tokens = TokenBatch::right_padded(std::slice::from_ref(row), &device());
            let found = &all_log_probs(&fixture.model, &tokens)[0];
            for t in 0..row.len() - 1 {
                let what = format!("{name}, row {index}, position {t}");
                let target = found[t][row[t + 1] as usize];
                largest = largest.max(difference(target, fixture.log_probs[index][t], &what));
                for k in 4 * t..4 * t + 4 {
                    let likely = found[t][fixture.top_ids[index][k]];
                    largest = largest.max(difference(likely, fixture.top[index][k], &what));
                }
                let entropy = -found[t].iter().map(|log_prob| log_prob.exp() * log_prob).sum::<f64>();
                difference(entropy, fixture.entropies[index][t], &format!("{what}, entropy"));
            }
        }
        println!("{name}: largest difference {largest:.1e}");
    }
}

#[test]
fn padding_on_either_side_changes_nothing() {
    for name in MODELS.into_iter().filter(|name| *name != DYNAMIC) {
        let fixture = fixture(name);
        let batches = [
            TokenBatch::left_padded(&fixture.rows, &device()),
            TokenBatch::right_padded(&fixture.rows, &device()),
        ];
        for (side, batch) in batches.iter().enumerate() {
            let width = batch.width();
            let found = all_log_probs(&fixture.model, batch);
            for (index, row) in fixture.rows.iter().enumerate() {
                let start = if side == 0 { width - row.len() } else { 0 };
                for t in 0..row.len() - 1 {
                    let target = found[index][start + t][row[t + 1] as usize];
                    let what = format!("{name}, side {side}, row {index}, position {t}");
                    difference(target, fixture.padded[side][index * (width - 1) + start + t], &what);
                    difference(target, fixture.log_probs[index][t], &what);
                }
            }
        }
    }
}

#[test]
fn rows_of_dynamic_scaling_are_independent_of_their_batch() {
    let fixture = fixture(DYNAMIC);
    let batch = TokenBatch::left_padded(&fixture.rows, &device());
    let found = all_log_probs(&fixture.model, &batch);
    for (index, row) in fixture.rows.iter().enumerate() {
        let start = batch.width() - row.len();
        for t in 0..row.len() - 1 {
            difference(
                found[index][start + t][row[t + 1] as usize],
                fixture.log_probs[index][t],
                "alone and together",
            );
        }
    }
}

#[test]
fn greedy_decoding_with_the_cache_gives_the_tokens_of_transformers() {
    for name in MODELS {
        let fixture = fixture(name);
        let mut decoder = fixture.model.decoder();
        let prompt = vec![fixture.rows[0][..5].to_vec()];
        let mut scores = decoder.admit(&TokenBatch::left_padded(&prompt, &device()));
        let mut tokens = Vec::new();
        for _ in 0..128 {
            let next = argmax(&scores.to_data().iter::<f32>().collect::<Vec<_>>());
            tokens.push(next);
            scores = decoder.advance(&[next]);
        }
        assert_eq!(tokens, fixture.greedy, "{name}");
    }
}

#[test]
fn the_cache_changes_nothing_while_rows_come_and_go() {
    for name in MODELS.into_iter().filter(|name| *name != DYNAMIC) {
        let fixture = fixture(name);
        let mut decoder = fixture.model.decoder();
        let prompts: Vec<Vec<u32>> = fixture.rows.iter().map(|row| row[..row.len() - 6].to_vec()).collect();
        // Rows 0 and 1 start, row 2 joins later, row 1 leaves.
        let last = |row: &[u32]| {
            let tokens = TokenBatch::left_padded(&[row.to_vec()], &device());
            all_log_probs(&fixture.model, &tokens)[0][row.len() - 1].clone()
        };
        let check = |scores: Tensor<2>, prefixes: &[&[u32]]| {
            let v = fixture.model.vocab_size();
            let found: Vec<f64> = log_softmax(scores, 1).to_data().iter::<f64>().collect();
            for (row, prefix) in found.chunks(v).zip(prefixes) {
                for (found, expected) in row.iter().zip(last(prefix)) {
                    difference(*found, expected, &format!("{name}, cached, after {} tokens", prefix.len()));
                }
            }
        };
        let row = |index: usize, extra: usize| &fixture.rows[index][..prompts[index].len() + extra];
        let token = |index: usize, extra: usize| fixture.rows[index][prompts[index].len() + extra];
        check(decoder.admit(&TokenBatch::left_padded(&prompts[..2], &device())), &[row(0, 0), row(1, 0)]);
        check(decoder.advance(&[token(0, 0), token(1, 0)]), &[row(0, 1), row(1, 1)]);
        check(decoder.admit(&TokenBatch::right_padded(&prompts[2..], &device())), &[row(2, 0)]);
        let next = [token(0, 1), token(1, 1), token(2, 0)];
        check(decoder.advance(&next), &[row(0, 2), row(1, 2), row(2, 1)]);
        decoder.keep(&[2, 0]);
        check(decoder.advance(&[token(2, 1), token(0, 2)]), &[row(2, 2), row(0, 3)]);
        check(decoder.advance(&[token(2, 2), token(0, 3)]), &[row(2, 3), row(0, 4)]);
    }
}

#[test]
fn response_log_probs_and_entropies_agree_with_the_logits() {
    for name in MODELS.into_iter().filter(|name| *name != DYNAMIC) {
        let fixture = fixture(name);
        let (prompts, responses): (Vec<_>, Vec<_>) =
            fixture.rows.iter().map(|row| (row[..4].to_vec(), row[4..].to_vec())).unzip();
        let completions = Completions::from_rows(&prompts, &responses, &device());
        let found = fixture.model.token_log_probs(&completions, 1.0);
        let [_, r] = found.log_probs.dims();
        let (log_probs, entropies) = (floats(&found.log_probs.to_data()), floats(&found.entropies.to_data()));
        for (index, response) in responses.iter().enumerate() {
            for t in 0..r {
                let at = index * r + t;
                if t < response.len() {
                    difference(log_probs[at], fixture.log_probs[index][3 + t], name);
                    difference(entropies[at], fixture.entropies[index][3 + t], name);
                } else {
                    assert_eq!((log_probs[at], entropies[at]), (0.0, 0.0), "padding counts for nothing");
                }
            }
        }
    }
}

#[test]
fn training_and_frozen_models_compute_the_same() {
    for name in ["llama", "gemma2", "gpt-neox"] {
        let fixture = fixture(name);
        let tokens = TokenBatch::left_padded(&fixture.rows, &device());
        let plain = fixture.model.logits(&tokens).to_data();
        let frozen = Frozen::new(&fixture.model).logits(&tokens).to_data();
        assert_eq!(plain, frozen, "{name}");
        let training =
            Transformer::from_pretrained(&fixtures::path(&format!("models/{name}")), &train_device());
        let training = training.unwrap().train().logits(&tokens).without_autodiff();
        // The recorded pass may take other kernels; five digits of scores around ten.
        align_testkit::assert_close(training, Tensor::<3>::from_data(plain, &device()), 1e-4);
    }
}

#[test]
fn a_model_in_bf16_computes_what_it_rounds_to() {
    let folder = fixtures::path("models/llama-bf16");
    let exact = Transformer::from_pretrained(&folder, &device()).unwrap();
    let rounded = Transformer::from_pretrained_as(&folder, &device(), DType::BF16).unwrap();
    let tokens = TokenBatch::left_padded(&fixture("llama-bf16").rows, &device());
    let scores = rounded.logits(&tokens);
    assert_eq!(scores.dtype(), DType::F32);
    let gap: f32 = (scores - exact.logits(&tokens)).abs().max().into_scalar();
    // Eight bits of mantissa through two layers: scores of size ten are off by about 2⁻⁸ of that a layer.
    assert!(gap > 0.0 && gap < 0.3, "{gap}");
}

#[test]
fn the_trained_model_of_the_shared_data_agrees() {
    let Some(folder) = fixtures::shared_file("models/chat-0.4M") else { return };
    let expected = fixtures::tensors("models/chat-0.4M.safetensors");
    let model = Transformer::from_pretrained(&folder, &device()).unwrap();
    let row = ids(&expected["row"]);
    let found = &all_log_probs(&model, &TokenBatch::left_padded(std::slice::from_ref(&row), &device()))[0];
    for (t, expected) in floats(&expected["log_probs"]).into_iter().enumerate() {
        difference(found[t][row[t + 1] as usize], expected, &format!("position {t}"));
    }
    let mut decoder = model.decoder();
    let mut scores = decoder.admit(&TokenBatch::left_padded(&[row[..5].to_vec()], &device()));
    for (step, expected) in ids(&expected["greedy"]).into_iter().enumerate() {
        let next = argmax(&scores.to_data().iter::<f32>().collect::<Vec<_>>());
        assert_eq!(next, expected, "greedy token {step}");
        scores = decoder.advance(&[next]);
    }
}

#[test]
fn the_states_below_the_head_give_the_scores_a_few_positions_at_a_time() {
    let model = Transformer::from_pretrained(&fixtures::path("models/gemma2"), &device()).unwrap();
    let completions =
        Completions::from_rows(&[vec![5, 9, 2], vec![7]], &[vec![11, 3], vec![8, 6, 4, 1]], &device());
    let [_, p] = completions.prompt.ids.dims();
    let [b, r] = completions.response.ids.dims();
    let whole = model.logits(&completions.joined()).slice([0..b, p - 1..p + r - 1]);
    let next = model.next_tokens(&completions);
    assert_eq!(next.states.dims(), [b, r, model.config().hidden_size], "nothing of the vocabulary's size");
    for columns in [0..1, 1..r] {
        let found = next.scores(columns.clone());
        align_testkit::assert_close(found, whole.clone().slice([0..b, columns]), 1e-4);
    }
}
