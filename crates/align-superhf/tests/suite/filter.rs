//! What is kept, whatever the scores.

use align_core::number::{Finite, UnitInterval};
use align_superhf::{Filter, SuperHfError};
use proptest::prelude::*;

fn scored(rows: &[&[f64]]) -> Vec<Vec<Option<f64>>> {
    rows.iter().map(|row| row.iter().map(|score| Some(*score)).collect()).collect()
}

#[test]
fn ties_go_to_the_earlier_sample_and_are_counted() {
    let chosen = Filter::TopK { k: 1 }
        .choose(&scored(&[&[1.0, 2.0, 2.0], &[3.0, 3.0, 3.0], &[1.0, 2.0, 3.0]]))
        .expect("finite");
    assert_eq!(chosen.kept, [[1], [0], [2]]);
    // The first two are cut within a tie; the second alone is constant.
    assert_eq!((chosen.ties, chosen.constant), (2, 1));
    let all = Filter::TopK { k: 3 }.choose(&scored(&[&[3.0, 3.0, 3.0]])).expect("finite");
    assert_eq!((all.ties, all.constant), (0, 1), "nothing was left out of the tie");
}

#[test]
fn what_was_dropped_is_not_kept_and_moves_no_index() {
    let scores = [vec![None, Some(1.0), None, Some(2.0)], vec![None; 4]];
    let chosen = Filter::TopK { k: 3 }.choose(&scores).expect("finite");
    assert_eq!(chosen.kept, [vec![3, 1], vec![]]);
    assert_eq!(chosen.count(), 2);
}

#[test]
fn a_score_that_is_no_number_is_named_and_never_sorted() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let scores = [vec![Some(1.0), Some(2.0)], vec![None, Some(bad)]];
        let filters = [
            Filter::default(),
            Filter::Threshold { above: Finite::literal(0.0) },
            Filter::Percentile { percentile: UnitInterval::literal(0.5) },
        ];
        for filter in filters {
            let error = filter.choose(&scores).expect_err("not finite");
            assert!(
                matches!(error, SuperHfError::NonFiniteScore { prompt_index: 1, completion_index: 1, .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn a_threshold_keeps_what_is_above_it_and_maybe_nothing() {
    let filter = Filter::Threshold { above: Finite::literal(1.0) };
    let chosen = filter.choose(&scored(&[&[1.0, 3.0, 2.0], &[0.0, 1.0]])).expect("finite");
    assert_eq!(chosen.kept, [vec![1, 2], vec![]]);
}

#[test]
fn a_percentile_is_of_the_whole_group() {
    let of = |percentile| Filter::Percentile { percentile: UnitInterval::literal(percentile) };
    let scores = scored(&[&[5.0, 6.0, 7.0, 8.0, 9.0], &[1.0, 2.0, 3.0, 4.0, 8.5]]);
    assert_eq!(of(0.7).choose(&scores).expect("finite").kept, [vec![4, 3], vec![4]]);
    assert_eq!(of(1.0).choose(&scores).expect("finite").count(), 1);
    assert_eq!(of(0.0).choose(&scores).expect("finite").count(), 10);
}

#[test]
fn files_name_the_kind_and_refuse_unknown_keys() {
    let read = |text: &str| serde_json::from_str::<Filter>(text);
    assert_eq!(
        read(r#"{"kind": "percentile", "percentile": 0.7}"#).expect("known"),
        Filter::Percentile { percentile: UnitInterval::literal(0.7) }
    );
    assert!(
        read(r#"{"kind": "top_k", "k": 1, "above": 2}"#).expect_err("stray").to_string().contains("`above`")
    );
    assert!(read(r#"{"kind": "percentile", "percentile": 2}"#).is_err());
}

proptest! {
    #[test]
    fn nothing_left_out_beats_what_is_kept(
        scores in prop::collection::vec(prop::collection::vec(prop::option::of(-3i8..3), 4), 1..4),
        k in 1usize..5,
    ) {
        let scores: Vec<Vec<Option<f64>>> =
            scores.iter().map(|row| row.iter().map(|score| score.map(f64::from)).collect()).collect();
        let chosen = Filter::TopK { k }.choose(&scores).expect("finite");
        for (row, kept) in scores.iter().zip(&chosen.kept) {
            let present = row.iter().flatten().count();
            prop_assert_eq!(kept.len(), k.min(present));
            for (sample, score) in row.iter().enumerate() {
                let Some(score) = score else { continue };
                if kept.contains(&sample) {
                    continue;
                }
                for &winner in kept {
                    let best = row[winner].expect("kept samples have scores");
                    prop_assert!(best > *score || best == *score && winner < sample);
                }
            }
        }
    }

    #[test]
    fn a_constant_added_to_all_scores_changes_no_choice(
        scores in prop::collection::vec(-8i8..8, 1..9),
        shift in -4i8..4,
        k in 1usize..4,
    ) {
        let row = |by: i8| vec![scores.iter().map(|score| Some(f64::from(*score + by))).collect::<Vec<_>>()];
        let filter = Filter::TopK { k };
        prop_assert_eq!(filter.choose(&row(0)).expect("finite"), filter.choose(&row(shift)).expect("finite"));
    }
}
