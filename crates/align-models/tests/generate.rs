//! Generation: what is drawn does not depend on the batch, ends where it should and is scored as the trainer scores.

use std::sync::atomic::{AtomicUsize, Ordering};

use align_core::number::NonNegative;
use align_core::{CausalLm, Decoder, Draws, TokenBatch};
use align_models::{
    Drawn, Event, FinishReason, GenerateError, GenerateOptions, Generation, History, Prompt, Sampler,
    SamplingConfig, Transformer, TransformerConfig, generate, generate_watched,
};
use align_testkit::statistics::{assert_frequencies, counts};
use align_testkit::{BigramLm, assert_close, device};
use burn::tensor::{Device, Tensor};

const STOP: u32 = 0;

fn bigram() -> BigramLm {
    BigramLm::random(7, &Draws::new(1), &device())
}

/// Twenty prompts of one to four tokens.
fn prompts() -> Vec<Prompt> {
    Prompt::numbered((0..20u32).map(|row| (0..row % 4 + 1).map(|i| (row + 2 * i) % 6 + 1).collect()))
}

fn stopping(max_new_tokens: usize) -> SamplingConfig {
    SamplingConfig { max_new_tokens, stop_token_ids: vec![STOP], ..SamplingConfig::default() }
}

fn endless(max_new_tokens: usize) -> SamplingConfig {
    SamplingConfig { max_new_tokens, never_stop: true, ..SamplingConfig::default() }
}

fn responses(generation: &Generation) -> Vec<Vec<u32>> {
    generation.rows.iter().map(|row| row.response.clone()).collect()
}

#[test]
fn neither_batch_size_nor_order_changes_a_token() {
    let (model, sampling, prompts) = (bigram(), stopping(12), prompts());
    let options = GenerateOptions { samples: 3, ..GenerateOptions::new(&sampling, Draws::new(9)) };
    let alone = generate(&model, &prompts, &GenerateOptions { slots: 1, ..options }).unwrap();
    assert_eq!(alone.rows.len(), 60);
    for slots in [2, 5, 16, 1000] {
        let together = generate(&model, &prompts, &GenerateOptions { slots, ..options }).unwrap();
        assert_eq!(responses(&together), responses(&alone), "{slots} slots");
        assert_eq!(
            together, alone,
            "{slots} slots: a bigram's scores are table rows, so every number is equal"
        );
    }
    let mut shuffled = prompts.clone();
    shuffled.reverse();
    shuffled.swap(3, 11);
    let moved = generate(&model, &shuffled, &GenerateOptions { slots: 16, ..options }).unwrap();
    for row in &moved.rows {
        let key = shuffled[row.prompt_index].key as usize;
        assert_eq!(row.response, alone.rows[key * 3 + row.sample].response);
    }
}

#[test]
fn every_key_of_a_draw_matters() {
    let (model, sampling, prompts) = (bigram(), endless(16), vec![Prompt { key: 4, ids: vec![1] }]);
    let options = GenerateOptions { samples: 2, ..GenerateOptions::new(&sampling, Draws::new(9)) };
    let base = responses(&generate(&model, &prompts, &options).unwrap());
    assert_ne!(base[0], base[1], "samples differ");
    let other_key = vec![Prompt { key: 5, ids: vec![1] }];
    for changed in [
        generate(&model, &prompts, &GenerateOptions { step: 1, ..options }),
        generate(&model, &prompts, &GenerateOptions { draws: Draws::new(10), ..options }),
        generate(
            &model,
            &prompts,
            &GenerateOptions { purpose: align_core::draws::Purpose::Evaluate, ..options },
        ),
        generate(&model, &other_key, &options),
    ] {
        assert_ne!(responses(&changed.unwrap())[0], base[0]);
    }
}

#[test]
fn responses_have_the_probabilities_of_the_model() {
    // Every response of at most two tokens, by enumeration; n = 6000, seed 2, five standard errors.
    let model = BigramLm::random(3, &Draws::new(4), &device());
    let sampling = stopping(2);
    let options =
        GenerateOptions { samples: 6000, slots: 6000, ..GenerateOptions::new(&sampling, Draws::new(2)) };
    let generation = generate(&model, &[Prompt { key: 0, ids: vec![2] }], &options).unwrap();
    let table: Vec<f64> = model.table.val().to_data().iter::<f64>().collect();
    let p = |from: usize, to: usize| {
        let row = &table[3 * from..3 * from + 3];
        row[to].exp() / row.iter().map(|x| x.exp()).sum::<f64>()
    };
    let all = [vec![0], vec![1, 0], vec![1, 1], vec![1, 2], vec![2, 0], vec![2, 1], vec![2, 2]];
    let probability = |response: &Vec<u32>| {
        let path: Vec<usize> = std::iter::once(2).chain(response.iter().map(|&id| id as usize)).collect();
        path.windows(2).map(|pair| p(pair[0], pair[1])).product::<f64>()
    };
    let outcome = |response: &Vec<u32>| all.iter().position(|other| other == response).unwrap();
    let seen = counts(generation.rows.iter().map(|row| outcome(&row.response)), all.len());
    assert_frequencies(&seen, &all.iter().map(probability).collect::<Vec<_>>(), 5.0);
}

#[test]
fn a_response_ends_with_its_first_stop_token() {
    let sampling = SamplingConfig { stop_token_ids: vec![STOP, 5], ..stopping(9) };
    let options = GenerateOptions { samples: 4, ..GenerateOptions::new(&sampling, Draws::new(3)) };
    let generation = generate(&bigram(), &prompts(), &options).unwrap();
    let mut seen = [0; 3];
    for row in &generation.rows {
        let first = row.response.iter().position(|id| [STOP, 5].contains(id));
        match row.finish_reason {
            FinishReason::Stop(id) => {
                assert_eq!(row.response.last(), Some(&id));
                assert_eq!(first, Some(row.response.len() - 1), "kept, and nothing after it");
                seen[usize::from(id == 5)] += 1;
            }
            FinishReason::Length => {
                assert_eq!((row.response.len(), first), (9, None));
                seen[2] += 1;
            }
            FinishReason::StopString(_) => panic!("none was configured"),
        }
    }
    assert!(seen.iter().all(|&count| count > 0), "every ending occurs: {seen:?}");
    let stopped = generation.stopped().into_iter().filter(|&stopped| stopped).count();
    assert_eq!(stopped, seen[0] + seen[1]);
}

#[test]
fn a_stop_string_may_span_tokens_and_the_text_is_cut_before_it() {
    // Tokens 1, 2, 3 … spell "b", "c", "d" …; the model walks 1 → 2 → 3 → 4 → …
    let mut table = vec![vec![-30.0; 7]; 7];
    (0..7).for_each(|from| table[from][(from + 1) % 7] = 0.0);
    let model = BigramLm::from_logits(table, &device());
    let spell = |ids: &[u32]| ids.iter().map(|&id| (b'a' + id as u8) as char).collect::<String>();
    let config = |strings: &[&str], min_new_tokens| SamplingConfig {
        temperature: NonNegative::literal(0.0),
        max_new_tokens: 6,
        min_new_tokens,
        stop_strings: strings.iter().map(|&string| string.to_owned()).collect(),
        ..SamplingConfig::default()
    };
    let row = |sampling: &SamplingConfig| {
        let options =
            GenerateOptions { detokenize: Some(&spell), ..GenerateOptions::new(sampling, Draws::new(0)) };
        generate(&model, &Prompt::numbered([vec![1]]), &options).unwrap().rows.remove(0)
    };
    let stopped = row(&config(&["zz", "ef"], 0));
    assert_eq!(stopped.response, [2, 3, 4, 5], "the tokens are kept");
    assert_eq!(stopped.text.as_deref(), Some("cd"), "the text is cut before the string");
    assert_eq!(
        (stopped.finish_reason, stopped.finish_reason.label()),
        (FinishReason::StopString(1), "stop_string")
    );
    let waited = row(&config(&["ef"], 5));
    assert_eq!(waited.response, [2, 3, 4, 5, 6], "a string before the minimum waits for it");
    let long = row(&config(&["zz"], 0));
    assert_eq!((long.finish_reason, long.text.as_deref()), (FinishReason::Length, Some("cdefga")));
}

#[test]
fn a_minimum_length_holds_back_stop_tokens_only() {
    // The stop token is far the likeliest everywhere.
    let model = BigramLm::independent(&[9.0, 0.0, 0.0, 0.0], &device());
    let sampling = SamplingConfig { min_new_tokens: 3, ..stopping(8) };
    let options = GenerateOptions { samples: 50, ..GenerateOptions::new(&sampling, Draws::new(1)) };
    for row in generate(&model, &Prompt::numbered([vec![1]]), &options).unwrap().rows {
        assert!(row.response.len() >= 3 && row.response[..2].iter().all(|&id| id != STOP), "{row:?}");
        // Held back, three equal tokens remain: log 1/3. The raw distribution still has the stop token in it.
        assert_close(row.sampled_log_probs[0], (1.0f64 / 3.0).ln(), 1e-6);
        assert_close(row.raw_log_probs[0], -(9f64.exp() + 3.0).ln(), 1e-6);
    }
}

#[test]
fn without_filters_sampled_and_raw_log_probs_are_the_trainers() {
    let (model, prompts) = (bigram(), prompts());
    let sampling = SamplingConfig { temperature: NonNegative::literal(0.7), ..stopping(10) };
    let generation = generate(&model, &prompts, &GenerateOptions::new(&sampling, Draws::new(6))).unwrap();
    let completions = generation.to_completions(&device());
    let trainers = model.token_log_probs(&completions, 0.7).log_probs;
    // f32 over seven tokens.
    assert_close(generation.raw_log_probs(&device()), trainers.clone(), 2e-6);
    assert_close(generation.sampled_log_probs(&device()), trainers, 2e-6);
    assert_eq!(completions.response.rows(), responses(&generation));
}

#[test]
fn with_filters_the_two_log_probs_part() {
    let (model, prompts) = (bigram(), prompts());
    let sampling = SamplingConfig { top_k: 2, ..stopping(10) };
    let generation = generate(&model, &prompts, &GenerateOptions::new(&sampling, Draws::new(6))).unwrap();
    let trainers = model.token_log_probs(&generation.to_completions(&device()), 1.0).log_probs;
    assert_close(generation.raw_log_probs(&device()), trainers, 2e-6); // f32 over seven tokens
    for row in &generation.rows {
        for (raw, sampled) in row.raw_log_probs.iter().zip(&row.sampled_log_probs) {
            assert!(sampled > raw, "renormalising over two of seven raises every log-probability");
        }
    }
}

#[test]
fn greedy_takes_the_likeliest_path_whatever_the_seed() {
    let sampling = SamplingConfig { temperature: NonNegative::literal(0.0), ..endless(8) };
    let [first, second] = [1, 2].map(|seed| {
        generate(&bigram(), &prompts(), &GenerateOptions::new(&sampling, Draws::new(seed))).unwrap()
    });
    assert_eq!(first, second);
    let table: Vec<Vec<f64>> = bigram()
        .table
        .val()
        .to_data()
        .iter::<f64>()
        .collect::<Vec<_>>()
        .chunks(7)
        .map(<[f64]>::to_vec)
        .collect();
    for row in &first.rows {
        let mut last = *row.prompt.last().unwrap() as usize;
        for &id in &row.response {
            assert!(table[last].iter().all(|logit| *logit <= table[last][id as usize]));
            last = id as usize;
        }
    }
}

/// A bigram that counts the prompt rows it reads and the widest batch it decodes.
struct Counting {
    model: BigramLm,
    admitted: AtomicUsize,
    widest: AtomicUsize,
    context: Option<usize>,
}

impl Counting {
    fn new(context: Option<usize>) -> Self {
        Self { model: bigram(), admitted: AtomicUsize::new(0), widest: AtomicUsize::new(0), context }
    }
}

struct CountingDecoder<'a>(&'a Counting, Box<dyn Decoder + 'a>);

impl Decoder for CountingDecoder<'_> {
    fn admit(&mut self, prompts: &TokenBatch) -> Tensor<2> {
        self.0.admitted.fetch_add(prompts.batch_size(), Ordering::Relaxed);
        self.1.admit(prompts)
    }
    fn advance(&mut self, next: &[u32]) -> Tensor<2> {
        self.0.widest.fetch_max(next.len(), Ordering::Relaxed);
        self.1.advance(next)
    }
    fn keep(&mut self, rows: &[usize]) {
        self.1.keep(rows);
    }
}

impl CausalLm for Counting {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        self.model.logits(tokens)
    }
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }
    fn device(&self) -> Device {
        self.model.device()
    }
    fn context_length(&self) -> Option<usize> {
        self.context
    }
    fn decoder<'a>(&'a self) -> Box<dyn Decoder + 'a> {
        Box::new(CountingDecoder(self, self.model.decoder()))
    }
}

#[test]
fn a_prompt_is_read_once_for_all_its_samples_and_slots_bound_the_batch() {
    let (sampling, prompts) = (stopping(10), prompts());
    let model = Counting::new(None);
    let options = GenerateOptions { samples: 4, slots: 80, ..GenerateOptions::new(&sampling, Draws::new(3)) };
    generate(&model, &prompts, &options).unwrap();
    assert_eq!(model.admitted.load(Ordering::Relaxed), 20);
    let model = Counting::new(None);
    generate(&model, &prompts, &GenerateOptions { slots: 6, ..options }).unwrap();
    assert!(model.widest.load(Ordering::Relaxed) <= 6, "never more rows than slots");
}

#[test]
fn a_response_ends_where_the_context_does() {
    let model = Counting::new(Some(6));
    let sampling = endless(50);
    let prompts = Prompt::numbered([vec![1, 2], vec![1, 2, 3, 4, 5]]);
    let generation = generate(&model, &prompts, &GenerateOptions::new(&sampling, Draws::new(3))).unwrap();
    let lengths: Vec<usize> = generation.rows.iter().map(|row| row.response.len()).collect();
    assert_eq!(lengths, [4, 1]);
    assert!(generation.stopped().iter().all(|stopped| !stopped));
}

#[test]
fn what_is_watched_is_what_is_returned() {
    let sampling = stopping(6);
    let options = GenerateOptions { slots: 3, ..GenerateOptions::new(&sampling, Draws::new(8)) };
    let (mut tokens, mut finished) = (0, Vec::new());
    let generation = generate_watched(&bigram(), &prompts(), &options, &mut |event| match event {
        Event::Token { .. } => tokens += 1,
        Event::Finished(row) => finished.push(row.clone()),
    })
    .unwrap();
    assert_eq!(tokens, generation.rows.iter().map(|row| row.response.len()).sum::<usize>());
    finished.sort_by_key(|row| row.prompt_index);
    assert_eq!(finished, generation.rows);
}

/// Draws every token alike.
#[derive(Debug)]
struct Uniform;

impl Sampler for Uniform {
    fn sample(&self, logits: &[f32], _: History<'_>, uniform: f64) -> Drawn {
        let v = logits.len() as f64;
        Drawn { token: (uniform * v) as u32, log_prob: -v.ln() }
    }
}

#[test]
fn a_sampler_of_ones_own_takes_the_place_of_the_settings() {
    let (model, sampling, prompts) = (bigram(), endless(8), prompts());
    let options =
        GenerateOptions { sampler: Some(&Uniform), ..GenerateOptions::new(&sampling, Draws::new(8)) };
    let generation = generate(&model, &prompts, &options).unwrap();
    let trainers = model.token_log_probs(&generation.to_completions(&device()), 1.0).log_probs;
    assert_close(generation.raw_log_probs(&device()), trainers, 2e-6); // f32 over seven tokens
    assert!(generation.rows.iter().flat_map(|row| &row.sampled_log_probs).all(|&x| x == -(7f32.ln())));
}

#[test]
fn what_cannot_be_generated_from_is_refused_by_row() {
    let model = Counting::new(Some(4));
    let sampling = stopping(3);
    let options = GenerateOptions::new(&sampling, Draws::new(0));
    let refused = |rows: &[&[u32]], options: &GenerateOptions<'_>| {
        let prompts = Prompt::numbered(rows.iter().map(|row| row.to_vec()));
        generate(&model, &prompts, options).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&[&[1], &[]], &options),
        "prompt 1 is empty, expected at least one token (a beginning-of-text token, say)"
    );
    assert_eq!(
        refused(&[&[1, 2, 3, 4]], &options),
        "prompt 0 has 4 tokens, expected fewer than the 4 of the model's context, so that a response fits"
    );
    assert_eq!(
        refused(&[&[1], &[2, 7]], &options),
        "prompt 1 has token 7 at position 1, expected ids below the vocabulary of 7"
    );
    assert_eq!(
        refused(&[&[1]], &GenerateOptions { slots: 0, ..options }),
        "`slots` is 0, expected at least 1"
    );
    let outside = SamplingConfig { stop_token_ids: vec![70], ..stopping(3) };
    assert_eq!(
        refused(&[&[1]], &GenerateOptions::new(&outside, Draws::new(0))),
        "stop token 70 is not in the model's vocabulary, expected ids below 7"
    );
    let strings = SamplingConfig { stop_strings: vec!["\n".to_owned()], ..stopping(3) };
    assert_eq!(
        refused(&[&[1]], &GenerateOptions::new(&strings, Draws::new(0))),
        "stop string \"\\n\" needs a tokenizer to look for it, found none"
    );
    let none = SamplingConfig::default();
    assert!(
        refused(&[&[1]], &GenerateOptions::new(&none, Draws::new(0))).starts_with("no stop token: expected")
    );
}

#[test]
fn scores_that_are_no_distribution_are_an_error_with_the_place() {
    let mut table = vec![vec![-30.0; 4]; 4];
    (0..4).for_each(|from| table[from][(from + 1) % 4] = 0.0);
    table[3][2] = f32::NAN;
    let model = BigramLm::from_logits(table, &device());
    let sampling = endless(9);
    let error =
        generate(&model, &Prompt::numbered([vec![1]]), &GenerateOptions::new(&sampling, Draws::new(0)))
            .unwrap_err();
    assert_eq!(error, GenerateError::NotFinite { row: 0, position: 2 });
}

/// A Llama of two layers; weights large enough that its distributions are far from uniform.
fn transformer() -> Transformer {
    let config = TransformerConfig { initializer_range: 0.3, ..TransformerConfig::llama(40, 16, 2, 4) };
    Transformer::init(&config, &Draws::new(5), &device())
}

#[test]
fn the_cache_and_the_trainer_give_the_same_log_probs() {
    let (model, prompts) = (transformer(), prompts());
    let sampling = SamplingConfig { temperature: NonNegative::literal(0.8), ..stopping(12) };
    for slots in [4, 64] {
        let options = GenerateOptions { samples: 2, slots, ..GenerateOptions::new(&sampling, Draws::new(6)) };
        let generation = generate(&model, &prompts, &options).unwrap();
        let trainers = model.token_log_probs(&generation.to_completions(&device()), 0.8).log_probs;
        let least = trainers.clone().min().into_scalar::<f32>();
        assert!(least < -4.0, "distributions far from certain and from uniform: {least}");
        // f32 through two layers, in another order of addition.
        assert_close(generation.raw_log_probs(&device()), trainers, 1e-5);
    }
}

#[test]
fn a_transformers_tokens_do_not_depend_on_the_batch_either() {
    let (model, prompts, sampling) = (transformer(), prompts(), stopping(12));
    let options = GenerateOptions { samples: 2, ..GenerateOptions::new(&sampling, Draws::new(6)) };
    let alone = generate(&model, &prompts, &GenerateOptions { slots: 1, ..options }).unwrap();
    for slots in [3, 16, 64] {
        let together = generate(&model, &prompts, &GenerateOptions { slots, ..options }).unwrap();
        assert_eq!(responses(&together), responses(&alone), "{slots} slots");
    }
    let mut shuffled = prompts.clone();
    shuffled.rotate_left(7);
    let moved = generate(&model, &shuffled, &GenerateOptions { slots: 16, ..options }).unwrap();
    for row in &moved.rows {
        let key = shuffled[row.prompt_index].key as usize;
        assert_eq!(row.response, alone.rows[key * 2 + row.sample].response);
    }
}

#[test]
fn nothing_from_nothing() {
    let sampling = stopping(3);
    let generation = generate(&bigram(), &[], &GenerateOptions::new(&sampling, Draws::new(0))).unwrap();
    assert_eq!(generation.rows, []);
}
