//! Knockouts: who survives, who is asked, and what is refused.

use align_nash::game::{Knockout, Tournament, TournamentError, knockout};
use proptest::prelude::*;

use crate::cycle;

// T10

#[test]
fn scores_are_sorted_out_in_eleven_calls() {
    let scores: [f64; 8] = [0.2, 1.5, -0.3, 0.9, 2.0, -1.1, 0.4, 0.0];
    let prefer = |a: usize, b: usize| 1.0 / (1.0 + (scores[b] - scores[a]).exp());
    let found = knockout(8, prefer).expect("a power of two");
    let preference = prefer(4, 5);
    assert_eq!(found, Knockout { winner: 4, loser: 5, preference, kept: true, calls: 11 });
}

#[test]
fn ties_keep_the_earlier_among_winners_and_drop_the_pair() {
    let found = knockout(8, |_, _| 0.5).expect("a power of two");
    assert_eq!(found, Knockout { winner: 0, loser: 7, preference: 0.5, kept: false, calls: 11 });
}

#[test]
fn cycles_drop_pairs() {
    let among = |types: [usize; 4]| {
        let preferences = cycle();
        knockout(4, |a, b| preferences[types[a]][types[b]]).expect("a power of two")
    };
    // Both are of the same type.
    let tie = Knockout { winner: 0, loser: 1, preference: 0.5, kept: false, calls: 5 };
    assert_eq!(among([0, 0, 1, 2]), tie);
    // The survivor among losers beats the champion.
    let beaten = Knockout { winner: 2, loser: 1, preference: 0.1, kept: false, calls: 5 };
    assert_eq!(among([0, 1, 2, 0]), beaten);
}

#[test]
fn counts_that_fill_no_bracket_are_refused() {
    for count in [0, 1, 3, 6, 12] {
        let error = knockout(count, |_, _| 0.5).unwrap_err();
        assert_eq!(error, TournamentError::Count { found: count });
        assert_eq!(error.to_string(), format!("a knockout needs 2, 4, 8, ... responses, found {count}"));
    }
}

#[test]
fn answers_that_are_no_probability_are_refused_by_pair() {
    for (answer, shown) in [(f64::NAN, "NaN"), (1.5, "1.5"), (-0.1, "-0.1")] {
        let error = knockout(4, |a, _| if a == 2 { answer } else { 0.5 }).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the oracle must answer with a probability, found {shown} for response 2 against 3")
        );
    }
    let mut tournament = Tournament::new(4).expect("a power of two");
    let error = tournament.answer(&[0.5]).unwrap_err();
    assert_eq!(error.to_string(), "the round has 2 comparisons, found 1 answers");
    assert_eq!(tournament.round(), [(0, 1), (2, 3)], "the round stands");
    assert_eq!(tournament.outcome(), None);
}

#[test]
fn a_pair_meets_twice() {
    let mut asked = Vec::new();
    let found = knockout(2, |a, b| {
        asked.push((a, b));
        if (a, b) == (0, 1) { 0.2 } else { 0.8 }
    });
    assert_eq!(found, Ok(Knockout { winner: 1, loser: 0, preference: 0.8, kept: true, calls: 2 }));
    assert_eq!(asked, [(0, 1), (1, 0)]);
}

proptest! {
    #[test]
    fn with_an_order_the_extremes_survive(
        order in (1u32..6).prop_flat_map(|rounds| Just((0..1usize << rounds).collect::<Vec<_>>()).prop_shuffle())
    ) {
        let count = order.len();
        let found = knockout(count, |a, b| if order[a] > order[b] { 1.0 } else { 0.0 }).expect("a power of two");
        let place = |rank: usize| order.iter().position(|&other| other == rank).expect("a rank");
        let expected = Knockout {
            winner: place(count - 1), loser: place(0), preference: 1.0, kept: true, calls: 3 * count / 2 - 1,
        };
        prop_assert_eq!(found, expected);
    }
}
