//! What a judge's answer says.

use serde_json::Value;

/// What a judge says to one question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    /// That A is better.
    pub(super) preference: f64,
    /// Whether it said anything.
    pub(super) is_decided: bool,
}

/// What one choice of an answer says; `None` if it holds neither log-probabilities of the letters nor a text.
pub(super) fn verdict(choice: &Value) -> Option<Verdict> {
    let decided = |preference| Some(Verdict { preference, is_decided: true });
    if let Some(log_odds) = log_odds(&choice["logprobs"]["content"][0]["top_logprobs"]) {
        return decided(1.0 / (1.0 + (-log_odds).exp()));
    }
    match letter(choice["message"]["content"].as_str()?) {
        Some(Letter::A) => decided(1.0),
        Some(Letter::B) => decided(0.0),
        None => Some(Verdict { preference: 0.5, is_decided: false }),
    }
}

/// `log P(A) − log P(B)` of a list of tokens; a letter that is not listed has probability 0. `None` if neither is.
fn log_odds(listed: &Value) -> Option<f64> {
    let mut log_probs = [f64::NEG_INFINITY; 2];
    for entry in listed.as_array()? {
        if let (Some(letter), Some(log_prob)) =
            (entry["token"].as_str().and_then(letter), entry["logprob"].as_f64())
        {
            let sum = &mut log_probs[letter as usize];
            *sum = log_add(*sum, log_prob);
        }
    }
    let [a, b] = log_probs;
    // −∞ − −∞ is no number.
    (a > f64::NEG_INFINITY || b > f64::NEG_INFINITY).then_some(a - b)
}

/// `log(eᵃ + eᵇ)`, finite where the sum is 0 in f64: some servers write −9999 for impossible.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = (a.min(b), a.max(b));
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The two answers, as the judge names them.
#[derive(Clone, Copy)]
enum Letter {
    A,
    B,
}

/// The letter that a text is, whatever stands around it (` A`, `B.`, `**A**`).
fn letter(text: &str) -> Option<Letter> {
    match text.trim_matches(|c: char| !c.is_alphanumeric()) {
        "A" => Some(Letter::A),
        "B" => Some(Letter::B),
        _ => None,
    }
}
