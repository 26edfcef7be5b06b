//! Modules put together parameter by parameter.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::error::SoupError;
use crate::mix::FloatDtype;
use crate::parameters::{Parameters, Path, float_data, plain};

/// The first module with every float parameter replaced by what `values` makes of all modules' data at its path: the
/// bytes of as many values in the first module's type.
///
/// Parameters are matched by path. The result is on the plain device, its parameters have identifiers of their own, what
/// the first module ties stays tied, adapters are merged first; parameters that are not floats must be equal.
///
/// # Panics
/// If there is no module.
pub(crate) fn combine<M, E, F>(modules: &[&M], values: F) -> Result<M, E>
where
    M: Module,
    E: From<SoupError>,
    F: FnMut(&str, &[(TensorData, FloatDtype)]) -> Result<Vec<u8>, E>,
{
    let parameters: Vec<Parameters> = modules.iter().map(|module| Parameters::of(*module)).collect();
    for (index, other) in parameters.iter().enumerate() {
        parameters[0].expect_same(other, index)?;
    }
    let mut mapper = Combine {
        path: Path::default(),
        parameters: &parameters,
        values,
        renamed: HashMap::new(),
        failure: None,
    };
    let combined = plain(modules[0]).map(&mut mapper);
    match mapper.failure {
        Some(failure) => Err(failure),
        None => Ok(combined),
    }
}

struct Combine<'a, E, F> {
    path: Path,
    parameters: &'a [Parameters],
    values: F,
    /// New identifier and first path of each parameter met so far, by its old identifier.
    renamed: HashMap<ParamId, (ParamId, String)>,
    failure: Option<E>,
}

impl<E, F> Combine<'_, E, F>
where
    E: From<SoupError>,
    F: FnMut(&str, &[(TensorData, FloatDtype)]) -> Result<Vec<u8>, E>,
{
    /// The identifier of the combined parameter: a new one, or that of the parameter it is tied to.
    fn rename(&mut self, old: ParamId, path: &str) -> (ParamId, Option<String>) {
        if let Some((new, tied_to)) = self.renamed.get(&old) {
            return (*new, Some(tied_to.clone()));
        }
        let new = ParamId::new();
        self.renamed.insert(old, (new, path.to_owned()));
        (new, None)
    }

    fn merged<const D: usize>(&mut self, path: &str) -> Result<TensorData, E> {
        let data: Vec<_> = self.parameters.iter().map(|p| float_data(p.tensor::<Tensor<D>>(path))).collect();
        let (shape, stored) = (data[0].0.shape().clone(), data[0].0.dtype());
        let bytes = (self.values)(path, &data)?;
        Ok(TensorData::from_bytes_vec(bytes, shape, stored))
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

    fn keep<T>(&mut self, result: Result<T, impl Into<E>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(failure) => {
                self.failure.get_or_insert(failure.into());
                None
            }
        }
    }
}

impl<E, F> ModuleMapper for Combine<'_, E, F>
where
    E: From<SoupError>,
    F: FnMut(&str, &[(TensorData, FloatDtype)]) -> Result<Vec<u8>, E>,
{
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
        if let Some(tied_to) = &tied_to {
            let tied = self.expect_tied::<D>(&path, tied_to);
            self.keep(tied);
        }
        // Under the name it was met by first, should the name matter for the result.
        let merged = self.merged::<D>(tied_to.as_deref().unwrap_or(&path));
        let merged = match self.keep(merged) {
            Some(data) => {
                let dtype = data.dtype();
                Tensor::from_data(data, (&tensor.device(), dtype))
            }
            None => tensor,
        };
        Param::from_mapped_value(id, merged, mapper)
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
