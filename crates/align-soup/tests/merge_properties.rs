//! Laws of merges.

mod common;

use align_soup::merge::{
    BaseRule, MergeParameters, Method, Parameter, Scope, add_task_vectors, merge_modules, slerp,
};
use align_soup::{Weights, average};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use common::*;
use proptest::prelude::*;

type Vector = Param<Tensor<1>>;

/// Multiples of 1/64 that f32 holds exactly, so that sums of a few are exact in f64.
fn values(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((-1000i32..1000).prop_map(|v| f64::from(v) / 64.0), n)
}

/// The same without zeros.
fn nonzero(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(
        (1i32..1000, any::<bool>()).prop_map(|(v, s)| f64::from(if s { v } else { -v }) / 64.0),
        n,
    )
}

/// Weights that are exact in binary.
fn weights(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((1i32..=8).prop_map(|v| f64::from(v) / 4.0), n)
}

fn single(values: &[f64]) -> Vector {
    typed(values, [values.len()], DType::F32)
}

fn double(values: &[f64]) -> Vector {
    param(values, [values.len()])
}

/// The method with what it must be given: equal weights that sum to 1, t = 0.3.
fn plain(method: Method, models: usize) -> MergeParameters {
    let mut parameters = MergeParameters::new(method, models);
    if method.rule(Parameter::Weight).is_some() {
        parameters.set(Parameter::Weight, 1.0 / models as f64).unwrap();
    }
    if method == Method::Slerp {
        parameters.set(Parameter::T, 0.3).unwrap();
    }
    parameters
}

/// As many models as the method takes, up to three.
fn count(method: Method) -> usize {
    3.min(*method.models().end())
}

fn merge<M: Module>(base: &M, models: &[M], parameters: &MergeParameters) -> M {
    let base = (parameters.method().base() == BaseRule::Required).then_some(base);
    merge_modules(base, models, parameters, 1).unwrap().module
}

fn weighted(method: Method, weights: &[f64]) -> MergeParameters {
    MergeParameters::new(method, weights.len()).with_each(Parameter::Weight, weights).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equal_models_merge_to_that_model(base in values(7), model in nonzero(7)) {
        for method in Method::ALL {
            // Slerp has the base as one end.
            let base = if method == Method::Slerp { &model } else { &base };
            let models = vec![single(&model); count(method)];
            let merged = merge(&single(base), &models, &plain(method, models.len()));
            prop_assert_eq!(floats(&merged), model.clone(), "{}", method);
        }
    }

    #[test]
    fn the_order_of_models_does_not_matter(
        base in values(9), a in values(9), b in values(9), c in values(9), w in weights(3), density in 0.0f64..=1.0
    ) {
        for method in Method::ALL.into_iter().filter(|method| count(*method) == 3 && !method.is_random()) {
            let given = |order: [usize; 3]| {
                let mut parameters = MergeParameters::new(method, 3);
                for (parameter, value) in [
                    (Parameter::Weight, order.map(|k| w[k])),
                    (Parameter::Density, order.map(|k| [density, 0.5, 1.0 - density][k])),
                ] {
                    if method.rule(parameter).is_some() {
                        parameters = parameters.with_each(parameter, &value).unwrap();
                    }
                }
                let models = order.map(|k| double([&a, &b, &c][k]));
                floats(&merge(&double(&base), &models, &parameters))
            };
            // Sums of three terms up to 100 in another order, through two square roots and a quotient.
            assert_close(&given([0, 1, 2]), &given([2, 0, 1]), 1e-11);
        }
    }

    #[test]
    fn task_arithmetic_is_linear_with_the_rest_on_the_base(
        base in values(6), a in values(6), b in values(6), w in prop::collection::vec(-2.0f64..2.0, 2)
    ) {
        let [base, a, b] = [&base, &a, &b].map(|values| double(values));
        let arithmetic = add_task_vectors(&base, &[a.clone(), b.clone()], &w).unwrap();
        let all = [1.0 - w[0] - w[1], w[0], w[1]];
        let linear = weighted(Method::Linear, &all).with(Parameter::Normalize, false).unwrap();
        let linear = merge_modules(None, &[base.clone(), a.clone(), b.clone()], &linear, 0).unwrap();
        assert_close(&floats(&arithmetic), &floats(&linear.module), 1e-13); // roundings of numbers up to 80
        let soup = average(&[base, a, b], Weights::extrapolating(&all).unwrap()).unwrap();
        assert_close(&floats(&arithmetic), &floats(&soup), 1e-13);
    }

    #[test]
    fn one_model_alone_is_kept_by_the_task_vector_methods(base in values(8), model in values(8)) {
        for method in Method::ALL.into_iter().filter(|method| {
            method.base() == BaseRule::Required && method.models().contains(&1) && *method != Method::Slerp
        }) {
            let merged = merge(&single(&base), &[single(&model)], &plain(method, 1));
            prop_assert_eq!(floats(&merged), model.clone(), "{}", method);
        }
    }

    #[test]
    fn slerp_begins_and_ends_at_its_ends(a in values(6), b in values(6)) {
        let (a, b) = (single(&a), single(&b));
        prop_assert_eq!(floats(&slerp(&a, &b, 0.0).unwrap()), floats(&a));
        prop_assert_eq!(floats(&slerp(&a, &b, 1.0).unwrap()), floats(&b));
    }

    #[test]
    fn slerp_the_other_way_round_is_the_same_arc(a in values(6), b in values(6), t in 0.0f64..=1.0) {
        let (a, b) = (double(&a), double(&b));
        let there = floats(&slerp(&a, &b, t).unwrap());
        let back = floats(&slerp(&b, &a, 1.0 - t).unwrap());
        assert_close(&there, &back, 1e-10); // the angle to 1e-12 near |cos| = 0.9995
    }

    #[test]
    fn arcs_between_unit_vectors_meet_at_their_middle(a in nonzero(5), b in nonzero(5)) {
        let unit = |values: &[f64]| -> Vec<f64> {
            let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
            values.iter().map(|value| value / norm).collect()
        };
        let (a, b) = (unit(&a), unit(&b));
        let cosine: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        prop_assume!(cosine.abs() < 0.999);
        let models = [double(&a), double(&b)];
        let middle = floats(&slerp(&models[0], &models[1], 0.5).unwrap());
        let of = |parameters| floats(&merge_modules(None, &models, &parameters, 0).unwrap().module);
        assert_close(&of(MergeParameters::new(Method::Karcher, 2)), &middle, 1e-10);
        assert_close(&of(plain(Method::NuSlerp, 2)), &middle, 1e-10);
        assert_close(&of(plain(Method::MultiSlerp, 2)), &middle, 1e-6); // eps = 1e-8 over a mean of norm 0.02 and more
    }

    #[test]
    fn merging_and_scaling_commute(
        base in values(7), a in values(7), b in values(7), c in values(7), power in -4i32..5
    ) {
        // A power of two: exact. (SCE and multislerp have constants with a scale, of model stock's it is below 1e-6.)
        let scale = 2f64.powi(power);
        let scaled = |values: &[f64]| values.iter().map(|value| scale * value).collect::<Vec<f64>>();
        for method in Method::ALL.into_iter().filter(|m| !matches!(m, Method::Sce | Method::MultiSlerp)) {
            let all = [&a, &b, &c];
            let models = |scaled: &dyn Fn(&[f64]) -> Vec<f64>| -> Vec<Vector> {
                all[..count(method)].iter().map(|values| double(&scaled(values))).collect()
            };
            let mut parameters = plain(method, count(method));
            if method.rule(Parameter::Density).is_some() {
                parameters.set(Parameter::Density, 0.5).unwrap();
            }
            let merged = floats(&merge(&double(&base), &models(&|values| values.to_vec()), &parameters));
            let found = floats(&merge(&double(&scaled(&base)), &models(&scaled), &parameters));
            prop_assert_eq!(found, scaled(&merged), "{}", method);
        }
    }

    #[test]
    fn task_vector_methods_do_not_see_where_the_base_is(
        base in values(7), a in values(7), b in values(7), c in values(7), away in values(7)
    ) {
        let moved = |values: &[f64]| values.iter().zip(&away).map(|(value, away)| value + away).collect::<Vec<f64>>();
        for method in Method::ALL.into_iter().filter(|m| m.base() == BaseRule::Required && *m != Method::Slerp) {
            let mut parameters = plain(method, 3);
            if method.rule(Parameter::Density).is_some() {
                parameters.set(Parameter::Density, 0.5).unwrap();
            }
            let here = floats(&merge(&double(&base), &[&a, &b, &c].map(|v| double(v)), &parameters));
            let there = floats(&merge(&double(&moved(&base)), &[&a, &b, &c].map(|v| double(&moved(v))), &parameters));
            assert_close(&there, &moved(&here), 1e-12); // roundings of numbers up to 100
        }
    }

    #[test]
    fn lambda_scales_what_changes(base in values(7), a in values(7), b in values(7), lambda in -2.0f64..2.0) {
        for method in Method::ALL.into_iter().filter(|method| method.rule(Parameter::Lambda).is_some()) {
            let models = [double(&a), double(&b)];
            let parameters = plain(method, 2);
            let once = floats(&merge(&double(&base), &models, &parameters));
            let scaled = parameters.with(Parameter::Lambda, lambda).unwrap();
            let scaled = floats(&merge(&double(&base), &models, &scaled));
            for ((base, once), scaled) in base.iter().zip(once).zip(scaled) {
                prop_assert!((scaled - base - lambda * (once - base)).abs() < 1e-12, "{method}");
            }
        }
    }

    #[test]
    fn ties_keeps_the_largest_changes(model in prop::collection::vec(any::<i16>(), 1..200), density in 0.0f64..=1.0) {
        // Many equal magnitudes; the oracle is a stable sort.
        let model: Vec<f64> = model.into_iter().map(|value| f64::from(value % 16)).collect();
        let parameters = weighted(Method::Ties, &[1.0]).with(Parameter::Density, density).unwrap();
        let merged = merge(&single(&vec![0.0; model.len()]), &[single(&model)], &parameters);
        prop_assert_eq!(floats(&merged), largest(&model, density));
    }

    #[test]
    fn breadcrumbs_keep_a_band_of_ranks(
        model in prop::collection::vec(any::<i16>(), 1..200), density in 0.0f64..1.0, gamma in 0.0f64..=1.0
    ) {
        let model: Vec<f64> = model.into_iter().map(|value| f64::from(value % 16)).collect();
        let parameters = weighted(Method::Breadcrumbs, &[1.0])
            .with(Parameter::Density, density)
            .and_then(|parameters| parameters.with(Parameter::Gamma, gamma))
            .unwrap();
        let merged = merge(&single(&vec![0.0; model.len()]), &[single(&model)], &parameters);
        let mut order: Vec<usize> = (0..model.len()).collect();
        order.sort_by(|&a, &b| model[a].abs().total_cmp(&model[b].abs()));
        let (kept, top) = (share(density, model.len()), share(gamma, model.len()));
        let start = model.len().saturating_sub(kept + top);
        let mut expected = vec![0.0; model.len()];
        order[start..start + kept].iter().for_each(|&at| expected[at] = model[at]);
        prop_assert_eq!(floats(&merged), expected);
    }

    #[test]
    fn by_rows_is_row_by_row(a in values(12), b in values(12), base in values(12)) {
        let rows = |values: &[f64]| -> Vec<Vec<f64>> { values.chunks(4).map(<[f64]>::to_vec).collect() };
        let matrix = |values: &[f64]| -> Param<Tensor<2>> { param(values, [3, 4]) };
        let [base_rows, a_rows, b_rows] = [&base, &a, &b].map(|values| rows(values));

        let stock = MergeParameters::new(Method::ModelStock, 2);
        let by_filter = stock.clone().with(Parameter::FilterWise, true).unwrap();
        let whole = merge(&matrix(&base), &[matrix(&a), matrix(&b)], &by_filter);
        let each: Vec<f64> = (0..3)
            .flat_map(|i| floats(&merge(&double(&base_rows[i]), &[double(&a_rows[i]), double(&b_rows[i])], &stock)))
            .collect();
        assert_close(&floats(&whole), &each, 1e-12);

        let arc = weighted(Method::NuSlerp, &[0.75, 0.25]);
        let by_row = arc.clone().with(Parameter::Flatten, false).unwrap();
        let whole = merge_modules(None, &[matrix(&a), matrix(&b)], &by_row, 0).unwrap();
        let each: Vec<f64> = (0..3)
            .flat_map(|i| {
                let models = [double(&a_rows[i]), double(&b_rows[i])];
                floats(&merge_modules(None, &models, &arc, 0).unwrap().module)
            })
            .collect();
        assert_close(&floats(&whole.module), &each, 1e-12);
    }

    #[test]
    fn along_the_first_axis_is_along_the_last_of_the_transpose(a in values(12), b in values(12), base in values(12)) {
        let matrix = |values: &[f64]| -> Param<Tensor<2>> { param(values, [3, 4]) };
        let transpose = |values: &[f64]| -> Vec<f64> { (0..12).map(|i| values[i % 3 * 4 + i / 3]).collect() };
        let turned = |values: &[f64]| -> Param<Tensor<2>> { param(&transpose(values), [4, 3]) };
        let by_row = weighted(Method::NuSlerp, &[0.75, 0.25]).with(Parameter::Flatten, false).unwrap();
        let by_column = by_row.clone().with(Parameter::RowWise, true).unwrap();
        let along_first = merge_modules(Some(&matrix(&base)), &[matrix(&a), matrix(&b)], &by_column, 0).unwrap();
        let along_last = merge_modules(Some(&turned(&base)), &[turned(&a), turned(&b)], &by_row, 0).unwrap();
        assert_close(&transpose(&floats(&along_first.module)), &floats(&along_last.module), 1e-12);
    }
}

fn share(density: f64, total: usize) -> usize {
    (density * total as f64) as usize
}

/// The largest by magnitude, by sorting.
fn largest(model: &[f64], density: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..model.len()).collect();
    order.sort_by(|&a, &b| model[b].abs().total_cmp(&model[a].abs()));
    let kept = if density > 0.0 { share(density, model.len()).max(1) } else { 0 };
    let mut kept_values = vec![0.0; model.len()];
    order[..kept].iter().for_each(|&at| kept_values[at] = model[at]);
    kept_values
}

/// Enough values for several chunks, with equal magnitudes in all of them.
fn many(seed: u64) -> Vec<f64> {
    (0..200_000u64).map(|i| f64::from(((i * 2_654_435_761 + seed * 97) >> 7) as u32 % 1024) - 512.0).collect()
}

#[test]
fn selection_is_right_across_chunks() {
    let model = many(1);
    for density in [0.1, 0.5, 0.501, 0.9] {
        let parameters = weighted(Method::Ties, &[1.0]).with(Parameter::Density, density).unwrap();
        let merged = merge(&single(&vec![0.0; model.len()]), &[single(&model)], &parameters);
        assert!(floats(&merged) == largest(&model, density), "density {density}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (base, models) = (single(&many(1)), [2, 3, 4].map(|seed| single(&many(seed))));
    for method in Method::ALL {
        let count = count(method);
        let mut parameters = plain(method, count);
        for (parameter, value) in [(Parameter::Density, 0.5), (Parameter::SelectTopK, 0.5)] {
            if method.rule(parameter).is_some() {
                parameters.set(parameter, value).unwrap();
            }
        }
        let [one, four] = [1, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bits(&merge(&base, &models[..count], &parameters)))
        });
        assert!(one == four, "{method}");
    }
}

#[test]
fn every_parameter_changes_the_result() {
    // `int8_mask` is the exception: it is how mergekit stores masks.
    let base = param(&[0.1, 0.2, -0.4, 0.8, 1.0, -0.3, 0.7, 0.25], [2, 4]);
    let models = [
        [1.1, 0.7, -1.4, 0.9, 0.5, 0.3, 1.7, -0.75],
        [-0.6, 1.3, 0.4, 2.8, 1.1, -1.3, 0.9, 0.5],
        [0.4, -0.2, 0.1, 1.8, -1.0, -0.4, 0.1, 1.25],
    ]
    .map(|values| -> Param<Tensor<2>> { param(&values, [2, 4]) });
    for method in Method::ALL {
        for rule in method.parameters() {
            use Parameter as P;
            let models = &models[..count(method)];
            let mut parameters = plain(method, models.len());
            // What makes room for the parameter to matter.
            match rule.parameter {
                P::Int8Mask => continue,
                P::Rescale | P::Gamma | P::Epsilon => parameters.set(P::Density, 0.5).unwrap(),
                P::Normalize | P::NormalizeWeights => parameters.set(P::Weight, 0.9).unwrap(),
                P::RowWise => parameters.set(P::Flatten, false).unwrap(),
                _ => {}
            }
            let before = floats(&merge(&base, models, &parameters));
            let mut changed = parameters.clone();
            match rule.parameter {
                P::Weight => changed.set_model(P::Weight, 0, 0.8).unwrap(),
                P::Density | P::SelectTopK => changed.set(rule.parameter, 0.5).unwrap(),
                P::Gamma | P::Epsilon => changed.set(rule.parameter, 0.4).unwrap(),
                P::Lambda | P::Scale | P::T => changed.set(rule.parameter, 0.9).unwrap(),
                P::Eps => changed.set(P::Eps, 0.2).unwrap(),
                P::Tol => changed.set(P::Tol, 0.9).unwrap(),
                P::MaxIter => changed.set(rule.parameter, 0u32).unwrap(),
                flag => {
                    let default = rule.default.expect("flags have defaults");
                    let turned = default == align_soup::merge::Value::Flag(false);
                    changed.set(flag, turned).unwrap();
                }
            }
            let after = floats(&merge(&base, models, &changed));
            assert!(before != after, "`{}` of {method} changes nothing", rule.parameter);
            if rule.scope == Scope::Shared {
                assert!(rule.default.is_some() || rule.parameter == P::T, "{method}");
            }
        }
    }
}

#[test]
fn a_merge_has_identifiers_of_its_own_and_can_be_trained() {
    let (base, tuned) = (net([0.0; 4], &[1.0]), net([1.0, 2.0, 3.0, 4.0], &[2.0]));
    let parameters = weighted(Method::Ties, &[1.0]);
    let merged = merge_modules(Some(&base), &[tuned], &parameters, 0).unwrap().module;
    assert_eq!(floats(&merged), [1.0, 2.0, 3.0, 4.0, 2.0]);
    let old = burn::module::list_param_ids(&base);
    assert!(burn::module::list_param_ids(&merged).iter().all(|id| !old.contains(id)));
    let trained = merged.train();
    let loss = trained.weight.val().powi_scalar(2).sum();
    let gradient = trained.weight.val().grad(&loss.backward()).expect("a leaf that requires a gradient");
    let gradient = gradient.into_data().convert::<f64>().try_to_vec::<f64>().unwrap();
    assert_close(&gradient, &[2.0, 4.0, 6.0, 8.0], 1e-12);
}

/// Input and output embeddings that are one parameter.
#[derive(Module, Debug)]
struct Tied {
    input: Param<Tensor<1>>,
    output: Param<Tensor<1>>,
}

#[test]
fn tied_parameters_stay_tied_under_random_masks() {
    let tied = |values: &[f64]| {
        let input = double(values);
        Tied { output: input.clone(), input }
    };
    let (base, model) = (tied(&[0.0; 64]), tied(&[1.0; 64]));
    let parameters = weighted(Method::DareLinear, &[1.0]).with(Parameter::Density, 0.5).unwrap();
    let merged = merge_modules(Some(&base), &[model], &parameters, 3).unwrap().module;
    assert_eq!(merged.input.id, merged.output.id);
    assert_eq!(bits(&merged.input), bits(&merged.output));
}
