//! METEOR: NLTK's scores, the equation's parameters, and the mean over pairs of completions.

use std::collections::HashMap;

use align_core::Draws;
use align_core::number::{NonNegative, UnitInterval};
use align_superhf::meteor::{Match, Meteor, mean_similarity};
use align_testkit::statistics::Mean;
use nltk_porter::{Mode, PorterStemmer};
use proptest::prelude::*;
use serde::Deserialize;

use crate::close;

/// Scores and stems of NLTK, made by `fixtures/make_meteor.py`.
#[derive(Deserialize)]
struct Nltk {
    synonyms: HashMap<String, Vec<String>>,
    pairs: Vec<Scored>,
    /// Words with their stems; neighbours in the alphabet stand in groups, and often share a stem.
    stems: Vec<Vec<[String; 2]>>,
}

#[derive(Deserialize)]
struct Scored {
    reference: String,
    hypothesis: String,
    exact: f64,
    stemmed: f64,
    synonyms: f64,
    stemmed_synonyms: f64,
}

fn nltk() -> Nltk {
    serde_json::from_str(include_str!("../fixtures/meteor.json"))
        .expect("the fixture is what the script writes")
}

#[test]
fn meteor_scores_the_published_cases() {
    let meteor = Meteor::exact();
    for (reference, hypothesis, score, swapped) in [
        ("the cat sat on the mat", "the cat sat on the mat", 0.99768519, 0.99768519),
        ("the cat sat on the mat", "on the mat sat the cat", 0.5, 0.5),
        ("Thank you for your help today", "thank you for the help", 0.63559322, 0.73529412),
        ("yes", "yes", 0.5, 0.5),
        ("yes no", "yes", 0.26315789, 0.45454545),
        ("a b c d", "c d a b", 0.9375, 0.9375),
        ("a b a", "a a b", 0.5, 0.5),
        ("hello world", "goodbye moon", 0.0, 0.0),
        ("", "anything", 0.0, 0.0),
        ("", "", 0.0, 0.0),
    ] {
        // The cases are printed to eight decimals.
        close(meteor.similarity(reference, hypothesis), score, 5e-9);
        close(meteor.similarity(hypothesis, reference), swapped, 5e-9);
    }
    let reference = "It is a guide to action that ensures that the military will forever heed Party commands";
    let hypothesis =
        "It is a guide to action which ensures that the military always obeys the commands of the party";
    let alignment = meteor.alignment(reference, hypothesis);
    assert_eq!((alignment.matches.len(), alignment.chunks()), (12, 6));
    assert_eq!((alignment.hypothesis_words, alignment.reference_words), (18, 16));
    close(meteor.score(&alignment), 0.69444444, 5e-9);
}

#[test]
fn meteor_scores_as_nltk_does() {
    let Nltk { synonyms, pairs, .. } = nltk();
    let measures = [
        Meteor::exact(),
        Meteor::stemmed(),
        Meteor::exact().with_synonyms(synonyms.clone()),
        Meteor::exact().with_synonyms_of_stems(synonyms),
    ];
    for pair in &pairs {
        let expected = [pair.exact, pair.stemmed, pair.synonyms, pair.stemmed_synonyms];
        for (meteor, expected) in measures.iter().zip(expected) {
            // Seven operations in f64 on numbers of order one.
            close(meteor.similarity(&pair.reference, &pair.hypothesis), expected, 1e-12);
        }
    }
    // The fixture tells the four apart.
    let differ = |of: fn(&Scored) -> [f64; 2]| pairs.iter().filter(|pair| of(pair)[0] != of(pair)[1]).count();
    assert!(differ(|pair| [pair.exact, pair.stemmed]) >= 20);
    assert!(differ(|pair| [pair.exact, pair.synonyms]) >= 10);
    assert!(differ(|pair| [pair.stemmed, pair.stemmed_synonyms]) >= 10);
}

#[test]
fn words_match_by_stem_exactly_where_nltk_gives_one_stem() {
    let porter = PorterStemmer::new(Mode::Nltk);
    let meteor = Meteor::stemmed();
    let mut shared = 0;
    for group in nltk().stems {
        for [word, stem] in &group {
            assert_eq!(&porter.stem(word), stem, "{word}");
            for [other, other_stem] in &group {
                assert_eq!(meteor.similarity(word, other) > 0.0, stem == other_stem, "{word} and {other}");
                shared += usize::from(word != other && stem == other_stem);
            }
        }
    }
    assert!(shared > 100, "the fixture has words that share a stem");
}

#[test]
fn synonyms_of_words_are_found_where_stems_would_hide_them() {
    // NLTK looks up the stem, "happi", which no list of words holds.
    let glad = || HashMap::from([("happy".to_owned(), vec!["glad".to_owned()])]);
    assert_eq!(Meteor::stemmed().with_synonyms(glad()).similarity("glad", "happy"), 0.5);
    assert_eq!(Meteor::exact().with_synonyms_of_stems(glad()).similarity("glad", "happy"), 0.0);
    // The list is asked for the hypothesis's word, so it has a direction.
    assert_eq!(Meteor::stemmed().with_synonyms(glad()).similarity("happy", "glad"), 0.0);
}

#[test]
fn each_parameter_of_meteor_acts_as_in_its_equation() {
    // "yes no" | "yes": P = 1, Q = ½, one match in one chunk.
    let score = |alpha, beta, gamma| {
        let mut meteor = Meteor::exact();
        meteor.alpha = UnitInterval::literal(alpha);
        meteor.beta = NonNegative::literal(beta);
        meteor.gamma = UnitInterval::literal(gamma);
        (meteor.similarity("yes no", "yes"), meteor.similarity("a b c d", "c d a b"))
    };
    // One rounding a step.
    close(score(1.0, 3.0, 0.0).0, 0.5, 1e-15); // recall alone
    close(score(0.0, 3.0, 0.0).0, 1.0, 1e-15); // precision alone
    close(score(0.5, 3.0, 0.5).0, 0.5 / 0.75 * 0.5, 1e-15);
    close(score(0.9, 1.0, 0.5).1, 0.75, 1e-15); // two chunks of four matches
    close(score(0.9, 2.0, 1.0).1, 0.75, 1e-15);
    close(score(0.9, 0.0, 0.25).1, 0.75, 1e-15);
}

#[test]
fn words_are_split_where_python_splits_them() {
    let meteor = Meteor::exact();
    // The separators \x1c to \x1f and the wide space U+3000 separate; the zero-width space does not.
    assert_eq!(meteor.alignment("a\u{1c}b\u{1f}c\u{3000}d\te\r\nf", "").reference_words, 6);
    assert_eq!(meteor.alignment("a\u{200b}b", "").reference_words, 1);
    assert_eq!(meteor.similarity("ÉTÉ Straße", "été straße"), 1.0 - 0.5 / 8.0);
}

const SMALL: [&str; 8] = ["run", "runs", "running", "walk", "walked", "stroll", "strolls", "fast"];

fn small_synonyms() -> HashMap<String, Vec<String>> {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    HashMap::from([
        ("walk".to_owned(), list(&["stroll", "run"])),
        ("walked".to_owned(), list(&["strolls", "running", "strolls"])),
        ("stroll".to_owned(), list(&["walk", "stroll"])),
        ("running".to_owned(), list(&["fast"])),
        ("run".to_owned(), list(&["fast"])),
    ])
}

/// Whether a word of the hypothesis and one of the reference may match.
type Fits<'a> = Box<dyn Fn(&str, &str) -> bool + 'a>;

/// NLTK's rule word for word: from the back, the last free word of the reference that fits, by looking at each.
fn naive(reference: &[&str], hypothesis: &[&str], stems: bool, synonyms_of: Option<Form>) -> Vec<Match> {
    let porter = PorterStemmer::new(Mode::Nltk);
    let synonyms = small_synonyms();
    let stem = |word: &str| porter.stem(word);
    let mut stages: Vec<Fits<'_>> = vec![Box::new(|h, r| h == r)];
    if stems {
        stages.push(Box::new(|h, r| stem(h) == stem(r)));
    }
    let known = |h: &str, r: &str| synonyms.get(h).is_some_and(|list| list.iter().any(|word| word == r));
    match synonyms_of {
        None => {}
        Some(Form::Words) => stages.push(Box::new(known)),
        Some(Form::Stems) => stages.push(Box::new(move |h, r| known(&stem(h), &stem(r)))),
    }
    let mut left: Vec<usize> = (0..hypothesis.len()).collect();
    let mut free: Vec<usize> = (0..reference.len()).collect();
    let mut matches = Vec::new();
    for fits in stages {
        for place in (0..left.len()).rev() {
            let word = hypothesis[left[place]];
            if let Some(found) = (0..free.len()).rev().find(|other| fits(word, reference[free[*other]])) {
                matches.push(Match { hypothesis: left.remove(place), reference: free.remove(found) });
            }
        }
    }
    matches.sort_by_key(|found| found.hypothesis);
    matches
}

#[derive(Clone, Copy)]
enum Form {
    Words,
    Stems,
}

fn few_words() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(&SMALL[..]), 0..16)
}

proptest! {
    #[test]
    fn hashing_finds_the_matches_of_a_quadratic_search((a, b) in (few_words(), few_words())) {
        let (reference, hypothesis) = (a.join(" "), b.join(" "));
        for (meteor, stems, synonyms) in [
            (Meteor::exact(), false, None),
            (Meteor::stemmed(), true, None),
            (Meteor::exact().with_synonyms(small_synonyms()), false, Some(Form::Words)),
            (Meteor::stemmed().with_synonyms(small_synonyms()), true, Some(Form::Words)),
            (Meteor::exact().with_synonyms_of_stems(small_synonyms()), true, Some(Form::Stems)),
        ] {
            let found = meteor.alignment(&reference, &hypothesis);
            prop_assert_eq!(&found.matches, &naive(&a, &b, stems, synonyms), "{:?}", meteor);
            prop_assert!(found.chunks() <= found.matches.len());
            let score = meteor.score(&found);
            prop_assert!((0.0..1.0).contains(&score), "{}", score);
        }
    }

    #[test]
    fn a_text_of_n_words_scores_one_minus_half_over_n_cubed_against_itself(words in prop::collection::hash_set("[a-z]{1,8}", 1..20)) {
        let text = words.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let n = words.len() as f64;
        // Three operations in f64.
        close(Meteor::exact().similarity(&text, &text), 1.0 - 0.5 / n.powi(3), 1e-15);
    }

    #[test]
    fn the_mean_is_over_all_pairs_of_different_prompts(texts in prop::collection::vec((0u64..4, few_words()), 0..9), more in 0usize..3) {
        let texts: Vec<(u64, String)> = texts.iter().map(|(prompt, words)| (*prompt, words.join(" "))).collect();
        let borrowed: Vec<(u64, &str)> = texts.iter().map(|(prompt, text)| (*prompt, text.as_str())).collect();
        let meteor = Meteor::stemmed();
        let mut scores = Vec::new();
        for (i, (prompt, reference)) in texts.iter().enumerate() {
            for (j, (other, hypothesis)) in texts.iter().enumerate() {
                if i != j && prompt != other {
                    scores.push(meteor.similarity(reference, hypothesis));
                }
            }
        }
        let expected = (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64);
        let found = mean_similarity(&meteor, &borrowed, scores.len() + more, &Draws::new(7), 0);
        prop_assert_eq!(found.is_some(), expected.is_some());
        if let (Some(found), Some(expected)) = (found, expected) {
            close(found, expected, 1e-14); // at most 72 numbers below 1, summed in another order
        }
    }

    #[test]
    fn the_order_of_the_texts_changes_nothing(texts in prop::collection::vec((0u64..4, few_words()), 2..9).prop_shuffle(), pairs in 0usize..20) {
        let texts: Vec<(u64, String)> = texts.iter().map(|(prompt, words)| (*prompt, words.join(" "))).collect();
        let mut texts: Vec<(u64, &str)> = texts.iter().map(|(prompt, text)| (*prompt, text.as_str())).collect();
        let mean = |texts: &[(u64, &str)]| mean_similarity(&Meteor::exact(), texts, pairs, &Draws::new(3), 5);
        let before = mean(&texts);
        texts.reverse();
        prop_assert_eq!(before, mean(&texts));
    }
}

#[test]
fn the_mean_of_the_published_set_is_over_six_ordered_pairs() {
    let texts = [(0, "thank you for your help"), (1, "thank you very much"), (2, "no idea")];
    let mean = mean_similarity(&Meteor::exact(), &texts, 6, &Draws::new(7), 0);
    close(mean.expect("three prompts"), 0.13999502, 5e-9); // printed to eight decimals
    close(Meteor::exact().similarity(texts[0].1, texts[1].1), 0.38265306, 5e-9);
    close(Meteor::exact().similarity(texts[1].1, texts[0].1), 0.45731707, 5e-9);
}

#[test]
fn without_two_prompts_there_is_no_similarity() {
    let mean =
        |texts: &[(u64, &str)], pairs| mean_similarity(&Meteor::exact(), texts, pairs, &Draws::new(7), 0);
    assert_eq!(mean(&[], 9), None);
    assert_eq!(mean(&[(0, "yes")], 9), None);
    assert_eq!(mean(&[(4, "yes"), (4, "yes"), (4, "no")], 9), None);
    assert_eq!(mean(&[(0, "yes"), (1, "yes")], 0), None);
    assert_eq!(mean(&[(0, "yes"), (1, "yes")], 1), Some(0.5));
    assert_eq!(mean(&[(0, ""), (1, "")], 9), Some(0.0));
}

#[test]
fn drawn_pairs_are_distinct_and_equally_likely() {
    // Five texts of three prompts have 25 − 9 = 16 ordered pairs. Seven of them are drawn, 4000 times: the mean of the
    // draws is the mean over all pairs.
    let texts = [(0, "a b c d"), (0, "d c b a"), (1, "a b"), (1, "x y"), (2, "a x c")];
    let meteor = Meteor::exact();
    let mean = |pairs, step| mean_similarity(&meteor, &texts, pairs, &Draws::new(11), step).expect("pairs");
    let all = mean(16, 0);
    let drawn: Vec<f64> = (0..4000).map(|step| mean(7, step)).collect();
    Mean::of(&drawn).assert_near(all, 5.0);
    // Without replacement the variance falls by (16 − 7)/(16 − 1) and vanishes where all are taken.
    let scores: Vec<f64> = pairs(&texts).map(|(a, b)| meteor.similarity(a, b)).collect();
    let variance = scores.iter().map(|score| (score - all).powi(2)).sum::<f64>() / 16.0;
    let seen = drawn.iter().map(|mean| (mean - all).powi(2)).sum::<f64>() / 4000.0;
    // A variance from 4000 nearly normal numbers has a relative standard error of √(2/4000) = 2.2 %; five of them.
    close(seen / (variance / 7.0 * 9.0 / 15.0), 1.0, 5.0 * 0.0224);
    // With 15 of 16, each set leaves one pair out.
    for step in 0..50 {
        let left_out = 16.0 * all - 15.0 * mean(15, step);
        assert!(scores.iter().any(|score| (score - left_out).abs() < 1e-12), "{left_out}");
    }
    assert_ne!(mean(7, 0), mean(7, 1));
    assert_ne!(mean(7, 0), mean_similarity(&meteor, &texts, 7, &Draws::new(12), 0).expect("pairs"));
}

fn pairs<'a>(texts: &'a [(u64, &'a str)]) -> impl Iterator<Item = (&'a str, &'a str)> {
    texts.iter().flat_map(move |(prompt, reference)| {
        texts
            .iter()
            .filter(move |(other, _)| other != prompt)
            .map(move |(_, hypothesis)| (*reference, *hypothesis))
    })
}
