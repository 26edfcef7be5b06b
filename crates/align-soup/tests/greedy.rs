//! Greedy soups: the specification's digits, the rule's laws, records, bad input.

mod common;

use align_soup::{
    Better, GreedyError, GreedyPath, SoupError, Weights, average, greedy, uniform, weighted_mean,
};
use common::{assert_close, floats, net};
use proptest::prelude::*;

/// Ingredients of `specs/salsa.md`, section 9, test 11.
const INGREDIENTS: [[f64; 2]; 4] = [[1.0, 0.2], [-0.8, 0.3], [0.1, -1.2], [3.0, 3.0]];
/// The digits printed there.
const PRINTED: f64 = 5e-9;

fn value(theta: &[f64]) -> f64 {
    -(theta[0] * theta[0] + 2.0 * theta[1] * theta[1])
}

fn mean(members: &[&[f64; 2]]) -> Vec<f64> {
    let vectors: Vec<&[f64]> = members.iter().map(|member| &member[..]).collect();
    weighted_mean(&vectors, &Weights::uniform(vectors.len()).unwrap()).unwrap()
}

fn printed() -> GreedyPath {
    greedy(&INGREDIENTS, "val", Better::Higher, |members| Ok::<_, GreedyError>(value(&mean(members))))
        .unwrap()
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|index| index.to_string()).collect()
}

#[test]
fn the_greedy_soup_has_the_printed_digits() {
    let path = printed();
    assert_close(path.alone(), &[-1.08, -0.82, -2.89, -27.0], PRINTED);
    let order: Vec<usize> = path.trials().iter().map(|trial| trial.added).collect();
    assert_eq!(order, [1, 0, 2, 3]);
    let scores: Vec<f64> = path.trials().iter().map(|trial| trial.score).collect();
    assert_close(&scores, &[-0.82, -0.135, -0.118_888_89, -1.341_875], PRINTED);
    let accepted: Vec<bool> = path.trials().iter().map(|trial| trial.accepted).collect();
    assert_eq!(accepted, [true, true, true, false]);
    assert_eq!(path.members(), [1, 0, 2]);
    let third = 1.0 / 3.0;
    assert_eq!(path.weights().unwrap().as_slice(), [third, third, third, 0.0]);

    let all: Vec<&[f64; 2]> = INGREDIENTS.iter().collect();
    assert_close(&mean(&all[..3]), &[0.1, -0.233_333_33], PRINTED);
    assert_close(&mean(&all), &[0.825, 0.575], PRINTED);
    assert_close(&[value(&mean(&all))], &[-1.341_875], PRINTED); // what the uniform soup scores
}

#[test]
fn modules_are_ingredients_too() {
    let nets = INGREDIENTS.map(|[x, y]| net([x, y, 0.0, 0.0], &[0.0]));
    let path = greedy(&nets, "val", Better::Higher, |members| {
        let members: Vec<_> = members.iter().map(|net| (*net).clone()).collect();
        Ok::<_, Failure>(value(&floats(&uniform(&members)?)))
    })
    .unwrap();
    let expected = printed();
    assert_eq!(path.members(), expected.members());
    let soup = average(&nets, path.weights().unwrap()).unwrap();
    assert_close(&floats(&soup)[..2], &[0.1, -0.233_333_33], PRINTED);
}

/// What a caller whose evaluation fails in other ways has.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Greedy(#[from] GreedyError),
    #[error(transparent)]
    Soup(#[from] SoupError),
}

#[test]
fn a_loss_is_a_score_turned_round() {
    let path =
        greedy(&INGREDIENTS, "loss", Better::Lower, |members| Ok::<_, GreedyError>(-value(&mean(members))));
    let (path, expected) = (path.unwrap(), printed());
    assert_eq!(path.members(), expected.members());
    for (ours, theirs) in path.trials().iter().zip(expected.trials()) {
        assert_eq!((ours.added, ours.score, ours.accepted), (theirs.added, -theirs.score, theirs.accepted));
    }
}

#[test]
fn equal_scores_keep_the_order_given_and_are_accepted() {
    let path = greedy(&["a", "b", "c"], "constant", Better::Lower, |_| Ok::<_, GreedyError>(1.0)).unwrap();
    assert_eq!(path.members(), [0, 1, 2]);
    assert!(path.trials().iter().all(|trial| trial.accepted));
}

#[test]
fn an_evaluation_that_fails_ends_the_search_with_its_error() {
    let nets = [net([1.0; 4], &[0.0]), net([2.0; 4], &[0.0, 1.0])];
    let error = greedy(&nets, "val", Better::Higher, |members| {
        let members: Vec<_> = members.iter().map(|net| (*net).clone()).collect();
        uniform(&members)?;
        Ok::<_, Failure>(0.0)
    });
    assert!(matches!(error, Err(Failure::Soup(SoupError::ShapeMismatch { .. }))), "{error:?}");
}

#[test]
fn a_search_may_be_written_down_after_every_score_and_gone_on_with() {
    let expected = printed();
    let mut path = GreedyPath::begin("val", Better::Higher, &ids(4)).unwrap();
    let mut steps = 0;
    while let Some(members) = path.next_members() {
        assert_eq!(path.progress(), (steps, 7));
        let saved = serde_json::to_string(&path).unwrap();
        path = GreedyPath::resume(serde_json::from_str(&saved).unwrap(), "val", Better::Higher, &ids(4))
            .unwrap();
        let members: Vec<&[f64; 2]> = members.iter().map(|&member| &INGREDIENTS[member]).collect();
        path.record(value(&mean(&members))).unwrap();
        steps += 1;
    }
    assert_eq!(steps, 7); // 2n − 1
    assert_eq!(path.members(), expected.members());
    assert_eq!(path.trials(), expected.trials());
}

#[test]
fn records_of_other_searches_are_refused() {
    let resume = |record: GreedyPath, metric: &str, better, ids: &[String]| {
        GreedyPath::resume(record, metric, better, ids).unwrap_err()
    };
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let path = printed();
    assert_eq!(
        resume(path.clone(), "val", Better::Higher, &names(&["0", "1", "7", "3"])).to_string(),
        "the record has 2 as ingredients[2], expected 7"
    );
    assert_eq!(
        resume(path.clone(), "val", Better::Higher, &ids(3)).to_string(),
        "the record has 3 as ingredients[3], expected nothing"
    );
    assert_eq!(
        resume(path.clone(), "nll", Better::Lower, &ids(4)).to_string(),
        "the record is of a search by val (higher is better), expected nll (lower is better)"
    );
    let damaged = |change: fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(printed()).unwrap();
        change(&mut value);
        let record = serde_json::from_value(value).unwrap();
        resume(record, "val", Better::Higher, &ids(4)).to_string()
    };
    assert!(damaged(|v| v["trials"][3]["accepted"] = true.into()).contains("trial 3 does not follow"));
    assert!(damaged(|v| v["trials"][1]["members"] = serde_json::json!([1, 9])).contains("trial 1"));
    assert!(damaged(|v| v["trials"][0]["score"] = 1.0.into()).contains("trial 0"));
    assert!(damaged(|v| drop(v["alone"].as_array_mut().unwrap().pop())).contains("does not follow"));
    let more = |v: &mut serde_json::Value| {
        let last = v["trials"][3].clone();
        v["trials"].as_array_mut().unwrap().push(last);
    };
    assert!(damaged(more).contains("the search is over after 4 trials"));
}

#[test]
fn bad_input_is_named() {
    let one = GreedyPath::begin("val", Better::Higher, &ids(1)).unwrap_err();
    assert_eq!(one.to_string(), "a greedy soup chooses among ingredients: expected at least 2, found 1");
    let twice = GreedyPath::begin("val", Better::Higher, &["a", "b", "a"].map(String::from)).unwrap_err();
    assert_eq!(twice, GreedyError::Repeated { first: 0, second: 2 });
    let nan = greedy(&INGREDIENTS, "nll", Better::Lower, |members| {
        Ok::<_, GreedyError>(if members.len() == 2 { f64::NAN } else { 1.0 })
    })
    .unwrap_err();
    assert_eq!(
        nan.to_string(),
        "nll of the soup of ingredients[0], ingredients[1] is NaN, expected a finite number"
    );
    let mut path = printed();
    assert_eq!(path.record(0.0), Err(GreedyError::Over { trials: 4, score: 0.0 }));
    assert!(GreedyPath::begin("val", Better::Higher, &ids(2)).unwrap().weights().is_err());
}

proptest! {
    /// Scores of all soups are arbitrary here: the rule must hold whatever the metric does.
    #[test]
    fn the_soup_is_never_worse_than_its_best_ingredient(
        scores in prop::collection::vec(-9i32..9, 4 + 3), higher in any::<bool>(),
    ) {
        let better = if higher { Better::Higher } else { Better::Lower };
        let mut scores = scores.into_iter().map(f64::from);
        let path = greedy(&[(); 4], "any", better, |_| Ok::<_, GreedyError>(scores.next().unwrap())).unwrap();
        let soup = path.score().unwrap();
        prop_assert!(path.alone().iter().all(|&alone| better.no_worse(soup, alone)));
        // Every acceptance is no worse than the one before, every rejection is worse.
        let mut held = path.trials()[0].score;
        for trial in &path.trials()[1..] {
            prop_assert_eq!(trial.accepted, better.no_worse(trial.score, held));
            if trial.accepted { held = trial.score; }
        }
        let mut members = path.members();
        members.sort_unstable();
        members.dedup();
        prop_assert_eq!(members.len(), path.members().len());
    }
}
