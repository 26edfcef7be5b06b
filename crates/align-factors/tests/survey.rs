//! The generated survey: its truth in closed form, its statistics, and the way to a file and back.

use align_core::number::{Finite, NonNegative, UnitInterval};
use align_factors::{
    Encoder, EncoderConfig, Matrix, Rows, Scorer, Survey, SurveyConfig, Test, Train, Validation, read_csv,
    share_above, top_k,
};
use align_testkit::assert_all_close;

/// n = 40 000: enough for five standard errors to be under 0.04, in a second.
const PEOPLE: usize = 40_000;

fn survey() -> Survey {
    Survey::new(SurveyConfig::default()).unwrap()
}

fn mean(list: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = list.len() as f64;
    list.sum::<f64>() / count
}

#[test]
fn the_true_distribution_has_its_closed_form() {
    let expected = [
        0.284_991, 0.213_817, 0.166_374, 0.118_920, 0.071_471, 0.059_608, 0.047_746, 0.035_884, 0.000_297,
        0.000_297, 0.000_297, 0.000_297,
    ];
    // Six digits are given.
    assert_all_close(survey().true_distribution().to_vec(), expected.to_vec(), 0.0, 5e-7);
    assert_eq!(share_above(&survey().true_importances(), &[0, 1, 2, 3]), 1.0);
    assert_eq!(survey().primaries(), 0..4);
    assert_eq!(top_k(&survey().true_distribution(), 4), [0, 1, 2, 3]);
}

#[test]
fn true_importances_are_the_mean_absolute_attributions_of_the_latent() {
    let survey = survey();
    let answers = survey.draw::<Train>(PEOPLE, 3);
    let beta = [1.2, -0.9, 0.7, 0.5, 0.3, -0.25, 0.2, 0.15];
    let attribution = |row: &[f64], j: usize| match j {
        0 | 2 => (beta[j] + 0.2 * row[2 - j]) * row[j],
        _ => beta.get(j).unwrap_or(&0.0) * row[j],
    };
    for (j, expected) in survey.true_importances().into_iter().enumerate() {
        let found = mean(answers.rows.rows().map(|row| attribution(row, j).abs()));
        // The standard error of E|φ| is below 0.6·1.25/200; five of them.
        assert!((found - expected).abs() < 5.0 * 0.6 * 1.25 / 200.0, "{j}: {found} vs {expected}");
    }
    // Attributions add up to the score, whose value at the mean row is 0.
    let scores = survey.scores(&answers.rows.select(&[0, 1]));
    for (row, score) in [0, 1].into_iter().zip(scores) {
        let sum: f64 = (0..12).map(|j| attribution(answers.rows.row(row), j)).sum();
        assert!((sum - score).abs() < 1e-12);
    }
}

#[test]
fn factors_are_standard_normal_and_correlate_as_asked() {
    let rows = survey().draw::<Train>(PEOPLE, 5).rows;
    let product = |i: usize, j: usize| mean(rows.rows().map(|row| row[i] * row[j]));
    for i in 0..12 {
        // Standard errors: 1/200 of a mean, √2/200 of a variance.
        assert!(mean(rows.column(i)).abs() < 5.0 / 200.0);
        for j in 0..=i {
            let expected = if i == j {
                1.0
            } else if i == j + 8 {
                0.5
            } else {
                0.0
            };
            assert!(
                (product(i, j) - expected).abs() < 5.0 * 2.0_f64.sqrt() / 200.0,
                "{i}, {j}: {}",
                product(i, j)
            );
        }
    }
}

#[test]
fn happiness_is_the_latent_number_cut_into_classes() {
    // Without noise the class follows from the row: thresholds are in units of the latent standard deviation.
    let config = SurveyConfig { noise: NonNegative::literal(0.0), ..SurveyConfig::default() };
    let survey = Survey::new(config).unwrap();
    // β'Σβ + 0.16 = 1.44 + 0.81 + 0.49 + 0.25 + 0.09 + 0.0625 + 0.04 + 0.0225 + 0.16.
    assert!((survey.latent_deviation() - 3.365_f64.sqrt()).abs() < 1e-12);
    let answers = survey.draw::<Train>(500, 1);
    for (score, label) in survey.scores(&answers.rows).into_iter().zip(&answers.labels) {
        let standard = score / survey.latent_deviation();
        let expected = 1.0 + [-1.2, -0.4, 0.4, 1.2].iter().filter(|cut| **cut < standard).count() as f64;
        assert_eq!(*label, expected);
    }
    survey.grid().check(&answers.labels).unwrap();
}

#[test]
fn the_latent_number_has_its_standard_deviation() {
    // With one threshold at 0.5244 (the 70th percentile of a normal) 30 % are happy; the product's tails move that by under 1 %.
    let config = SurveyConfig { thresholds: vec![Finite::literal(0.5244)], ..SurveyConfig::default() };
    let survey = Survey::new(config).unwrap();
    let answers = survey.draw::<Train>(PEOPLE, 9);
    let happy = mean(answers.labels.iter().map(|label| label - 1.0));
    assert!((happy - 0.3).abs() < 0.01 + 5.0 * 0.46 / 200.0, "{happy}");
    // sd² = 3.205 + 0.16 + 1; the scores lack the noise's 1. Standard error of the variance about √2·3.4/200.
    assert!((survey.latent_deviation().powi(2) - 4.365).abs() < 1e-12);
    let variance = mean(survey.scores(&answers.rows).into_iter().map(|score| score * score));
    assert!((variance - 3.365).abs() < 5.0 * 2.0_f64.sqrt() * 3.4 / 200.0, "{variance}");
}

#[test]
fn draws_depend_on_the_seed_the_part_and_the_person_alone() {
    let survey = survey();
    let answers = survey.draw::<Train>(50, 7);
    assert_eq!(answers, survey.draw::<Train>(50, 7));
    assert_eq!(survey.draw::<Train>(80, 7).select(&(0..50).collect::<Vec<_>>()), answers);
    assert_ne!(survey.draw::<Train>(50, 8).rows, answers.rows);
    let (validation, test) = (survey.draw::<Validation>(50, 7).rows, survey.draw::<Test>(50, 7).rows);
    assert_ne!(validation, answers.rows);
    assert_ne!(test, answers.rows);
    assert_ne!(test, validation);
}

#[test]
fn every_setting_changes_the_answers() {
    let answers = |change: fn(&mut SurveyConfig)| {
        let mut config = SurveyConfig::default();
        change(&mut config);
        Survey::new(config).unwrap().draw::<Train>(200, 1)
    };
    let plain = answers(|_| {});
    assert_ne!(answers(|config| config.primary[0] = Finite::literal(-1.2)).labels, plain.labels);
    assert_ne!(answers(|config| config.secondary[0] = Finite::literal(-0.9)).labels, plain.labels);
    assert_ne!(answers(|config| config.correlation = UnitInterval::literal(0.9)).rows, plain.rows);
    assert_ne!(answers(|config| config.interaction = Finite::literal(-0.4)).labels, plain.labels);
    assert_ne!(answers(|config| config.noise = NonNegative::literal(0.1)).labels, plain.labels);
    assert_ne!(answers(|config| config.thresholds.truncate(2)).labels, plain.labels);
    assert_eq!(answers(|config| config.nuisance = 6).rows.width(), 14);
}

#[test]
fn a_survey_survives_the_way_through_a_file() {
    let survey = survey();
    let answers = survey.draw::<Train>(40, 2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("survey.csv");
    survey.write_csv(&path, &answers).unwrap();
    let table = read_csv(&path, &survey.schema()).unwrap();
    let label = table.label().unwrap();
    assert_eq!((&label.values, label.grid), (&answers.labels, Some(survey.grid())));
    let rows = Rows::<Train>::all(&table);
    let encoder = Encoder::fit(&table, &rows, &EncoderConfig::default()).unwrap();
    let design = encoder.encode(&table, &rows).unwrap();
    assert_eq!(design.factors, survey.factors());
    // Standardised, which is affine: undone, the numbers are those that were written.
    let written: Matrix = answers.rows;
    for (encoded, original) in design.rows.rows().zip(written.rows()) {
        let decoded = encoder.decode(encoded);
        for (answer, original) in decoded.iter().zip(original) {
            let align_factors::Answer::Number(number) = answer else { panic!("{answer:?}") };
            assert!((number - original).abs() < 1e-14 * 4.0);
        }
    }
    // And the settings survive theirs.
    let text = toml::to_string(survey.config()).unwrap();
    assert_eq!(&toml::from_str::<SurveyConfig>(&text).unwrap(), survey.config());
    let text = toml::to_string(&survey.schema()).unwrap();
    assert_eq!(toml::from_str::<align_factors::Schema>(&text).unwrap(), survey.schema());
}
