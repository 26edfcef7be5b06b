//! Task vectors θ_k − θ_0: what fine-tuning changed.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::error::SoupError;
use crate::mix::decode_into;
use crate::parameters::{Parameters, Path, float_data};

/// How two task vectors lie to each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskVectors {
    /// ‖a − base‖ and ‖b − base‖ over all float parameters.
    pub norms: [f64; 2],
    /// Their cosine; `None` if one of them is zero.
    pub cosine: Option<f64>,
}

/// Compares a − base with b − base over all float parameters, in f64.
///
/// Fine-tunes of one ancestor usually have a cosine clearly above 0; a value near 0 with large norms says that the
/// models have little to do with each other, and their average deserves a look at the [`HealthGate`](crate::HealthGate).
///
/// # Errors
/// If a parameter is missing, quantised or of another shape.
///
/// # Source
/// Ilharco et al. 2023, <https://arxiv.org/abs/2212.04089>, section 2 (task vectors) and figure 5 (cosines).
pub fn task_vectors<M: Module>(base: &M, a: &M, b: &M) -> Result<TaskVectors, SoupError> {
    let [base, a, b] = [base, a, b].map(|module| (Parameters::of(module), module));
    base.0.expect_same(&a.0, 1)?;
    base.0.expect_same(&b.0, 2)?;
    let mut visitor = Compare { path: Path::default(), of: [&base.0, &a.0, &b.0], sums: Sums::default() };
    crate::parameters::plain(base.1).visit(&mut visitor);
    Ok(visitor.sums.into())
}

/// Running sums over pairs of task-vector entries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    a: f64,
    b: f64,
    product: f64,
}

impl Sums {
    pub(crate) fn add(&mut self, base: &[f64], a: &[f64], b: &[f64]) {
        for ((base, a), b) in base.iter().zip(a).zip(b) {
            let (a, b) = (a - base, b - base);
            self.a += a * a;
            self.b += b * b;
            self.product += a * b;
        }
    }

    pub(crate) fn merge(self, other: Self) -> Self {
        Self { a: self.a + other.a, b: self.b + other.b, product: self.product + other.product }
    }
}

impl From<Sums> for TaskVectors {
    fn from(sums: Sums) -> Self {
        let norms = [sums.a.sqrt(), sums.b.sqrt()];
        let scale = norms[0] * norms[1];
        Self { norms, cosine: (scale != 0.0).then(|| sums.product / scale) }
    }
}

struct Compare<'a> {
    path: Path,
    of: [&'a Parameters; 3],
    sums: Sums,
}

impl ModuleVisitor for Compare<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        let path = self.path.join();
        let [base, a, b] = self.of.map(|parameters| {
            let (data, dtype) = float_data(parameters.tensor::<Tensor<D>>(&path));
            let mut values = Vec::new();
            decode_into(dtype, data.as_bytes(), &mut values);
            values
        });
        self.sums.add(&base, &a, &b);
    }
}
