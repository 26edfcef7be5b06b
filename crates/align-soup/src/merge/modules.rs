//! Merges of modules in memory.

use burn::module::Module;
use burn::tensor::TensorData;

use super::error::{MergeError, MergeWarning};
use super::method::Method;
use super::parameters::{MergeParameters, Parameter};
use super::task::{Bytes, TensorTask, Values};
use crate::combine::combine;
use crate::mix::FloatDtype;

/// A merged module.
#[derive(Clone, Debug)]
pub struct Merged<M> {
    /// The module.
    pub module: M,
    /// What was unusual, by the path of the parameter.
    pub warnings: Vec<MergeWarning>,
}

/// Merges modules by a method: each float parameter is a tensor of its own.
///
/// Parameters are matched by path and stored in the type of the first module (the base, where there is one). The result
/// is on the plain device (`.train()` makes it trainable), its parameters have identifiers of their own, what the first
/// module ties stays tied, and LoRA adapters are merged before. `seed` addresses the draws of the random methods
/// ([`Method::is_random`]).
///
/// # Errors
/// If the parameters do not fit the method and the models; if a module has another parameter, shape or constant than the
/// first; if a value is not finite, or the result overflows its type.
///
/// # Examples
/// ```
/// use align_soup::merge::{MergeParameters, Method, Parameter, merge_modules};
/// # use burn::module::Param;
/// # use burn::tensor::Tensor;
/// # let device = align_testkit::device();
/// # let model = |values: [f32; 3]| Param::from_tensor(Tensor::<1>::from_floats(values, &device));
///
/// let base = model([0.0, 1.0, 2.0]);
/// let tuned = [model([1.0, 1.0, 2.0]), model([3.0, 1.0, 1.0])];
/// let ties = MergeParameters::new(Method::Ties, 2).with(Parameter::Weight, 1.0)?;
/// let merged = merge_modules(Some(&base), &tuned, &ties, 0)?;
/// assert_eq!(merged.module.val().into_data().try_to_vec::<f32>()?, [2.0, 1.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn merge_modules<M: Module>(
    base: Option<&M>,
    models: &[M],
    parameters: &MergeParameters,
    seed: u64,
) -> Result<Merged<M>, MergeError> {
    parameters.check()?;
    parameters.check_base(base.is_some())?;
    parameters.check_models(models.len())?;
    let members: Vec<&M> = base.into_iter().chain(models).collect();
    let mut warnings = Vec::new();
    let module = combine(&members, |path, data: &[(TensorData, FloatDtype)]| {
        let shape: &[usize] = data[0].0.shape().as_ref();
        let values: Vec<Values<'_>> = data
            .iter()
            .map(|(data, dtype)| Values {
                dtype: *dtype,
                shape: data.shape().as_ref(),
                bytes: Bytes::Memory(data.as_bytes()),
            })
            .collect();
        let (first, models) = values.split_at(usize::from(base.is_some()));
        let base = first.first().copied();
        let task = TensorTask { name: path, shape, base, models, parameters, seed };
        let (out, unusual) = task.merged(data[0].1)?;
        warnings.extend(unusual);
        Ok::<_, MergeError>(out)
    })?;
    Ok(Merged { module, warnings })
}

/// Spherical interpolation from `a` (t = 0) to `b` (t = 1), parameter by parameter: [`Method::Slerp`].
///
/// Note that [`lerp`](crate::lerp) is the other way round: its α is the weight of the first model.
///
/// # Errors
/// If t is outside [0, 1], and as [`merge_modules`].
pub fn slerp<M: Module>(a: &M, b: &M, t: f64) -> Result<M, MergeError> {
    let parameters = MergeParameters::new(Method::Slerp, 1).with(Parameter::T, t)?;
    Ok(merge_modules(Some(a), std::slice::from_ref(b), &parameters, 0)?.module)
}

/// Task arithmetic: θ_0 + Σ_k w_k (θ_k − θ_0). A negative weight makes the base forget what model k learned.
///
/// # Errors
/// If there is not one finite weight for each model, and as [`merge_modules`].
///
/// # Source
/// Ilharco et al. 2023, "Editing models with task arithmetic", section 2, <https://arxiv.org/abs/2212.04089>.
pub fn add_task_vectors<M: Module>(base: &M, models: &[M], weights: &[f64]) -> Result<M, MergeError> {
    let parameters = MergeParameters::new(Method::TaskArithmetic, models.len());
    let parameters = parameters.with_each(Parameter::Weight, weights)?;
    Ok(merge_modules(Some(base), models, &parameters, 0)?.module)
}
