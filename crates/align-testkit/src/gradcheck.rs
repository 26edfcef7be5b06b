//! Gradients against central finite differences, in f64.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};

use crate::assert_all_close;

/// Half the distance between the two evaluations. In f64 the truncation error is about 1e-10 and rounding about 1e-11.
pub const STEP: f64 = 1e-5;

/// Panics unless the gradient of `function` at `at` agrees with finite differences within
/// `tolerance · (1 + |gradient|)`, component by component. `at` is evaluated in f64.
///
/// # Panics
/// If they disagree.
#[track_caller]
pub fn assert_gradient<const D: usize>(
    function: impl Fn(Tensor<D>) -> Tensor<1>,
    at: Tensor<D>,
    tolerance: f64,
) {
    let at = at.without_autodiff().cast(DType::F64);
    let numeric = differences(&at, |at| function(at).into_scalar());
    let leaf = at.autodiff().require_grad();
    let analytic = crate::gradient(&function(leaf.clone()), &leaf);
    assert_all_close(analytic, numeric, tolerance, tolerance);
}

/// Central differences of a scalar function, component by component.
pub fn differences<const D: usize>(at: &Tensor<D>, function: impl Fn(Tensor<D>) -> f64) -> Vec<f64> {
    let values: Vec<f64> = at.to_data().iter::<f64>().collect();
    let moved = |index: usize, by: f64| {
        let mut values = values.clone();
        values[index] += by;
        function(Tensor::from_data(TensorData::new(values, at.dims()), (&at.device(), DType::F64)))
    };
    (0..values.len()).map(|index| (moved(index, STEP) - moved(index, -STEP)) / (2.0 * STEP)).collect()
}

/// Gradients of a loss by every parameter it reached, under the parameter's path, row by row.
///
/// # Panics
/// If nothing was recorded.
pub fn module_gradients<M: Module>(module: &M, loss: &Tensor<1>) -> BTreeMap<String, Vec<f64>> {
    let gradients = GradientsParams::from_grads(loss.backward(), module);
    let mut collect = Collect { path: Vec::new(), gradients: &gradients, found: BTreeMap::new() };
    module.visit(&mut collect);
    collect.found
}

/// Panics unless the gradients of `function` by every float parameter agree with finite differences within
/// `tolerance · (1 + |gradient|)`. The module records and holds f64, or the differences drown in rounding.
///
/// # Panics
/// If they disagree, or a parameter is not in f64.
#[track_caller]
pub fn assert_module_gradients<M: Module>(module: &M, function: impl Fn(&M) -> Tensor<1>, tolerance: f64) {
    let analytic = module_gradients(module, &function(module));
    let plain = module.valid();
    let mut sizes = Sizes::default();
    plain.visit(&mut sizes);
    for (path, size) in sizes.found {
        let numeric: Vec<f64> = (0..size)
            .map(|index| {
                let at = |by| {
                    let mut nudge = Nudge { path: Vec::new(), target: &path, index, by };
                    function(&plain.clone().map(&mut nudge)).into_scalar::<f64>()
                };
                (at(STEP) - at(-STEP)) / (2.0 * STEP)
            })
            .collect();
        let analytic = analytic.get(&path).cloned().unwrap_or_else(|| vec![0.0; size]);
        assert_all_close(analytic, numeric, tolerance, tolerance);
    }
}

struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a GradientsParams,
    found: BTreeMap<String, Vec<f64>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.found.insert(self.path.join("."), gradient.to_data().iter::<f64>().collect());
        }
    }
}

#[derive(Default)]
struct Sizes {
    path: Vec<String>,
    found: Vec<(String, usize)>,
}

impl ModuleVisitor for Sizes {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        assert_eq!(param.val().dtype(), DType::F64, "parameter `{path}` must be in f64");
        self.found.push((path, param.val().shape().num_elements()));
    }
}

struct Nudge<'a> {
    path: Vec<String>,
    target: &'a str,
    index: usize,
    by: f64,
}

impl ModuleMapper for Nudge<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.join(".") != self.target {
            return param;
        }
        let (index, by) = (self.index, self.by);
        param.map(|tensor| {
            let mut values: Vec<f64> = tensor.to_data().iter::<f64>().collect();
            values[index] += by;
            Tensor::from_data(TensorData::new(values, tensor.dims()), (&tensor.device(), DType::F64))
        })
    }
}
