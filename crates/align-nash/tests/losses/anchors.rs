//! Log-probabilities of whole answers under a reference, computed once.

use align_nash::{AnchorNotFinite, Pair, cache_anchors, microbatches, sequence_sums};
use align_testkit::{BigramLm, assert_close, device};

use crate::world::{pairs, reference, sums, whole};

/// A reference after whose token 3 token 1 never comes.
fn closed_world() -> BigramLm {
    let mut rows = vec![vec![0.0, 0.5, -0.5, 1.0, 0.2]; 5];
    rows[3][1] = f32::NEG_INFINITY;
    BigramLm::from_logits(rows, &device())
}

#[test]
fn sums_come_in_the_order_of_the_pairs_however_many_go_at_once() {
    let pairs = pairs();
    let expected: Vec<[f64; 2]> = pairs
        .iter()
        .map(|pair| {
            // One pair alone: nothing is padded and nothing is sorted.
            let batch = &whole(std::slice::from_ref(pair))[0];
            let both: Vec<f64> = sums(&reference(), &batch.completions).to_data().iter::<f64>().collect();
            [both[0], both[1]]
        })
        .collect();
    for size in [0, 1, 2, 4, 6, 100] {
        let found = sequence_sums(&reference(), &pairs, size, &device());
        assert_close(found, expected.clone(), 2e-6); // sums of six numbers in f32
    }
}

#[test]
fn anchors_are_the_sums() {
    let mut cached = pairs();
    cached.iter_mut().for_each(|pair| pair.anchors = [f32::NAN; 2]);
    cache_anchors(&reference(), &mut cached, 3, &device()).expect("a reference that can say anything");
    let sums = sequence_sums(&reference(), &cached, 3, &device());
    assert_eq!(cached.iter().map(|pair| pair.anchors).collect::<Vec<_>>(), sums);
}

#[test]
fn an_answer_that_the_reference_cannot_give_is_named() {
    // Sorted by length the pairs come in another order; the index is that of the caller.
    let mut pairs = vec![
        Pair::labelled(vec![0, 0, 0], vec![2, 4, 4, 1], vec![4, 1]),
        Pair::labelled(vec![1], vec![3, 3], vec![0]),
        Pair::labelled(vec![2, 2], vec![4, 4, 0], vec![2, 3, 1]),
        Pair::labelled(vec![4], vec![1], vec![3]),
    ];
    for size in [1, 3, 4] {
        let error = cache_anchors(&closed_world(), &mut pairs, size, &device()).expect_err("3 before 1");
        assert_eq!(error, AnchorNotFinite { of: "reference", pair: 2, side: 1, found: f32::NEG_INFINITY });
        let message = error.to_string();
        for part in ["pair 2", "answer 1", "-inf", "expected a finite number", "vocabulary"] {
            assert!(message.contains(part), "no `{part}` in {message}");
        }
    }
    // The prompt's last token counts as what comes before.
    let mut pairs = [Pair::labelled(vec![3], vec![1], vec![2])];
    let error = cache_anchors(&closed_world(), &mut pairs, 1, &device()).expect_err("3 before 1");
    assert_eq!((error.pair, error.side), (0, 0));
    // Within a prompt nothing is asked of the reference.
    let mut pairs = [Pair::labelled(vec![3, 1], vec![2], vec![4])];
    cache_anchors(&closed_world(), &mut pairs, 1, &device()).expect("finite");
}

#[test]
fn microbatches_come_in_order_of_length_and_lose_no_pair() {
    let pairs = pairs();
    let refer = pairs.iter().collect::<Vec<_>>();
    for (size, count) in [(1, 6), (2, 3), (4, 2), (6, 1), (0, 6)] {
        let parts = microbatches(&refer, size, &device());
        assert_eq!(parts.len(), count, "size {size}");
        assert_eq!(parts.iter().map(|part| part.pairs()).sum::<usize>(), pairs.len());
        let longest: Vec<usize> = parts
            .iter()
            .map(|part| {
                let completions = &part.completions;
                let rows = completions.prompt.lengths().into_iter().zip(completions.response.lengths());
                rows.map(|(prompt, response)| prompt + response).max().unwrap_or(0)
            })
            .collect();
        assert!(longest.is_sorted(), "{longest:?}");
    }
}
