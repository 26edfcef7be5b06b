//! Merges derived by hand or in `specs/salsa.md`, section 9.

mod common;

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use align_soup::merge::{
    MergeParameters, MergeWarning, Merged, Method, Parameter, add_task_vectors, merge_modules, slerp,
};
use burn::module::Param;
use burn::tensor::{DType, Tensor};
use common::{assert_close, floats, param, typed};

type Vector = Param<Tensor<1>>;

/// The digits printed in the specification.
const PRINTED: f64 = 1e-8;
/// A few roundings of numbers of order one in f64.
const ROUNDING: f64 = 1e-14;

fn vector(values: &[f64]) -> Vector {
    param(values, [values.len()])
}

fn new(method: Method, models: usize) -> MergeParameters {
    MergeParameters::new(method, models)
}

fn run(base: Option<&[f64]>, models: &[&[f64]], parameters: &MergeParameters) -> Merged<Vector> {
    let base = base.map(vector);
    let models: Vec<Vector> = models.iter().map(|values| vector(values)).collect();
    merge_modules(base.as_ref(), &models, parameters, 0).unwrap()
}

fn merge(base: Option<&[f64]>, models: &[&[f64]], parameters: &MergeParameters) -> Vec<f64> {
    floats(&run(base, models, parameters).module)
}

// Tests 1 and 8.
const A: [f64; 4] = [0.10, -0.40, 2.00, 0.05];
const B: [f64; 4] = [0.30, 0.20, -1.00, -0.15];
const C: [f64; 4] = [-0.20, 0.60, 0.50, 0.25];

// Tests 9 and 15.
const BASE: [f64; 5] = [0.0, 0.1, 1.0, 0.0, 0.3];
const M1: [f64; 5] = [0.5, 0.0, 1.2, -0.3, 0.31];
const M2: [f64; 5] = [-0.2, 0.3, 1.1, -0.5, 0.30];
const M3: [f64; 5] = [0.4, 0.15, 0.6, 0.1, 0.29];

#[test]
fn linear_merges_have_the_printed_digits() {
    let linear = |weights: &[f64], models: &[&[f64]]| {
        let parameters = new(Method::Linear, weights.len()).with_each(Parameter::Weight, weights).unwrap();
        merge(None, models, &parameters)
    };
    assert_close(&linear(&[0.5, 0.5], &[&A, &B]), &[0.2, -0.1, 0.5, -0.05], PRINTED);
    assert_close(&linear(&[0.25, 0.75], &[&A, &B]), &[0.25, 0.05, -0.25, -0.10], PRINTED);
    // Weights are divided by their sum, as in mergekit.
    assert_close(&linear(&[1.0, 3.0], &[&A, &B]), &[0.25, 0.05, -0.25, -0.10], PRINTED);
    assert_close(&linear(&[1.0; 3], &[&A, &B, &C]), &[0.06666667, 0.13333333, 0.5, 0.05], PRINTED);
    assert_close(&linear(&[0.2, 0.3, 0.5], &[&A, &B, &C]), &[0.01, 0.28, 0.35, 0.09], PRINTED);
}

#[test]
fn a_linear_merge_without_normalization_is_the_sum_itself() {
    let parameters = new(Method::Linear, 2)
        .with_each(Parameter::Weight, &[0.1, 1.0])
        .and_then(|parameters| parameters.with(Parameter::Normalize, false))
        .unwrap();
    // 0.1·a + 1.0·b.
    assert_close(&merge(None, &[&A, &B], &parameters), &[0.31, 0.16, -0.8, -0.145], ROUNDING);
}

#[test]
fn slerp_has_the_printed_digits() {
    let between = |a: &[f64], b: &[f64], t| floats(&slerp(&vector(a), &vector(b), t).unwrap());
    let (u, v) = ([1.0, 0.0], [0.0, 2.0]);
    assert_close(&between(&u, &v, 0.5), &[FRAC_1_SQRT_2, SQRT_2], PRINTED);
    assert_close(&between(&u, &v, 0.25), &[0.92387953, 0.76536686], PRINTED);
    assert_close(&between(&A, &B, 0.5), &[1.13827318, -0.56913659, 2.84568295, -0.28456829], PRINTED);
    assert_close(&between(&[1.0, 2.0], &[2.0, 4.0], 0.3), &[1.3, 2.6], PRINTED);
    assert_close(&between(&[0.0, 0.0], &[1.0, 1.0], 0.5), &[FRAC_1_SQRT_2, FRAC_1_SQRT_2], PRINTED);
}

#[test]
fn opposite_vectors_are_mixed_linearly_with_a_warning() {
    let halfway = new(Method::Slerp, 1).with(Parameter::T, 0.5).unwrap();
    let merged = run(Some(&[1.0, 0.0]), &[&[-1.0, 0.0]], &halfway);
    assert_eq!(floats(&merged.module), [0.0, 0.0]);
    assert_eq!(merged.warnings, [MergeWarning::Antipodal { tensor: String::new(), cosine: -1.0 }]);

    let weights = new(Method::NuSlerp, 2).with_each(Parameter::Weight, &[0.75, 0.25]).unwrap();
    let merged = run(None, &[&[1.0, 2.0], &[-1.0, -2.0]], &weights);
    assert_close(&floats(&merged.module), &[0.5, 1.0], ROUNDING);
    assert_eq!(merged.warnings.len(), 1);
}

#[test]
fn nuslerp_takes_the_arc_by_weights_and_around_the_base() {
    let weights = new(Method::NuSlerp, 2).with_each(Parameter::Weight, &[3.0, 1.0]).unwrap();
    // t = 1/4 of a right angle, as slerp above.
    assert_close(&merge(None, &[&[1.0, 0.0], &[0.0, 2.0]], &weights), &[0.92387953, 0.76536686], PRINTED);
    let shifted = merge(Some(&[5.0, -1.0]), &[&[6.0, -1.0], &[5.0, 1.0]], &weights);
    assert_close(&shifted, &[5.92387953, -0.23463314], PRINTED);
}

#[test]
fn multislerp_is_the_mean_direction_with_the_mean_norm() {
    let equal = new(Method::MultiSlerp, 2).with(Parameter::Weight, 1.0).unwrap();
    let merged = merge(None, &[&[3.0, 0.0], &[0.0, 1.0]], &equal);
    assert_close(&merged, &[SQRT_2, SQRT_2], 1e-7); // eps = 1e-8 is added to the norms
    // Around a base, and one model alone is itself.
    let merged = merge(Some(&[1.0, 1.0]), &[&[4.0, 1.0], &[1.0, 2.0]], &equal);
    assert_close(&merged, &[1.0 + SQRT_2, 1.0 + SQRT_2], 1e-7);
    let alone = new(Method::MultiSlerp, 1).with(Parameter::Weight, 0.3).unwrap();
    assert_eq!(merge(Some(&[1.0, 1.0]), &[&[4.0, 1.5]], &alone), [4.0, 1.5]);
    // Opposite vectors have a mean on the chord only.
    let unequal = new(Method::MultiSlerp, 2).with_each(Parameter::Weight, &[0.5, 0.5]).unwrap();
    assert_eq!(merge(None, &[&[2.0, 0.0], &[-2.0, 0.0]], &unequal), [0.0, 0.0]);
}

#[test]
fn the_karcher_mean_of_axes_is_the_diagonal() {
    let three = new(Method::Karcher, 3);
    let merged = merge(None, &[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]], &three);
    assert_close(&merged, &[3f64.sqrt().recip(); 3], ROUNDING);
    // Norms are averaged apart from directions, and a zero vector counts for the norm only.
    let merged = merge(None, &[&[1.0, 0.0], &[0.0, 3.0], &[0.0, 0.0]], &three);
    assert_close(&merged, &[4.0 / 3.0 * FRAC_1_SQRT_2; 2], ROUNDING);
    assert_eq!(merge(None, &[&[0.0, 0.0], &[0.0, 0.0], &[0.0, 0.0]], &three), [0.0, 0.0]);
}

#[test]
fn more_steps_bring_the_karcher_mean_closer() {
    // Unequal spread around the mean: one step from the normalised mean does not reach the centre of mass.
    let models: [&[f64]; 3] = [&[1.0, 0.0, 0.0], &[0.8, 0.6, 0.0], &[0.0, 0.0, 1.0]];
    let after = |steps: u32| {
        let parameters = new(Method::Karcher, 3)
            .with(Parameter::MaxIter, steps)
            .and_then(|parameters| parameters.with(Parameter::Tol, 1e-12))
            .unwrap();
        merge(None, &models, &parameters)
    };
    // At the centre of mass the logarithms sum to zero.
    let imbalance = |mean: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut sum = [0.0; 3];
        for model in models {
            let angle = dot(mean, model).acos();
            for (sum, (model, mean)) in sum.iter_mut().zip(model.iter().zip(mean)) {
                *sum += angle / angle.sin() * (model - angle.cos() * mean);
            }
        }
        dot(&sum, &sum).sqrt()
    };
    let errors = [0, 1, 2, 4, 40].map(|steps| imbalance(&after(steps)));
    assert!(errors.windows(2).all(|pair| pair[1] < pair[0] / 2.0), "{errors:?}");
    assert!(errors[4] < 1e-11, "{errors:?}"); // the tolerance, and rounding
    // A coarse tolerance stops at the first mean.
    let coarse = new(Method::Karcher, 3).with(Parameter::Tol, 0.5).unwrap();
    assert_eq!(merge(None, &models, &coarse), after(0));
}

#[test]
fn task_arithmetic_has_the_printed_digits() {
    let half = new(Method::TaskArithmetic, 3).with(Parameter::Weight, 0.5).unwrap();
    let models: [&[f64]; 3] = [&M1, &M2, &M3];
    assert_close(&merge(Some(&BASE), &models, &half), &[0.35, 0.175, 0.95, -0.35, 0.30], PRINTED);
    let normalized = half.clone().with(Parameter::Normalize, true).unwrap();
    let expected = [0.23333333, 0.15, 0.96666667, -0.23333333, 0.30];
    assert_close(&merge(Some(&BASE), &models, &normalized), &expected, PRINTED);
    let doubled = half.with(Parameter::Lambda, 2.0).unwrap();
    assert_close(&merge(Some(&BASE), &models, &doubled), &[0.7, 0.25, 0.9, -0.7, 0.30], PRINTED);
}

#[test]
fn a_negative_weight_subtracts_a_task() {
    let (base, tuned) = (vector(&BASE), [vector(&M1)]);
    let forgetting = floats(&add_task_vectors(&base, &tuned, &[-1.0]).unwrap());
    assert_close(&forgetting, &[-0.5, 0.2, 0.8, 0.3, 0.29], ROUNDING);
}

#[test]
fn ties_has_the_printed_digits() {
    let ties = new(Method::Ties, 3)
        .with(Parameter::Weight, 1.0)
        .and_then(|parameters| parameters.with(Parameter::Density, 0.6))
        .unwrap();
    let merged = merge(Some(&BASE), &[&M1, &M2, &M3], &ties);
    assert_close(&merged, &[0.45, 0.30, 0.60, -0.40, 0.30], PRINTED);
}

#[test]
fn a_vanishing_vote_elects_plus_and_nobody_means_the_base() {
    let ties = new(Method::Ties, 2).with(Parameter::Weight, 1.0).unwrap();
    // +1 against −1; nobody; both.
    let merged = merge(Some(&[0.0; 3]), &[&[1.0, 0.0, -1.0], &[-1.0, 0.0, -3.0]], &ties);
    assert_eq!(merged, [1.0, 0.0, -2.0]);
}

#[test]
fn of_equal_magnitudes_the_lower_position_is_kept() {
    let half = |method| {
        new(method, 1)
            .with(Parameter::Weight, 1.0)
            .and_then(|parameters| parameters.with(Parameter::Density, 0.5))
            .unwrap()
    };
    let model: &[f64] = &[1.0, -1.0, 1.0, 2.0];
    assert_eq!(merge(Some(&[0.0; 4]), &[model], &half(Method::Ties)), [1.0, 0.0, 0.0, 2.0]);
    // Ranks 1 and 2 in ascending order are the second and the third.
    let middle = half(Method::Breadcrumbs).with(Parameter::Gamma, 0.25).unwrap();
    assert_eq!(merge(Some(&[0.0; 4]), &[model], &middle), [0.0, -1.0, 1.0, 0.0]);
}

#[test]
fn a_density_keeps_one_value_at_least_and_zero_keeps_none() {
    let ties = |density: f64| {
        new(Method::Ties, 1)
            .with(Parameter::Weight, 1.0)
            .and_then(|parameters| parameters.with(Parameter::Density, density))
            .unwrap()
    };
    let model: &[f64] = &[1.0, -3.0, 2.0];
    assert_eq!(merge(Some(&[0.0; 3]), &[model], &ties(0.01)), [0.0, -3.0, 0.0]);
    assert_eq!(merge(Some(&[0.0; 3]), &[model], &ties(0.0)), [0.0; 3]);
    for method in [Method::DareLinear, Method::Della, Method::Breadcrumbs] {
        let none = new(method, 1)
            .with(Parameter::Weight, 1.0)
            .and_then(|parameters| parameters.with(Parameter::Density, 0.0))
            .unwrap();
        assert_eq!(merge(Some(&[0.5; 3]), &[model], &none), [0.5; 3], "{method}");
    }
}

#[test]
fn breadcrumbs_keep_the_middle() {
    let model: Vec<f64> = (1..=10).map(f64::from).collect();
    let keeping = |gamma: f64| {
        let parameters = new(Method::Breadcrumbs, 1)
            .with(Parameter::Weight, 1.0)
            .and_then(|parameters| parameters.with(Parameter::Density, 0.6))
            .and_then(|parameters| parameters.with(Parameter::Gamma, gamma))
            .unwrap();
        merge(Some(&[0.0; 10]), &[&model], &parameters)
    };
    assert_eq!(keeping(0.1), [0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 0.0]);
    // Where the density leaves no room, fewer large ones go.
    assert_eq!(keeping(0.5), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn rescaling_restores_the_norm() {
    let ties = new(Method::Ties, 1)
        .with(Parameter::Weight, 1.0)
        .and_then(|parameters| parameters.with(Parameter::Density, 0.5))
        .and_then(|parameters| parameters.with(Parameter::Rescale, true))
        .unwrap();
    // Σ|δ| = 10, of which 7 are kept.
    let merged = merge(Some(&[0.0; 4]), &[&[1.0, -3.0, 2.0, 4.0]], &ties);
    assert_close(&merged, &[0.0, -30.0 / 7.0, 0.0, 40.0 / 7.0], ROUNDING);
}

#[test]
fn sce_selects_weighs_and_erases() {
    let (one, two): (&[f64], &[f64]) = (&[2.0, 0.0, 1.0], &[1.0, -1.0, 1.0]);
    // Mean squares 5/3 and 1: weights 5/8 and 3/8. Votes +3, −1, +2.
    let merged = merge(Some(&[0.0; 3]), &[one, two], &new(Method::Sce, 2));
    assert_close(&merged, &[1.625, -1.0, 1.0], ROUNDING);
    // Variances ¼, ¼, 0: half of the two that vary, the lower position. Mean squares 4/3 and 1/3.
    let half = new(Method::Sce, 2).with(Parameter::SelectTopK, 0.5).unwrap();
    assert_close(&merge(Some(&[0.0; 3]), &[one, two], &half), &[1.8, 0.0, 0.0], ROUNDING);
    let none = new(Method::Sce, 2).with(Parameter::SelectTopK, 0.0).unwrap();
    assert_eq!(merge(Some(&[0.5; 3]), &[one, two], &none), [0.5; 3]);
}

#[test]
fn model_stock_has_the_printed_interpolation() {
    let towards_mean = |models: &[&[f64]], t: f64| -> Vec<f64> {
        let mean = |i: usize| models.iter().map(|model| model[i]).sum::<f64>() / models.len() as f64;
        (0..5).map(|i| t * mean(i) + (1.0 - t) * BASE[i]).collect()
    };
    let two: [&[f64]; 2] = [&M1, &M2];
    let merged = run(Some(&BASE), &two, &new(Method::ModelStock, 2));
    assert_close(&floats(&merged.module), &towards_mean(&two, 0.24143538), PRINTED);
    assert!(merged.warnings.is_empty());

    // Three models point away from each other: t is negative, which mergekit keeps.
    let three: [&[f64]; 3] = [&M1, &M2, &M3];
    let merged = run(Some(&BASE), &three, &new(Method::ModelStock, 3));
    assert_close(&floats(&merged.module), &towards_mean(&three, -0.11036803), PRINTED);
    let [MergeWarning::StockOutside { t, clamped: false, .. }] = merged.warnings[..] else {
        panic!("{:?}", merged.warnings)
    };
    assert!((t + 0.11036803).abs() < PRINTED);

    let clamped = new(Method::ModelStock, 3).with(Parameter::Clamp, true).unwrap();
    let merged = run(Some(&BASE), &three, &clamped);
    assert_eq!(floats(&merged.module), BASE);
    assert!(matches!(merged.warnings[..], [MergeWarning::StockOutside { clamped: true, .. }]));
}

#[test]
fn sixteen_bits_are_rounded_once() {
    let mean = |a: f64, b: f64| {
        let models = [a, b].map(|value| typed(&[value], [1], DType::BF16));
        let equal = new(Method::Linear, 2).with(Parameter::Weight, 1.0).unwrap();
        floats(&merge_modules(None, &models, &equal, 0).unwrap().module)[0]
    };
    assert_eq!(mean(1.0, 1.0078125), 1.0);
    assert_eq!(mean(1.0078125, 1.015625), 1.015625);
}

#[test]
fn passthrough_scales() {
    assert_eq!(merge(None, &[&A], &new(Method::Passthrough, 1)), A);
    let doubled = new(Method::Passthrough, 1).with(Parameter::Scale, 2.0).unwrap();
    assert_eq!(merge(None, &[&A], &doubled), A.map(|value| 2.0 * value));
    // More values than a block, so that nothing of one block is left in the next.
    let many = vec![1.5; 5000];
    let nothing = new(Method::Passthrough, 1).with(Parameter::Scale, 0.0).unwrap();
    assert_eq!(merge(None, &[&many], &nothing), vec![0.0; 5000]);
}
