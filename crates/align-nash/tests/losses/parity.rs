//! Against TRL: the same pairs, tables in place of models, TRL's own functions (see `fixtures/make_losses.py`).

use std::collections::BTreeMap;

use align_core::Completions;
use align_nash::{
    KtoBatch, KtoConfig, KtoObjective, Mismatched, NashMdObjective, Pair, PairBatch, PairLoss, PairObjective,
    Rated, ReinforceBatch, cache_anchors, kto_microbatches, mismatched_rows,
};
use align_testkit::{BigramLm, assert_all_close, device, train_device};
use burn::tensor::{DType, Tensor, TensorData};
use serde::Deserialize;

use crate::world::{Step, batches, in_double, largest, step, sums, whole};

/// Both sides in f64: sums of a few dozen terms, each rounded by 1e-16, and some of them cancel.
const DOUBLE: f64 = 1e-13;

/// Through f32: log-probabilities of answers are about a dozen nats, where numbers stand 1e-6 apart, and so far off may be their
/// differences, of which the forward KL takes the exponential.
const SINGLE: f64 = 2e-6;

/// KTO's reference point is made of anchors in f32, each off by up to 5e-7; their mean enters the loss times βλ/4, at most 0.16.
const REFERENCE_POINT: f64 = 2e-7;

#[derive(Deserialize)]
struct Fixture {
    policy: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
    pairs: Vec<Texts>,
    rated: Vec<bool>,
    policy_wins: Vec<bool>,
    one_token: Vec<u32>,
    probabilities: Vec<f64>,
    pair_losses: Vec<Case<PairLoss>>,
    kto: Vec<Case<KtoConfig>>,
    xpo: Vec<Case<PairLoss>>,
    nash_md: Vec<Case<NashMd>>,
}

#[derive(Deserialize)]
struct Texts {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
}

#[derive(Deserialize)]
struct NashMd {
    beta: f64,
}

/// What TRL was asked and what it said.
#[derive(Deserialize)]
struct Case<C> {
    name: String,
    config: C,
    dtype: String,
    loss: f64,
    gradient: Vec<Vec<f64>>,
    metrics: BTreeMap<String, f64>,
    /// KTO: the tables have changed places.
    #[serde(default)]
    swapped: bool,
    /// XPO's α.
    #[serde(default)]
    alpha: f64,
    /// The weight of the chosen answers' cross entropy.
    #[serde(default)]
    sft_weight: f64,
}

impl<C> Case<C> {
    /// Where TRL computed in f32, nothing agrees better than that.
    fn in_single(&self) -> bool {
        self.dtype == "float32"
    }

    fn assert_agrees(&self, found: &Step, tolerance: f64) {
        let tolerance = if self.in_single() { SINGLE } else { tolerance };
        println!("{}: the loss", self.name);
        assert_all_close(found.loss, self.loss, tolerance, 0.0);
        println!("{}: the gradient", self.name);
        let expected = self.gradient.concat();
        // Entries of a gradient are sums that cancel: what counts is their error beside the largest.
        assert_all_close(found.gradient.as_slice(), &expected[..], tolerance, tolerance * largest(&expected));
        for (name, &expected) in &self.metrics {
            println!("{}: {name}", self.name);
            // TRL counts right answers in f32.
            let tolerance = if name == "rewards/accuracies" { tolerance.max(1e-7) } else { tolerance };
            // Differences of log-probabilities of a dozen nats cancel as well.
            assert_all_close(found.metric(metric(name)), expected, tolerance, 12.0 * tolerance);
        }
    }
}

/// Names of ours for TRL's, where they differ.
fn metric(name: &str) -> &str {
    match name {
        "loss/dpo" => "preference",
        "loss/xpo" => "likelihood",
        name => name,
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/losses.json")).expect("the fixture")
}

impl Fixture {
    fn policy(&self) -> BigramLm {
        BigramLm::from_logits(self.policy.clone(), &train_device())
    }

    fn reference(&self) -> BigramLm {
        BigramLm::from_logits(self.reference.clone(), &device())
    }

    /// The tables of a KTO case.
    fn models(&self, swapped: bool) -> (BigramLm, BigramLm) {
        let (policy, reference) =
            if swapped { (&self.reference, &self.policy) } else { (&self.policy, &self.reference) };
        let frozen = BigramLm::from_logits(reference.clone(), &device());
        (BigramLm::from_logits(policy.clone(), &train_device()), frozen)
    }

    fn pairs(&self) -> Vec<Pair> {
        let pair = |texts: &Texts| {
            Pair::labelled(texts.prompt.clone(), texts.chosen.clone(), texts.rejected.clone())
        };
        self.anchored(self.pairs.iter().map(pair).collect())
    }

    /// The policy's answers against the reference's, the winner first; α times log π of the reference's in the loss.
    fn explored(&self, alpha: f64) -> Vec<Pair> {
        let pair = |(texts, policy_wins): (&Texts, &bool)| {
            let (mut responses, mut likelihood) =
                ([texts.chosen.clone(), texts.rejected.clone()], [0.0, alpha as f32]);
            if !policy_wins {
                responses.swap(0, 1);
                likelihood.swap(0, 1);
            }
            let [first, second] = responses;
            Pair { likelihood, ..Pair::labelled(texts.prompt.clone(), first, second) }
        };
        self.anchored(self.pairs.iter().zip(&self.policy_wins).map(pair).collect())
    }

    fn anchored(&self, mut pairs: Vec<Pair>) -> Vec<Pair> {
        cache_anchors(&self.reference(), &mut pairs, 4, &device()).expect("finite log-probabilities");
        pairs
    }

    /// In f64, with the digits that anchors and the one coefficient of likelihoods lost on the host.
    fn in_double(&self, batch: &PairBatch, coefficient: f64) -> PairBatch {
        let anchors = sums(&self.reference().to_double(), &batch.completions);
        let batch = in_double(batch);
        let lost = coefficient / f64::from(coefficient as f32);
        PairBatch { anchors, likelihood: batch.likelihood.map(|rounded| rounded * lost), ..batch }
    }
}

/// A step as it runs in production, in f32 and cut into microbatches; and one in f64 throughout. `coefficient` is what log π is
/// multiplied by where a pair has a coefficient.
fn assert_pairs_agree(fixture: &Fixture, case: &Case<PairLoss>, pairs: &[Pair], coefficient: f64) {
    let objective = PairObjective::new(case.config);
    for size in [1, 4, 6] {
        case.assert_agrees(&with_terms(&objective, &fixture.policy(), &batches(pairs, size)), SINGLE);
    }
    for size in [2, 6] {
        let batches = batches(pairs, size);
        let batches: Vec<_> = batches.iter().map(|batch| fixture.in_double(batch, coefficient)).collect();
        case.assert_agrees(&with_terms(&objective, &fixture.policy().to_double(), &batches), DOUBLE);
    }
}

/// A step whose metrics hold the means of the loss's terms too.
fn with_terms(objective: &PairObjective, model: &BigramLm, batches: &[PairBatch]) -> Step {
    let mut found = step(objective, model, batches);
    let mut terms = BTreeMap::<_, f64>::new();
    for batch in batches {
        for (name, term) in align_train::Objective::loss(objective, model, batch).terms {
            *terms.entry(name).or_default() += term.to_data().iter::<f64>().sum::<f64>();
        }
    }
    let count = batches.iter().map(PairBatch::pairs).sum::<usize>() as f64;
    terms.into_iter().for_each(|(name, sum)| found.metrics.set(name, sum / count));
    found
}

#[test]
fn pair_losses_are_trls() {
    let fixture = fixture();
    for case in &fixture.pair_losses {
        let mut pairs = fixture.pairs();
        // TRL's cross entropy is a mean over all tokens of the batch, our loss a mean over pairs.
        let tokens: usize = fixture.pairs.iter().map(|texts| texts.chosen.len()).sum();
        let coefficient = -case.sft_weight * fixture.pairs.len() as f64 / tokens as f64;
        pairs.iter_mut().for_each(|pair| pair.likelihood = [coefficient as f32, 0.0]);
        assert_pairs_agree(&fixture, case, &pairs, coefficient);
    }
}

#[test]
fn every_kind_of_pair_loss_is_compared() {
    let kinds: Vec<String> = fixture()
        .pair_losses
        .iter()
        .map(|case| {
            serde_json::to_value(case.config).expect("JSON")["kind"].as_str().expect("a kind").to_owned()
        })
        .collect();
    for kind in ["dpo", "robust", "ipo", "hinge", "simpo", "sppo"] {
        assert!(kinds.iter().any(|found| found == kind), "no case of `{kind}` in {kinds:?}");
    }
}

#[test]
fn xpo_is_trls() {
    let fixture = fixture();
    for case in &fixture.xpo {
        assert_pairs_agree(&fixture, case, &fixture.explored(case.alpha), case.alpha);
    }
}

#[test]
fn a_label_of_nought_says_what_the_other_order_says() {
    // XPO once more, the policy's answer always first, as a collector that keeps the order would have it.
    let fixture = fixture();
    for case in &fixture.xpo {
        let mut pairs = fixture.explored(case.alpha);
        for (pair, _) in pairs.iter_mut().zip(&fixture.policy_wins).filter(|(_, wins)| !**wins) {
            pair.responses.swap(0, 1);
            pair.anchors.swap(0, 1);
            pair.win_rates.swap(0, 1);
            pair.likelihood.swap(0, 1);
            pair.preference = 0.0;
        }
        assert_pairs_agree(&fixture, case, &pairs, case.alpha);
    }
}

#[test]
fn nash_md_is_trls_for_answers_of_one_token() {
    let fixture = fixture();
    let rows = |rows: std::ops::Range<usize>, double: bool| {
        let prompts: Vec<_> = fixture.pairs[rows.clone()].iter().map(|texts| texts.prompt.clone()).collect();
        let answers: Vec<_> = fixture.one_token[rows.clone()].iter().map(|&token| vec![token]).collect();
        let completions = Completions::from_rows(&prompts, &answers, &device());
        let reference = if double { fixture.reference().to_double() } else { fixture.reference() };
        let reference = sums(&reference, &completions);
        let preference = TensorData::new(fixture.probabilities[rows.clone()].to_vec(), [rows.len()]);
        let preference = Tensor::from_data(preference, (&device(), reference.dtype()));
        ReinforceBatch { preference, reference, completions }
    };
    for case in &fixture.nash_md {
        let objective = NashMdObjective { beta: case.config.beta };
        let double = [rows(0..4, true), rows(4..6, true)];
        case.assert_agrees(&step(&objective, &fixture.policy().to_double(), &double), DOUBLE);
        let single = [rows(0..4, false), rows(4..6, false)];
        case.assert_agrees(&step(&objective, &fixture.policy(), &single), SINGLE);
    }
}

#[test]
fn kto_is_trls_with_its_reference_point_and_without() {
    let fixture = fixture();
    for case in &fixture.kto {
        let (policy, reference) = fixture.models(case.swapped);
        let mut rows: Vec<Rated> = fixture
            .pairs
            .iter()
            .zip(&fixture.rated)
            .map(|(texts, &desirable)| Rated {
                prompt: texts.prompt.clone(),
                response: if desirable { texts.chosen.clone() } else { texts.rejected.clone() },
                anchor: 0.0,
                desirable,
            })
            .collect();
        let (prompts, responses): (Vec<_>, Vec<_>) =
            rows.iter().map(|row| (row.prompt.clone(), row.response.clone())).unzip();
        let anchors = sums(&reference, &Completions::from_rows(&prompts, &responses, &device()));
        rows.iter_mut().zip(anchors.to_data().iter::<f32>()).for_each(|(row, sum)| row.anchor = sum);
        let rows: Vec<&Rated> = rows.iter().collect();
        for size in [1, 4, 6] {
            let cut = kto_microbatches(&rows, mismatched(&rows, &reference), size, &device());
            let found = step(&KtoObjective::new(case.config), &policy, &cut);
            case.assert_agrees(&found, SINGLE);
            let double: Vec<KtoBatch> = cut
                .into_iter()
                .map(|batch| KtoBatch {
                    anchors: sums(&reference.to_double(), &batch.completions),
                    desirable: batch.desirable.cast(DType::F64),
                    ..batch
                })
                .collect();
            let found = step(&KtoObjective::new(case.config), &policy.to_double(), &double);
            case.assert_agrees(&found, REFERENCE_POINT);
        }
    }
}

/// The step's prompts with each other's answers, four at a time.
fn mismatched(rows: &[&Rated], reference: &BigramLm) -> Mismatched {
    let parts: Vec<Completions> = mismatched_rows(rows)
        .chunks(4)
        .map(|rows| {
            let (prompts, responses): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
            Completions::from_rows(&prompts, &responses, &device())
        })
        .collect();
    let anchors =
        parts.iter().flat_map(|part| sums(reference, part).to_data().iter::<f32>().collect::<Vec<_>>());
    Mismatched { anchors: anchors.collect(), completions: parts }
}

#[test]
fn one_estimate_of_ktos_kl_is_clamped_and_one_is_not() {
    let kl: Vec<f64> = fixture().kto.iter().map(|case| case.metrics["kl"]).collect();
    assert!(kl.contains(&0.0) && kl.iter().any(|kl| *kl > 0.1), "{kl:?}");
}

#[test]
fn conservative_dpo_smoothes_and_robust_dpo_does_not() {
    // The two are easily taken for each other: on the same pairs, TRL's numbers lie on both sides of plain DPO's loss.
    let fixture = fixture();
    let loss = |name: &str| {
        let case = fixture.pair_losses.iter().find(|case| case.name == name).expect("a case of that name");
        step(&PairObjective::new(case.config), &fixture.policy(), &whole(&fixture.pairs())).loss
    };
    assert!(loss("conservative") > loss("sigmoid") && loss("sigmoid") > loss("robust, 0.1"));
}
