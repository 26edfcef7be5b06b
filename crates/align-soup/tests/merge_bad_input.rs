//! What merges refuse, and how they say it.

mod common;

use align_soup::SoupError;
use align_soup::merge::{
    Member, MergeError, MergeParameters, Method, Parameter, UnknownMethod, Value, add_task_vectors,
    merge_modules, slerp,
};
use burn::module::Param;
use burn::tensor::{DType, Tensor};
use common::{floats, message, net, param, typed};

type Vector = Param<Tensor<1>>;

fn vector(values: &[f64]) -> Vector {
    param(values, [values.len()])
}

fn weighted(method: Method, weights: &[f64]) -> MergeParameters {
    MergeParameters::new(method, weights.len()).with_each(Parameter::Weight, weights).unwrap()
}

fn refused(base: Option<&Vector>, models: &[Vector], parameters: &MergeParameters) -> MergeError {
    merge_modules(base, models, parameters, 0).unwrap_err()
}

#[test]
fn every_name_is_read_and_others_are_refused_with_the_list() {
    for method in Method::ALL {
        assert_eq!(method.to_string().parse(), Ok(method));
    }
    for parameter in Parameter::ALL {
        assert_eq!(parameter.to_string().parse(), Ok(parameter));
    }
    let error: UnknownMethod = "tie".parse::<Method>().unwrap_err();
    assert!(error.to_string().contains("`tie`") && error.to_string().contains("dare_ties"), "{error}");
}

#[test]
fn a_parameter_the_method_does_not_take_is_refused_with_those_it_takes() {
    let error = MergeParameters::new(Method::TaskArithmetic, 1).with(Parameter::Density, 0.5).unwrap_err();
    assert!(matches!(
        error,
        MergeError::NotTaken { method: Method::TaskArithmetic, parameter: Parameter::Density }
    ));
    assert_eq!(
        message(&error),
        "`task_arithmetic` takes no `density`, it takes weight, normalize, lambda, int8_mask"
    );
}

#[test]
fn values_of_another_kind_are_refused() {
    let error = MergeParameters::new(Method::Ties, 1).with(Parameter::Normalize, 1.0).unwrap_err();
    assert!(matches!(error, MergeError::Kind { found: Value::Number(1.0), .. }));
    assert_eq!(message(&error), "`normalize` must be true or false, found 1");
    let error = MergeParameters::new(Method::Karcher, 1).with(Parameter::MaxIter, 1.5).unwrap_err();
    assert_eq!(message(&error), "`max_iter` must be a whole number, not negative, found 1.5");
}

#[test]
fn numbers_outside_their_range_are_refused_with_their_owner() {
    for (method, parameter, value) in [
        (Method::Ties, Parameter::Density, 1.5),
        (Method::Ties, Parameter::Density, -0.1),
        (Method::Ties, Parameter::Density, f64::NAN),
        (Method::Ties, Parameter::Weight, f64::NAN),
        (Method::Ties, Parameter::Weight, f64::INFINITY),
        (Method::Ties, Parameter::Lambda, f64::NAN),
        (Method::Breadcrumbs, Parameter::Gamma, 1.01),
        (Method::Della, Parameter::Epsilon, 0.5),
        (Method::Della, Parameter::Epsilon, -0.1),
        (Method::Slerp, Parameter::T, 1.1),
        (Method::Slerp, Parameter::T, f64::NAN),
        (Method::Sce, Parameter::SelectTopK, 2.0),
        (Method::Karcher, Parameter::Tol, 0.0),
        (Method::MultiSlerp, Parameter::Eps, -1.0),
        (Method::Passthrough, Parameter::Scale, f64::NAN),
    ] {
        let error = MergeParameters::new(method, 2).with(parameter, value).unwrap_err();
        assert!(
            matches!(error, MergeError::Range { member: None, .. }),
            "{method} {parameter} {value}: {error}"
        );
    }
    let error = MergeParameters::new(Method::Ties, 2).with_each(Parameter::Density, &[0.5, 1.5]).unwrap_err();
    assert_eq!(message(&error), "`density` of models[1] must be in [0, 1], found 1.5");
}

#[test]
fn missing_weights_are_named() {
    let mut parameters = MergeParameters::new(Method::Ties, 3);
    parameters.set_model(Parameter::Weight, 0, 1.0).unwrap();
    parameters.set_model(Parameter::Weight, 2, 1.0).unwrap();
    let error = parameters.check().unwrap_err();
    assert!(matches!(error, MergeError::Missing { member: Some(Member::Model(1)), .. }));
    assert_eq!(message(&error), "`ties` needs `weight` of models[1]");
    assert_eq!(message(&MergeParameters::new(Method::Slerp, 1).check().unwrap_err()), "`slerp` needs `t`");
    let error = MergeParameters::new(Method::Ties, 3).with_each(Parameter::Weight, &[1.0, 1.0]).unwrap_err();
    assert!(matches!(error, MergeError::ValueCount { models: 3, found: 2, .. }));
}

#[test]
fn proportions_must_not_be_negative_and_task_vectors_may() {
    for method in [Method::Linear, Method::NuSlerp, Method::MultiSlerp] {
        let error = weighted(method, &[1.0, -0.5]).check().unwrap_err();
        assert!(matches!(error, MergeError::NegativeWeight { member: Member::Model(1), .. }), "{error}");
        assert!(message(&error).contains("task_arithmetic subtracts"), "{error}");
    }
    weighted(Method::Linear, &[1.0, -0.5]).with(Parameter::Normalize, false).unwrap().check().unwrap();
    for method in [Method::TaskArithmetic, Method::Ties, Method::DareLinear, Method::BreadcrumbsTies] {
        weighted(method, &[1.0, -0.5]).check().unwrap();
    }
}

#[test]
fn weights_that_are_divided_by_their_sum_must_have_one() {
    for (method, weights) in [
        (Method::Linear, [0.0, 0.0]),
        (Method::NuSlerp, [0.0, 0.0]),
        (Method::MultiSlerp, [0.0, 0.0]),
        (Method::TaskArithmetic, [1.0, -1.0]),
        (Method::DareLinear, [0.5, -0.5]),
    ] {
        let mut parameters = weighted(method, &weights);
        if method.rule(Parameter::Normalize).is_some() {
            parameters.set(Parameter::Normalize, true).unwrap();
        }
        let error = parameters.check().unwrap_err();
        assert!(matches!(error, MergeError::WeightSum { sum: 0.0, .. }), "{method}: {error}");
    }
    // Where signs are elected the divisor is that of the models that agree.
    let ties = weighted(Method::Ties, &[1.0, -1.0]);
    let merged = merge_modules(Some(&vector(&[0.0])), &[vector(&[2.0]), vector(&[-1.0])], &ties, 0).unwrap();
    // Terms 2 and +1 agree; their weights sum to 0, for which mergekit divides by 1.
    assert_eq!(floats(&merged.module), [3.0]);
}

#[test]
fn keep_probabilities_must_be_probabilities() {
    let della = |density: f64, epsilon: f64| {
        weighted(Method::Della, &[1.0])
            .with(Parameter::Density, density)
            .and_then(|parameters| parameters.with(Parameter::Epsilon, epsilon))
            .unwrap()
    };
    for (density, epsilon) in [(0.9, 0.15), (0.1, 0.1), (0.5, 0.49)] {
        let checked = della(density, epsilon).check();
        let inside = density - epsilon > 0.0 && density + epsilon < 1.0;
        assert_eq!(checked.is_ok(), inside, "{density} ± {epsilon}");
    }
    let error = della(0.9, 0.15).check().unwrap_err();
    assert!(matches!(error, MergeError::KeepProbability { member: Member::Model(0), .. }), "{error}");
    // Nothing is drawn at density 1, whatever epsilon.
    della(1.0, 0.15).check().unwrap();
}

#[test]
fn models_are_counted() {
    let one = [vector(&[1.0])];
    let base = vector(&[0.0]);
    let error = refused(Some(&base), &one, &MergeParameters::new(Method::ModelStock, 1));
    assert_eq!(message(&error), "`model_stock` takes at least 2 models beside the base, found 1");
    let error = refused(None, &[], &MergeParameters::new(Method::Karcher, 0));
    assert!(matches!(error, MergeError::ModelCount { found: 0, .. }));
    let error =
        refused(None, &[one[0].clone(), one[0].clone()], &MergeParameters::new(Method::Passthrough, 2));
    assert_eq!(message(&error), "`passthrough` takes one model beside the base, found 2");
    let error = refused(None, &one, &weighted(Method::NuSlerp, &[1.0]));
    assert!(matches!(error, MergeError::ModelCount { found: 1, .. }));
    let error = refused(Some(&base), &one, &weighted(Method::Ties, &[1.0, 1.0]));
    assert!(matches!(error, MergeError::Models { expected: 2, found: 1 }));
}

#[test]
fn a_base_is_needed_or_not_possible() {
    let models = [vector(&[1.0])];
    assert!(matches!(
        refused(None, &models, &weighted(Method::Ties, &[1.0])),
        MergeError::BaseMissing { method: Method::Ties }
    ));
    assert!(matches!(
        refused(Some(&models[0]), &models, &weighted(Method::Linear, &[1.0])),
        MergeError::BaseNotTaken { method: Method::Linear }
    ));
}

#[test]
fn values_that_are_not_finite_are_refused_with_their_owner() {
    let fine = [1.0, 2.0, 3.0];
    for broken in [[1.0, f64::NAN, 3.0], [1.0, f64::INFINITY, f64::NEG_INFINITY]] {
        for method in Method::ALL {
            let count = 2.min(*method.models().end());
            let mut parameters = MergeParameters::new(method, count);
            for (parameter, value) in
                [(Parameter::Weight, 0.5), (Parameter::T, 0.5), (Parameter::Density, 0.4)]
            {
                if method.rule(parameter).is_some() {
                    parameters.set(parameter, value).unwrap();
                }
            }
            let base = method.base() == align_soup::merge::BaseRule::Required;
            let mut members: Vec<&[f64]> = vec![&fine; count + usize::from(base)];
            // The last model, then the base.
            for place in [members.len() - 1, 0] {
                members.fill(&fine);
                members[place] = &broken;
                let modules: Vec<Vector> = members.iter().map(|values| vector(values)).collect();
                let (base, models) = modules.split_at(usize::from(base));
                let error = merge_modules(base.first(), models, &parameters, 0).unwrap_err();
                let MergeError::NonFinite { member, count, .. } = error else { panic!("{method}: {error}") };
                assert_eq!(
                    count,
                    broken.iter().filter(|value| !value.is_finite()).count() as u64,
                    "{method}"
                );
                let expected = match (base.len(), place) {
                    (1, 0) => Member::Base,
                    (bases, place) => Member::Model(place - bases),
                };
                // Slerp's base is one of its ends, and still the base.
                assert_eq!(member, expected, "{method}");
            }
        }
    }
}

#[test]
fn a_result_beyond_its_type_is_refused() {
    let models = [60_000.0, 50_000.0].map(|value| -> Vector { typed(&[value, 1.0], [2], DType::F16) });
    let sum = weighted(Method::Linear, &[1.0, 1.0]).with(Parameter::Normalize, false).unwrap();
    let error = refused(None, &models, &sum);
    assert!(matches!(error, MergeError::Overflow { count: 1, .. }), "{error}");
    let base: Vector = typed(&[0.0, 0.0], [2], DType::F16);
    let error = refused(
        Some(&base),
        &models,
        &weighted(Method::Ties, &[1.0, 1.0]).with(Parameter::Lambda, 2.0).unwrap(),
    );
    assert!(matches!(error, MergeError::Overflow { count: 1, .. }), "{error}");
}

#[test]
fn shapes_and_architectures_must_agree() {
    let error = refused(Some(&vector(&[1.0, 2.0])), &[vector(&[1.0])], &weighted(Method::Ties, &[1.0]));
    assert!(matches!(error, MergeError::Soup(SoupError::ShapeMismatch { .. })), "{error}");
    let error = slerp(&net([0.0; 4], &[1.0]), &net([1.0; 4], &[1.0, 2.0]), 0.5).unwrap_err();
    assert!(matches!(error, MergeError::Soup(SoupError::ShapeMismatch { .. })), "{error}");
}

#[test]
fn opposite_directions_of_many_have_no_mean() {
    let models = [vector(&[1.0, 0.0]), vector(&[-1.0, 0.0]), vector(&[0.0, 0.0])];
    let error = refused(None, &models, &weighted(Method::MultiSlerp, &[1.0, 1.0, 1.0]));
    assert!(matches!(error, MergeError::NoDirection { .. }), "{error}");
}

#[test]
fn conveniences_check_too() {
    let (a, b) = (vector(&[1.0]), vector(&[2.0]));
    assert!(matches!(slerp(&a, &b, -0.5), Err(MergeError::Range { parameter: Parameter::T, .. })));
    assert!(matches!(
        add_task_vectors(&a, &[b], &[1.0, 2.0]),
        Err(MergeError::ValueCount { parameter: Parameter::Weight, models: 1, found: 2 })
    ));
}
