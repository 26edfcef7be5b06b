//! Soups of modules.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::error::{SoupError, WeightError};
use crate::mix::{Source, mix};
use crate::parameters::{Parameters, Path, float_data, plain};
use crate::weights::Weights;

/// Values that one task averages.
const VALUES_PER_TASK: usize = 1 << 16;

/// The soup θ = Σ_k w_k θ_k of modules.
///
/// Parameters are matched by path and summed in f64; each is stored in the first ingredient's type. The result is on
/// the plain device (`.train()` makes it trainable), its parameters have identifiers of their own, parameters that
/// the first ingredient ties stay tied, and LoRA adapters are merged before the average.
///
/// The weights are `&[f64]`, an array, or [`Weights`]; plain numbers must not be negative and must sum to 1.
///
/// # Errors
/// If the weights are invalid, a parameter is missing, quantised, of another shape or not finite, the mean overflows
/// the first ingredient's type, or a parameter that is not a float differs.
///
/// # Source
/// Wortsman et al. 2022, <https://arxiv.org/abs/2203.05482>; Chegini et al. 2024, section 3,
/// <https://arxiv.org/abs/2411.01798>.
pub fn average<M, W>(ingredients: &[M], weights: W) -> Result<M, SoupError>
where
    M: Module,
    W: TryInto<Weights>,
    SoupError: From<W::Error>,
{
    let first = ingredients.first().ok_or(SoupError::NoIngredients)?;
    let weights = weights.try_into()?;
    weights.expect_count(ingredients.len())?;
    let parameters: Vec<Parameters> = ingredients.iter().map(Parameters::of).collect();
    for (index, other) in parameters.iter().enumerate() {
        parameters[0].expect_same(other, index)?;
    }
    let mut mapper = Average {
        path: Path::default(),
        parameters: &parameters,
        weights: weights.as_slice(),
        renamed: HashMap::new(),
        failure: None,
    };
    let soup = plain(first).map(&mut mapper);
    match mapper.failure {
        Some(failure) => Err(failure),
        None => Ok(soup),
    }
}

/// The uniform soup: [`average`] with 1/n for each of n modules.
///
/// # Errors
/// As [`average`].
pub fn uniform<M: Module>(ingredients: &[M]) -> Result<M, SoupError> {
    match Weights::uniform(ingredients.len()) {
        Ok(weights) => average(ingredients, weights),
        Err(WeightError::Empty) => Err(SoupError::NoIngredients),
        Err(other) => Err(other.into()),
    }
}

struct Average<'a> {
    path: Path,
    parameters: &'a [Parameters],
    weights: &'a [f64],
    /// New identifier and first path of each parameter met so far, by its old identifier.
    renamed: HashMap<ParamId, (ParamId, String)>,
    failure: Option<SoupError>,
}

impl Average<'_> {
    /// The identifier of the averaged parameter: a new one, or that of the parameter it is tied to.
    fn rename(&mut self, old: ParamId, path: &str) -> (ParamId, Option<String>) {
        if let Some((new, tied_to)) = self.renamed.get(&old) {
            return (*new, Some(tied_to.clone()));
        }
        let new = ParamId::new();
        self.renamed.insert(old, (new, path.to_owned()));
        (new, None)
    }

    fn mean<const D: usize>(&self, path: &str) -> Result<TensorData, SoupError> {
        let data: Vec<_> = self.parameters.iter().map(|p| float_data(p.tensor::<Tensor<D>>(path))).collect();
        let (shape, stored, dtype) = (data[0].0.shape().clone(), data[0].0.dtype(), data[0].1);
        // Not `self`: its tensor handles are not `Sync`.
        let weights = self.weights;
        let mut out = vec![0u8; data[0].0.as_bytes().len()];
        let (non_finite, overflow) = out
            .par_chunks_mut(VALUES_PER_TASK * dtype.size())
            .enumerate()
            .map(|(task, out)| {
                let values = out.len() / dtype.size();
                let start = task * VALUES_PER_TASK;
                let sources: Vec<Source<'_>> = data
                    .iter()
                    .zip(weights)
                    .map(|((data, dtype), &weight)| Source {
                        dtype: *dtype,
                        bytes: &data.as_bytes()[start * dtype.size()..(start + values) * dtype.size()],
                        weight,
                    })
                    .collect();
                let mut non_finite = vec![0; sources.len()];
                let overflow = mix(&sources, dtype, out, &mut non_finite);
                (non_finite, overflow)
            })
            .reduce(
                || (vec![0; data.len()], 0),
                |(mut a, x), (b, y)| {
                    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                    (a, x + y)
                },
            );
        if let Some(index) = non_finite.iter().position(|&count| count > 0) {
            let count = non_finite[index];
            return Err(SoupError::NonFiniteParameter {
                path: path.to_owned(),
                ingredient: index.into(),
                count,
            });
        }
        if overflow > 0 {
            return Err(SoupError::Overflow { path: path.to_owned(), dtype, count: overflow });
        }
        Ok(TensorData::from_bytes_vec(out, shape, stored))
    }

    /// A parameter that is tied in the first ingredient must hold the same values at both paths in every other.
    fn expect_tied<const D: usize>(&self, path: &str, tied_to: &str) -> Result<(), SoupError> {
        for (index, parameters) in self.parameters.iter().enumerate().skip(1) {
            let (here, there) = (parameters.entry(path), parameters.entry(tied_to));
            if here.map(|entry| entry.id) == there.map(|entry| entry.id) {
                continue;
            }
            let here = parameters.tensor::<Tensor<D>>(path).into_data();
            let there = parameters.tensor::<Tensor<D>>(tied_to).into_data();
            if here.as_bytes() != there.as_bytes() {
                let (path, tied_to) = (path.to_owned(), tied_to.to_owned());
                return Err(SoupError::TieBroken { path, tied_to, ingredient: index.into() });
            }
        }
        Ok(())
    }

    /// Fails unless every ingredient holds the same values at `path`.
    fn expect_equal(&self, path: &str, data: impl Fn(&Parameters) -> TensorData) -> Result<(), SoupError> {
        let first = data(&self.parameters[0]);
        for (index, parameters) in self.parameters.iter().enumerate().skip(1) {
            let other = data(parameters);
            if other.dtype() != first.dtype() || other.as_bytes() != first.as_bytes() {
                return Err(SoupError::ConstantDiffers { path: path.to_owned(), ingredient: index.into() });
            }
        }
        Ok(())
    }

    fn keep<T>(&mut self, result: Result<T, SoupError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(failure) => {
                self.failure.get_or_insert(failure);
                None
            }
        }
    }
}

impl ModuleMapper for Average<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failure.is_some() {
            return param;
        }
        let path = self.path.join();
        let (old, tensor, mapper) = param.consume();
        let (id, tied_to) = self.rename(old, &path);
        if let Some(tied_to) = tied_to {
            let tied = self.expect_tied::<D>(&path, &tied_to);
            self.keep(tied);
        }
        let mean = self.mean::<D>(&path);
        let mean = match self.keep(mean) {
            Some(data) => {
                let dtype = data.dtype();
                Tensor::from_data(data, (&tensor.device(), dtype))
            }
            None => tensor,
        };
        Param::from_mapped_value(id, mean, mapper)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let path = self.path.join();
        let equal =
            self.expect_equal(&path, |parameters| parameters.tensor::<Tensor<D, Int>>(&path).into_data());
        self.keep(equal);
        let (old, tensor, mapper) = param.consume();
        Param::from_mapped_value(self.rename(old, &path).0, tensor, mapper)
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        let path = self.path.join();
        let equal =
            self.expect_equal(&path, |parameters| parameters.tensor::<Tensor<D, Bool>>(&path).into_data());
        self.keep(equal);
        let (old, tensor, mapper) = param.consume();
        Param::from_mapped_value(self.rename(old, &path).0, tensor, mapper)
    }
}
