//! Processors and samplers against values worked out by hand and against transformers.

use align_core::Draws;
use align_core::draws::Purpose;
use align_core::number::NumberError;
use align_models::{
    Greedy, History, MinP, Processor, RepetitionPenalty, Sampler, SamplingConfig, TopK, TopP, raw_log_prob,
};
use align_testkit::statistics::{assert_frequencies, counts};
use align_testkit::{assert_close, fixtures};

const NONE: History<'static> = History { prompt: &[], response: &[] };
const REMOVED: f32 = f32::NEG_INFINITY;

fn processed(processor: &dyn Processor, scores: &[f32]) -> Vec<f32> {
    let mut scores = scores.to_vec();
    processor.process(NONE, &mut scores);
    scores
}

/// Logits of the distribution 0.4, 0.3, 0.2, 0.1, in the order 2, 0, 3, 1.
fn tenths() -> [f32; 4] {
    [0.3f32.ln(), 0.1f32.ln(), 0.4f32.ln(), 0.2f32.ln()]
}

/// A number in the range of its field.
fn number<N: TryFrom<f64, Error = NumberError>>(value: f64) -> N {
    value.try_into().unwrap()
}

/// A response that never ends, so that only what is tested is configured.
fn endless() -> SamplingConfig {
    SamplingConfig { never_stop: true, ..SamplingConfig::default() }
}

#[test]
fn top_k_keeps_the_best_and_their_ties() {
    let [a, b, c, d] = tenths();
    assert_eq!(processed(&TopK(2), &tenths()), [a, REMOVED, c, REMOVED]);
    assert_eq!(processed(&TopK(9), &tenths()), [a, b, c, d]);
    assert_eq!(processed(&TopK(2), &[1.0, 2.0, 1.0, 0.0]), [1.0, 2.0, 1.0, REMOVED]);
}

#[test]
fn top_p_keeps_a_token_while_the_mass_before_it_is_short() {
    let [a, b, c, d] = tenths();
    // Mass before each in descending order: 0, 0.4, 0.7, 0.9.
    assert_eq!(processed(&TopP(0.35), &tenths()), [REMOVED, REMOVED, c, REMOVED]);
    assert_eq!(processed(&TopP(0.65), &tenths()), [a, REMOVED, c, REMOVED]);
    assert_eq!(processed(&TopP(0.75), &tenths()), [a, REMOVED, c, d]);
    assert_eq!(processed(&TopP(0.95), &tenths()), [a, b, c, d]);
    // Of equal tokens the lower ids.
    assert_eq!(processed(&TopP(0.45), &[0.0; 4]), [0.0, 0.0, REMOVED, REMOVED]);
}

#[test]
fn top_p_over_many_equal_tokens_keeps_that_share_of_them() {
    // 1000 equal tokens, p = 0.6005: 601 tokens have less than p before them. Far beyond the first head that is sorted.
    let kept = processed(&TopP(0.6005), &[0.5; 1000]);
    assert!(kept[..601].iter().all(|&score| score == 0.5));
    assert!(kept[601..].iter().all(|&score| score == REMOVED));
}

#[test]
fn min_p_compares_with_the_likeliest() {
    let [a, _, c, d] = tenths();
    // The threshold is 0.4 · 0.4 = 0.16.
    assert_eq!(processed(&MinP(0.4), &tenths()), [a, REMOVED, c, d]);
}

#[test]
fn a_penalty_lowers_each_seen_token_once() {
    let mut scores = [2.0, -2.0, 1.0, 3.0];
    RepetitionPenalty(2.0).process(History { prompt: &[0, 0], response: &[1, 0] }, &mut scores);
    assert_eq!(scores, [1.0, -4.0, 1.0, 3.0]);
}

#[test]
fn processed_scores_equal_those_of_transformers() {
    let file = std::fs::read_to_string(fixtures::path("sampling.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    let stop = file["stop_token_id"].as_u64().unwrap() as u32;
    let ids = |value: &serde_json::Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 39, "13 settings, three rows of scores each");
    for case in cases {
        let config: SamplingConfig = serde_json::from_value(case["setting"].clone()).unwrap();
        let config = SamplingConfig { stop_token_ids: vec![stop], ..config };
        let (prompt, response) = (ids(&case["prompt"]), ids(&case["response"]));
        let mut scores: Vec<f32> =
            case["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        for processor in &config.sampler().unwrap().processors {
            processor.process(History { prompt: &prompt, response: &response }, &mut scores);
        }
        let expected: Vec<f64> = case["scores"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap_or(f64::NEG_INFINITY))
            .collect();
        // One division each, in f32, of numbers below 16.
        assert_close(scores, expected, 1e-6);
    }
}

#[test]
fn draws_follow_the_filtered_distribution() {
    // temperature 0.5 squares the odds: 9, 1, 16, 4; top-k 3 leaves 9, 16, 4 of 29.
    let config = SamplingConfig { temperature: number(0.5), top_k: 3, ..endless() };
    let sampler = config.sampler().unwrap();
    let draws = Draws::new(5);
    let drawn: Vec<_> = (0..20_000)
        .map(|prompt| sampler.sample(&tenths(), NONE, draws.token(Purpose::Sample, 0, prompt, 0, 0)))
        .collect();
    let expected = [9.0 / 29.0, 0.0, 16.0 / 29.0, 4.0 / 29.0];
    // n = 20 000, seed 5, five standard errors.
    assert_frequencies(&counts(drawn.iter().map(|drawn| drawn.token as usize), 4), &expected, 5.0);
    for drawn in &drawn[..100] {
        // Logits of f32.
        assert_close(drawn.log_prob, expected[drawn.token as usize].ln(), 1e-6);
        let squares = [9.0f64, 1.0, 16.0, 4.0];
        let raw = (squares[drawn.token as usize] / 30.0).ln();
        assert_close(raw_log_prob(&tenths(), drawn.token, 0.5), raw, 1e-6);
    }
}

#[test]
fn the_draw_inverts_the_distribution_function() {
    // Cumulated in token order: 0.3, 0.4, 0.8, 1.
    let sampler = endless().sampler().unwrap();
    for (uniform, token) in [(0.0, 0), (0.29, 0), (0.31, 1), (0.41, 2), (0.79, 2), (0.81, 3), (0.999_999, 3)]
    {
        assert_eq!(sampler.sample(&tenths(), NONE, uniform).token, token, "{uniform}");
    }
}

#[test]
fn temperature_zero_takes_the_best_and_reports_temperature_one() {
    let config = SamplingConfig { temperature: number(0.0), ..endless() };
    for sampler in [&config.sampler().unwrap() as &dyn Sampler, &Greedy] {
        let drawn = sampler.sample(&tenths(), NONE, 0.99);
        assert_eq!(drawn.token, 2);
        assert_close(drawn.log_prob, 0.4f64.ln(), 1e-6); // logits of f32
    }
    assert_eq!(Greedy.sample(&[1.0, 3.0, 3.0], NONE, 0.0).token, 1, "of equals the lowest id");
}

#[test]
fn large_vocabularies_keep_their_digits() {
    // Σ over 50 000 equal tokens: the normaliser is ln 50 000 to the digits of f32.
    let logits = vec![7.25; 50_000];
    assert_close(raw_log_prob(&logits, 3, 0.7), -(50_000f64.ln()), 2e-7);
}

#[test]
fn each_setting_turns_something() {
    let logits: Vec<f32> = (0..12).map(|id| (id as f32 * 1.7).sin() * 2.0).collect();
    let history = History { prompt: &[4, 5], response: &[6] };
    let scores = |config: &SamplingConfig| {
        let mut scores = logits.clone();
        let chain = config.sampler().unwrap();
        chain.processors.iter().for_each(|processor| processor.process(history, &mut scores));
        (scores, chain.pick)
    };
    let base = SamplingConfig { stop_token_ids: vec![1], ..SamplingConfig::default() };
    for (name, changed) in [
        ("temperature", SamplingConfig { temperature: number(0.9), ..base.clone() }),
        ("greedy", SamplingConfig { temperature: number(0.0), ..base.clone() }),
        ("top_k", SamplingConfig { top_k: 3, ..base.clone() }),
        ("top_p", SamplingConfig { top_p: number(0.5), ..base.clone() }),
        ("min_p", SamplingConfig { min_p: number(0.5), ..base.clone() }),
        ("repetition_penalty", SamplingConfig { repetition_penalty: number(1.1), ..base.clone() }),
        ("min_new_tokens", SamplingConfig { min_new_tokens: 2, ..base.clone() }),
    ] {
        assert_ne!(scores(&base), scores(&changed), "{name}");
        assert!(!changed.is_unfiltered() || name == "temperature", "{name}");
    }
    assert!(base.is_unfiltered());
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let refused = |config: SamplingConfig| config.sampler().unwrap_err().to_string();
    for (config, message) in [
        (SamplingConfig { max_new_tokens: 0, ..endless() }, "`max_new_tokens` is 0, expected at least 1"),
        (
            SamplingConfig { max_new_tokens: 3, min_new_tokens: 4, ..endless() },
            "`min_new_tokens` is 4, expected at most `max_new_tokens`, 3",
        ),
        (
            SamplingConfig { stop_strings: vec![String::new()], ..SamplingConfig::default() },
            "stop string 0 is empty, expected at least one character",
        ),
        (
            SamplingConfig { stop_token_ids: vec![1], ..endless() },
            "`never_stop` is true, expected no stops beside it, found 1 stop tokens and 0 stop strings",
        ),
    ] {
        assert_eq!(refused(config), message);
    }
    let none = refused(SamplingConfig::default());
    assert!(none.starts_with("no stop token: expected `stop_token_ids`"), "{none}");
}

#[test]
fn a_number_out_of_range_or_an_unknown_setting_is_refused_while_reading() {
    for (text, message) in [
        (r#"{"temperature": -1.0}"#, "expected a finite number >= 0, found -1"),
        (r#"{"top_p": 0.0}"#, "expected a number in (0, 1], found 0"),
        (r#"{"min_p": 1.5}"#, "expected a number in [0, 1], found 1.5"),
        (r#"{"repetition_penalty": 0.0}"#, "expected a finite number > 0, found 0"),
        (r#"{"temprature": 1.0}"#, "unknown field `temprature`, expected one of `temperature`"),
    ] {
        let error = serde_json::from_str::<SamplingConfig>(text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
