//! The worlds of circular preferences and of a cheap trick.

use align_core::number::Probability;
use align_core::{Completions, Draws, NoisyPreference, Preference, Reward};
use align_data::synthetic::{CyclicWorld, PatternWorld};
use align_data::{HfTokenizer, Tokenizer};
use align_testkit::{assert_close, device};

fn tokens(tokenizer: &HfTokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text).unwrap().ids
}

#[test]
fn first_words_beat_one_another_in_a_circle_and_turn_round_with_the_prompt() {
    for x in 0..CyclicWorld::PROMPTS {
        let odds = |a, b| CyclicWorld::preference(x, (a, 0), (b, 0));
        for a in 0..3 {
            // ln 9 of log-odds are nine to one.
            let wins = if x % 2 == 0 { 0.9 } else { 0.1 };
            assert!((odds(a, (a + 1) % 3) - wins).abs() < 1e-12, "{x} {a}");
            assert!((odds(a, a) - 0.5).abs() < 1e-12);
        }
    }
}

#[test]
fn preferences_are_antisymmetric_and_second_words_have_an_order() {
    for x in 0..CyclicWorld::PROMPTS {
        let answers = (0..9).map(|at| (at / 3, at % 3));
        for (first, second) in answers.clone().flat_map(|a| answers.clone().map(move |b| (a, b))) {
            let sum = CyclicWorld::preference(x, first, second) + CyclicWorld::preference(x, second, first);
            assert!((sum - 1.0).abs() < 1e-12);
        }
        // q is highest where (b + x) mod 3 = 0.
        let best = (3 - x % 3) % 3;
        assert!((0..3).all(|b| CyclicWorld::preference(x, (0, best), (0, b)) >= 0.5));
    }
}

#[test]
fn demonstrations_follow_the_stated_probabilities() {
    // n = 2 000 for each prompt: a share has a standard error of at most 0.0112; five of them, fixed seed.
    let draws = Draws::new(5);
    let rows: Vec<(String, String)> = (0..8000).map(|row| CyclicWorld::demonstration(&draws, row)).collect();
    for x in 0..4 {
        let of_prompt: Vec<&String> = rows
            .iter()
            .filter(|(prompt, _)| *prompt == CyclicWorld::prompt(x))
            .map(|(_, answer)| answer)
            .collect();
        assert_eq!(of_prompt.len(), 2000);
        for (a, word) in ["rock", "paper", "scissors"].into_iter().enumerate() {
            let seen = of_prompt.iter().filter(|answer| answer.starts_with(word)).count() as f64 / 2000.0;
            let expected: f64 = (0..3).map(|b| CyclicWorld::demonstrated(x, (a, b))).sum();
            assert!((seen - expected).abs() < 5.0 * 0.0112, "{x} {word}: {seen} and {expected}");
        }
    }
}

#[test]
fn the_world_reads_its_own_tokens() {
    let folder = tempfile::tempdir().unwrap();
    CyclicWorld::write_tokenizer(folder.path()).unwrap();
    let tokenizer = HfTokenizer::from_folder(folder.path()).unwrap();
    let prompt = tokens(&tokenizer, &CyclicWorld::prompt(0));
    let side = |answers: [&str; 4]| {
        let answers: Vec<Vec<u32>> = answers.iter().map(|answer| tokens(&tokenizer, answer)).collect();
        Completions::from_rows(&vec![prompt.clone(); 4], &answers, &device())
    };
    let first = side(["rock good", "rock good", "rock good", "good rock"]);
    let second = side(["paper good", "rock poor", "paper", "paper"]);
    let lost = 1.0 / (1.0 + (-5.0f64).exp());
    let expected = [0.9, 1.0 / (1.0 + (-1.0f64).exp()), lost, 0.5];
    assert_close(CyclicWorld.prefer(&first, &second), expected, 1e-6); // f32
    let turned = |rate| NoisyPreference { judge: CyclicWorld, rate: Probability::literal(rate) };
    assert_close(turned(0.5).prefer(&first, &second), [0.5; 4], 1e-6);
    assert_close(turned(1.0).prefer(&first, &second), expected.map(|p| 1.0 - p), 1e-6);
}

#[test]
fn the_trick_pays_the_proxy_and_not_gold() {
    let folder = tempfile::tempdir().unwrap();
    PatternWorld::write_tokenizer(folder.path()).unwrap();
    let tokenizer = HfTokenizer::from_folder(folder.path()).unwrap();
    let prompt = tokens(&tokenizer, "<|bos|> a b c");
    let answers = ["a b c a b c a b", "o o o o o o o o", "a b c a b c", "a b c a b c a b c c c"];
    let rows: Vec<Vec<u32>> = answers.iter().map(|answer| tokens(&tokenizer, answer)).collect();
    let completions = Completions::from_rows(&vec![prompt; 4], &rows, &device());
    // Two places are missing from the third answer; what follows the eighth word of the fourth does not count.
    assert_close(PatternWorld::default().score(&completions), [1.0, 0.0, 0.75, 1.0], 1e-6);
    assert_close(PatternWorld { hack: 1.25 }.score(&completions), [1.0, 1.25, 0.75, 1.0], 1e-6);
}

#[test]
fn the_demonstrator_is_right_as_often_as_it_is_told() {
    // 1 000 rows of 8 words: right with p + (1 − p)/15; standard error 0.0055, five of them, fixed seed.
    let draws = Draws::new(9);
    let right: usize = (0..1000)
        .map(|row| {
            let prompt = PatternWorld::prompt(&draws, 0, row);
            let pattern: Vec<&str> = prompt.split(' ').skip(1).collect();
            let answer = PatternWorld::demonstration(&draws, 0, row, 0.55);
            answer.split(' ').enumerate().filter(|(t, word)| *word == pattern[t % 3]).count()
        })
        .sum();
    let expected = 0.55 + 0.45 / 15.0;
    assert!((right as f64 / 8000.0 - expected).abs() < 5.0 * 0.0055, "{right}");
}
