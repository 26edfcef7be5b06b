//! What recipes may say, and how they are refused.

use align_core::divergence::{DivergenceConfig, KlEstimator, KlLoss, LossDivergenceConfig};
use align_core::number::{Finite, Fraction, NonNegative, NumberError, Positive, Probability, UnitInterval};
use align_core::regularizer::{AdaptiveTarget, Coefficient, Granularity, RegularizerConfig, Site};
use align_testkit::{all_true, assert_close, double, mask};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    regularizer: RegularizerConfig,
}

fn parse(text: &str) -> Result<RegularizerConfig, toml::de::Error> {
    toml::from_str::<Recipe>(&format!("[regularizer]\n{text}")).map(|recipe| recipe.regularizer)
}

fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn a_regulariser_is_read_with_its_defaults() {
    assert_eq!(parse("site = 'reward'").unwrap(), RegularizerConfig::default());
    let spelt_out = "site = 'reward'\ngranularity = 'token'\n\
        [regularizer.divergence]\nkind = 'kl'\nestimator = 'k1'\n[regularizer.coefficient]\nkind = 'fixed'\nbeta = 0.05";
    assert_eq!(parse(spelt_out).unwrap(), RegularizerConfig::default());
    let other = parse(
        "site = 'loss'\ngranularity = 'sequence'\ndivergence = { kind = 'kl', estimator = 'k3' }\n\
        coefficient = { kind = 'adaptive', beta = 1, target = 6.0, horizon = 10_000 }",
    )
    .unwrap();
    assert_eq!(
        other,
        RegularizerConfig::Loss {
            divergence: LossDivergenceConfig::Kl { estimator: KlLoss::K3 },
            coefficient: Coefficient::Adaptive {
                beta: Positive::literal(1.0),
                target: Positive::literal(6.0),
                horizon: Positive::literal(10_000.0),
            },
            granularity: Granularity::Sequence,
        }
    );
    for config in [RegularizerConfig::default(), other] {
        let text = toml::to_string(&Recipe { regularizer: config.clone() }).unwrap();
        assert_eq!(toml::from_str::<Recipe>(&text).unwrap().regularizer, config, "{text}");
    }
}

#[test]
fn k1_in_the_loss_cannot_be_written_down() {
    let message = refusal("site = 'loss'\ndivergence = { kind = 'kl', estimator = 'k1' }");
    assert!(message.contains("unknown variant `k1`, expected one of `k2`, `k3`, `k3_plus`"), "{message}");
    // The same words in the reward are the default.
    parse("site = 'reward'\ndivergence = { kind = 'kl', estimator = 'k1' }").unwrap();
}

#[test]
fn numbers_out_of_range_are_refused_with_value_and_range() {
    for (text, expected) in [
        ("coefficient = { kind = 'fixed', beta = -0.1 }", "expected a finite number >= 0, found -0.1"),
        ("coefficient = { kind = 'fixed', beta = nan }", "expected a finite number >= 0, found NaN"),
        (
            "coefficient = { kind = 'adaptive', beta = 0.0, target = 1.0, horizon = 1.0 }",
            "expected a finite number > 0, found 0",
        ),
    ] {
        let message = refusal(&format!("site = 'reward'\n{text}"));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn stray_keys_are_refused_even_beside_a_variant_without_fields() {
    for text in [
        "site = 'reward'\nbeta = 0.1",
        "site = 'reward'\ndivergence = { kind = 'none', estimator = 'k1' }",
        "site = 'reward'\ndivergence = { kind = 'chi_squared', beta = 1.0 }",
        "site = 'loss'\ndivergence = { kind = 'kl', estimater = 'k2' }",
    ] {
        let message = refusal(text);
        assert!(message.contains("unknown field"), "{text}: {message}");
    }
    assert!(refusal("site = 'rewards'").contains("unknown variant `rewards`, expected `reward` or `loss`"));
}

#[test]
fn the_divergences_of_occupancy_regularisation_are_read() {
    let family = "kind = 'alpha', alpha = 0.5";
    for divergence in ["kind = 'sqrt_chi_squared'", "kind = 'derivative', of = { kind = 'chi_squared' }"] {
        let config =
            parse(&format!("site = 'reward'\ngranularity = 'sequence'\ndivergence = {{ {divergence} }}"));
        assert_eq!(config.unwrap().build().check(), Ok(()));
    }
    for divergence in [
        family,
        "kind = 'reverse_kl'",
        "kind = 'jensen_shannon'",
        "kind = 'squared_hellinger'",
        "kind = 'chi_squared', estimator = 'released'",
        "kind = 'exact', of = { kind = 'alpha', alpha = 2.0 }, columns = 8",
    ] {
        let config = parse(&format!("site = 'loss'\ndivergence = {{ {divergence} }}")).unwrap();
        assert_eq!(config.build().check(), Ok(()), "{divergence}");
        let text = toml::to_string(&Recipe { regularizer: config.clone() }).unwrap();
        assert_eq!(toml::from_str::<Recipe>(&text).unwrap().regularizer, config, "{text}");
    }
    let default = parse("site = 'loss'\ndivergence = { kind = 'exact', of = { kind = 'kl' } }").unwrap();
    assert!(matches!(default.build().site, Site::Exact { columns, .. } if columns.get() == 64));
    for (text, expected) in [
        (
            "site = 'reward'\ndivergence = { kind = 'alpha', alpha = nan }",
            "expected a finite number, found NaN",
        ),
        ("site = 'reward'\ndivergence = { kind = 'alpha' }", "missing field `alpha`"),
        (
            "site = 'loss'\ndivergence = { kind = 'exact', of = { kind = 'kl' }, columns = 0 }",
            "invalid value: integer `0`, expected a nonzero",
        ),
        // The estimator means nothing where nothing is estimated.
        (
            "site = 'loss'\ndivergence = { kind = 'exact', of = { kind = 'kl', estimator = 'k2' } }",
            "unknown field `estimator`",
        ),
        (
            "site = 'loss'\ndivergence = { kind = 'sqrt_chi_squared', estimator = 'k2' }",
            "unknown variant `k2`, expected `exact` or `released`",
        ),
    ] {
        let message = refusal(text);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_divergence_is_refused_at_a_granularity_at_which_it_means_nothing() {
    let message = |text: &str| parse(text).unwrap().build().check().unwrap_err().to_string();
    assert_eq!(
        message("site = 'reward'\ndivergence = { kind = 'sqrt_chi_squared' }"),
        "`granularity` is token, expected sequence: SqrtChiSquared { chi_squared: None } is measured on whole responses"
    );
    assert!(
        message("site = 'reward'\ndivergence = { kind = 'derivative', of = { kind = 'reverse_kl' } }")
            .contains("expected sequence: Derivative(ReverseKl)")
    );
    assert!(
        message("site = 'loss'\ndivergence = { kind = 'sqrt_chi_squared' }").contains("expected sequence")
    );
    let exact =
        "site = 'loss'\ngranularity = 'sequence'\ndivergence = { kind = 'exact', of = { kind = 'kl' } }";
    assert!(message(exact).starts_with("`granularity` is sequence, expected token: Kl"));
}

#[test]
fn beta_in_deviations_of_the_reward_is_measured_once() {
    let read = |text: &str| {
        parse(&format!("site = 'reward'\ncoefficient = {{ {text} }}")).unwrap().coefficient().clone()
    };
    let mut coefficient = read("kind = 'reward_std', beta = 0.5");
    // Not known yet: counts as 1.
    assert_eq!(coefficient.beta(), 0.5);
    assert_eq!(coefficient.measure(4.0), Ok(()));
    assert_eq!(coefficient.beta(), 2.0);
    assert_eq!(coefficient.measure(8.0), Ok(()));
    assert_eq!(coefficient.beta(), 2.0);
    assert_eq!(coefficient, read("kind = 'reward_std', beta = 0.5, deviation = 4.0"));
    let mut fixed = Coefficient::default();
    assert_eq!((fixed.measure(0.0), fixed.beta()), (Ok(()), 0.05));
    for nothing in [0.0, 1e-12, f64::NAN, f64::INFINITY, -1.0] {
        let mut coefficient = read("kind = 'reward_std', beta = 0.5");
        let message = coefficient.measure(nothing).unwrap_err().to_string();
        assert!(
            message.contains(&format!("standard deviation {nothing}, expected more than 1e-12")),
            "{message}"
        );
        assert_eq!(coefficient, read("kind = 'reward_std', beta = 0.5"));
    }
    let message =
        refusal("site = 'reward'\ncoefficient = { kind = 'reward_std', beta = 0.5, deviation = 0.0 }");
    assert!(message.contains("expected a finite number > 0, found 0"), "{message}");
}

#[test]
fn every_named_divergence_is_another_one() {
    let log_ratio = || double::<2>([[1.5]]);
    let reward: Vec<f64> =
        ["none", "kl", "reverse_kl", "chi_squared", "jensen_shannon", "total_variation", "squared_hellinger"]
            .iter()
            .map(|kind| {
                let config: DivergenceConfig = toml::from_str(&format!("kind = '{kind}'")).unwrap();
                config.build().estimate(log_ratio()).into_scalar()
            })
            .chain([KlEstimator::K2, KlEstimator::K3].map(|estimator| {
                DivergenceConfig::Kl { estimator }.build().estimate(log_ratio()).into_scalar()
            }))
            .collect();
    for (index, value) in reward.iter().enumerate() {
        assert!(reward[..index].iter().all(|other| (other - value).abs() > 1e-3), "{reward:?}");
    }
}

#[test]
fn the_site_decides_where_the_regulariser_acts() {
    let (log_ratio, counts) = (double::<2>([[1.0, 2.0]]), all_true(1, 2));
    let build = |site: &str| parse(&format!("site = '{site}'")).unwrap().build();
    let (reward, loss) = (build("reward"), build("loss"));
    assert!(matches!((&reward.site, &loss.site), (Site::Reward(_), Site::Loss(_))));
    assert_close(reward.penalty(log_ratio.clone(), &counts), [0.05, 0.10], 1e-15);
    assert_close(reward.loss(log_ratio.clone(), &counts), 0.0, 0.0);
    assert_close(loss.penalty(log_ratio.clone(), &counts), [0.0, 0.0], 0.0);
    // 0.05 · (½ + 2) / 2.
    assert_close(loss.loss(log_ratio, &counts), 0.0625, 1e-15);
}

#[test]
fn a_sequence_penalty_stands_at_the_last_token_that_counts() {
    let config = parse(
        "site = 'reward'\ngranularity = 'sequence'\ndivergence = { kind = 'chi_squared' }\n\
        coefficient = { kind = 'fixed', beta = 2.0 }",
    )
    .unwrap();
    let counts = mask([[true, true, false], [true, true, true], [false, false, false]]);
    let log_ratio = double([[0.5, 0.25, 9.0], [0.1, -0.3, 0.2], [1.0, 1.0, f64::NEG_INFINITY]]);
    let found = config.build().penalty(log_ratio, &counts);
    let chi = 2.0 * (0.75f64.exp() - 1.0);
    // The second row's log-ratios cancel.
    assert_close(found, [0.0, chi, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1e-15);
}

fn adaptive(target: f64) -> Coefficient {
    Coefficient::Adaptive {
        beta: Positive::literal(0.2),
        target: Positive::try_from(target).unwrap(),
        horizon: Positive::literal(1000.0),
    }
}

#[test]
fn an_adaptive_coefficient_moves_by_the_clipped_relative_error() {
    // KL 5.5 against 5: error 0.1; 100 of 1000 responses: β grows by 1 %.
    let mut beta = adaptive(5.0);
    beta.update(5.5, 100);
    assert_close(beta.beta(), 0.2 * 1.01, 1e-15);
    // Far above and far below: clipped to ±0.2, so ±2 %.
    beta = adaptive(5.0);
    beta.update(500.0, 100);
    assert_close(beta.beta(), 0.2 * 1.02, 1e-15);
    beta.update(-3.0, 100);
    assert_close(beta.beta(), 0.2 * 1.02 * 0.98, 1e-15);
    // On target it stays, and a fixed one always does.
    beta = adaptive(5.0);
    beta.update(5.0, 100);
    assert_eq!(beta, adaptive(5.0));
    let mut fixed = Coefficient::default();
    fixed.update(500.0, 100);
    assert_eq!(fixed, Coefficient::default());
}

#[test]
fn the_state_of_an_adaptive_coefficient_is_what_is_saved() {
    let mut beta = adaptive(5.0);
    beta.update(5.37, 33);
    let mut restored: Coefficient = toml::from_str(&toml::to_string(&beta).unwrap()).unwrap();
    assert_eq!(restored, beta);
    restored.update(4.2, 10);
    beta.update(4.2, 10);
    assert_eq!(restored.beta().to_bits(), beta.beta().to_bits());
}

#[test]
fn an_adaptive_target_below_the_start_is_refused() {
    // T6: the soup is 5.46 nats from the first policy before any update.
    let error = adaptive(5.0).check_start(5.46).unwrap_err();
    assert_eq!(error, AdaptiveTarget { target: 5.0, initial: 5.46 });
    assert_eq!(
        error.to_string(),
        "expected an adaptive target above 5.46 nats per response, the divergence before the first update, found 5"
    );
    assert!(adaptive(5.0).check_start(5.0).is_err());
    assert!(adaptive(6.0).check_start(5.46).is_ok());
    assert!(Coefficient::default().check_start(5.46).is_ok());
}

#[test]
#[should_panic(expected = "expected a finite divergence, found NaN")]
fn a_divergence_that_is_no_number_does_not_reach_beta() {
    adaptive(5.0).update(f64::NAN, 1);
}

#[test]
fn errors_carry_the_value_and_the_range() {
    let error = Probability::try_from(1.5).unwrap_err();
    assert_eq!((error.value, error.range), (1.5, Probability::RANGE));
    assert_eq!(error.to_string(), "expected a probability in [0, 1], found 1.5");
    assert_eq!(Fraction::try_from(0.0).unwrap_err().to_string(), "expected a number in (0, 1], found 0");
    assert_eq!(
        Finite::try_from(f64::INFINITY).unwrap_err().to_string(),
        "expected a finite number, found inf"
    );
    assert_eq!(UnitInterval::literal(0.95).to_string(), "0.95");
    assert_eq!(*NonNegative::literal(0.0) + 1.0, 1.0);
}

proptest! {
    #[test]
    fn a_number_is_accepted_exactly_in_its_range(value in prop_oneof![any::<f64>(), -2.0..2.0f64, Just(0.0), Just(1.0)]) {
        fn accepts<T: TryFrom<f64, Error = NumberError> + Into<f64>>(value: f64, expected: bool) -> Result<(), TestCaseError> {
            match T::try_from(value) {
                Ok(number) => {
                    prop_assert!(expected, "{value} was accepted");
                    prop_assert_eq!(number.into().to_bits(), value.to_bits());
                }
                Err(error) => prop_assert!(!expected, "{error}"),
            }
            Ok(())
        }
        accepts::<Positive>(value, value.is_finite() && value > 0.0)?;
        accepts::<NonNegative>(value, value.is_finite() && value >= 0.0)?;
        accepts::<Finite>(value, value.is_finite())?;
        accepts::<UnitInterval>(value, (0.0..=1.0).contains(&value))?;
        accepts::<Probability>(value, (0.0..=1.0).contains(&value))?;
        accepts::<Fraction>(value, value > 0.0 && value <= 1.0)?;
    }
}
