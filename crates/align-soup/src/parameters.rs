//! A module as path-keyed parameters.
//!
//! Identifiers differ between separately loaded models and coincide between clones; paths say which weight is which.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::container::TensorContainer;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};

use crate::error::{Ingredient, SoupError};
use crate::mix::FloatDtype;

/// Whether a parameter is averaged or compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    Int,
    Bool,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int => "integer",
            Self::Bool => "boolean",
        }
    }
}

/// What is known of a parameter without reading its values.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: ParamId,
    kind: Kind,
    dtype: DType,
    shape: Vec<usize>,
}

/// The parameters of one module: descriptions by path, in the module's order, and handles to the tensors.
pub(crate) struct Parameters {
    order: Vec<String>,
    entries: BTreeMap<String, Entry>,
    tensors: TensorContainer<String>,
}

impl Parameters {
    /// Lists a module's parameters, off the autodiff graph and with adapters merged.
    pub(crate) fn of<M: Module>(module: &M) -> Self {
        let mut collect = Collect {
            path: Path::default(),
            found: Self { order: Vec::new(), entries: BTreeMap::new(), tensors: TensorContainer::new() },
        };
        plain(module).visit(&mut collect);
        collect.found
    }

    /// The tensor at a path; its kind and rank have been compared before.
    pub(crate) fn tensor<T: Clone + Send + 'static>(&self, path: &str) -> T {
        self.tensors.get(&path.to_owned()).expect("kinds and shapes were compared")
    }

    pub(crate) fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Fails unless `other` has the same paths, kinds and shapes, and no parameter of either is quantised.
    pub(crate) fn expect_same(&self, other: &Self, index: usize) -> Result<(), SoupError> {
        self.refuse_quantized(0)?;
        other.refuse_quantized(index)?;
        for path in &self.order {
            let expected = &self.entries[path];
            let Some(found) = other.entries.get(path) else {
                return Err(mismatch(path, 0, index));
            };
            if expected.kind != found.kind {
                return Err(SoupError::KindMismatch {
                    path: path.clone(),
                    expected: expected.kind.name().to_owned(),
                    found: found.kind.name().to_owned(),
                    ingredient: index.into(),
                });
            }
            if expected.shape != found.shape {
                return Err(SoupError::ShapeMismatch {
                    path: path.clone(),
                    expected: expected.shape.clone(),
                    found: found.shape.clone(),
                    ingredient: index.into(),
                });
            }
        }
        match other.order.iter().find(|path| !self.entries.contains_key(*path)) {
            Some(path) => Err(mismatch(path, index, 0)),
            None => Ok(()),
        }
    }

    fn refuse_quantized(&self, index: usize) -> Result<(), SoupError> {
        let quantized = self.order.iter().find(|path| matches!(self.entries[*path].dtype, DType::QFloat(_)));
        match quantized {
            Some(path) => Err(SoupError::QuantizedIngredient {
                path: path.clone(),
                ingredient: index.into(),
                dtype: self.entries[path].dtype.name().to_owned(),
            }),
            None => Ok(()),
        }
    }
}

fn mismatch(path: &str, present_in: usize, missing_in: usize) -> SoupError {
    SoupError::IngredientMismatch {
        path: path.to_owned(),
        present_in: Ingredient::from(present_in),
        missing_in: Ingredient::from(missing_in),
    }
}

/// The module off the autodiff graph, adapters merged into dense weights.
pub(crate) fn plain<M: Module>(module: &M) -> M {
    module.valid().materialize()
}

/// How a float tensor's data is stored; `None` for quantised data.
pub(crate) fn float_dtype(dtype: DType) -> Option<FloatDtype> {
    match dtype {
        DType::F64 => Some(FloatDtype::F64),
        DType::F32 | DType::Flex32 => Some(FloatDtype::F32),
        DType::F16 => Some(FloatDtype::F16),
        DType::BF16 => Some(FloatDtype::BF16),
        _ => None,
    }
}

/// The data of a float tensor with the type it is stored in.
///
/// # Panics
/// If the tensor is quantised: [`Parameters::expect_same`] refuses that first.
pub(crate) fn float_data<const D: usize>(tensor: Tensor<D>) -> (TensorData, FloatDtype) {
    let data = tensor.into_data();
    let dtype = float_dtype(data.dtype()).expect("quantised parameters were refused");
    (data, dtype)
}

/// Where a visitor or mapper stands.
#[derive(Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    pub(crate) fn join(&self) -> String {
        self.0.join(".")
    }
}

struct Collect {
    path: Path,
    found: Parameters,
}

impl Collect {
    fn push<T: Clone + Send + 'static>(
        &mut self,
        id: ParamId,
        kind: Kind,
        dtype: DType,
        shape: Vec<usize>,
        tensor: T,
    ) {
        let path = self.path.join();
        self.found.order.push(path.clone());
        self.found.entries.insert(path.clone(), Entry { id, kind, dtype, shape });
        self.found.tensors.register(path, tensor);
    }
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val().without_autodiff();
        self.push(param.id, Kind::Float, tensor.dtype(), tensor.dims().to_vec(), tensor);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let tensor = param.val().without_autodiff();
        self.push(param.id, Kind::Int, tensor.dtype(), tensor.dims().to_vec(), tensor);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let tensor = param.val().without_autodiff();
        self.push(param.id, Kind::Bool, tensor.dtype(), tensor.dims().to_vec(), tensor);
    }
}
