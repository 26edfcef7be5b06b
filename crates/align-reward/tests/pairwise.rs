//! A pairwise preference model: how pairs become sequences, what it can learn that no score can, and its folder.

use align_core::draws::{Draws, Purpose};
use align_core::{
    BradleyTerry, Completions, Preference, PreferencePairs, Reward, TokenBatch, check_antisymmetry,
    checked_preferences,
};
use align_models::{Normalization, RewardModel, Transformer, TransformerConfig};
use align_reward::{
    BradleyTerryObjective, PairForm, Pairwise, PairwiseError, PairwiseManifest, evaluate_pairs,
};
use align_testkit::{Values, assert_close, device, train_device};
use align_train::{Learner, Objective, OptimizerConfig};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use proptest::prelude::*;

/// Ends every answer.
const STOP: u32 = 0;
/// Rock, paper, scissors: each beats the one before it, and the first beats the last.
const KINDS: [u32; 3] = [1, 2, 3];

fn form() -> PairForm {
    PairForm::new(vec![STOP])
}

fn model(device: &Device) -> RewardModel {
    let config = TransformerConfig { initializer_range: 0.1, ..TransformerConfig::llama(12, 32, 2, 4) };
    RewardModel::from_transformer(&Transformer::init(&config, &Draws::new(1), device), &Draws::new(2))
}

/// What stands around the kind in an answer: at most one word before it and one after it, of seven and nothing each.
fn surroundings(is_held_out: bool) -> Vec<[Vec<u32>; 2]> {
    let word = |index: u32| if index == 0 { vec![] } else { vec![4 + index] };
    let all = (0..8).flat_map(|left| (0..8).map(move |right| (left, right)));
    all.filter(|(left, right)| ((left + right) % 4 == 0) == is_held_out)
        .map(|(left, right)| [word(left), word(right)])
        .collect()
}

/// Triples of answers, a rock, a paper and scissors, and the three labels between them: three pairs a triple.
fn cycle(triples: u64, step: u64, is_held_out: bool) -> PreferencePairs {
    let (draws, surroundings) = (Draws::new(5), surroundings(is_held_out));
    let answer = |triple: u64, kind: usize| {
        let drawn = draws.token(Purpose::Synthesize, step, triple, kind as u32, u32::from(is_held_out));
        let [left, right] = &surroundings[(drawn * surroundings.len() as f64) as usize];
        [left.as_slice(), &[KINDS[kind]], right, &[STOP]].concat()
    };
    let prompt = |triple: u64| vec![4; 1 + (triple % 3) as usize];
    let (mut prompts, mut chosen, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    for (triple, loser) in (0..triples).flat_map(|triple| (0..3).map(move |loser| (triple, loser))) {
        prompts.push(prompt(triple));
        chosen.push(answer(triple, (loser + 1) % 3));
        rejected.push(answer(triple, loser));
    }
    PreferencePairs {
        chosen: Completions::from_rows(&prompts, &chosen, &device()),
        rejected: Completions::from_rows(&prompts, &rejected, &device()),
        margin: Tensor::zeros([prompts.len()], &device()),
    }
}

/// Trains on pairs of ever new triples, and gives the losses.
fn train(steps: u64, pairs: impl Fn(&PreferencePairs) -> PreferencePairs) -> (RewardModel, Vec<f64>) {
    let config = OptimizerConfig { learning_rate: 3e-3.try_into().unwrap(), ..OptimizerConfig::default() };
    let mut learner = Learner::new(model(&train_device()), config, steps).unwrap();
    let losses = (0..steps)
        .map(|step| {
            let batch = pairs(&cycle(16, step, false));
            learner.step(&BradleyTerryObjective::default(), &[batch]).unwrap().get("loss").unwrap()
        })
        .collect();
    (learner.into_model().valid(), losses)
}

/// The share of labels that the oracle agrees with, a tie counting half.
fn accuracy(oracle: &dyn Preference, pairs: &PreferencePairs) -> f64 {
    let found = checked_preferences(oracle, &pairs.chosen, &pairs.rejected, 32).unwrap();
    let right = |p: &f64| {
        if *p > 0.5 {
            1.0
        } else if *p == 0.5 {
            0.5
        } else {
            0.0
        }
    };
    found.iter().map(right).sum::<f64>() / found.len() as f64
}

#[test]
fn a_cycle_that_no_score_can_express_is_learnt() {
    let held_out = cycle(40, 0, true);

    // Of the three labels of a triple a score gets at most two: r(rock) < r(paper) < r(scissors) < r(rock) cannot be. With
    // ties the sum of three signs that are not all alike is at most 1, so accuracy is at most 2/3 on any set of triples. By
    // convexity the mean of −log σ over three differences that add up to 0 is at least log 2, whatever is learnt.
    let (scores, losses) = train(30, Clone::clone);
    let report = evaluate_pairs(&scores, std::slice::from_ref(&held_out)).unwrap();
    assert!(report.accuracy <= 2.0 / 3.0, "{report:?}");
    assert_eq!(accuracy(&BradleyTerry(scores), &held_out), report.accuracy);
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(least > 2f64.ln() - 1e-5, "{least}"); // f32

    // The same model, objective and labels, on joined pairs.
    let (scorer, losses) = train(30, |pairs| form().pairs(pairs));
    let oracle = Pairwise { scorer, form: form() };
    let found = accuracy(&oracle, &held_out);
    assert!(found > 0.95, "{found} on combinations that were not seen; losses {losses:?}");
    assert!(losses[losses.len() - 1] < 0.2 * 2f64.ln(), "{losses:?}");
    check_antisymmetry(&oracle, &held_out.chosen, &held_out.rejected, 1e-6).unwrap(); // two sigmoids in f32
}

#[test]
fn training_minimises_the_negative_log_likelihood_of_the_oracle() {
    let pairs = cycle(4, 0, false);
    let scorer = model(&device());
    let oracle = Pairwise { scorer: scorer.clone(), form: form() };
    let likelihood = oracle.prefer(&pairs.chosen, &pairs.rejected).values();
    let expected: f64 = likelihood.iter().map(|p| -p.ln()).sum();
    let loss = BradleyTerryObjective::default().loss(&scorer, &form().pairs(&pairs));
    assert_close(loss.value.without_autodiff(), expected, 1e-4); // a sum of twelve in f32, one of them through a sigmoid
    assert_eq!(loss.weight, 12.0);
}

#[test]
fn exchanging_the_answers_turns_the_preference_round_to_the_last_bit() {
    let oracle = Pairwise { scorer: model(&device()), form: form() };
    let pairs = cycle(4, 0, false);
    let (forward, backward) = (
        oracle.log_odds(&pairs.chosen, &pairs.rejected).values(),
        oracle.log_odds(&pairs.rejected, &pairs.chosen).values(),
    );
    let spread = forward.iter().fold(0f64, |most, odds| most.max(odds.abs()));
    assert!(spread > 1e-2, "an untrained model has preferences too: {forward:?}");
    assert_eq!(forward, backward.iter().map(|odds| -odds).collect::<Vec<_>>());
    let preferences = |a, b| oracle.prefer(a, b).values();
    let (forward, backward) =
        (preferences(&pairs.chosen, &pairs.rejected), preferences(&pairs.rejected, &pairs.chosen));
    for (forward, backward) in forward.iter().zip(&backward) {
        let off = (forward + backward - 1.0).abs();
        assert!(off <= f64::from(f32::EPSILON), "{forward} + {backward}"); // one ulp of 1
    }
    // An answer is no better than itself, exactly.
    assert_eq!(preferences(&pairs.chosen, &pairs.chosen), [0.5; 12]);
}

#[test]
fn a_preference_is_the_same_alone_in_any_batch_and_behind_any_padding() {
    let oracle = Pairwise { scorer: model(&device()), form: form() };
    let PreferencePairs { chosen, rejected, .. } = cycle(4, 0, false);
    let together = oracle.prefer(&chosen, &rejected).values();
    for (row, &expected) in together.iter().enumerate() {
        // Padding as in the batch, and none: f32, another order of addition.
        let padded = oracle.prefer(&chosen.select(&[row]), &rejected.select(&[row]));
        assert_close(padded, expected, 1e-6);
        let alone = |side: &Completions| {
            let rows = |tokens: &TokenBatch| vec![tokens.rows()[row].clone()];
            Completions::from_rows(&rows(&side.prompt), &rows(&side.response), &device())
        };
        assert_close(oracle.prefer(&alone(&chosen), &alone(&rejected)), expected, 1e-6);
    }
    let order: Vec<usize> = (0..chosen.batch_size()).rev().collect();
    let mut turned = oracle.prefer(&chosen.select(&order), &rejected.select(&order)).values();
    turned.reverse();
    assert_close(turned, together, 1e-6);
}

#[test]
fn certain_scores_give_certain_preferences_and_failures_go_through() {
    struct Failing;
    impl Reward for Failing {
        fn score(&self, joined: &Completions) -> Tensor<1> {
            // The first answer's first token, a thousandfold.
            joined.response.ids.clone().slice([0..joined.batch_size(), 0..1]).float().squeeze_dim::<1>(1)
                * 1e3
        }
        fn take_metrics(&self) -> Vec<(String, f64)> {
            vec![("seen".into(), 1.0)]
        }
        fn take_failure(&self) -> Option<String> {
            Some("gone".into())
        }
    }
    let oracle = Pairwise { scorer: Failing, form: form() };
    let answers = |tokens: &[u32]| {
        let rows: Vec<Vec<u32>> = tokens.iter().map(|&token| vec![token]).collect();
        Completions::from_rows(&vec![vec![9]; tokens.len()], &rows, &device())
    };
    assert_eq!(oracle.prefer(&answers(&[5, 1, 3]), &answers(&[1, 5, 3])).values(), [1.0, 0.0, 0.5]);
    assert_eq!(oracle.take_metrics(), [("seen".to_owned(), 1.0)]);
    assert_eq!(oracle.take_failure().as_deref(), Some("gone"));
}

#[test]
fn labelled_pairs_become_both_orders_with_their_margins() {
    let side = |responses: [&[u32]; 2]| {
        let prompts = [vec![7], vec![7, 8]];
        Completions::from_rows(&prompts, &responses.map(<[u32]>::to_vec), &device())
    };
    let margin = Tensor::from_floats([0.5, 2.0], &device());
    let pairs = PreferencePairs { chosen: side([&[1, 0], &[2]]), rejected: side([&[3], &[]]), margin };
    let joined = form().pairs(&pairs);
    assert_eq!(joined.chosen.response.rows(), [vec![1, 0, 3, 0], vec![2, 0, 0]]);
    assert_eq!(joined.rejected.response.rows(), [vec![3, 0, 1, 0], vec![0, 2, 0]]);
    assert_eq!(joined.chosen.prompt.rows(), [vec![7], vec![7, 8]]);
    assert_eq!(joined.rejected.prompt.rows(), [vec![7], vec![7, 8]]);
    assert_eq!(joined.margin.values(), [0.5, 2.0]);
}

#[test]
#[should_panic(expected = "PairForm: the prompts of row 1 differ: [2] and [3]")]
fn answers_to_different_prompts_are_a_bug() {
    let side = |prompt: u32| Completions::from_rows(&[vec![1], vec![prompt]], &[vec![1], vec![1]], &device());
    form().joined(&side(2), &side(3));
}

#[test]
#[should_panic(expected = "a separator has at least one token")]
fn answers_that_could_not_be_told_apart_are_a_bug() {
    PairForm::new(vec![]);
}

proptest! {
    #[test]
    fn joining_loses_nothing_and_both_orders_are_equally_long(
        prompt in prop::collection::vec(3u32..9, 0..4),
        first in prop::collection::vec(3u32..9, 0..5),
        second in prop::collection::vec(3u32..9, 0..5),
        separator in prop::collection::vec(1u32..3, 1..3),
        ended in any::<[bool; 2]>(),
    ) {
        // Words and separators share no token, so what was joined can be taken apart.
        let form = PairForm::new(separator.clone());
        let end = |answer: &[u32], is_ended: bool| [answer, if is_ended { &separator } else { &[] }].concat();
        let (a, b) = (end(&first, ended[0]), end(&second, ended[1]));
        let (given, both) = form.join(&prompt, &a, &b);
        prop_assert_eq!(&given, &prompt);
        prop_assert_eq!(&both, &[&*first, &*separator, &*second, &*separator].concat());
        prop_assert_eq!(form.length(&prompt, &a, &b), prompt.len() + both.len());
        prop_assert_eq!(form.length(&prompt, &b, &a), prompt.len() + both.len());
    }
}

/// A folder with a model and its manifest.
fn written(model: &RewardModel, form: &PairForm) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    model.save_into(folder.path(), &Default::default()).unwrap();
    PairwiseManifest::new(form).write(folder.path()).unwrap();
    folder
}

#[test]
fn a_folder_gives_back_the_same_preferences() {
    let (scorer, form) = (model(&device()), PairForm::new(vec![9, STOP]));
    let folder = written(&scorer, &form);
    let manifest = PairwiseManifest::read(folder.path()).unwrap().unwrap();
    assert_eq!((manifest.form(), &manifest), (form.clone(), &PairwiseManifest::new(&form)));
    let read = manifest.load(folder.path(), &device()).unwrap();
    let pairs = cycle(4, 0, false);
    let expected = Pairwise { scorer, form }.prefer(&pairs.chosen, &pairs.rejected).values();
    assert_eq!(read.prefer(&pairs.chosen, &pairs.rejected).values(), expected);
    // A reward model without a manifest is no pairwise model.
    std::fs::remove_file(folder.path().join("pairwise.json")).unwrap();
    assert_eq!(PairwiseManifest::read(folder.path()).unwrap(), None);
}

#[test]
fn a_scale_that_would_change_the_preferences_is_refused() {
    // Twice the scores are twice the log-odds: σ(2x) is not σ(x).
    let normalization = Normalization { gain: 2.0, bias: -1.0 };
    let folder = written(&model(&device()).with_normalization(normalization), &form());
    let manifest = PairwiseManifest::read(folder.path()).unwrap().unwrap();
    let error = manifest.load(folder.path(), &device()).unwrap_err();
    assert!(
        matches!(error, PairwiseError::Normalized { normalization: found, .. } if found == normalization)
    );
    let message = error.to_string();
    assert!(message.contains("has normalised scores, gain 2 and bias -1, expected none"), "{message}");

    let pairs = cycle(2, 0, false);
    let log_odds = |scorer: RewardModel| {
        Pairwise { scorer, form: form() }.log_odds(&pairs.chosen, &pairs.rejected).values()
    };
    let (raw, scaled) =
        (log_odds(model(&device())), log_odds(model(&device()).with_normalization(normalization)));
    assert_close(scaled, raw.iter().map(|odds| 2.0 * odds).collect::<Vec<_>>(), 1e-5); // f32
}

#[test]
fn damaged_folders_are_named() {
    let folder = written(&model(&device()), &form());
    let file = folder.path().join("pairwise.json");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        PairwiseManifest::read(folder.path())
    };
    for broken in ["", "[]", r#"{"format": 1}"#, r#"{"format": 1, "separator": [0], "extra": 1}"#] {
        let error = read(broken).unwrap_err();
        assert!(matches!(error, PairwiseError::Manifest { .. }), "{broken}: {error}");
        assert!(
            error
                .to_string()
                .ends_with("pairwise.json is damaged: expected the manifest of a pairwise model")
        );
    }
    let error = read(r#"{"format": 2, "separator": [0]}"#).unwrap_err();
    assert!(error.to_string().ends_with("pairwise.json has form 2, expected 1"), "{error}");
    let error = read(r#"{"format": 1, "separator": []}"#).unwrap_err();
    assert!(
        error.to_string().ends_with("pairwise.json has no separator, expected at least one token"),
        "{error}"
    );
    // The vocabulary has 12 tokens.
    let error = read(r#"{"format": 1, "separator": [0, 12]}"#)
        .unwrap()
        .unwrap()
        .load(folder.path(), &device())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the separator has token 12, expected less than the model's vocabulary of 12"
    );
    // A manifest beside no model, and a folder in its place.
    let empty = tempfile::tempdir().unwrap();
    let error = PairwiseManifest::new(&form()).load(empty.path(), &device()).unwrap_err();
    assert!(matches!(error, PairwiseError::Model { .. }), "{error}");
    std::fs::create_dir(empty.path().join("pairwise.json")).unwrap();
    let error = PairwiseManifest::read(empty.path()).unwrap_err();
    assert!(matches!(error, PairwiseError::Read { .. }), "{error}");
}
