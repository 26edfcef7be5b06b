//! The parameters of any Burn module as one safetensors file, keyed by their paths.
//!
//! Keys are structural paths, because parameter ids differ between separately built modules. Bits are preserved: what is
//! read is what was written, NaN payloads included. The same module gives the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, BoolStore, DType, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Serialize;

use super::{PersistError, replace_file};

/// Writes every parameter of a module: floats, integers and booleans, trained or not.
///
/// One tensor at a time is copied to the host. The file is replaced as by [`replace_file`].
///
/// # Errors
/// If the file cannot be written, or a parameter is quantised.
pub fn write_module<M: Module>(module: &M, file: &Path) -> Result<(), PersistError> {
    let mut parameters = Parameters::of(module);
    // The format wants no gaps, and readers like wide types first: then every tensor is aligned to its type.
    parameters.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(&b.name)));
    let mut header = BTreeMap::new();
    let mut offset = 0;
    for parameter in &parameters {
        let Some(dtype) = stored_type(parameter.dtype) else {
            return Err(PersistError::Type {
                path: file.to_owned(),
                name: parameter.name.clone(),
                expected: "a plain number or boolean".into(),
                found: format!("{:?}", parameter.dtype),
            });
        };
        let end = offset + parameter.shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let entry = Entry { dtype, shape: &parameter.shape, data_offsets: [offset, end] };
        header.insert(parameter.name.as_str(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).expect("names and numbers always serialise");
    header.resize(header.len().next_multiple_of(8), b' ');
    replace_file(file, |output| {
        output.write_all(&(header.len() as u64).to_le_bytes())?;
        output.write_all(&header)?;
        parameters.iter().try_for_each(|parameter| write_data(output, &(parameter.read)()))
    })
}

/// Gives a module the parameters of a file that [`write_module`] wrote from a module of the same structure.
///
/// Ids, devices, element types and `require_grad` stay the module's own, and parameters stay leaves.
///
/// # Errors
/// If the file cannot be read, is damaged, or lacks a parameter, has one too many, or one of another shape or type.
pub fn read_module<M: Module>(module: M, file: &Path) -> Result<M, PersistError> {
    // The whole file is read first: nothing is allocated on the word of a header.
    let bytes = fs::read(file).map_err(PersistError::read(file))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| PersistError::Damaged {
        path: file.to_owned(),
        expected: "a safetensors file".into(),
        found: error.to_string(),
    })?;
    let parameters = Parameters::of(&module);
    check_names(&parameters, &tensors, file)?;
    let mut found = BTreeMap::new();
    for parameter in parameters {
        let tensor = tensors.tensor(&parameter.name).expect("names were compared");
        found.insert(parameter.name.clone(), checked_data(&parameter, &tensor, file)?);
    }
    Ok(module.map(&mut Fill { path: Vec::new(), found }))
}

fn check_names(parameters: &[Parameter], tensors: &SafeTensors<'_>, file: &Path) -> Result<(), PersistError> {
    let expected: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let found = tensors.names();
    let without = |names: &[&str], others: &[&str]| -> Vec<String> {
        let mut left: Vec<String> =
            names.iter().filter(|name| !others.contains(name)).map(|name| name.to_string()).collect();
        left.sort();
        left
    };
    let (missing, surplus) = (without(&expected, &found), without(&found, &expected));
    if missing.is_empty() && surplus.is_empty() {
        return Ok(());
    }
    Err(PersistError::Names { path: file.to_owned(), missing, surplus })
}

fn checked_data(
    parameter: &Parameter,
    tensor: &TensorView<'_>,
    file: &Path,
) -> Result<TensorData, PersistError> {
    if tensor.shape() != parameter.shape {
        return Err(PersistError::Shape {
            path: file.to_owned(),
            name: parameter.name.clone(),
            expected: parameter.shape.clone(),
            found: tensor.shape().to_vec(),
        });
    }
    if Some(tensor.dtype()) != stored_type(parameter.dtype) {
        return Err(PersistError::Type {
            path: file.to_owned(),
            name: parameter.name.clone(),
            expected: format!("{:?}", parameter.dtype),
            found: tensor.dtype().to_string(),
        });
    }
    let shape = parameter.shape.clone();
    Ok(match parameter.dtype {
        // A byte other than 0 and 1 is no boolean in memory.
        DType::Bool(_) => TensorData::new(tensor.data().iter().map(|&byte| byte != 0).collect(), shape),
        dtype => TensorData::from_bytes_vec(tensor.data().to_vec(), shape, dtype),
    })
}

fn write_data(output: &mut impl Write, data: &TensorData) -> io::Result<()> {
    match data.dtype() {
        DType::Bool(_) => output.write_all(&data.iter::<bool>().map(u8::from).collect::<Vec<_>>()),
        _ => output.write_all(data.as_bytes()),
    }
}

/// One tensor in the header.
#[derive(Serialize)]
struct Entry<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// The file's name for a type, if it has one that keeps the bits.
fn stored_type(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(BoolStore::Native | BoolStore::U8 | BoolStore::U32) => Dtype::BOOL,
        DType::Flex32 | DType::QFloat(_) => return None,
    })
}

/// A parameter seen from outside.
struct Parameter {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    read: Box<dyn Fn() -> TensorData>,
}

/// Collects the parameters of a module under their paths.
#[derive(Default)]
struct Parameters {
    path: Vec<String>,
    seen: Vec<Parameter>,
}

impl Parameters {
    fn of<M: Module>(module: &M) -> Vec<Parameter> {
        let mut parameters = Self::default();
        module.visit(&mut parameters);
        parameters.seen
    }

    fn push(&mut self, dtype: DType, shape: &[usize], read: impl Fn() -> TensorData + 'static) {
        let name = self.path.join(".");
        self.seen.push(Parameter { name, dtype, shape: shape.to_vec(), read: Box::new(read) });
    }
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val().without_autodiff();
        self.push(tensor.dtype(), &tensor.dims(), move || tensor.to_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let tensor = param.val();
        self.push(tensor.dtype(), &tensor.dims(), move || tensor.to_data());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let tensor = param.val();
        self.push(tensor.dtype(), &tensor.dims(), move || tensor.to_data());
    }
}

/// Puts the data read into a module of the same structure.
struct Fill {
    path: Vec<String>,
    found: BTreeMap<String, TensorData>,
}

impl Fill {
    fn take(&mut self) -> TensorData {
        self.found.remove(&self.path.join(".")).expect("names were compared")
    }
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let data = self.take();
        param.map(|old| {
            // A tensor made from data is a leaf; one computed from the old parameter would not be.
            let new = Tensor::from_data(data, (&old.device(), old.dtype()));
            let new = if old.is_autodiff() { new.autodiff() } else { new };
            if old.is_require_grad() { new.require_grad() } else { new }
        })
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let data = self.take();
        param.map(|old| Tensor::from_data(data, (&old.device(), old.dtype())))
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        let data = self.take();
        param.map(|old| Tensor::from_data(data, &old.device()))
    }
}
