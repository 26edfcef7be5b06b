//! Importance distributions, their divergences and their gradients, knowledge from experts and from pools.

use align_core::number::{Fraction, NonNegative, Positive};
use align_factors::{
    ConsensusConfig, Design, Divergence, Factors, FactorsError, ImportanceDistribution, Knowledge, Matrix,
    Normalization, PoolMember, PoolWeights, Pooling, REPORT_FLOOR, Train, consensus,
    generalized_jensen_shannon, geometric, pooled,
};
use align_testkit::assert_all_close;
use proptest::collection::vec;
use proptest::prelude::*;

/// The values to compare with have eight to ten digits.
const DIGITS: f64 = 1e-8;

const ALL: [Divergence; 3] = [Divergence::Forward, Divergence::Reverse, Divergence::JensenShannon];

fn distribution(masses: &[f64]) -> ImportanceDistribution {
    ImportanceDistribution::new(masses.to_vec()).unwrap()
}

fn of(importances: &[f64], normalization: Normalization) -> ImportanceDistribution {
    ImportanceDistribution::of(importances, normalization).unwrap()
}

fn softmax(tau: f64) -> Normalization {
    Normalization::Softmax { tau: Positive::try_from(tau).unwrap() }
}

fn close(found: &[f64], expected: &[f64]) {
    assert_all_close(found.to_vec(), expected.to_vec(), 0.0, DIGITS);
}

#[test]
fn divergences_of_three_factors_by_the_ratio() {
    let importances = [2.0, 1.0, 3.0];
    let q = distribution(&[0.5, 0.3, 0.2]);
    let p = of(&importances, Normalization::Ratio);
    close(&p, &[0.333_333_333_3, 0.166_666_666_7, 0.5]);
    let values = ALL.map(|divergence| divergence.value(&q, &p));
    close(&values, &[0.195_810_407_1, 0.225_025_885_8, 0.051_254_765_7]);
    let gradient =
        |divergence: Divergence| divergence.gradient(&q, &importances, Normalization::Ratio).unwrap();
    close(&gradient(Divergence::Forward), &[-0.083_333_333_3, -0.133_333_333_3, 0.1]);
    close(&gradient(Divergence::Reverse), &[-0.105_081_83, -0.135_468_76, 0.115_210_81]);
}

#[test]
fn divergences_of_three_factors_by_the_softmax() {
    let q = distribution(&[0.5, 0.3, 0.2]);
    for (tau, p, value, gradient) in [
        (
            1.0,
            [0.244_728_47, 0.090_030_57, 0.665_240_96],
            0.477_952_950_4,
            [-0.255_271_53, -0.209_969_43, 0.465_240_96],
        ),
        (
            0.5,
            [0.117_310_43, 0.015_876_24, 0.866_813_33],
            1.313_278_614_4,
            [-0.765_379_14, -0.568_247_52, 1.333_626_66],
        ),
    ] {
        let found = of(&[2.0, 1.0, 3.0], softmax(tau));
        close(&found, &p);
        close(&[Divergence::Forward.value(&q, &found)], &[value]);
        close(&Divergence::Forward.gradient(&q, &[2.0, 1.0, 3.0], softmax(tau)).unwrap(), &gradient);
    }
}

#[test]
fn a_factor_without_mass_is_infinitely_far_and_finite_in_reports() {
    let (q, p) = (distribution(&[0.5, 0.3, 0.2]), distribution(&[0.6, 0.4, 0.0]));
    assert_eq!(Divergence::Forward.value(&q, &p), f64::INFINITY);
    close(&[Divergence::Forward.reported(&q, &p)], &[3.184_783_18]);
    assert!(Divergence::Reverse.value(&q, &p).is_finite());
    assert_eq!(p.floored(REPORT_FLOOR)[2], 1e-8 / (1.0 + 1e-8));
    // The gradient says so too: nothing is more wanted than this factor.
    let gradient = Divergence::Forward.gradient(&q, &[0.6, 0.4, 0.0], Normalization::Ratio).unwrap();
    assert_eq!(gradient[2], f64::NEG_INFINITY);
    // By the softmax, mass that underflows has a finite gradient: (p − q) / τ.
    let far = Divergence::Forward.gradient(&q, &[2000.0, 1.0, 0.0], softmax(1.0)).unwrap();
    close(&far, &[0.5, -0.3, -0.2]);
}

#[test]
fn smoothing_gives_every_factor_its_part_of_the_whole() {
    let smoothed = distribution(&[0.6, 0.4, 0.0, 0.0]).smoothed(1e-3);
    // (1 − e) q + e/d, with e/d = 0.00025.
    close(&smoothed, &[0.599_65, 0.399_85, 0.000_25, 0.000_25]);
}

#[test]
fn three_models_pooled() {
    let models = [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.6, 0.1, 0.3]].map(|masses| distribution(&masses));
    let thirds = [1.0 / 3.0; 3];
    let arithmetic = pooled(&models, &thirds, Pooling::Arithmetic).unwrap();
    close(&arithmetic, &[0.5, 0.266_666_666_7, 0.233_333_333_3]);
    let geometric = pooled(&models, &thirds, Pooling::Geometric).unwrap();
    close(&geometric, &[0.518_586_73, 0.240_706_64, 0.240_706_64]);
    close(&pooled(&models, &[0.5, 0.3, 0.2], Pooling::Arithmetic).unwrap(), &[0.49, 0.29, 0.22]);
    close(&[generalized_jensen_shannon(&models, &thirds).unwrap()], &[0.044_435_866_2]);
}

#[test]
fn masses_that_fall_by_a_ratio() {
    let expected = [0.360_607_262_6, 0.252_425_083_8, 0.176_697_558_7, 0.123_688_291_1, 0.086_581_803_8];
    close(&geometric(Fraction::literal(0.7), 5).unwrap(), &expected);
    // By name, in whatever order the factors stand.
    let ranking = ["c", "a", "e", "b", "d"].map(str::to_owned).to_vec();
    let knowledge = Knowledge::Geometric { ratio: Fraction::literal(0.7), ranking };
    let factors = Factors::columns(["a", "b", "c", "d", "e"]).unwrap();
    let [first, second, third, fourth, fifth] = expected;
    close(&knowledge.distribution(&factors).unwrap(), &[second, fourth, first, fifth, third]);
    let uniform = geometric(Fraction::literal(1.0), 4).unwrap();
    assert_eq!(uniform, ImportanceDistribution::uniform(4).unwrap());
}

#[test]
fn groups_share_their_mass_and_the_rest_what_is_left() {
    let knowledge: Knowledge = toml::from_str(
        r#"
        kind = "groups"
        groups = [{ mass = 0.7, factors = ["d", "a"] }, { mass = 0.25, factors = ["b"] }]
        "#,
    )
    .unwrap();
    let q = knowledge.distribution(&Factors::columns(["a", "b", "c", "d", "e"]).unwrap()).unwrap();
    close(&q, &[0.35, 0.25, 0.025, 0.35, 0.025]);
    // Everything given away: others have nothing.
    let all: Knowledge = toml::from_str(
        r#"kind = "groups"
        groups = [{ mass = 1.0, factors = ["a"] }]"#,
    )
    .unwrap();
    close(&all.distribution(&Factors::columns(["a", "b"]).unwrap()).unwrap(), &[1.0, 0.0]);
    let masses: Knowledge = toml::from_str(
        r#"kind = "masses"
        masses = { b = 0.25, a = 0.75 }"#,
    )
    .unwrap();
    close(&masses.distribution(&Factors::columns(["a", "b", "c"]).unwrap()).unwrap(), &[0.75, 0.25, 0.0]);
}

/// A pool over two factors, by first mass and validation loss.
fn pool(members: &[(f64, f64)]) -> Vec<PoolMember> {
    let factors = Factors::columns(["a", "b"]).unwrap();
    let probe = Design::<Train>::new(Matrix::new(vec![0.0, 1.0], 2), factors, vec![1.0]);
    let member = |(index, &(mass, loss)): (usize, &(f64, f64))| {
        let importances = |_: &Matrix, _: &Factors| Ok(vec![mass, 1.0 - mass]);
        PoolMember::new(format!("model {index}"), &probe, Normalization::Ratio, loss, importances).unwrap()
    };
    members.iter().enumerate().map(member).collect()
}

#[test]
fn only_models_near_the_best_have_a_say() {
    let models = pool(&[(0.8, 1.00), (0.6, 1.04), (0.1, 1.06), (0.1, f64::NAN)]);
    let found = consensus(&models, &ConsensusConfig::default()).unwrap();
    close(&found.knowledge, &[0.7, 0.3]);
    assert_eq!(found.members, [("model 0".to_owned(), 0.5), ("model 1".to_owned(), 0.5)]);
    assert_eq!(found.excluded, ["model 2", "model 3"]);

    // A tenth as the tolerance lets in the third: the mean of 0.8, 0.6 and 0.1.
    let wide = ConsensusConfig { tolerance: NonNegative::literal(0.1), ..Default::default() };
    close(&consensus(&models, &wide).unwrap().knowledge, &[0.5, 0.5]);

    // Weighted by exp(−loss): e^0.04 : 1.
    let weighted = ConsensusConfig { weights: PoolWeights::Loss, ..Default::default() };
    let found = consensus(&models, &weighted).unwrap();
    let share = 1.0 / (1.0 + (-0.04_f64).exp());
    close(&[found.members[0].1], &[share]);
    close(&found.knowledge, &[0.6 + 0.2 * share, 0.4 - 0.2 * share]);

    // Losses may be negative: −2 is the best, and −1.9 within a twentieth of it.
    let found =
        consensus(&pool(&[(0.8, -2.0), (0.6, -1.9), (0.2, -1.8)]), &ConsensusConfig::default()).unwrap();
    assert_eq!(found.members.len(), 2);
}

#[test]
fn a_geometric_consensus_needs_everybody() {
    let config = ConsensusConfig { pooling: Pooling::Geometric, ..Default::default() };
    let found = consensus(&pool(&[(1.0, 1.0), (0.5, 1.0)]), &config).unwrap();
    close(&found.knowledge, &[1.0, 0.0]);
    let disjoint = consensus(&pool(&[(1.0, 1.0), (0.0, 1.0)]), &config);
    assert_eq!(disjoint, Err(FactorsError::InvalidDistribution { sum: 0.0 }));
}

#[test]
fn distributions_survive_serde_and_are_checked_on_the_way_in() {
    let p = distribution(&[0.5, 0.25, 0.25]);
    let text = serde_json::to_string(&p).unwrap();
    assert_eq!(serde_json::from_str::<ImportanceDistribution>(&text).unwrap(), p);
    for normalization in [Normalization::Ratio, softmax(0.5)] {
        let text = toml::to_string(&normalization).unwrap();
        assert_eq!(toml::from_str::<Normalization>(&text).unwrap(), normalization);
    }
    assert!(toml::from_str::<Normalization>("kind = \"ratio\"\ntau = 1.0").is_err());
    let error = serde_json::from_str::<ImportanceDistribution>("[0.5, 0.4]").unwrap_err();
    assert!(error.to_string().contains("InvalidDistribution"), "{error}");
}

/// Importances from well above rounding up.
fn importances(factors: usize) -> impl Strategy<Value = Vec<f64>> {
    vec(0.05..5.0f64, factors)
}

fn normalizations() -> impl Strategy<Value = Normalization> {
    prop_oneof![Just(Normalization::Ratio), (0.3..3.0f64).prop_map(softmax)]
}

proptest! {
    #[test]
    fn divergences_are_at_least_0_and_0_at_equality(a in importances(6), b in importances(6)) {
        let (q, p) = (of(&a, Normalization::Ratio), of(&b, Normalization::Ratio));
        for divergence in ALL {
            prop_assert!(divergence.value(&q, &p) >= 0.0);
            // Of equals, but for rounding in ln(q/p) of numbers that are the same: none.
            prop_assert_eq!(divergence.value(&q, &q), 0.0);
        }
        let there = Divergence::JensenShannon.value(&q, &p);
        let back = Divergence::JensenShannon.value(&p, &q);
        prop_assert!(there <= 2.0_f64.ln());
        prop_assert!((there - back).abs() < 1e-14); // the same terms, added in another order
        // Pinsker: KL ≥ ½ ‖q − p‖₁².
        let distance: f64 = q.iter().zip(p.iter()).map(|(q, p)| (q - p).abs()).sum();
        prop_assert!(Divergence::Forward.value(&q, &p) >= 0.5 * distance * distance - 1e-14);
    }

    #[test]
    fn gradients_are_those_of_finite_differences(
        knowledge in importances(5),
        at in importances(5),
        normalization in normalizations(),
    ) {
        let q = of(&knowledge, Normalization::Ratio);
        for divergence in ALL {
            let gradient = divergence.gradient(&q, &at, normalization).unwrap();
            for (factor, slope) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut moved = at.clone();
                    moved[factor] += by;
                    divergence.value(&q, &of(&moved, normalization))
                };
                let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                // Truncation is at most h² f‴/6 < 1e-8 for importances above 0.05; rounding is 1e-16/1e-6.
                let tolerance = 1e-7 * (1.0 + slope.abs());
                prop_assert!((slope - numeric).abs() < tolerance, "{divergence:?} {slope} {numeric}");
            }
        }
    }

    #[test]
    fn permuting_factors_permutes_distributions_and_gradients(
        at in importances(6),
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
        knowledge in importances(6),
        normalization in normalizations(),
    ) {
        let permuted = |list: &[f64]| order.iter().map(|&factor| list[factor]).collect::<Vec<f64>>();
        let q = of(&knowledge, Normalization::Ratio);
        let shuffled = of(&permuted(&knowledge), Normalization::Ratio);
        // Sums are taken in another order, hence not to the last bit.
        let near = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-13 * (1.0 + a.abs()))
        };
        prop_assert!(near(&permuted(&of(&at, normalization)), &of(&permuted(&at), normalization)));
        for divergence in ALL {
            let gradient = divergence.gradient(&q, &at, normalization).unwrap();
            let other = divergence.gradient(&shuffled, &permuted(&at), normalization).unwrap();
            prop_assert!(near(&permuted(&gradient), &other));
        }
    }

    #[test]
    fn the_ratio_does_not_see_the_scale_of_scores(
        at in importances(5),
        knowledge in importances(5),
        scale in 0.1..50.0f64,
    ) {
        let q = of(&knowledge, Normalization::Ratio);
        let scaled: Vec<f64> = at.iter().map(|importance| scale * importance).collect();
        for divergence in ALL {
            let value = |importances: &[f64]| divergence.value(&q, &of(importances, Normalization::Ratio));
            prop_assert!((value(&at) - value(&scaled)).abs() < 1e-13);
            // Hence the gradient has no part along the importances (Euler).
            let gradient = divergence.gradient(&q, &at, Normalization::Ratio).unwrap();
            let along: f64 = gradient.iter().zip(&at).map(|(slope, importance)| slope * importance).sum();
            prop_assert!(along.abs() < 1e-12, "{along}");
        }
    }

    #[test]
    fn several_models_diverge_by_less_than_the_entropy_of_their_weights(
        models in vec(importances(4), 3),
        weights in importances(3),
    ) {
        let models: Vec<_> = models.iter().map(|model| of(model, Normalization::Ratio)).collect();
        let weights = of(&weights, Normalization::Ratio);
        let value = generalized_jensen_shannon(&models, &weights).unwrap();
        let entropy: f64 = weights.iter().map(|weight| -weight * weight.ln()).sum();
        prop_assert!((0.0..=entropy + 1e-14).contains(&value));
        let alike = vec![models[0].clone(); 3];
        // The mean of equals is the same up to a rounding of each mass.
        prop_assert!(generalized_jensen_shannon(&alike, &weights).unwrap() < 1e-14);
        // Two with equal weights: the Jensen–Shannon divergence.
        let two = generalized_jensen_shannon(&models[..2], &[0.5, 0.5]).unwrap();
        prop_assert!((two - Divergence::JensenShannon.value(&models[0], &models[1])).abs() < 1e-14);
    }
}
