//! Merges equal mergekit's (`fixtures/merge/make_merge.py` made the cases; versions and seed are in the file).
//!
//! `wide` is mergekit told to work in f64, cast to the type of the tensors: what we compute, so the results are equal up
//! to one unit in the last place. `own` is mergekit in f32, whose own rounding is larger than that.

mod common;

use align_soup::merge::{Kind, MergeParameters, Method, Parameter, merge_modules};
use burn::module::Param;
use burn::tensor::{DType, Tensor};
use common::{floats, typed};
use half::{bf16, f16};
use serde_json::Value;

fn fixture() -> Value {
    let path = align_testkit::fixtures::path("merge").join("merge.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

struct Group {
    shape: Vec<usize>,
    dtype: DType,
    base: Vec<f64>,
    models: Vec<Vec<f64>>,
}

impl Group {
    fn of(fixture: &Value, case: &Value) -> Self {
        let group = &fixture["tensors"][case["tensors"].as_str().unwrap()];
        let dtype = match group["dtype"].as_str().unwrap() {
            "float32" => DType::F32,
            "float16" => DType::F16,
            "bfloat16" => DType::BF16,
            other => panic!("{other}"),
        };
        Self {
            shape: numbers(&group["shape"]).into_iter().map(|length| length as usize).collect(),
            dtype,
            base: numbers(&group["base"]),
            models: group["models"].as_array().unwrap().iter().map(numbers).collect(),
        }
    }

    fn merge(&self, case: &Value, seed: u64) -> Vec<f64> {
        match *self.shape {
            [a] => self.merge_ranked([a], case, seed),
            [a, b] => self.merge_ranked([a, b], case, seed),
            [a, b, c] => self.merge_ranked([a, b, c], case, seed),
            _ => panic!("{:?}", self.shape),
        }
    }

    fn merge_ranked<const D: usize>(&self, shape: [usize; D], case: &Value, seed: u64) -> Vec<f64> {
        let count = case["models"].as_u64().unwrap() as usize;
        let parameter = |values: &Vec<f64>| -> Param<Tensor<D>> { typed(values, shape, self.dtype) };
        let base = case["base"].as_bool().unwrap().then(|| parameter(&self.base));
        let models: Vec<_> = self.models[..count].iter().map(parameter).collect();
        floats(&merge_modules(base.as_ref(), &models, &parameters(case), seed).unwrap().module)
    }
}

fn parameters(case: &Value) -> MergeParameters {
    let method: Method = case["method"].as_str().unwrap().parse().unwrap();
    let mut parameters = MergeParameters::new(method, case["models"].as_u64().unwrap() as usize);
    for (name, value) in case["parameters"].as_object().unwrap() {
        let parameter: Parameter = name.parse().unwrap();
        match (value, parameter.kind()) {
            (Value::Array(_), _) => {
                parameters = parameters.with_each(parameter, &numbers(value)).unwrap();
            }
            (_, Kind::Number) => parameters.set(parameter, value.as_f64().unwrap()).unwrap(),
            (_, Kind::Flag) => parameters.set(parameter, value.as_bool().unwrap()).unwrap(),
            (_, Kind::Count) => parameters.set(parameter, value.as_u64().unwrap() as u32).unwrap(),
        }
    }
    parameters
}

/// The place of a value among all values of its type, so that neighbours differ by one.
fn place(value: f64, dtype: DType) -> i64 {
    let (bits, sign) = match dtype {
        DType::F32 => (i64::from((value as f32).to_bits()), 1 << 31),
        DType::F16 => (i64::from(f16::from_f64(value).to_bits()), 1 << 15),
        DType::BF16 => (i64::from(bf16::from_f64(value).to_bits()), 1 << 15),
        other => panic!("{other:?}"),
    };
    if bits & sign == 0 { bits } else { -(bits & (sign - 1)) }
}

#[test]
fn deterministic_merges_are_within_one_unit_in_the_last_place_of_mergekit() {
    let fixture = fixture();
    let cases = fixture["exact"].as_array().unwrap();
    let mut seen = Vec::new();
    for case in cases {
        let group = Group::of(&fixture, case);
        let found = group.merge(case, 0);
        for (index, (found, wide)) in found.iter().zip(numbers(&case["wide"])).enumerate() {
            let off = (place(*found, group.dtype) - place(wide, group.dtype)).abs();
            assert!(off <= 1, "[{index}]: {found} against {wide}, {off} units, in {case}");
        }
        seen.push(case["method"].as_str().unwrap());
    }
    let missing: Vec<_> = Method::ALL
        .into_iter()
        .filter(|method| !method.is_random() && !seen.contains(&method.name()))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn what_mergekit_rounds_in_f32_stays_within_its_own_error() {
    let fixture = fixture();
    for case in fixture["exact"].as_array().unwrap() {
        let group = Group::of(&fixture, case);
        let found = group.merge(case, 0);
        for (index, (found, own)) in found.iter().zip(numbers(&case["own"])).enumerate() {
            // Eight roundings of the largest number that enters, and for sixteen bits that of the result.
            let members = group.models.iter().chain([&group.base]);
            let largest = members.map(|values| values[index].abs()).fold(found.abs(), f64::max);
            let unit = match group.dtype {
                DType::BF16 => f64::from(bf16::EPSILON),
                DType::F16 => f64::from(f16::EPSILON),
                _ => 0.0,
            };
            let tolerance = (8.0 * f64::from(f32::EPSILON) + unit) * largest;
            assert!((found - own).abs() <= tolerance, "[{index}]: {found} against {own} in {case}");
        }
    }
}

#[test]
fn random_merges_have_the_mean_and_variance_of_mergekits() {
    let fixture = fixture();
    let runs = fixture["runs"].as_u64().unwrap();
    for case in fixture["drawn"].as_array().unwrap() {
        let group = Group::of(&fixture, case);
        let merged: Vec<Vec<f64>> = (0..runs).map(|seed| group.merge(case, seed)).collect();
        let (means, variances) = (numbers(&case["mean"]), numbers(&case["variance"]));
        for (index, (their_mean, their_variance)) in means.into_iter().zip(variances).enumerate() {
            let n = runs as f64;
            let mean = merged.iter().map(|values| values[index]).sum::<f64>() / n;
            let power = |k: i32| merged.iter().map(|values| (values[index] - mean).powi(k)).sum::<f64>() / n;
            let (variance, fourth) = (power(2), power(4));
            // Five standard errors of a difference of two estimates from n runs each, and the digits written.
            let tolerance = 5.0 * (2.0 * variance / n).sqrt() + 1e-6;
            assert!((mean - their_mean).abs() < tolerance, "mean [{index}] {mean}, {their_mean} in {case}");
            let tolerance = 5.0 * (2.0 * (fourth - variance * variance) / n).sqrt() + 1e-6;
            assert!(
                (variance - their_variance).abs() < tolerance,
                "variance [{index}] {variance}, {their_variance} in {case}"
            );
        }
    }
}
